//! Tests of the harness with real servers, without the binary under test.

use nix::sys::signal::Signal;

use crate::world::{Consul, Etcd, Ledger, Mode, Proxy, Server, Terminal, Version, World};
use crate::world::{children, consul, etcd, millis, name, poll_for, poll_until, secs, shared, state, wait_gone};

#[test]
fn entries_show_locks_of_the_peers() {
    for server in shared::all() {
        let world = World::new();
        let name = world.name("jobs/nightly backup");
        let job = server.peer_lock(&world, &name, &["sleep".into(), "60".into()]).spawn();
        let held = poll_for("the key of a lock", secs(30), || server.entries(&name).pop());
        let lease = held.lease.expect("a lock is bound to a lease");
        assert!(server.leases().contains(&lease), "{lease} in {:?}", server.leases());
        server.end_lease(&lease);
        poll_until("the release of the key", secs(30), || {
            server.entries(&name).iter().all(|entry| entry.lease.is_none())
        });
        assert!(!server.leases().contains(&lease));
        drop(job);
        poll_until("the exit of the peer's processes", secs(30), || world.processes().is_empty());
    }
}

#[test]
fn peer_locks_pass_the_ledger() {
    for server in shared::all() {
        let world = World::new();
        let (name, ledger) = (world.name("ledger"), Ledger::new(&world));
        let contend = || server.peer_lock(&world, &name, &ledger.command(millis(100))).spawn();
        let contenders: Vec<_> = (0..3).map(|_| contend()).collect();
        for contender in contenders {
            contender.wait().assert_code(0);
        }
        ledger.assert_exclusive(3);
    }
}

#[test]
fn etcd_cluster_elects_another_leader() {
    let members = etcd::cluster(Version::V35, 3);
    let first = etcd::leader(&members);
    members[first].put("/kept", "value");
    members[first].kill();
    let followers: Vec<_> = members.iter().enumerate().filter(|&(n, _)| n != first).map(|(_, member)| member).collect();
    poll_until("another leader", secs(30), || followers.iter().any(|member| member.is_leader()));
    members[first].restart();
    assert_eq!(members[first].entries("/kept")[0].value, "value");
}

#[test]
fn consul_cluster_elects_another_leader() {
    let servers = consul::cluster(3, 1);
    let first = consul::leader(&servers);
    servers[first].put("kept", 0, "value");
    servers[first].pause();
    poll_until("another leader", secs(60), || (0..3).any(|n| n != first && servers[n].is_leader()));
    servers[first].resume();
    servers[first].restart();
    assert_eq!(servers[first].entries("kept")[0].value, "value");
}

#[test]
fn restarted_servers_keep_their_ports() {
    let etcd = Etcd::start(Version::V34);
    etcd.put("/kept", "value");
    etcd.restart();
    assert_eq!(etcd.entries("/kept")[0].value, "value");
    let consul = Consul::start();
    consul.restart();
    assert_eq!(consul.entries("kept").len(), 0);
}

#[test]
fn proxy_forwards_and_swallows() {
    let server = shared::etcd35();
    let proxy = Proxy::to(server.address());
    let world = World::new();
    let get = || {
        let args = ["--command-timeout=1s", "--dial-timeout=1s", "get", "/none"];
        server.etcdctl(&world, &proxy.url()).args(args).run()
    };
    get().assert_code(0);
    assert!(proxy.connections() > 0 && proxy.bytes().1 > 0);
    proxy.set(Mode::Swallow);
    assert_ne!(get().code(), Some(0));
    proxy.set(Mode::Pass);
    get().assert_code(0);
}

#[test]
fn terminal_has_job_control() {
    let world = World::new();
    let mut terminal = Terminal::open(&world);
    terminal.line("sleep 100");
    let job = poll_for("the job", secs(30), || {
        // Before the exec, the child has the name of the shell.
        children(terminal.pid()).into_iter().find(|&child| name(child) == "sleep")
    });
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.prompt();
    assert_eq!(state(job), Some('T'));
    terminal.line("fg");
    poll_until("the job to continue", secs(30), || state(job) == Some('S'));
    terminal.send("\x03");
    terminal.prompt();
    terminal.line("echo status $?");
    terminal.expect("status 130");
}

#[test]
fn dropped_world_kills_leftover_processes() {
    let world = World::new();
    let daemon = world.command("sh").args(["-c", "setsid -f sleep 100; kill -KILL $$"]).run();
    let daemon = daemon.assert_signal(Signal::SIGKILL);
    assert_eq!(daemon.stdout, "");
    let left = world.processes();
    assert_eq!(left.len(), 1);
    drop(world);
    wait_gone(left[0], secs(30));
}
