//! `distlock doctor`: checks everything that a lock needs, and reports problems and remedies.

mod report;

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;

use distlock_core::error::Failure;
use distlock_core::messages::Notice;

use super::{ending, password, stdout};
use crate::config::Doctor;
use crate::job::Show;
use crate::lock::LogFn;
use crate::lock::probe::{Findings, ProbeRequest};
use crate::report::Reporter;
use crate::sys::process::Inherited;
use crate::sys::runtime;
use report::Report;

/// Probes the backend and prints the findings. Returns the exit code with which acquiring a lock would fail.
///
/// # Errors
///
/// A failure before the probe.
pub(super) fn doctor(mut doctor: Doctor) -> Result<ExitCode, Failure> {
    if let Err(early) = password::complete(&mut doctor.settings, &Inherited::capture()) {
        ending::die_if_interrupted(&early.failure, early.keyboard);
        return Err(early.failure);
    }
    let reporter = Rc::new(RefCell::new(Reporter::new(doctor.output)));
    let log_reporter = Rc::clone(&reporter);
    let log: LogFn = Rc::new(move |text| log_reporter.borrow_mut().notice(Notice::Note(text)));
    let findings = probe(&doctor, log)?;
    let report = Report { backend: doctor.settings.name(), name: doctor.name.as_deref(), findings: &findings };
    let printed = stdout::print(if doctor.json { report.json() } else { report.text() }.as_bytes())?;
    let Some(failure) = report.failure() else { return Ok(printed) };
    Ok(ending::fail(&failure, &mut reporter.borrow_mut()))
}

fn probe(doctor: &Doctor, log: LogFn) -> Result<Findings, Failure> {
    let request = ProbeRequest { name: doctor.name.clone(), ttl: doctor.ttl, timeout: doctor.connect_timeout };
    runtime::block_on(doctor.settings.probe(&request, log))
        .map_err(|error| Failure::fault("cannot start the async runtime").because(error))?
}
