//! Lookup of the command as by `execvp`, before the lock is acquired: a misspelled command need not wait in a queue.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use distlock_core::error::{Failure, Kind};

/// Maximum length of a script's first line that the kernel reads.
const MAX_FIRST_LINE: u64 = 256;

/// Checks that the first word of `argv` names an executable file.
///
/// # Errors
///
/// The failure with which distlock would report that the command was not found or cannot be executed.
pub(super) fn check(argv: &[OsString]) -> Result<(), Failure> {
    let Some(program) = argv.first() else { return Err(Failure::usage("no command given")) };
    let (mut not_executable, mut failure) = (None, None);
    for candidate in candidates(program) {
        if is_executable(&candidate) {
            // The kernel reports that as "not found", and execvp tries the next candidate.
            let Some(interpreter) = missing_interpreter(&candidate) else { return Ok(()) };
            failure.get_or_insert(no_interpreter(&candidate, &interpreter));
        } else if candidate.exists() {
            not_executable.get_or_insert(candidate);
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    Err(match not_executable {
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
    failure.hint(if words == 1 && program.as_bytes().contains(&b' ') {
        "the command is one word with spaces: use -c to run it with a shell"
    } else if program.as_bytes().contains(&b'/') {
        "the file does not exist"
    } else {
        "no directory in PATH contains it: give its path"
    })
}

fn no_interpreter(script: &Path, interpreter: &Path) -> Failure {
    let failure = Failure::new(Kind::NotExecutable, format!("cannot execute {}", script.display()))
        .because(format!("its interpreter is missing: {}", interpreter.display()));
    if interpreter.as_os_str().as_bytes().ends_with(b"\r") {
        return failure.hint("it has Windows line endings: remove the carriage returns");
    }
    failure.hint("install the interpreter, or correct the first line of the script")
}

/// Returns the interpreter in the first line of a script if it cannot be executed. A script that cannot be read is left
/// to the kernel.
fn missing_interpreter(path: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(MAX_FIRST_LINE).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let interpreter = Path::new(OsStr::from_bytes(line.split(is_blank).find(|word| !word.is_empty())?));
    (!is_executable(interpreter)).then(|| interpreter.to_owned())
}

fn candidates(program: &OsStr) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    if program.is_empty() {
        return Vec::new();
    }
    // The default of the C library if PATH is unset.
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    env::split_paths(&path).map(|directory| directory.join(program)).collect()
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn check_script(text: &[u8]) -> Result<(), Failure> {
        let dir = tempfile::tempdir().expect("a directory");
        let script = dir.path().join("script");
        fs::write(&script, text).expect("a file");
        fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a script that can be executed");
        check(&[script.into()])
    }

    #[test]
    fn script_needs_its_interpreter() {
        for sound in [&b"#!/bin/sh\n"[..], b"#! /bin/sh -e\n", b"#!\t/bin/sh", b"echo", b"", b"#!\n", b"\x7fELF"] {
            assert_eq!(check_script(sound), Ok(()), "{}", sound.escape_ascii());
        }
        for (unsound, hint) in
            [(&b"#!/nonexistent -e\n"[..], "install the interpreter"), (b"#!/bin/sh\r\n", "carriage returns")]
        {
            let failure = check_script(unsound).expect_err("a failure");
            assert_eq!(failure.kind, Kind::NotExecutable);
            assert!(failure.causes[0].contains("interpreter is missing"), "{failure:?}");
            assert!(failure.hint.as_deref().is_some_and(|text| text.contains(hint)), "{failure:?}");
        }
    }

    #[test]
    fn command_not_found_has_a_hint() {
        for (argv, hint) in [(&["no-such-command"][..], "PATH"), (&["./none"], "does not exist"), (&["a b"], "use -c")]
        {
            let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
            let failure = check(&argv).expect_err("a failure");
            assert_eq!(failure.kind, Kind::NotFound);
            assert!(failure.hint.as_deref().is_some_and(|text| text.contains(hint)), "{failure:?}");
        }
    }
}
