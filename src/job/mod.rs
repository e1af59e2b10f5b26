//! One command under one lock: the supervisor, the keeper and the witness, and the channels between them.
//!
//! Owns: the three processes and the order of their creation. Imports: `lock`, `sys`, `exit`, core.
//! Invariants: the machines in core decide for supervisor and keeper, and the code here acts; as long as the command can run,
//! no process waits for another; the keeper writes to no descriptor of the user, and the supervisor prints only through
//! [`Show`], without blocking (rule 7).

mod fault;
mod keeper;
mod link;
mod show;
mod spec;
mod supervisor;
mod witness;

pub(crate) use show::Show;
pub(crate) use spec::Job;
pub(crate) use supervisor::{Ending, run};
