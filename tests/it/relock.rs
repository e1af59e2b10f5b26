//! `--on-lost relock` and `--on-lost restart`: recovery of a lock that was lost, or is uncertain.

use std::fs;
use std::thread;
use std::time::Duration;

use distlock_core::time::Instant;
use serde_json::Value;

use crate::loss::{Lease, READY, await_held, await_nothing_left, await_ready, locked, on_each};
use crate::world::{
    Ledger, Mode, Proxy, Run, Running, Server, World, millis, moment, once_in, poll_until, secs, wait_gone, within,
};

/// A command that appends the time to `pulse` again and again, until the file `done` exists.
const PULSE: &str = r#"
until [ -e done ]; do read -r now idle </proc/uptime; echo "$now" >>pulse; sleep 0.02; done
"#;

/// Returns a command line with this `--on-lost` and JSON events, which lacks only the command.
fn recovering(world: &World, lease: Lease, on_lost: &str, name: &str) -> Run {
    let options = ["-v", "--log-format", "json", "--on-lost", on_lost];
    world.distlock().args(options).args(lease.options()).args([name])
}

/// Parses the JSON events in this output.
fn parse_events(stderr: &str) -> Vec<Value> {
    stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn event(stderr: &str, name: &str) -> Option<Value> {
    parse_events(stderr).into_iter().find(|event| event["event"] == name)
}

#[track_caller]
fn await_event(job: &Running, name: &str, bound: Duration) -> Value {
    poll_until(&format!("the event {name}"), bound, || event(&job.stderr(), name).is_some());
    event(&job.stderr(), name).expect("the event")
}

/// Panics unless these events were printed in this order; others may lie between.
#[track_caller]
fn assert_events(stderr: &str, expected: &[&str]) {
    let events = parse_events(stderr);
    let mut names = events.iter().filter_map(|event| event["event"].as_str());
    for next in expected {
        assert!(names.any(|name| name == *next), "no {next}, or not in the order {expected:?}: {stderr}");
    }
}

/// Returns the last pulse of the command before a time.
#[track_caller]
fn last_pulse(world: &World, before: Instant) -> Instant {
    let pulses = fs::read_to_string(world.path().join("pulse")).expect("pulses");
    pulses.lines().map(moment).filter(|pulse| *pulse <= before).max().expect("a pulse")
}

/// Waits for the event `frozen`; returns when it was seen.
#[track_caller]
fn await_frozen(job: &Running, bound: Duration) -> Instant {
    await_event(job, "frozen", bound);
    distlock::now()
}

/// Panics unless the command was frozen at the soft deadline and until the connection was back. Freezing may take half
/// of the grace.
#[track_caller]
fn assert_stayed_frozen(world: &World, lease: Lease, cut_at: Instant, frozen_at: Instant, back_at: Instant) {
    assert!(back_at > frozen_at + secs(1), "the command must be frozen for a second or more");
    let (last, soft) = (last_pulse(world, back_at), cut_at + lease.soft());
    assert!(last <= soft + lease.grace / 2, "the command ran {:?} after its soft deadline", last.since(soft));
    assert!(last <= frozen_at, "the command ran {:?} after it was frozen", last.since(frozen_at));
}

/// Makes the command of [`PULSE`] exit.
fn end_pulse(world: &World) {
    fs::write(world.path().join("done"), "").expect("a file in the world");
}

#[test]
fn relock_freezes_while_uncertain_and_thaws_if_not_lost() {
    thread::scope(|scope| {
        for mode in [Mode::Cut, Mode::Swallow] {
            scope.spawn(move || on_each(|server| freeze_and_thaw(server, &[Proxy::to(server.address())], mode)));
        }
    });
}

/// Creates a world that reaches the servers through these proxies only.
fn world_behind(server: &dyn Server, proxies: &[Proxy]) -> World {
    World::at(server.backend(), &proxies.iter().map(Proxy::url).collect::<Vec<_>>().join(","))
}

fn set_all(proxies: &[Proxy], mode: Mode) {
    for proxy in proxies {
        proxy.set(mode);
    }
}

/// Cuts the network until between the soft deadline and the lease's expiry; `--on-lost relock` must freeze and thaw.
pub(crate) fn freeze_and_thaw(server: &dyn Server, proxies: &[Proxy], mode: Mode) {
    // Freezing needs no grace, so the grace leaves time between the soft deadline and the lease's expiry.
    let lease = Lease { ttl: secs(20), grace: secs(10) };
    let world = world_behind(server, proxies);
    let name = world.name("jobs/backup");
    let job = recovering(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
    world.wait_for_file("pulse");
    let held = await_held(server, &name);

    set_all(proxies, mode);
    let cut_at = distlock::now();
    let frozen_at = await_frozen(&job, lease.ttl);
    let back_at = frozen_at + secs(2);
    poll_until("a time between the soft deadline and the lease's expiry", secs(30), || distlock::now() >= back_at);
    set_all(proxies, Mode::Pass);
    await_event(&job, "thawed", lease.ttl);
    assert_eq!(await_held(server, &name).lease, held.lease);
    end_pulse(&world);

    let job = job.wait().assert_code(0);
    assert_events(&job.stderr, &["acquired", "started", "uncertain", "frozen", "thawed"]);
    assert_eq!(event(&job.stderr, "re-locked"), None);
    assert_stayed_frozen(&world, lease, cut_at, frozen_at, back_at);
    await_nothing_left(server, &name, &[held.lease.expect("a lease")], secs(30));
}

#[test]
fn relock_acquires_again_if_no_other_client_held() {
    on_each(|server| {
        let lease = Lease::SHORT;
        let proxy = Proxy::to(server.address());
        let world = World::at(server.backend(), &proxy.url());
        let name = world.name("jobs/backup");
        let job = recovering(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
        world.wait_for_file("pulse");
        let held = await_held(server, &name).lease.expect("a lease");

        proxy.set(Mode::Freeze);
        let cut_at = distlock::now();
        let frozen_at = await_frozen(&job, lease.ttl * 2);
        poll_until("the expiry of the lease", lease.ttl * 3, || !server.leases().contains(&held));
        let back_at = distlock::now();
        proxy.set(Mode::Pass);
        // On Consul the lock-delay, which equals the TTL, must pass first.
        let again = await_event(&job, "re-locked", lease.ttl + secs(60));
        await_event(&job, "thawed", secs(30));
        end_pulse(&world);

        let job = job.wait().assert_code(0);
        assert_events(&job.stderr, &["uncertain", "frozen", "re-locked", "thawed"]);
        let first = event(&job.stderr, "acquired").expect("a token");
        assert!(again["token"].as_u64() > first["token"].as_u64(), "{again} after {first}");
        assert_stayed_frozen(&world, lease, cut_at, frozen_at, back_at);
        await_nothing_left(server, &name, &[held], secs(30));
    });
}

#[test]
fn relock_acquires_again_after_a_revoked_lease() {
    on_each(|server| {
        let world = World::on(server);
        let lease = Lease { ttl: secs(10), grace: secs(1) };
        let name = world.name("jobs/backup");
        let job = recovering(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
        world.wait_for_file("pulse");
        let held = await_held(server, &name).lease.expect("a lease");
        server.end_lease(&held);
        await_event(&job, "re-locked", lease.ttl + secs(60));
        await_event(&job, "thawed", secs(30));
        end_pulse(&world);
        let job = job.wait().assert_code(0);
        assert_events(&job.stderr, &["frozen", "re-locked", "thawed"]);
    });
}

#[test]
fn relock_stops_the_command_within_1s_of_a_known_loss() {
    on_each(|server| once_in(3, || stop_after_revocation(server)));
}

/// Revokes the lease of a job that has a waiter behind it, so that the job cannot acquire the lock again at once.
fn stop_after_revocation(server: &dyn Server) -> Result<(), String> {
    let world = World::on(server);
    // The first renewal is due seconds later. On Consul the TTL is also the lock-delay.
    let lease = Lease { ttl: secs(15), grace: secs(5) };
    let name = world.name("jobs/backup");
    let job = recovering(&world, lease, "relock", &name).args(["sh", "-c", PULSE]).spawn();
    world.wait_for_file("pulse");
    let held = await_held(server, &name).lease.expect("a lease");
    let next = locked(&world, Lease { ttl: secs(10), grace: secs(1) }, &name).args(["sleep", "300"]).spawn();
    poll_until("the next contender", secs(30), || server.contenders(&name) == 2);
    let revoked_at = distlock::now();
    server.end_lease(&held);
    job.wait_within(secs(120)).assert_code(76);
    drop(next);
    within("the stop of the command", last_pulse(&world, distlock::now()).since(revoked_at), secs(1))
}

#[test]
fn relock_kills_the_command_if_another_client_held() {
    // The other client still holds the lock, or has released it, when the servers are reachable again.
    thread::scope(|scope| {
        for still_held in [true, false] {
            scope.spawn(move || on_each(|server| lose_to_another_client(server, still_held)));
        }
    });
}

fn lose_to_another_client(server: &dyn Server, still_held: bool) {
    let lease = Lease::SHORT;
    let proxy = Proxy::to(server.address());
    let (world, direct) = (World::at(server.backend(), &proxy.url()), World::on(server));
    let (name, ledger) = (world.name("jobs/backup"), Ledger::new(&world));
    let job = recovering(&world, lease, "relock", &name).args(ledger.command(secs(300))).spawn();
    poll_until("the command", secs(30), || ledger.holds().len() == 1);
    let held = await_held(server, &name).lease.expect("a lease");
    let hold_time = if still_held { secs(6) } else { millis(200) };
    let next = locked(&direct, lease, &name).args(ledger.command(hold_time)).spawn();
    poll_until("the next contender", secs(30), || server.contenders(&name) == 2);

    proxy.set(Mode::Freeze);
    // On Consul a session expires after up to two TTLs, and then the lock-delay passes.
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
    assert_events(&job.stderr, &["uncertain", "frozen", "failed"]);
    for never in ["re-locked", "thawed"] {
        assert_eq!(event(&job.stderr, never), None, "{}", job.describe());
    }
    let causes = event(&job.stderr, "failed").expect("the event")["causes"].to_string();
    assert!(causes.contains("another client"), "{}", job.describe());
    next.wait_within(lease.ttl * 4).assert_code(0);
    ledger.assert_exclusive(2);
    await_nothing_left(server, &name, &[held], lease.ttl * 3);
}

/// Returns options that shorten Consul's lock-delay, so that several losses take little time. etcd has none.
fn short_delay(world: &World) -> [String; 2] {
    let file = world.path().join("config.toml");
    fs::write(&file, "[consul]\nlock_delay = \"4s\"\n").expect("a file in the world");
    ["--config".into(), file.display().to_string()]
}

/// A command that records its fencing token, and exits by itself in its fourth run only.
const FOURTH: &str = r#"
echo "$DISTLOCK_FENCING_TOKEN" >>tokens
[ "$(wc -l <tokens)" -lt 4 ] || exit 0
sleep 300
"#;

fn tokens(world: &World) -> Vec<u64> {
    let tokens = fs::read_to_string(world.path().join("tokens")).unwrap_or_default();
    tokens.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Waits for the run with this number, and revokes its lease; returns the lease.
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
        // After a revocation the job exits long before the lease would expire.
        let job = job.wait_within(secs(5)).assert_code(76);
        assert!(job.stderr.contains("was lost and the command killed"), "{}", job.describe());
        assert_eq!(tokens(&world).len(), 3);
        await_nothing_left(server, &name, &ended, secs(30));
    });
}

#[test]
fn restart_recovers_after_a_network_outage() {
    on_each(|server| restart_after_outage(server, &[Proxy::to(server.address())]));
}

/// Cuts the network until the command is killed; `--on-lost restart` must run the command again.
pub(crate) fn restart_after_outage(server: &dyn Server, proxies: &[Proxy]) {
    let lease = Lease::SHORT;
    let world = world_behind(server, proxies);
    let (name, ledger) = (world.name("jobs/backup"), Ledger::new(&world));
    let job = recovering(&world, lease, "restart", &name).args(ledger.command(secs(12))).spawn();
    poll_until("the command", secs(30), || ledger.holds().len() == 1);
    set_all(proxies, Mode::Freeze);
    await_event(&job, "restarting", lease.ttl + secs(30));
    assert_eq!(world.processes().len(), 2, "only the supervisor and the keeper must be left");
    set_all(proxies, Mode::Pass);
    let job = job.wait_within(lease.ttl * 4 + secs(60)).assert_code(0);
    assert_events(&job.stderr, &["acquired", "restarting", "acquired", "started"]);
    ledger.assert_exclusive(2);
    assert_eq!(server.entries(&name).len(), 0);
}

#[test]
fn restart_of_a_taken_lock_obeys_the_wait_limit() {
    on_each(|server| {
        let world = World::on(server);
        let name = world.name("jobs/backup");
        let lease = Lease { ttl: secs(10), grace: secs(1) };
        let job = recovering(&world, lease, "restart", &name);
        // The command line already has its NAME, so further options are set by variables.
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
            scope.spawn(move || on_each(|server| once_in(3, || revoke_after_reconnecting(server, mode))));
        }
    });
}

fn revoke_after_reconnecting(server: &dyn Server, mode: Mode) -> Result<(), String> {
    // The command exits at the soft signal, long before the lease expires.
    let lease = Lease { ttl: secs(20), grace: secs(13) };
    let proxy = Proxy::to(server.address());
    let world = World::at(server.backend(), &proxy.url());
    let name = world.name("jobs/backup");
    let job = locked(&world, lease, &name).args(["sh", "-c", READY]).spawn();
    await_ready(&job);
    let held = await_held(server, &name).lease.expect("a lease");
    proxy.set(mode);
    job.wait_within(lease.ttl).assert_code(76);
    assert!(server.leases().contains(&held), "the lease must not have expired yet");
    let keeper = world.processes().pop().expect("a keeper that still runs");
    proxy.set(Mode::Pass);
    let back_at = distlock::now();
    await_nothing_left(server, &name, &[held], lease.ttl * 3);
    let took = distlock::now().since(back_at);
    wait_gone(keeper, secs(30));
    within("the revocation of the lease", took, secs(1))
}
