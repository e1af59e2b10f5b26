//! Every line that is printed, for people and as JSON, and the report of `--report`.

mod console;
mod outcome;
pub(crate) mod output;
mod sink;
pub(crate) mod tally;
pub(crate) mod target;
mod waiting;

use crate::sys::clock;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::job::supervisor::Show;
use crate::lock::Settings;
use console::Console;
use distlock_core::error::Failure;
use distlock_core::messages::{FromKeeper, Notice, Process, Step, Verdict};
use distlock_core::outcome::Queue;
use distlock_core::time::{Instant, iso};
pub(crate) use outcome::Report;
use output::{Format, Output};
use tally::{Facts, Tally};
use waiting::{Mode, Shown, Waiting};

/// A failure as text: what, why, and the way out.
#[must_use]
pub(crate) fn render(failure: &Failure) -> String {
    let mut text = format!("distlock: error: {}\n", one_line(&failure.message));
    for cause in &failure.causes {
        text += &format!("  caused by: {}\n", one_line(cause));
    }
    if let Some(hint) = &failure.hint {
        text += &format!("  hint: {}\n", one_line(hint));
    }
    text
}

/// Text may come from a server or another user: no control character reaches a terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Prints what happens, as much of it as was asked for.
#[derive(Debug)]
pub(crate) struct Reporter {
    output: Output,
    console: Console,
    waiting: Waiting,
    tally: Option<Tally>,
}

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Error,
    Warning,
    Info,
}

impl Reporter {
    /// A reporter on stderr.
    #[must_use]
    pub(crate) fn new(output: Output) -> Self {
        let console = Console::new();
        let waiting = Waiting::new(Mode::of(output, Console::is_screen()));
        Self { output, console, waiting, tally: None }
    }

    /// Something that the user should know although it goes on.
    pub(crate) fn warn(&mut self, text: &str) {
        self.line(Level::Warning, "warning", text, json!({}));
    }

    /// Where the lock is sought, and what said so.
    pub(crate) fn backend(&mut self, settings: &Settings, source: &str) {
        let (name, addresses) = (settings.name(), settings.addresses());
        let text = format!("{name} at {} (from {source})", addresses.join(","));
        self.line(Level::Info, "backend", &text, json!({ "backend": name, "endpoints": addresses, "source": source }));
    }

    /// The failure that ends it with this exit code.
    pub(crate) fn failure(&mut self, failure: &Failure, exit: u8) {
        self.error("failed", failure, json!({ "exit": exit, "outcome": outcome::of(failure.kind) }));
    }

    /// There is no report of what happened. It changes nothing of that.
    pub(crate) fn unreported(&mut self, failure: &Failure) {
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

    /// One that is nobody's fault: `-q` does without it.
    pub(crate) fn unless_quiet(&mut self, failure: &Failure, exit: u8) {
        if !self.output.quiet {
            self.failure(failure, exit);
        }
    }

    /// Starts to count for the report: the lock is being acquired from `now` on.
    pub(crate) fn start_tally(&mut self, now: Instant) {
        self.tally = Some(Tally::new(now));
    }

    /// Returns what is known of the run that ended with this verdict, for the report.
    #[must_use]
    pub(crate) fn facts(&mut self, verdict: &Verdict, now: Instant) -> Facts {
        self.tally.take().map(|tally| tally.close(verdict, now)).unwrap_or_default()
    }

    /// Nothing is waited for any more: a line that says so goes.
    pub(crate) fn close(&mut self) {
        self.waiting.end();
        self.console.erase();
    }

    fn waiting(&mut self, queue: Queue) {
        // A log is told in its own measure.
        if self.waiting.mode() != Mode::Log {
            let text = match (&queue.holder, queue.lock_delay) {
                (_, true) => "waiting for a lock-delay to pass".to_owned(),
                (Some(holder), _) => format!("waiting for {}", holder.describe(&TimeZone::system())),
                (None, _) => "waiting".to_owned(),
            };
            self.line(Level::Info, "waiting", &text, waiting::fields(&queue));
        }
        self.waiting.learn(queue, clock::now(), Timestamp::now());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Uncertain(cause) => {
                self.line(
                    Level::Info,
                    "uncertain",
                    &format!("the lock is not sure: {cause}"),
                    json!({ "cause": cause }),
                );
            }
            Step::Frozen => {
                self.line(Level::Warning, "frozen", "the command is frozen: the lock is not sure", json!({}));
            }
            Step::Relocked { token } => {
                let text = format!("acquired again, token {token}; nobody else had the lock");
                self.line(Level::Warning, "re-locked", &text, json!({ "token": token }));
            }
            Step::Thawed => self.line(Level::Warning, "thawed", "the command goes on", json!({})),
        }
    }

