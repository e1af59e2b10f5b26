//! Prints what happens: lines for people or JSON events, as far as the options ask for them.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use distlock_core::error::Failure;
use distlock_core::messages::{FromKeeper, Notice, Step, Verdict};
use distlock_core::outcome::Queue;
use distlock_core::time::{Instant, iso};

use super::console::Console;
use super::outcome;
use super::output::{Format, Output};
use super::tally::{Facts, Tally};
use super::text::{list, one_line, render};
use super::waiting::{Mode, Waiting, WaitingLine, queue_fields};
use crate::job::Show;
use crate::lock::BackendSettings;
use crate::sys::clock;

/// Prints to stderr and counts for the report.
#[derive(Debug)]
pub(crate) struct Reporter {
    output: Output,
    console: Console,
    waiting: Waiting,
    tally: Option<Tally>,
}

/// Severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warning,
    Info,
}

impl Reporter {
    #[must_use]
    pub(crate) fn new(output: Output) -> Self {
        let console = Console::new();
        let waiting = Waiting::new(Mode::of(output, Console::can_redraw()));
        Self { output, console, waiting, tally: None }
    }

    pub(crate) fn warn(&mut self, text: &str) {
        self.line(Level::Warning, "warning", text, json!({}));
    }

    /// Shows the backend of the lock, and the origin of its addresses.
    pub(crate) fn backend(&mut self, settings: &BackendSettings, origin: &str) {
        let (name, addresses) = (settings.name(), settings.addresses());
        let text = format!("{name} at {} (from {origin})", addresses.join(","));
        self.line(Level::Info, "backend", &text, json!({ "backend": name, "endpoints": addresses, "source": origin }));
    }

    /// Shows the failure that ends distlock with this exit code.
    pub(crate) fn failure(&mut self, failure: &Failure, exit: u8) {
        self.error("failed", failure, json!({ "exit": exit, "outcome": outcome::word_of_kind(failure.kind) }));
    }

    /// Like [`Reporter::failure`], for failures that `-q` suppresses because they are expected.
    pub(crate) fn failure_unless_quiet(&mut self, failure: &Failure, exit: u8) {
        if !self.output.quiet {
            self.failure(failure, exit);
        }
    }

    /// Shows that the report could not be written. The exit code stays the same.
    pub(crate) fn report_failed(&mut self, failure: &Failure) {
        self.error("unreported", failure, json!({}));
    }

    fn error(&mut self, event: &str, failure: &Failure, mut fields: Value) {
        if self.output.format == Format::Text {
            return self.console.write(&render(failure));
        }
        fields["causes"] = json!(failure.causes);
        fields["hint"] = json!(failure.hint);
        self.line(Level::Error, event, &failure.message, fields);
    }

    /// Starts the counts for the report at `now`, when the search for the lock begins.
    pub(crate) fn start_tally(&mut self, now: Instant) {
        self.tally = Some(Tally::new(now));
    }

    /// Returns the counts of the run that ended with this verdict.
    #[must_use]
    pub(crate) fn facts(&mut self, verdict: &Verdict, now: Instant) -> Facts {
        self.tally.take().map(|tally| tally.close(verdict, now)).unwrap_or_default()
    }

    /// Ends the wait and erases the waiting line.
    pub(crate) fn end_wait(&mut self) {
        self.waiting.end();
        self.console.erase();
    }

