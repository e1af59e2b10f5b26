//! The distlock program.

use std::process::ExitCode;

fn main() -> ExitCode {
    distlock::main()
}
