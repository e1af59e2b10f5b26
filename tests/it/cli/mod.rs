//! What users and scripts rely on at the command line.

mod events;
mod hints;
mod interrupted;
mod prompt;
mod report_target;
mod restarts;
mod since;
mod steps;
