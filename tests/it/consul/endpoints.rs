//! Endpoints: a host's agent, the servers behind it, and connections.

use crate::loss::{Lease, await_held, locked};
use crate::world::{Holder, Proxy, Server, World, consul, enqueue, poll_until, secs, shared, throughout};

#[test]
fn paused_agent_is_bypassed_through_its_servers() {
    let servers = consul::cluster(1, 1);
    let agent = consul::agent(&[&servers[0]]);
    let world = World::at("consul", &format!("{},{}", agent.url(), servers[0].url()));
    let name = world.name("jobs/backup");
    let lease = Lease { ttl: secs(10), grace: secs(1) };
    let job =
        locked(&world, lease, &name).args(["sh", "-c", "echo ready; until [ -e done ]; do sleep 0.1; done"]).spawn();
    crate::loss::await_ready(&job);
    let session = await_held(&servers[0], &name).lease;
    agent.pause();
    // Consul may keep a session for twice its TTL without renewals.
    throughout(lease.ttl * 3, || {
        assert_eq!(await_held(&servers[0], &name).lease, session, "the agent's session must stay");
    });
    std::fs::write(world.path().join("done"), "").expect("a file in the world");
    job.wait_within(secs(10)).assert_code(0);
    assert_eq!(servers[0].entries(&name).len(), 0);
}

/// Returns the number of established connections from this host to this port.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of connections");
    let (remote, established) = (format!(":{port:04X}"), "01");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[2].ends_with(&remote) && fields[3] == established).count()
}

#[test]
fn waiter_keeps_one_connection() {
    let consul = shared::consul();
    let (world, proxy) = (World::on(consul), Proxy::to(consul.address()));
    let proxied = World::at("consul", &proxy.url());
    let name = world.name("queue");
    let holder = Holder::of(&world, &name);
    let waiter = enqueue(proxied.distlock(), &name, &["true"]);
    // A renewal opens a second connection while it is in flight.
    poll_until("a renewal", secs(10), || proxy.connections() > 1);
    poll_until("the end of the renewal's connection", secs(4), || connections(proxy.address().port()) == 1);
    holder.release();
    waiter.wait_within(secs(10)).assert_code(0);
}
