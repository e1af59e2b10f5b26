//! Output of subcommands to stdout.

use std::io::{self, Write};
use std::process::ExitCode;

use distlock_core::error::Failure;

/// Prints `text`, and returns the exit code of success.
pub(super) fn print(text: &[u8]) -> Result<ExitCode, Failure> {
    let mut stdout = io::stdout().lock();
    result(stdout.write_all(text).and_then(|()| stdout.flush()))
}

/// Returns success if the reader has closed the pipe: programs such as `head` read only what they need.
pub(super) fn result(written: io::Result<()>) -> Result<ExitCode, Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::fault("cannot write to stdout").because(error))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
