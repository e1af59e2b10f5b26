//! `distlock run`: makes a job of a checked configuration, runs it, and returns its exit code.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::{Uid, User, gethostname};

use distlock_core::error::{Failure, Kind};
use distlock_core::messages::Verdict;
use distlock_core::plan::{OnLost, Plan};
use distlock_core::record::Record;
use distlock_core::time::iso;

use super::ending::{self, EarlyFailure};
use super::{lookup, password};
use crate::config::Run;
use crate::exit;
use crate::job::{self, Ending, Job};
use crate::lock::{BackendSettings, LockSpec, PreparedBackend};
use crate::report::tally::Facts;
use crate::report::{Report, Reporter};
use crate::sys::process::{Inherited, ProcessGroup};
use crate::sys::{clock, signals};

/// Runs the command under the lock and returns distlock's exit code. If the command died of a signal that shells look for,
/// this process dies of the same signal instead.
pub(super) fn run(run: Run) -> ExitCode {
    let mut reporter = Reporter::new(run.output);
    let report = match open_report(&run) {
        Ok(report) => report,
        Err(failure) => return ending::fail(&failure, &mut reporter),
    };
    // Before distlock opens descriptors or changes dispositions of its own.
    let inherited = Inherited::capture();
    let (busy_exit, is_unlocked) = (run.busy_exit, run.settings.is_none());
    let descriptor = report.as_ref().and_then(Report::descriptor);
    let ending = job(run, inherited, descriptor, &mut reporter)
        .and_then(|job| {
            reporter.start_tally(clock::now());
            Ok(job::run(job, &mut reporter)?)
        })
        .unwrap_or_else(Ending::from);
    let facts = reporter.facts(&ending.verdict, clock::now());
    let facts = if is_unlocked { facts.without_lock() } else { facts };
    reporter.end_wait();
    finish(&ending, &facts, busy_exit, report, &mut reporter)
}

fn open_report(run: &Run) -> Result<Option<Report>, Failure> {
    let backend = run.settings.as_ref().map(BackendSettings::name);
    run.report.as_ref().map(|target| Report::open(target, Some(run.name.clone()), backend)).transpose()
}

fn job(
    mut run: Run,
    inherited: Inherited,
    report: Option<RawFd>,
    reporter: &mut Reporter,
) -> Result<Job, EarlyFailure> {
    lookup::check(&run.argv)?;
    let signal = signals::to_nix(run.signal).ok_or_else(|| Failure::fault("the soft signal has no name"))?;
    let prepared = if let Some(settings) = &mut run.settings {
        password::complete(settings, &inherited)?;
        reporter.backend(settings, &run.endpoints_origin);
        settings.prepare(&run.name)?
    } else {
        reporter.warn("running without a lock (--no-lock): other processes may run the command at the same time");
        PreparedBackend::Unlocked
    };
    let record = record(&run);
    let backend = run.settings.as_ref().map(BackendSettings::name);
    Ok(Job {
        plan: Plan {
            name: run.name.clone(),
            endpoints_origin: run.endpoints_origin,
            time_zone: TimeZone::system,
            grace: run.grace,
            wait: run.wait,
            connect_timeout: run.connect_timeout,
            leftover: run.leftover,
            on_lost: run.on_lost,
            restarts: run.restarts,
        },
        argv: run.argv,
        prepared,
        spec: LockSpec { name: run.name, ttl: run.ttl, relock: run.on_lost == OnLost::Relock, record },
        backend,
        signal,
        group: ProcessGroup::Own,
        reruns: run.on_lost == OnLost::Restart,
        inherited,
        report,
    })
}

/// Returns the record that other contenders see. Of the command line it contains only the name of the program, because
/// arguments may be secret; with `--shell`, that is the name of the shell.
fn record(run: &Run) -> Record {
    Record {
        id: random_id(),
        tool: concat!("distlock/", env!("CARGO_PKG_VERSION")).to_owned(),
        host: gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        user: user(),
        pid: Some(std::process::id()),
        command: run.argv.first().map(file_name).unwrap_or_default(),
        message: run.message.clone(),
        url: run.url.clone(),
        since: Some(iso(Timestamp::now())),
        acquired: None,
        stop: None,
    }
}

fn file_name(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn user() -> String {
    let uid = Uid::effective();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Returns 64 random bits in hex, or the time if the kernel has no randomness: the id is not a secret.
fn random_id() -> String {
    let bits = getrandom::u64().unwrap_or_else(|_| u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default());
    format!("{bits:016x}")
}

/// Tells the user, then programs (`--report`), then the shell (exit code or signal).
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
        // The user pressed Ctrl-C and needs no message.
        Verdict::Failed(Failure { kind: Kind::Interrupted(_), .. }) if ending.keyboard => {}
        Verdict::Failed(failure @ Failure { kind: Kind::Interrupted(_), .. }) => {
            reporter.failure_unless_quiet(failure, code);
        }
        Verdict::Failed(failure) if failure.kind != Kind::Busy => reporter.failure(failure, code),
        Verdict::Failed(failure) if busy_exit != Some(exit::OK) => reporter.failure_unless_quiet(failure, code),
        _ => {}
    }
    if let Some(Err(failure)) = report.map(|report| report.write(verdict, code, facts)) {
        reporter.report_failed(&failure);
    }
    match verdict {
        Verdict::Signaled(signal) => ending::die_like_the_command(*signal),
        Verdict::Failed(failure) => ending::die_if_interrupted(failure, ending.keyboard),
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
