//! `distlock doctor`: looks at everything that a lock needs, and says what is wrong and what to do about it.

mod report;

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;

use super::{password, print, run};
use crate::config::Doctor;
use crate::job::supervisor::Show;
use crate::lock::Note;
use crate::lock::probe::{Findings, Inquiry};
use crate::report::Reporter;
use crate::sys::process::Inherited;
use crate::sys::runtime;
use distlock_core::error::Failure;
use distlock_core::messages::Notice;
use report::Report;

/// Examines the backend and prints what it found; the exit code is that of the failure that a lock would meet.
///
/// # Errors
///
/// What is wrong before anything could be examined.
pub(super) fn doctor(mut doctor: Doctor) -> Result<ExitCode, Failure> {
    if let Err(early) = password::complete(&mut doctor.settings, &Inherited::take()) {
        run::die_if_typed(&early.failure, early.keyboard);
        return Err(early.failure);
    }
    let reporter = Rc::new(RefCell::new(Reporter::new(doctor.output)));
    let notes = Rc::clone(&reporter);
    let findings = examine(&doctor, Rc::new(move |text| notes.borrow_mut().notice(Notice::Note(text))))?;
    let report = Report { backend: doctor.settings.name(), name: doctor.name.as_deref(), findings: &findings };
    let printed = print(&if doctor.json { report.json() } else { report.text() }.into_bytes())?;
    let Some(failure) = report.failure() else { return Ok(printed) };
    Ok(super::fail(&failure, &mut reporter.borrow_mut()))
}

fn examine(doctor: &Doctor, note: Note) -> Result<Findings, Failure> {
    let inquiry = Inquiry { name: doctor.name.clone(), ttl: doctor.ttl, patience: doctor.connect_timeout };
    runtime::block_on(doctor.settings.probe(&inquiry, note))
        .map_err(|error| Failure::fault("cannot wait for several servers at once").because(error))?
}
