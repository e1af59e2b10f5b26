//! What is printed on stderr: notices for people or as JSON, and the waiting line; also the report of `--report`.
//!
//! Owns: stderr, the counts of a run and the report's target. Imports: `job` (the trait [`crate::job::Show`]), `lock`,
//! `sys`, core.
//! Invariants: stderr never blocks the supervisor, except for the disk behind a regular file (rule 7); the report is written
//! when everything else is over; no control character of another user or server reaches the terminal; no old report stays at
//! a target once the command line is parsed, and no file that a descriptor of the command refers to is replaced or emptied.

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
