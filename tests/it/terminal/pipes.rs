//! Pipelines, pagers and editors.

use std::fs;

use super::{assert_same, await_command, exit_code, has};
use crate::world::{Terminal, World, is_alive, lacks, poll_until, secs, state};

#[test]
fn last_command_of_a_pipeline_reads_the_terminal() {
    assert_same(read_in_last_command);
}

/// Runs a pipeline whose last command reads from the terminal.
pub(super) fn read_in_last_command(_: &World, terminal: &mut Terminal, prefix: &str) -> (String, String) {
    terminal.line(&format!("{prefix}seq 3 | {{ echo ask; read x </dev/tty; echo got $x; cat; }}"));
    terminal.expect("ask");
    terminal.send("word\n");
    terminal.expect("got word");
    (terminal.prompt(), exit_code(terminal))
}

#[test]
fn pager_reads_keys() {
    if !has("less") {
        return lacks("less");
    }
    assert_same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}seq 1000 | less"));
        terminal.expect("\n22");
        terminal.send(" ");
        terminal.expect("\n44");
        terminal.send("q");
        terminal.prompt();
        exit_code(terminal)
    });
}

#[test]
fn pipeline_ends_with_its_reader() {
    assert_same(|_, terminal, prefix| {
        terminal.line(&format!("{prefix}yes | head -1"));
        terminal.expect("\ny\r\n");
        terminal.prompt();
        terminal.line(&format!("{prefix}cat | head -1"));
        await_command(terminal, "cat");
        let head = await_command(terminal, "head");
        terminal.send("first\n");
        terminal.expect("first\r\nfirst\r\n");
        poll_until("the exit of the reader", secs(30), || !is_alive(head) || state(head) == Some('Z'));
        // This write has no reader.
        terminal.send("second\n");
        terminal.prompt();
        terminal.line("echo ${PIPESTATUS[@]}");
        terminal.prompt();
        exit_code(terminal)
    });
}

#[test]
fn editor_draws_and_quits() {
    let Some(editor) = ["vi", "nano"].into_iter().find(|editor| has(editor)) else {
        return lacks("vi or nano");
    };
    assert_same(|world, terminal, prefix| {
        fs::write(world.path().join("text"), "drawn\n").expect("a file in the world");
        terminal.line(&format!("{prefix}{editor} text"));
        terminal.expect("drawn");
        terminal.send(if editor == "vi" { "Oadded\x1b:wq\n" } else { "added\n\x0f\n\x18" });
        terminal.prompt();
        assert_eq!(fs::read_to_string(world.path().join("text")).expect("the file"), "added\ndrawn\n");
        exit_code(terminal)
    });
}