    fn waiting(&mut self, queue: Queue) {
        // In a log, `refresh` shows the queue instead, less often.
        if self.waiting.mode() != Mode::Log {
            let text = match (&queue.holder, queue.lock_delay) {
                (_, true) => "waiting for the lock-delay to end".to_owned(),
                (Some(holder), _) => format!("waiting for {}", holder.details(&TimeZone::system())),
                (None, _) => "waiting".to_owned(),
            };
            self.line(Level::Info, "waiting", &text, queue_fields(&queue));
        }
        self.waiting.update(queue, clock::now(), Timestamp::now());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Uncertain(cause) => {
                let text = format!("the lock may be lost: {cause}");
                self.line(Level::Info, "uncertain", &text, json!({ "cause": cause }));
            }
            Step::Frozen => {
                let text = "the command is frozen until the lock is confirmed or acquired again";
                self.line(Level::Warning, "frozen", text, json!({}));
            }
            Step::Relocked { token } => {
                let text = format!("acquired again, token {token}; no other client held the lock in between");
                self.line(Level::Warning, "re-locked", &text, json!({ "token": token }));
            }
            Step::Thawed => self.line(Level::Warning, "thawed", "the command continues", json!({})),
        }
    }

    fn line(&mut self, level: Level, event: &str, text: &str, fields: Value) {
        let least_severe = match (self.output.quiet, self.output.verbose) {
            (true, _) => Level::Error,
            (false, false) => Level::Warning,
            (false, true) => Level::Info,
        };
        if level <= least_severe {
            self.print(level, event, text, fields);
        }
    }

    fn print(&mut self, level: Level, event: &str, text: &str, fields: Value) {
        let text = one_line(text);
        match self.output.format {
            Format::Text => self.console.write(&format!("distlock: {}{text}\n", level.prefix())),
            Format::Json => {
                let mut line = json!({
                    "time": iso(Timestamp::now()),
                    "level": level.name(),
                    "event": event,
                    "message": text,
                });
                if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
                    line.extend(fields);
                }
                self.console.write(&format!("{line}\n"));
            }
        }
    }
}

impl Show for Reporter {
    fn record(&mut self, message: &FromKeeper, now: Instant) {
        if let Some(tally) = &mut self.tally {
            tally.record(message, now);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Waiting(queue) => self.waiting(queue),
            Notice::Rejoining(cause) => {
                self.line(Level::Info, "rejoining", &format!("joining the queue again: {cause}"), json!({}));
            }
            Notice::NotServed(cause) => {
                let text = format!("no server can grant the lock yet; retrying: {cause}");
                self.line(Level::Warning, "not-served", &text, json!({ "cause": cause }));
            }
            // With `--no-lock`. Tokens of locks begin at 1.
            Notice::Acquired { token: 0 } => {}
            Notice::Acquired { token } => {
                self.end_wait();
                self.line(Level::Info, "acquired", &format!("acquired, token {token}"), json!({ "token": token }));
            }
            Notice::Started => self.line(Level::Info, "started", "the command runs", json!({})),
            Notice::Restarting(cause) => {
                let text = format!("the lock was lost and the command killed ({cause}); acquiring the lock again");
                self.line(Level::Warning, "restarting", &text, json!({ "cause": cause }));
            }
            Notice::Relock(step) => self.step(step),
            Notice::Ending(cause) => {
                let text = format!("terminating the command: {cause}");
                self.line(Level::Info, "ending", &text, json!({ "cause": cause }));
            }
            Notice::Left(processes) => {
                let text = format!("left running without the lock: {}", list(&processes));
                self.line(Level::Warning, "left", &text, json!({ "processes": processes }));
            }
            Notice::Stuck(processes) => {
                let text = format!("cannot kill {}; holding the lock as long as possible", list(&processes));
                self.line(Level::Error, "stuck", &text, json!({ "processes": processes }));
            }
            Notice::KeeperLost(text) => self.line(Level::Warning, "keeper-lost", &text, json!({})),
            Notice::Note(text) => self.line(Level::Info, "note", &text, json!({})),
        }
    }

    fn wake(&self) -> Option<Instant> {
        self.waiting.wake()
    }

    fn refresh(&mut self, now: Instant) {
        match self.waiting.next_line(now, Timestamp::now()) {
            Some(WaitingLine { text, .. }) if self.waiting.mode() == Mode::Live => {
                self.console.draw(&format!("distlock: {}", one_line(&text)));
            }
            Some(WaitingLine { text, fields }) => self.print(Level::Info, "waiting", &text, fields),
            None => {}
        }
    }

    fn pause(&mut self) {
        self.console.erase();
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Error => "error: ",
            Self::Warning => "warning: ",
            Self::Info => "",
        }
    }
}
