//! Our contenders among those of the peers' tools, on one lock.

use crate::world::{Ledger, Run, World, everywhere, millis, on_servers};

/// So many contenders of each kind.
const EACH: usize = 6;

/// Lets six contenders of a peer and six of ours fight for a lock, started in turns.
fn contend(world: &World, ledger: &Ledger, name: &str, peer: impl Fn(&[String]) -> Run) {
    let command = ledger.command(millis(50));
    let start = || [peer(&command).spawn(), world.distlock().args([name]).args(&command).spawn()];
    let contenders: Vec<_> = (0..EACH).flat_map(|_| start()).collect();
    for contender in contenders {
        contender.wait().assert_code(0);
    }
    ledger.assert_exclusive(2 * EACH);
    let ours = ledger.holds().iter().filter(|hold| hold.token.is_some()).count();
    assert_eq!(ours, EACH, "the others have no token");
}

#[test]
fn the_peers_of_a_server_and_we_exclude_each_other() {
    on_servers(|world, server| {
        let name = world.name("shared lock");
        contend(world, &Ledger::new(world), &name, |command| server.peer_lock(world, &name, command));
    });
}

#[test]
fn flock_and_we_exclude_each_other() {
    let world = World::local();
    let name = world.name("shared lock");
    let path = world.distlock().args(["-c", &name, "echo $DISTLOCK_HELD_KEY"]).run().assert_code(0).stdout;
    contend(&world, &Ledger::new(&world), &name, |command| world.command("flock").args([path.trim()]).args(command));
}

#[test]
fn twelve_of_ours_run_one_after_the_other() {
    everywhere(|world| {
        let (name, ledger) = (world.name("ours"), Ledger::new(world));
        let command = ledger.command(millis(30));
        let contenders: Vec<_> = (0..12).map(|_| world.distlock().args([&name]).args(&command).spawn()).collect();
        for contender in contenders {
            contender.wait().assert_code(0);
        }
        ledger.assert_exclusive(12);
    });
}
