//! The report of `--report`: the outcome of a run as one JSON object for programs.

use std::os::fd::RawFd;

use jiff::Timestamp;
use serde::Serialize;

use distlock_core::error::{Failure, Kind};
use distlock_core::messages::{Usage, Verdict};
use distlock_core::time::iso;

use super::sink::Sink;
use super::tally::Facts;
use super::target::Target;
use crate::lock::BackendName;

/// Version of the fields. Added fields do not change it.
const SCHEMA: u32 = 1;

/// Report that is written when the run has ended.
#[derive(Debug)]
pub(crate) struct Report {
    sink: Sink,
    header: Header,
}

/// What is known before the run.
#[derive(Clone, Debug)]
struct Header {
    name: Option<String>,
    backend: Option<BackendName>,
    started_at: Timestamp,
}

impl Report {
    /// Prepares the target for the report of a run that begins now. Call it before [`Inherited::capture`].
    ///
    /// [`Inherited::capture`]: crate::sys::process::Inherited::capture
    ///
    /// # Errors
    ///
    /// A usage failure: no report could be written there.
    pub(crate) fn open(target: &Target, name: Option<String>, backend: Option<BackendName>) -> Result<Self, Failure> {
        Ok(Self { sink: Sink::open(target)?, header: Header { name, backend, started_at: Timestamp::now() } })
    }

    /// Returns the descriptor that only the supervisor may hold.
    #[must_use]
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.sink.descriptor()
    }

    /// Writes the report of the run, which ends now. Takes a few seconds at most. An error does not change the exit code.
    pub(crate) fn write(self, verdict: &Verdict, exit: u8, facts: &Facts) -> Result<(), Failure> {
        let text = Fields::new(&self.header, verdict, exit, facts).line();
        self.sink.write(text).map_err(|why| {
            Failure::fault("cannot write the report")
                .because(why)
                .hint("the exit code does not change; name another target with --report")
        })
    }
}

/// The object. Unknown fields are null, never absent. Durations are in seconds, times in ISO 8601, UTC.
#[derive(Debug, Serialize)]
struct Fields<'a> {
    schema: u32,
    outcome: &'static str,
    exit: u8,
    command_exit: Option<i32>,
    signal: Option<i32>,
    name: Option<&'a str>,
    backend: Option<BackendName>,
    token: Option<u64>,
    waited: f64,
    held: f64,
    renewals: Option<u64>,
    losses: u32,
    restarts: u32,
    started_at: String,
    ended_at: String,
    rusage: Option<Usage>,
}

impl<'a> Fields<'a> {
    fn new(header: &'a Header, verdict: &Verdict, exit: u8, facts: &Facts) -> Self {
        // The verdict of a lost lock does not say how the command ended.
        let command = facts.account.as_ref().and_then(|account| account.command.as_ref()).unwrap_or(verdict);
        Self {
            schema: SCHEMA,
            outcome: word(verdict),
            exit,
            command_exit: match command {
                Verdict::Exited(code) => Some(*code),
                _ => None,
            },
            signal: match (command, verdict) {
                (Verdict::Signaled(signal), _) => Some(signal.number()),
                (_, Verdict::Failed(failure)) => match failure.kind {
                    Kind::Interrupted(signal) => Some(signal.number()),
                    _ => None,
                },
                _ => None,
            },
            name: header.name.as_deref(),
            backend: header.backend,
            token: facts.token,
            waited: facts.waited.as_secs_f64(),
            held: facts.held.as_secs_f64(),
            renewals: facts.account.as_ref().map(|account| account.renewals),
            losses: facts.losses,
            restarts: facts.restarts,
            started_at: iso(header.started_at),
            ended_at: iso(Timestamp::now()),
            rusage: facts.account.as_ref().map(|account| account.usage),
        }
    }

    fn line(&self) -> String {
        // Only strings and numbers, whose serialization cannot fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Exited(_) => "exited",
        Verdict::Signaled(_) => "signaled",
        Verdict::Failed(failure) => word_of_kind(failure.kind),
    }
}

pub(super) fn word_of_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Usage => "usage",
        Kind::Unreachable => "unreachable",
        Kind::Fault => "fault",
        Kind::Busy => "busy",
        Kind::Lost => "lost",
        Kind::Broken => "broken",
        Kind::Denied => "denied",
        Kind::MaxHold => "max-hold",
        Kind::NotExecutable | Kind::NotFound => "not-started",
        Kind::Interrupted(_) => "interrupted",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use distlock_core::messages::Account;
    use distlock_core::signal::Signal;

    use super::*;
    use crate::exit;

    fn fields(verdict: &Verdict, exit: u8, facts: &Facts) -> Value {
        let started_at = Timestamp::UNIX_EPOCH;
        let header = Header { name: Some("/jobs/x".into()), backend: Some(BackendName::Etcd), started_at };
        let line = Fields::new(&header, verdict, exit, facts).line();
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn unknown_fields_are_null() {
        let usage = fields(&Verdict::Failed(Failure::usage("no")), 64, &Facts::default());
        assert_eq!((&usage["outcome"], &usage["exit"]), (&json!("usage"), &json!(64)));
        for field in ["command_exit", "signal", "token", "renewals", "rusage"] {
            assert_eq!(usage.get(field), Some(&Value::Null), "{field}");
        }
        assert_eq!(usage["started_at"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&usage["waited"], &usage["losses"]), (&json!(0.0), &json!(0)));
    }

    #[test]
    fn loss_reports_how_the_command_ended() {
        let account = |command| Account { renewals: 3, command: Some(command), usage: Usage::default() };
        let facts = |command| Facts {
            account: Some(account(command)),
            held: Duration::from_millis(1500),
            token: Some(9),
            ..Facts::default()
        };
        let lost = Verdict::Failed(Failure::new(Kind::Lost, "lost"));
        let killed = fields(&lost, 76, &facts(Verdict::Signaled(Signal::SIGKILL)));
        assert_eq!(
            (&killed["outcome"], &killed["signal"], &killed["command_exit"]),
            (&json!("lost"), &json!(9), &Value::Null)
        );
        assert_eq!((&killed["held"], &killed["token"], &killed["renewals"]), (&json!(1.5), &json!(9), &json!(3)));
        let ended = fields(&lost, 76, &facts(Verdict::Exited(0)));
        assert_eq!((&ended["exit"], &ended["signal"], &ended["command_exit"]), (&json!(76), &Value::Null, &json!(0)));
    }

    #[test]
    fn signal_is_the_one_that_ended_the_run() {
        let died = fields(&Verdict::Signaled(Signal::SIGTERM), exit::signaled(Signal::SIGTERM), &Facts::default());
        assert_eq!((&died["outcome"], &died["exit"], &died["signal"]), (&json!("signaled"), &json!(143), &json!(15)));
        let left = Verdict::Failed(Failure::new(Kind::Interrupted(Signal::SIGINT), "interrupted"));
        let left = fields(&left, 130, &Facts::default());
        assert_eq!(
            (&left["outcome"], &left["signal"], &left["command_exit"]),
            (&json!("interrupted"), &json!(2), &Value::Null)
        );
    }
}
