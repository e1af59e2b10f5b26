//! Checked configurations of the subcommands.

use std::ffi::OsString;
use std::time::Duration;

use clap_complete::Shell;

use distlock_core::plan::{Leftover, OnLost};
use distlock_core::signal::Signal;

use crate::lock::BackendSettings;
use crate::report::output::Output;
use crate::report::target::Target;

/// Checked request.
#[derive(Debug)]
pub(crate) enum Invocation {
    Run(Box<Run>),
    Doctor(Box<Doctor>),
    Completions(Shell),
    Man,
    ShortHelp,
    /// Help or version, as rendered by clap.
    Help(clap::Error),
}

/// Configuration of `run`.
#[derive(Debug)]
pub(crate) struct Run {
    /// Name of the lock as given by the user.
    pub name: String,
    /// The command and its arguments; with `--shell`, those of `/bin/sh -c`.
    pub argv: Vec<OsString>,
    /// None with `--no-lock`. If there is a user without a password, it is still to be prompted for.
    pub settings: Option<BackendSettings>,
    /// Setting that named the servers, for messages: a flag, a variable, a key or a default.
    pub endpoints_origin: String,
    pub ttl: Duration,
    /// Time from the soft signal to KILL.
    pub grace: Duration,
    /// Longest wait for the lock, connecting included. None: no limit; zero: one try.
    pub wait: Option<Duration>,
    /// Soft signal. It has a name.
    pub signal: Signal,
    pub on_lost: OnLost,
    /// Limit of restarts after a loss; None: no limit.
    pub restarts: Option<u32>,
    pub leftover: Leftover,
    /// Exit code if the lock is busy. None: that of the table; 0: without a message.
    pub busy_exit: Option<u8>,
    /// Text shown to waiters.
    pub message: Option<String>,
    /// URL of the CI job, shown to waiters.
    pub url: Option<String>,
    /// Time limit for the first answer of any server.
    pub connect_timeout: Duration,
    pub output: Output,
    pub report: Option<Target>,
}

/// Configuration of `doctor`.
#[derive(Debug)]
pub(crate) struct Doctor {
    /// Name of the lock as given by the user.
    pub name: Option<String>,
    pub settings: BackendSettings,
    /// Lease time that `run` would ask for.
    pub ttl: Duration,
    /// Time limit for each endpoint.
    pub connect_timeout: Duration,
    pub json: bool,
    pub output: Output,
}
