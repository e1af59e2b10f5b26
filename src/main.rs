//! distlock: parse, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    distlock::run()
}
