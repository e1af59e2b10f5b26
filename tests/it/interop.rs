//! Contenders of distlock and of the peers' tools (`etcdctl lock`, `consul lock`, flock) on one lock.

use std::fs;

use crate::world::{Ledger, Run, World, everywhere, millis, on_servers, poll_until, secs};

/// Contenders of each kind.
const CONTENDERS: usize = 6;

/// Runs contenders of a peer and of distlock on one lock, started alternately.
fn contend(world: &World, ledger: &Ledger, name: &str, peer: impl Fn(&[String]) -> Run) {
    let command = ledger.command(millis(50));
    let start = || [peer(&command).spawn(), world.distlock().args([name]).args(&command).spawn()];
    let contenders: Vec<_> = (0..CONTENDERS).flat_map(|_| start()).collect();
    for contender in contenders {
        contender.wait().assert_code(0);
    }
    ledger.assert_exclusive(2 * CONTENDERS);
    let with_token = ledger.holds().iter().filter(|hold| hold.token.is_some()).count();
    assert_eq!(with_token, CONTENDERS, "holders of the peer have no token");
}

#[test]
fn server_tools_and_distlock_exclude_each_other() {
    on_servers(|world, server| {
        let name = world.name("shared lock");
        contend(world, &Ledger::new(world), &name, |command| server.peer_lock(world, &name, command));
    });
}

#[test]
fn flock_and_distlock_exclude_each_other() {
    let world = World::local();
    let name = world.name("shared lock");
    let path = world.distlock().args(["-c", &name, "echo $DISTLOCK_HELD_KEY"]).run().assert_code(0).stdout;
    contend(&world, &Ledger::new(&world), &name, |command| world.command("flock").args([path.trim()]).args(command));
}

/// Returns a command that creates the file `held` and keeps running.
fn hold() -> [String; 3] {
    ["sh", "-c", ">held; exec sleep 60"].map(str::to_owned)
}

/// Asserts that a lock held by a peer is reported as held, without the record of the last distlock holder.
#[track_caller]
fn assert_held_by_peer(world: &World, name: &str, peer: Run) {
    world.distlock().args(["-m", "the last holder", name, "true"]).run().assert_code(0);
    let peer = peer.spawn();
    poll_until("the holder of the peer", secs(20), || world.path().join("held").exists());
    let busy = world.distlock().args(["--try", name, "true"]).run().assert_code(75);
    assert!(busy.stderr.starts_with(&format!("distlock: error: {name} not acquired: held by ")), "{}", busy.describe());
    assert!(!busy.stderr.contains("the last holder"), "{}", busy.describe());
    drop(peer);
}

#[test]
fn peer_holder_is_not_reported_as_last_distlock_holder() {
    on_servers(|world, server| {
        let name = world.name("peer");
        assert_held_by_peer(world, &name, server.peer_lock(world, &name, &hold()));
    });
    let world = World::local();
    let path = world.path().join("locks/peer.lock");
    fs::create_dir(world.path().join("locks")).expect("a directory");
    assert_held_by_peer(&world, "/peer", world.command("flock").args([path]).args(hold()));
}

#[test]
fn twelve_contenders_run_one_after_another() {
    everywhere(|world| {
        let (name, ledger) = (world.name("contended"), Ledger::new(world));
        let command = ledger.command(millis(30));
        let contenders: Vec<_> = (0..12).map(|_| world.distlock().args([&name]).args(&command).spawn()).collect();
        for contender in contenders {
            contender.wait().assert_code(0);
        }
        ledger.assert_exclusive(12);
    });
}
