//! The job that both processes know: the keeper is forked from the supervisor.

use std::ffi::OsString;
use std::os::fd::RawFd;

use nix::sys::signal::Signal;

use distlock_core::plan::Plan;

use crate::lock::{BackendName, LockSpec, PreparedBackend};
use crate::sys::process::{Inherited, ProcessGroup};

/// One command under one lock.
#[derive(Debug)]
pub(crate) struct Job {
    pub plan: Plan,
    /// Program and arguments.
    pub argv: Vec<OsString>,
    pub prepared: PreparedBackend,
    pub spec: LockSpec,
    /// Backend that the command's environment names; None without a lock.
    pub backend: Option<BackendName>,
    /// The soft signal.
    pub signal: Signal,
    /// Process group that the command joins.
    pub group: ProcessGroup,
    /// The command may run again, so its descriptors are kept open for the next run.
    pub reruns: bool,
    /// What distlock inherited and the command gets.
    pub inherited: Inherited,
    /// Descriptor of the report, which only the supervisor holds.
    pub report: Option<RawFd>,
}
