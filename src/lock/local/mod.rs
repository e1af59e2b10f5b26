//! The lock on this host: flock(2) on a file.
//!
//! Owns the lock files, their names and their content. Imports `lock::backend`, `lock::probe`, `sys` and the core.
//!
//! | module | content |
//! |---|---|
//! | `probe` | the checks of `distlock doctor` |
//! | `contender` | one contender: the backend's trait |
//! | `file` | names, directories, opening a lock file, flock(2) |
//! | `entry` | the line in a lock file |
//!
//! Invariants:
//!
//! - The kernel keeps the lock as long as any process of the job has the file open. There is no lease, so nothing is
//!   renewed and nothing expires.
//! - Only the holder of the flock writes to the file.
//! - `flock FILE COMMAND` of util-linux on the same file excludes distlock and is excluded by it.

mod contender;
mod entry;
mod file;
pub(crate) mod probe;

pub(crate) use contender::Contender;
pub(crate) use file::{Directory, LockFile};
