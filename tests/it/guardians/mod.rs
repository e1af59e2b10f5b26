//! The process tree always has a guardian: unusual processes, suspended jobs, unusual terminals.

mod suspended;
mod terminals;
mod unusual_processes;

use std::fs::OpenOptions;
use std::io::Write;

use crate::world::World;

/// Compiles a C program, for what a shell cannot do, and returns its path.
fn compile(world: &World, name: &str, source: &str) -> String {
    let path = world.path().join(name);
    let file = path.with_extension("c");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)
        .and_then(|mut file| file.write_all(source.as_bytes()))
        .expect("a file in the world");
    // The build needs a C compiler too.
    world.command("cc").args(["-O1", "-pthread", "-o"]).args([&path, &file]).run().assert_code(0);
    path.display().to_string()
}
