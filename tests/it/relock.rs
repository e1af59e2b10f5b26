//! `--on-lost relock` and `--on-lost restart`: the ways back to a lock that was lost, or seemed to be.

use std::fs;
use std::thread;
use std::time::Duration;

use distlock_core::time::Instant;
use serde_json::Value;

use crate::loss::{Lease, READY, await_held, await_nothing_left, await_ready, locked, on_each};
use crate::world::{
    Ledger, Mode, Proxy, Run, Running, Server, World, millis, moment, once_in, poll_until, secs, within,
};

/// Writes down that it runs, again and again, until it is told to end.
const PULSE: &str = r#"
until [ -e done ]; do read -r now idle </proc/uptime; echo "$now" >>pulse; sleep 0.02; done
"#;

/// A job that is to come back, and that reports each step as JSON.
fn returning(world: &World, lease: Lease, way: &str, name: &str) -> Run {
    let options = ["-v", "--log-format", "json", "--on-lost", way];
    world.distlock().args(options).args(lease.options()).args([name])
}

/// The steps that were reported so far.
fn events(job: &str) -> Vec<Value> {
    job.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn event(stderr: &str, name: &str) -> Option<Value> {
    events(stderr).into_iter().find(|event| event["event"] == name)
}

#[track_caller]
fn await_event(job: &Running, name: &str, bound: Duration) -> Value {
    poll_until(&format!("{name} in the reports"), bound, || event(&job.stderr(), name).is_some());
    event(&job.stderr(), name).expect("seen before")
}

/// Panics unless these steps came in this order; others may lie between.
#[track_caller]
fn assert_steps(stderr: &str, steps: &[&str]) {
    let events = events(stderr);
    let mut names = events.iter().filter_map(|event| event["event"].as_str());
    for step in steps {
        assert!(names.any(|name| name == *step), "no {step}, or not in the order {steps:?}: {stderr}");
    }
}

/// The last sign of life before a moment.
#[track_caller]
fn last_beat(world: &World, before: Instant) -> Instant {
    let pulse = fs::read_to_string(world.path().join("pulse")).expect("a pulse");
    pulse.lines().map(moment).filter(|beat| *beat <= before).max().expect("a beat")
}

/// Waits until the command is reported to be frozen; returns when that was seen.
#[track_caller]
fn await_frozen(job: &Running, bound: Duration) -> Instant {
    await_event(job, "frozen", bound);
    distlock::now()
}

/// Panics unless the command was frozen at its soft deadline, after which the freezing itself may take a part of the
/// grace, and stood still from then on until the servers were there again.
#[track_caller]
fn assert_stood_still(world: &World, lease: Lease, cut: Instant, frozen: Instant, back: Instant) {
    assert!(back > frozen + secs(1), "there was time to run in");
    let (last, soft) = (last_beat(world, back), cut + lease.soft());
    assert!(last <= soft + lease.grace / 2, "it ran {:?} after its soft deadline", last.since(soft));
    assert!(last <= frozen, "it ran {:?} after it was frozen", last.since(frozen));
}

/// Lets the command of [`PULSE`] end.
fn let_end(world: &World) {
    fs::write(world.path().join("done"), "").expect("a file in the world");
}

#[test]
fn relock_freezes_while_uncertain_and_thaws_if_not_lost() {
    thread::scope(|scope| {
        for mode in [Mode::Cut, Mode::Swallow] {
            scope.spawn(move || on_each(|server| frozen_for_a_while(server, &[Proxy::to(server.address())], mode)));
        }
    });
}

/// The servers, one of which is asked here, are reached through these proxies only.
fn world_behind(server: &dyn Server, proxies: &[Proxy]) -> World {
    World::at(server.backend(), &proxies.iter().map(Proxy::url).collect::<Vec<_>>().join(","))
}

fn set_all(proxies: &[Proxy], mode: Mode) {
    for proxy in proxies {
        proxy.set(mode);
    }
}

pub(crate) fn frozen_for_a_while(server: &dyn Server, proxies: &[Proxy], mode: Mode) {
    // The grace, which is not needed to freeze, leaves time between the soft deadline and the end of the lease.
    let lease = Lease { ttl: secs(20), grace: secs(10) };
    let world = world_behind(server, proxies);
    let name = world.name("jobs/backup");
    let job = returning(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
    world.wait_for_file("pulse");
    let held = await_held(server, &name);

    set_all(proxies, mode);
    let cut = distlock::now();
    let frozen = await_frozen(&job, lease.ttl);
    let back = frozen + secs(2);
    poll_until("a moment between the soft deadline and the end of the lease", secs(30), || distlock::now() >= back);
    set_all(proxies, Mode::Pass);
    await_event(&job, "thawed", lease.ttl);
    assert_eq!(await_held(server, &name).lease, held.lease);
    let_end(&world);

    let job = job.wait().assert_code(0);
    assert_steps(&job.stderr, &["acquired", "started", "uncertain", "frozen", "thawed"]);
    assert_eq!(event(&job.stderr, "re-locked"), None);
    assert_stood_still(&world, lease, cut, frozen, back);
    await_nothing_left(server, &name, &[held.lease.expect("a lease")], secs(30));
}

#[test]
fn relock_acquires_again_if_no_other_client_held() {
    on_each(|server| {
        let lease = Lease::SHORT;
        let proxy = Proxy::to(server.address());
        let world = World::at(server.backend(), &proxy.url());
        let name = world.name("jobs/backup");
        let job = returning(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
        world.wait_for_file("pulse");
        let held = await_held(server, &name).lease.expect("a lease");

        proxy.set(Mode::Freeze);
        let cut = distlock::now();
        let frozen = await_frozen(&job, lease.ttl * 2);
        poll_until("the end of the lease", lease.ttl * 3, || !server.leases().contains(&held));
        let back = distlock::now();
        proxy.set(Mode::Pass);
        // On Consul the lock-delay has to pass, which is as long as the TTL.
        let again = await_event(&job, "re-locked", lease.ttl + secs(60));
        await_event(&job, "thawed", secs(30));
        let_end(&world);

        let job = job.wait().assert_code(0);
        assert_steps(&job.stderr, &["uncertain", "frozen", "re-locked", "thawed"]);
        let first = event(&job.stderr, "acquired").expect("a token");
        assert!(again["token"].as_u64() > first["token"].as_u64(), "{again} after {first}");
        assert_stood_still(&world, lease, cut, frozen, back);
        await_nothing_left(server, &name, &[held], secs(30));
    });
}

#[test]
fn relock_acquires_again_after_a_revoked_lease() {
    on_each(|server| {
        let world = World::on(server);
        let lease = Lease { ttl: secs(10), grace: secs(1) };
        let name = world.name("jobs/backup");
        let job = returning(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
        world.wait_for_file("pulse");
        let held = await_held(server, &name).lease.expect("a lease");
        server.end_lease(&held);
        await_event(&job, "re-locked", lease.ttl + secs(60));
        await_event(&job, "thawed", secs(30));
        let_end(&world);
        let job = job.wait().assert_code(0);
        assert_steps(&job.stderr, &["frozen", "re-locked", "thawed"]);
    });
}

#[test]
fn relock_stops_the_command_within_1s_of_a_known_loss() {
    on_each(|server| once_in(3, || stopped(server)));
}

/// Another one stands behind it, so that it cannot go on at once where there is no lock-delay.
fn stopped(server: &dyn Server) -> Result<(), String> {
    let world = World::on(server);
    // Its first renewal is due seconds later; on Consul its TTL is the lock-delay too.
    let lease = Lease { ttl: secs(15), grace: secs(5) };
    let name = world.name("jobs/backup");
    let job = returning(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
    world.wait_for_file("pulse");
    let held = await_held(server, &name).lease.expect("a lease");
    let next = locked(&world, Lease { ttl: secs(10), grace: secs(1) }, &name).args(["sleep", "300"]).spawn();
    poll_until("the next contender", secs(30), || server.contenders(&name) == 2);
    let ended = distlock::now();
    server.end_lease(&held);
    job.wait_within(secs(120)).assert_code(76);
    drop(next);
    within("the last sign of life", last_beat(&world, distlock::now()).since(ended), secs(1))
}

#[test]
fn relock_kills_the_command_if_another_client_held() {
    // The other one holds it still, or gave it back already, when the servers are reached again.
    thread::scope(|scope| {
        for still_held in [true, false] {
            scope.spawn(move || on_each(|server| overtaken(server, still_held)));
        }
    });
}

fn overtaken(server: &dyn Server, still_held: bool) {
    let lease = Lease::SHORT;
    let proxy = Proxy::to(server.address());
    let (world, direct) = (World::at(server.backend(), &proxy.url()), World::on(server));
    let (name, ledger) = (world.name("jobs/backup"), Ledger::new(&world));
    let job = returning(&world, lease, "relock", &name).args(ledger.command(secs(300))).spawn();
    poll_until("the command", secs(30), || ledger.holds().len() == 1);
    let held = await_held(server, &name).lease.expect("a lease");
    let length = if still_held { secs(6) } else { millis(200) };
    let next = locked(&direct, lease, &name).args(ledger.command(length)).spawn();
    poll_until("the next contender", secs(30), || server.contenders(&name) == 2);

    proxy.set(Mode::Freeze);
    // On Consul a session lives for up to two TTLs, and then comes the lock-delay.
    let next = if still_held {
        poll_until("the next holder", lease.ttl * 4, || ledger.holds().len() == 2);
        proxy.set(Mode::Pass);
        next
    } else {
        let next = next.wait_within(lease.ttl * 5).assert_code(0);
        assert_eq!(ledger.holds().len(), 2, "{}", next.describe());
        proxy.set(Mode::Pass);
        locked(&direct, lease, &name).args(["true"]).spawn()
    };
    let job = job.wait().assert_code(76);
    assert_steps(&job.stderr, &["uncertain", "frozen", "failed"]);
    for never in ["re-locked", "thawed"] {
        assert_eq!(event(&job.stderr, never), None, "{}", job.describe());
    }
    let causes = event(&job.stderr, "failed").expect("seen before")["causes"].to_string();
    assert!(causes.contains("another client"), "{}", job.describe());
    next.wait_within(lease.ttl * 4).assert_code(0);
    ledger.assert_exclusive(2);
    await_nothing_left(server, &name, &[held], lease.ttl * 3);
}

/// A Consul whose lock-delay is short, so that many losses take little time; etcd has none.
fn short_delay(world: &World) -> [String; 2] {
    let file = world.path().join("config.toml");
    fs::write(&file, "[consul]\nlock_delay = \"4s\"\n").expect("a file in the world");
    ["--config".into(), file.display().to_string()]
}

/// Ends well in the fourth run, and never in those before.
const FOURTH: &str = r#"
echo "$DISTLOCK_FENCING_TOKEN" >>tokens
[ "$(wc -l <tokens)" -lt 4 ] || exit 0
sleep 300
"#;

fn tokens(world: &World) -> Vec<u64> {
    let tokens = fs::read_to_string(world.path().join("tokens")).unwrap_or_default();
    tokens.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Waits for the run of this number, and ends its lease.
#[track_caller]
fn end_run(server: &dyn Server, world: &World, name: &str, number: usize) -> String {
    poll_until(&format!("run {number}"), secs(40), || tokens(world).len() == number);
    let held = await_held(server, name).lease.expect("a lease");
    server.end_lease(&held);
    held
}

#[test]
fn restart_runs_again_with_a_greater_token_after_each_loss() {
    on_each(|server| {
        let world = World::on(server);
        let name = world.name("jobs/backup");
        let lease = Lease { ttl: secs(10), grace: secs(1) };
        let restart = ["--on-lost", "restart"];
        let options = [lease.options().to_vec(), short_delay(&world).to_vec()].concat();
        let job = world.distlock().args(options).args(restart).args([&*name, "sh", "-c", FOURTH]).spawn();
        let ended: Vec<_> = (1..=3).map(|number| end_run(server, &world, &name, number)).collect();
        let job = job.wait_within(secs(40)).assert_code(0);
        let tokens = tokens(&world);
        assert_eq!(tokens.len(), 4, "{tokens:?}");
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
        assert_eq!(job.stderr.matches("acquiring the lock again").count(), 3, "{}", job.describe());
        await_nothing_left(server, &name, &ended, secs(30));
    });
}

#[test]
fn restarts_limits_how_often_the_command_runs_again() {
    on_each(|server| {
        let world = World::on(server);
        let name = world.name("jobs/backup");
        let lease = Lease { ttl: secs(10), grace: secs(1) };
        let restart = ["--on-lost", "restart", "--restarts", "2"];
        let options = [lease.options().to_vec(), short_delay(&world).to_vec()].concat();
        let job = world.distlock().args(options).args(restart).args([&*name, "sh", "-c", FOURTH]).spawn();
        let ended: Vec<_> = (1..=3).map(|number| end_run(server, &world, &name, number)).collect();
        // A loss that is known ends it long before the lease would.
        let job = job.wait_within(secs(5)).assert_code(76);
        assert!(job.stderr.contains("was lost and the command killed"), "{}", job.describe());
        assert_eq!(tokens(&world).len(), 3);
        await_nothing_left(server, &name, &ended, secs(30));
    });
}

#[test]
fn restart_recovers_after_a_network_outage() {
    on_each(|server| comes_back(server, &[Proxy::to(server.address())]));
}

pub(crate) fn comes_back(server: &dyn Server, proxies: &[Proxy]) {
    let lease = Lease::SHORT;
    let world = world_behind(server, proxies);
    let (name, ledger) = (world.name("jobs/backup"), Ledger::new(&world));
    let job = returning(&world, lease, "restart", &name).args(ledger.command(secs(12))).spawn();
    poll_until("the command", secs(30), || ledger.holds().len() == 1);
    set_all(proxies, Mode::Freeze);
    await_event(&job, "restarting", lease.ttl + secs(30));
    assert_eq!(world.processes().len(), 2, "only distlock's own two are left");
    set_all(proxies, Mode::Pass);
    let job = job.wait_within(lease.ttl * 4 + secs(60)).assert_code(0);
    assert_steps(&job.stderr, &["acquired", "restarting", "acquired", "started"]);
    ledger.assert_exclusive(2);
    assert_eq!(server.entries(&name).len(), 0);
}

#[test]
fn restart_of_a_taken_lock_obeys_the_wait_limit() {
    on_each(|server| {
        let world = World::on(server);
        let name = world.name("jobs/backup");
        let lease = Lease { ttl: secs(10), grace: secs(1) };
        let job = returning(&world, lease, "restart", &name);
        // The options stand before the name, so they are given by their variables.
        let job = job.env("DISTLOCK_WAIT", "3s").env("DISTLOCK_BUSY_EXIT", "0").args(["sh", "-c", READY]).spawn();
        await_ready(&job);
        let held = await_held(server, &name);
        let next = locked(&world, lease, &name).args(["sleep", "300"]).spawn();
        poll_until("the next contender", secs(30), || server.contenders(&name) == 2);
        server.end_lease(&held.lease.expect("a lease"));
        let job = job.wait().assert_code(76);
        assert!(job.stderr.contains("not acquired again"), "{}", job.describe());
        drop(next);
    });
}

#[test]
fn abandoned_lease_is_revoked_within_1s_of_reconnecting() {
    thread::scope(|scope| {
        for mode in [Mode::Cut, Mode::Freeze] {
            scope.spawn(move || on_each(|server| once_in(3, || gone_at_the_return(server, mode))));
        }
    });
}

fn gone_at_the_return(server: &dyn Server, mode: Mode) -> Result<(), String> {
    // The command ends at the soft signal, long before its lease would end by itself.
    let lease = Lease { ttl: secs(20), grace: secs(13) };
    let proxy = Proxy::to(server.address());
    let world = World::at(server.backend(), &proxy.url());
    let name = world.name("jobs/backup");
    let job = locked(&world, lease, &name).args(["sh", "-c", READY]).spawn();
    await_ready(&job);
    let held = await_held(server, &name).lease.expect("a lease");
    proxy.set(mode);
    job.wait_within(lease.ttl).assert_code(76);
    assert!(server.leases().contains(&held), "it ended by itself");
    let lingers = world.processes().pop().expect("the keeper that stays");
    proxy.set(Mode::Pass);
    let back = distlock::now();
    await_nothing_left(server, &name, &[held], lease.ttl * 3);
    let took = distlock::now().since(back);
    crate::world::wait_gone(lingers, secs(30));
    // The promise is a second.
    within("the end of the lease", took, secs(1))
}
