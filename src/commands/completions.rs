//! `distlock completions`: the scripts in completions/.

use clap_complete::Shell;

use crate::cli;

/// Returns the completion script of a shell.
pub(super) fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "distlock", &mut script);
    script
}