    fn line(&mut self, level: Level, event: &str, text: &str, fields: Value) {
        let most = match (self.output.quiet, self.output.verbose) {
            (true, _) => Level::Error,
            (false, false) => Level::Warning,
            (false, true) => Level::Info,
        };
        if level <= most {
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
    fn keeper_said(&mut self, message: &FromKeeper, now: Instant) {
        if let Some(tally) = &mut self.tally {
            tally.hear(message, now);
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Waiting(queue) => self.waiting(queue),
            Notice::Rejoining(cause) => {
                self.line(Level::Info, "rejoining", &format!("joining the queue again: {cause}"), json!({}));
            }
            Notice::NotServed(cause) => {
                let text = format!("no server grants a lock yet, and it is tried on: {cause}");
                self.line(Level::Warning, "not-served", &text, json!({ "cause": cause }));
            }
            // Nothing was, with `--no-lock`: tokens begin at 1.
            Notice::Acquired { token: 0 } => {}
            Notice::Acquired { token } => {
                self.close();
                self.line(Level::Info, "acquired", &format!("acquired, token {token}"), json!({ "token": token }));
            }
            Notice::Started => self.line(Level::Info, "started", "the command runs", json!({})),
            Notice::Restarting(cause) => {
                let text = format!("the lock was lost and the command killed ({cause}); acquiring it again");
                self.line(Level::Warning, "restarting", &text, json!({ "cause": cause }));
            }
            Notice::Relock(step) => self.step(step),
            Notice::Ending(cause) => {
                self.line(Level::Info, "ending", &format!("ending the command: {cause}"), json!({ "cause": cause }));
            }
            Notice::Left(processes) => {
                let text = format!("left running without the lock: {}", list(&processes));
                self.line(Level::Warning, "left", &text, json!({ "processes": processes }));
            }
            Notice::Stuck(processes) => {
                let text = format!("cannot kill {}; the lock is kept while it can be", list(&processes));
                self.line(Level::Error, "stuck", &text, json!({ "processes": processes }));
            }
            Notice::KeeperLost(what) => self.line(Level::Warning, "keeper-lost", &what, json!({})),
            Notice::Note(text) => self.line(Level::Info, "note", &text, json!({})),
        }
    }

    fn wake(&self) -> Option<Instant> {
        self.waiting.wake()
    }

    fn refresh(&mut self, now: Instant) {
        match self.waiting.show(now, Timestamp::now()) {
            Some(Shown { text, .. }) if self.waiting.mode() == Mode::Live => {
                self.console.draw(&format!("distlock: {}", one_line(&text)));
            }
            Some(Shown { text, fields }) => self.print(Level::Info, "waiting", &text, fields),
            None => {}
        }
    }

    fn pause(&mut self) {
        self.console.erase();
    }
}

fn list(processes: &[Process]) -> String {
    processes.iter().map(|process| format!("{} ({})", process.pid, process.name)).collect::<Vec<_>>().join(", ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_an_error_causes_and_a_hint() {
        let failure = Failure::usage("no\x1b[1m way").because("this").because("that").hint("the other way");
        let expected = "distlock: error: no [1m way\n  caused by: this\n  caused by: that\n  hint: the other way\n";
        assert_eq!(render(&failure), expected);
    }
}
