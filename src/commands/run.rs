//! `distlock run`, the main job: from a checked configuration to two processes, and back to an exit code.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{Uid, User, gethostname};

use super::{Early, lookup, password};
use crate::config::Run;
use crate::exit;
use crate::job::keeper::Job;
use crate::job::supervisor::{self, Ending};
use crate::lock::{Prepared, Want};
use crate::report::tally::Facts;
use crate::report::{Report, Reporter};
use crate::sys::process::{self, Inherited};
use crate::sys::{clock, signals};
use distlock_core::error::{Failure, Kind};
use distlock_core::messages::Verdict;
use distlock_core::plan::{OnLost, Plan};
use distlock_core::record::Record;
use distlock_core::signal::Signal;
use distlock_core::time::iso;

/// Runs the command under the lock and returns what distlock exits with. Where the command died of a signal that shells
/// look for, this process dies of it too and does not return.
pub(super) fn run(run: Run) -> ExitCode {
    let mut reporter = Reporter::new(run.output);
    let report = match open_report(&run) {
        Ok(report) => report,
        Err(failure) => return super::fail(&failure, &mut reporter),
    };
    // Before anything else of our own is opened or changed.
    let inherited = Inherited::take();
    let (busy_exit, unlocked) = (run.busy_exit, run.settings.is_none());
    let descriptor = report.as_ref().and_then(Report::descriptor);
    let ending = job(run, inherited, descriptor, &mut reporter)
        .and_then(|job| {
            reporter.start_tally(clock::now());
            Ok(supervisor::run(job, &mut reporter)?)
        })
        .unwrap_or_else(Ending::from);
    let facts = reporter.facts(&ending.verdict, clock::now());
    let facts = if unlocked { facts.without_lock() } else { facts };
    reporter.close();
    finish(&ending, &facts, busy_exit, report, &mut reporter)
}

fn open_report(run: &Run) -> Result<Option<Report>, Failure> {
    let backend = run.settings.as_ref().map(crate::lock::Settings::name);
    run.report.as_ref().map(|target| Report::open(target, Some(run.name.clone()), backend)).transpose()
}

impl From<Early> for Ending {
    fn from(Early { failure, keyboard }: Early) -> Self {
        Self { verdict: Verdict::Failed(failure), keyboard }
    }
}

fn job(mut run: Run, inherited: Inherited, report: Option<RawFd>, reporter: &mut Reporter) -> Result<Job, Early> {
    lookup::check(&run.argv)?;
    let prepared = if let Some(settings) = &mut run.settings {
        password::complete(settings, &inherited)?;
        reporter.backend(settings, &run.source);
        settings.prepare(&run.name)?
    } else {
        reporter.warn("running without a lock, as --no-lock asks: nothing keeps others from running at the same time");
        Prepared::Unlocked
    };
    let plan = Plan {
        name: run.name.clone(),
        endpoints_source: run.source.clone(),
        time_zone: jiff::tz::TimeZone::system(),
        grace: run.grace,
        wait: run.wait,
        connect_timeout: run.connect_timeout,
        leftover: run.leftover,
        on_lost: run.on_lost,
        restarts: run.restarts,
    };
    let want =
        Want { name: run.name.clone(), ttl: run.ttl, relock: run.on_lost == OnLost::Relock, record: record(&run) };
    let backend = run.settings.as_ref().map(crate::lock::Settings::name);
    Ok(Job {
        plan,
        argv: run.argv,
        prepared,
        want,
        backend,
        signal: run.signal,
        group: process::Group::Own,
        reruns: run.on_lost == OnLost::Restart,
        inherited,
        report,
    })
}

/// What others are told of this run. `argv[0]` only: arguments may be secret; with a shell even that word may be.
fn record(run: &Run) -> Record {
    let command = run.argv.first().map(name_of).unwrap_or_default();
    Record {
        id: random_id(),
        tool: concat!("distlock/", env!("CARGO_PKG_VERSION")).to_owned(),
        host: gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        user: user(),
        pid: Some(std::process::id()),
        command,
        message: run.message.clone(),
        url: run.url.clone(),
        since: Some(iso(jiff::Timestamp::now())),
        acquired: None,
        stop: None,
    }
}

fn name_of(word: impl AsRef<Path>) -> String {
    let path = word.as_ref();
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn user() -> String {
    let uid = Uid::effective();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// 64 random bits. Without randomness, which a kernel always has, the time serves: the id is no secret.
fn random_id() -> String {
    let bits =
        getrandom::u64().unwrap_or_else(|_| u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default());
    format!("{bits:016x}")
}

/// Says what is to be said, in this order: to the user, to programs, to the shell.
fn finish(
    ending: &Ending,
    facts: &Facts,
    busy_exit: Option<u8>,
    report: Option<Report>,
    reporter: &mut Reporter,
) -> ExitCode {
    let verdict = &ending.verdict;
    let code = exit_code(verdict, busy_exit);
    match verdict {
        // Who typed it knows.
        Verdict::Failed(Failure { kind: Kind::Interrupted(_), .. }) if ending.keyboard => {}
        Verdict::Failed(failure @ Failure { kind: Kind::Interrupted(_), .. }) => reporter.unless_quiet(failure, code),
        Verdict::Failed(failure) if failure.kind != Kind::Busy => reporter.failure(failure, code),
        Verdict::Failed(failure) if busy_exit != Some(exit::OK) => reporter.unless_quiet(failure, code),
        _ => {}
    }
    if let Some(Err(failure)) = report.map(|report| report.write(verdict, code, facts)) {
        reporter.unreported(&failure);
    }
    match verdict {
        Verdict::Signaled(signal) => die_as_the_command(*signal),
        Verdict::Failed(failure) => die_if_typed(failure, ending.keyboard),
        Verdict::Exited(_) => {}
    }
    ExitCode::from(code)
}

fn exit_code(verdict: &Verdict, busy_exit: Option<u8>) -> u8 {
    match verdict {
        Verdict::Exited(code) => u8::try_from(*code).unwrap_or(u8::MAX),
        Verdict::Signaled(signal) => exit::signaled(*signal),
        Verdict::Failed(Failure { kind: Kind::Busy, .. }) => busy_exit.unwrap_or_else(|| exit::code(Kind::Busy)),
        Verdict::Failed(failure) => exit::code(failure.kind),
    }
}

/// Ctrl-C before the command ran is the shell's business as well.
pub(super) fn die_if_typed(failure: &Failure, keyboard: bool) {
    match failure.kind {
        Kind::Interrupted(signal) if keyboard => die_as_the_command(signal),
        _ => {}
    }
}

/// A shell that reads a script stops at a command that *died* of Ctrl-C, and goes on after one that exited with 130.
fn die_as_the_command(signal: Signal) {
    if let Some(signal) = signals::to_nix(signal).filter(|_| signal.ends_a_command()) {
        process::die_of(signal);
    }
}
