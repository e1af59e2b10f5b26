//! Nothing of the command is ever without a guardian: whatever it is at, and whatever befalls those that guard it.

mod unusual_processes;
mod suspended;
mod terminals;

use std::fs::OpenOptions;
use std::io::Write;

use crate::world::World;

/// A program of the test's own that needs what no shell can do.
fn program(world: &World, name: &str, source: &str) -> String {
    let path = world.path().join(name);
    let file = path.with_extension("c");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)
        .and_then(|mut file| file.write_all(source.as_bytes()))
        .expect("a file in the world");
    // The C compiler that cargo needs as well.
    world.command("cc").args(["-O1", "-pthread", "-o"]).args([&path, &file]).run().assert_code(0);
    path.display().to_string()
}
