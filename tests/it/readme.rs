//! The examples, the configuration file and the exit codes in README.md are correct.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use crate::world::{Server, World, shared, write_program};

const README: &str = include_str!("../../README.md");

/// Returns the example commands: indented lines that run distlock, with `cargo run` replaced.
fn examples() -> Vec<String> {
    let examples = README.lines().filter_map(|line| line.strip_prefix("    "));
    let examples = examples.map(|line| line.replace("cargo run --release --", "distlock"));
    examples.filter(|line| line.starts_with("distlock ") && !line.contains("[OPTIONS]")).collect()
}

/// Creates a world with distlock and the programs of the examples in `bin`; the programs print their name and
/// arguments.
fn world_with_jobs() -> World {
    let world = World::new();
    let bin = world.path().join("bin");
    fs::create_dir(&bin).expect("a directory");
    symlink(env!("CARGO_BIN_EXE_distlock"), bin.join("distlock")).expect("a link");
    for job in ["backup.sh", "report.sh", "serve.sh", "import.sh", "pg_dump"] {
        let path = bin.join(job);
        write_program(&path, b"#!/bin/sh\necho ran ${0##*/} \"$@\"\n");
    }
    world
}

#[test]
fn examples_work() {
    let world = world_with_jobs();
    let path = format!("{}/bin:/usr/bin:/bin", world.path().display());
    let locks = format!("file://{}/locks", world.path().display());
    let examples = examples();
    assert!(examples.len() >= 8, "{examples:#?}");
    for example in examples {
        // The test servers and a directory of the world replace the servers and /run.
        let run = |line: &str| world.command("sh").args(["-c", line]).env("PATH", &path);
        let job = if example.contains("-b etcd") {
            let words = example.split(' ').map(|word| match word.strip_prefix("https://") {
                Some(_) => shared::etcd35().url(),
                None => word.to_owned(),
            });
            run(&words.collect::<Vec<_>>().join(" "))
        } else if example.contains("-b consul") {
            run(&example).env("CONSUL_HTTP_ADDR", shared::consul().url())
        } else {
            run(&example).env("DISTLOCK_BACKEND", "local").env("DISTLOCK_ENDPOINTS", &locks)
        };
        let job = job.run().assert_code(0);
        assert_eq!(job.stderr, "", "{example}");
        // The output of the pipeline is in a file.
        let ran = job.stdout.contains("ran ") || job.stdout == "locked\n" || world.path().join("app.gz").exists();
        assert!(ran, "{}", job.describe());
    }
}

#[test]
fn configuration_file_is_accepted() {
    let (_, after) = README.split_once("```toml\n").expect("a file in the README");
    let (file, _) = after.split_once("```").expect("the end of the file");
    let world = World::local();
    fs::write(world.path().join("config.toml"), file).expect("a file");
    world.distlock().args(["--config", "config.toml", "/x", "true"]).run().assert_code(0);
    // Without other options the file selects etcd, and names the password file.
    let bare = World::new();
    fs::write(bare.path().join("config.toml"), file).expect("a file");
    let job = bare.distlock().args(["--config", "config.toml", "/x", "true"]).run();
    assert!(job.stderr.contains("/etc/distlock/"), "{}", job.describe());
}

/// Returns the exit codes in the first column of the README's table.
fn codes_of_the_table() -> BTreeSet<String> {
    let (_, after) = README.split_once("| exit | when |").expect("the table");
    let rows = after.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.split('|').nth(1)).flat_map(numbers).collect()
}

fn numbers(cell: &str) -> Vec<String> {
    cell.split([',', ' ']).filter(|word| word.parse::<u8>().is_ok()).map(ToOwned::to_owned).collect()
}

#[test]
fn exit_code_table_matches_the_help() {
    let help = World::new().distlock().args(["--help"]).run().assert_code(0).stdout;
    let (_, after) = help.split_once("Exit codes:\n").expect("a section of the help");
    let section = after.lines().take_while(|line| !line.is_empty());
    let codes: BTreeSet<_> = section.filter_map(|line| line.split_whitespace().next()).flat_map(numbers).collect();
    assert!(codes.len() >= 8, "{codes:?}");
    assert_eq!(codes_of_the_table(), codes);
}
