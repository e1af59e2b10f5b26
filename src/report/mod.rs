//! Everything that is printed: notices for people and as JSON, the waiting line, and the report of `--report`.
//!
//! Owns: stderr, the counts of a run and the report's target. Imports: `job` (the trait [`crate::job::Show`]), `lock`,
//! `sys`, core.
//! Invariants: nothing here blocks the supervisor (rule 7), except the report, which is written when all else is over; no
//! control character of another user or server reaches the terminal; an old report is never taken for this run's.

mod console;
mod outcome;
pub(crate) mod output;
mod reporter;
mod sink;
pub(crate) mod tally;
pub(crate) mod target;
mod text;
mod waiting;

pub(crate) use outcome::Report;
pub(crate) use reporter::Reporter;
pub(crate) use text::one_line;
