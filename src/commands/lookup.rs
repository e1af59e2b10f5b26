//! Finding the command as `execvp` would, before the lock is taken: a typing error is not worth a queue.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::error::{Failure, Kind};

/// Makes sure that the first word of `argv` names something that can be executed.
pub fn check(argv: &[OsString]) -> Result<(), Failure> {
    let Some(program) = argv.first() else { return Err(Failure::usage("no command")) };
    let mut found = None;
    for candidate in candidates(program) {
        if is_executable(&candidate) {
            return Ok(());
        }
        if candidate.exists() {
            found.get_or_insert(candidate);
        }
    }
    Err(match found {
        Some(path) if path.is_dir() => {
            Failure::new(Kind::NotExecutable, format!("cannot execute {}", path.display())).because("it is a directory")
        }
        Some(path) => Failure::new(Kind::NotExecutable, format!("cannot execute {}", path.display()))
            .because("permission denied")
            .hint(format!("make it executable: chmod +x {}", path.display())),
        None => not_found(program, argv.len()),
    })
}

fn not_found(program: &OsStr, words: usize) -> Failure {
    let failure = Failure::new(Kind::NotFound, format!("command not found: {}", program.to_string_lossy()));
    if words == 1 && program.as_bytes().contains(&b' ') {
        return failure.hint("the command is one word with spaces: use -c to have a shell run it");
    }
    failure
}

fn candidates(program: &OsStr) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    if program.is_empty() {
        return Vec::new();
    }
    // What the C library takes when PATH is not set.
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    env::split_paths(&path).map(|directory| directory.join(program)).collect()
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}
