//! The command never outlives the lock, whoever of the two processes is killed or stopped.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use distlock_core::time::Instant;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::loss::{await_held, await_ready};
use crate::world::{
    AllProcessors, Gate, Ledger, Mode, Proxy, Running, Server, World, children, millis, moment, name, once_in,
    poll_for, poll_until, secs, shared, start, throughout, within,
};

/// The least TTL that Consul grants, on etcd too: with this grace it leaves five seconds for a renewal that comes late
/// because the processors are taken.
const TTL: Duration = secs(10);
const LEASE: [&str; 4] = ["-t", "10", "--grace", "1"];

/// Runs a test that takes some TTLs on all servers at the same time.
fn on_each(test: impl Fn(&'static dyn Server) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for server in shared::all() {
            scope.spawn(move || test(server));
        }
    });
}

/// A command that ignores what it can ignore, with a daemon below it that has its own session, no
/// descriptors and no environment, and processes that fork twice and exit all the time.
fn stubborn(world: &World) -> String {
    world.script("storm", r#"( "$0" & )"#);
    let text = r#"
trap "" HUP INT QUIT USR1 USR2 ALRM TERM TSTP TTIN TTOU
setsid -f env -i sh -c "exec sleep 1000 <&- >&- 2>&-"
./storm
./storm
echo ready >ready
while :; do sleep 1000; done"#;
    world.script("stubborn", text)
}

/// A stubborn command that holds a lock, and a contender in another world that waits for it.
struct Scene {
    server: &'static dyn Server,
    name: String,
    world: World,
    holder: Running,
    keeper: Pid,
    waiting: (World, Running),
}

impl Scene {
    fn set(server: &'static dyn Server) -> Self {
        let world = World::on(server);
        let name = world.name("stubborn");
        let holder = world.distlock().args(LEASE).args([&name, &stubborn(&world)]).spawn();
        let keeper = holder.keeper();
        world.wait_for_file("ready");
        let elsewhere = World::on(server);
        let tell = r#"read -r now idle </proc/uptime; echo "$now""#;
        let waiting = elsewhere.distlock().args([&name, "--", "sh", "-c", tell]).spawn();
        poll_until("two contenders", secs(30), || server.contenders(&name) == 2);
        Self { server, name, world, holder, keeper, waiting: (elsewhere, waiting) }
    }

    /// Whether the tree was gone half a second after `hit`, and the contender had the lock within a second.
    fn cleared(self, hit: Instant) -> Result<(World, Running), String> {
        gone(&self.world, &[self.holder.pid()], hit, millis(500))?;
        let contender = self.waiting.1.wait().assert_code(0);
        assert_eq!(self.server.contenders(&self.name), 0);
        // The bound of the promise: at once, and not when the lease has run out.
        let waited = moment(&contender.stdout).since(hit);
        within(&format!("{}: the way to the contender", self.server.backend()), waited, secs(1))?;
        Ok((self.world, self.holder))
    }
}

/// Sets scenes on each server, and strikes in each, until the lock was free as soon as is promised: two storms of
/// processes can keep the rest from running for a while.
fn clears(strike: impl Fn(&Scene) -> Instant, check: impl Fn(Running)) {
    let _storms = AllProcessors::wait();
    for server in shared::all() {
        let (_world, holder) = once_in(3, || {
            let scene = Scene::set(server);
            let hit = strike(&scene);
            scene.cleared(hit)
        });
        check(holder);
    }
}

/// Whether the world's processes, but these, were gone for good so long after `since`.
///
/// One that forks and exits all the time can slip through one look: it takes many in a row.
fn gone(world: &World, spared: &[Pid], since: Instant, bound: Duration) -> Result<(), String> {
    let (mut last, mut looks) = (since, 0);
    while looks < 10 || distlock::now().since(last) < millis(100) {
        // What is seen was there when the look began, and maybe no longer when it ends.
        let look = distlock::now();
        let left: Vec<_> = world.processes().into_iter().filter(|pid| !spared.contains(pid)).collect();
        looks += 1;
        if !left.is_empty() {
            (last, looks) = (look, 0);
            let left: Vec<_> = left.into_iter().map(|pid| format!("{pid} {}", name(pid))).collect();
            within(&format!("the end of {left:?}"), last.since(since), bound)?;
        }
    }
    println!("everything was gone after {:?}", last.since(since));
    Ok(())
}

/// The same where no excuse counts.
#[track_caller]
fn assert_gone(world: &World, spared: &[Pid], since: Instant, bound: Duration) {
    gone(world, spared, since, bound).unwrap_or_else(|failure| panic!("{failure}"));
}

fn hit(pid: Pid, signal: Signal) -> Instant {
    let now = distlock::now();
    kill(pid, signal).expect("the process is there");
    now
}

#[test]
fn killed_supervisor_kills_the_tree_and_frees_the_lock() {
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let check = |holder: Running| drop(holder.wait().assert_signal(signal));
        clears(|scene| hit(scene.holder.pid(), signal), check);
    }
}

#[test]
fn killed_keeper_kills_the_tree_and_frees_the_lock() {
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        clears(
            |scene| hit(scene.keeper, signal),
            |holder| {
                let holder = holder.wait().assert_code(76);
                assert!(holder.stderr.contains("distlock: error: "), "{}", holder.describe());
            },
        );
    }
}

#[test]
fn revoked_lease_kills_a_command_that_ignores_signals() {
    let _storms = AllProcessors::wait();
    for server in shared::all() {
        once_in(3, || {
            let scene = Scene::set(server);
            let key = server.entries(&scene.name).into_iter().min_by_key(|entry| entry.revision);
            let since = distlock::now();
            server.end_lease(&key.and_then(|entry| entry.lease).expect("the holder's lease"));
            // The keeper lives until it has told the server; the tree has K from the news of the loss.
            let outcome = gone(&scene.world, &[scene.holder.pid(), scene.keeper], since, millis(1000));
            scene.holder.wait().assert_code(76);
            outcome
        });
    }
}

/// Runs `fault` on a holder that keeps a ledger and ignores TERM, while another waits; both must have
/// excluded each other, whatever became of the first.
fn exclude(server: &'static dyn Server, endpoint: &str, fault: impl FnOnce(&World, Running, &str)) {
    let world = World::at(server.backend(), endpoint);
    let (name, ledger) = (world.name("fault"), Ledger::new(&world));
    let deaf = [&name, "sh", "-c", r#"trap "" TERM; "$@"; exit"#, "sh"];
    let holder = world.distlock().args(LEASE).args(deaf).args(ledger.command(secs(100))).spawn();
    poll_until("the holder", secs(30), || ledger.holds().len() == 1);
    let elsewhere = World::on(server);
    let contender = elsewhere.distlock().args([&name, "--"]).args(ledger.command(millis(100))).spawn();
    poll_until("two contenders", secs(30), || server.contenders(&name) == 2);
    fault(&world, holder, &name);
    contender.wait().assert_code(0);
    ledger.assert_exclusive(2);
}

#[test]
fn stopped_keeper_and_tree_are_killed_before_lease_expiry() {
    on_each(|server| {
        exclude(server, &server.url(), |world, holder, _| {
            let stopped = hit(holder.keeper(), Signal::SIGSTOP);
            // D counts from the last renewal, which was sent before the stop.
            assert_gone(world, &[holder.pid()], stopped, TTL);
            let holder = holder.wait().assert_code(76);
            assert!(holder.stderr.contains("was lost"), "{}", holder.describe());
        });
    });
}

#[test]
fn keeper_works_while_the_supervisor_is_stopped() {
    on_each(|server| {
        let proxy = Proxy::to(server.address());
        exclude(server, &proxy.url(), |world, holder, name| {
            let keeper = holder.keeper();
            let lease =
                server.entries(name).into_iter().min_by_key(|entry| entry.revision).and_then(|entry| entry.lease);
            hit(holder.pid(), Signal::SIGSTOP);
            throughout(TTL * 3 / 2, || {
                assert!(server.entries(name).iter().any(|entry| entry.lease == lease), "the lock is held");
            });
            proxy.set(Mode::Swallow);
            // D counts from the last renewal that was confirmed, before this moment.
            assert_gone(world, &[holder.pid(), keeper], distlock::now(), TTL);
            holder.signal(Signal::SIGCONT);
            holder.wait().assert_code(76);
        });
    });
}

#[test]
fn supervisor_stopped_longer_than_the_ttl_continues() {
    let server = shared::etcd35();
    let proxy = Proxy::to(server.address());
    let world = World::at("etcd", &proxy.url());
    let (name, gate, ttl) = (world.name("stopped"), Gate::new(&world), secs(5));
    let command = ["-t", "5", &name, "sh", "-c", r#"echo ready; read -r x <"$1"; exit 7"#, "sh"];
    let mut job = world.distlock().args(command).args([gate.path()]).spawn();
    await_ready(&job);
    let held = await_held(server, &name);
    job.signal(Signal::SIGSTOP);
    throughout(ttl + secs(2), || assert_eq!(await_held(server, &name).lease, held.lease));
    job.signal(Signal::SIGCONT);
    // Long enough for the supervisor to run, and for a renewal.
    let before = proxy.bytes();
    throughout(secs(2), || assert!(job.is_running(), "{}", job.stderr()));
    poll_until("a renewal", ttl, || proxy.bytes() != before);
    gate.open();
    job.wait().assert_code(7);
}

#[test]
fn full_stderr_delays_no_deadline() {
    let _storms = AllProcessors::wait();
    on_each(|server| {
        let proxy = Proxy::to(server.address());
        let world = World::at(server.backend(), &proxy.url());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let name = world.name("deaf");
        let verbose = ["-v", "--log-format", "json"];
        let mut command = world.distlock().args(verbose).args(LEASE).args([name, stubborn(&world)]).into_command();
        fill(&format!("/proc/self/fd/{}", writer.as_raw_fd()));
        let mut job = start(command.stderr(writer)).expect("distlock starts");
        drop(command);
        world.wait_for_file("ready");
        let supervisor = Pid::from_raw(job.id().cast_signed());
        let keeper = children(supervisor)[0];
        proxy.set(Mode::Cut);
        // The keeper goes on trying to tell the server.
        assert_gone(&world, &[supervisor, keeper], distlock::now(), TTL);
        poll_until("the end of distlock", secs(30), || job.try_wait().expect("a child").is_some());
        assert_eq!(job.wait().expect("a child").code(), Some(76));
        drop(reader);
    });
}

/// Fills a pipe, without changing how others write to it.
fn fill(pipe: &str) {
    let mut pipe =
        OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(pipe).expect("the pipe opens");
    while pipe.write(b"x").is_ok() {}
}

#[test]
fn output_ends_when_the_command_closes_it() {
    for server in shared::all() {
        let world = World::on(server);
        let name = world.name("streams");
        let closes = ["sh", "-c", "echo out; echo err >&2; exec sleep 1000 >&- 2>&-"];
        let mut command = world.distlock().args([&name]).args(closes).into_command();
        let mut job = start(command.stdout(Stdio::piped())).expect("distlock starts");
        let mut output = String::new();
        job.stdout.take().expect("a pipe was asked for").read_to_string(&mut output).expect("text");
        assert_eq!(output, "out\n");
        assert_eq!(server.contenders(&name), 1, "the lock is still held");
        kill(Pid::from_raw(job.id().cast_signed()), Signal::SIGTERM).expect("distlock runs");
        job.wait().expect("a child can be waited for");
    }
}

#[test]
fn output_ends_while_the_keeper_awaits_lease_expiry() {
    let proxy = Proxy::to(shared::etcd35().address());
    for options in [&[][..], &["--on-lost", "restart", "--restarts", "0"]] {
        let world = World::at("etcd", &proxy.url());
        let name = world.name("lingers");
        // From the end of the command the keeper has more than the grace until the lease has ended by itself.
        let mut command = world
            .distlock()
            .args(["-t", "6", "--grace", "2"])
            .args(options)
            .args([&name, "sleep", "1000"])
            .into_command();
        let mut job = start(command.stderr(Stdio::piped())).expect("distlock starts");
        let pid = Pid::from_raw(job.id().cast_signed());
        let keeper =
            poll_for("the command", secs(30), || children(pid).pop().filter(|keeper| !children(*keeper).is_empty()));
        proxy.set(Mode::Swallow);
        let mut output = String::new();
        job.stderr.take().expect("a pipe was asked for").read_to_string(&mut output).expect("text");
        assert!(output.contains("was lost"), "{output}");
        assert!(world.processes().contains(&keeper), "the keeper still tries to reach the server");
        assert_eq!(job.wait().expect("a child can be waited for").code(), Some(76));
        proxy.set(Mode::Pass);
        poll_until("the keeper's end", secs(30), || world.processes().is_empty());
    }
}

/// How often all threads of a process were woken up.
fn wakes(pid: Pid) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs").flatten();
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let count = |status: String| {
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:\t")?.parse::<u64>().ok())
    };
    status.filter_map(count).sum::<u64>()
}

/// What shows of a job: how often its two processes woke up, and what went over its connections.
type Activity = ((u64, u64), (u64, u64));

/// Watches a job, which is looked at by `look`, for so long: the bursts of activity, and what it came to in all.
fn bursts(look: impl Fn() -> Activity, span: Duration) -> (u64, Activity) {
    let (mut before, began) = (look(), distlock::now());
    let (mut bursts, mut since) = (0, None);
    while distlock::now().since(began) < span {
        thread::sleep(millis(50));
        let now = look();
        if now != before {
            // What belongs to one renewal may fall into several looks, far apart where processors are busy.
            bursts += u64::from(since.is_none_or(|since| distlock::now().since(since) > secs(3)));
            since = Some(distlock::now());
        }
        before = now;
    }
    (bursts, before)
}

/// Asserts that for so long neither process of this job wakes up but when something comes or goes on
/// the network, and that not more often than `renewals` times.
#[track_caller]
fn assert_idle(job: &Running, proxy: &Proxy, span: Duration, renewals: u64) -> String {
    let (supervisor, keeper) = (job.pid(), job.keeper());
    let look = || ((wakes(supervisor), wakes(keeper)), proxy.bytes());
    // What the start brings with it is over.
    poll_until("a second of quiet", secs(30), || bursts(look, secs(1)).0 == 0);
    let (start, (bursts, end)) = (look(), bursts(look, span));
    let (supervisor, keeper) = (end.0.0 - start.0.0, end.0.1 - start.0.1);
    let text = format!("{bursts} bursts, {supervisor} wakes of the supervisor, {keeper} of the keeper in {span:?}");
    assert!(bursts <= renewals, "{text}; {renewals} renewals");
    assert!(supervisor <= 2 * renewals && keeper <= 10 * renewals, "{text}; {renewals} renewals");
    text
}

#[test]
fn idle_holder_and_waiter_wake_only_for_renewals() {
    thread::scope(|scope| {
        for server in shared::all() {
            let name = World::new().name("idle");
            let job = || {
                let proxy = Proxy::to(server.address());
                let world = World::at(server.backend(), &proxy.url());
                let job = world.distlock().args(["-t", "60", &name, "sleep", "1000"]).spawn();
                (proxy, world, job)
            };
            let holder = job();
            poll_until("the holder", secs(30), || server.contenders(&name) == 1);
            let waiter = job();
            poll_until("the waiter", secs(30), || server.contenders(&name) == 2);
            for (proxy, world, job) in [holder, waiter] {
                scope.spawn(move || {
                    // A renewal every 20 s.
                    println!("{}: {}", server.backend(), assert_idle(&job, &proxy, secs(60), 4));
                    drop((job, world));
                });
            }
        }
    });
}

#[test]
fn daemons_are_killed_before_distlock_exits() {
    for server in shared::all() {
        let world = World::on(server);
        let name = world.name("leftover");
        let daemon = r#"trap "" TERM; setsid -f sleep 1000; exit 7"#;
        world.distlock().args(["--grace", "200ms", &name, "sh", "-c", daemon]).run().assert_code(7);
        assert_eq!(world.processes(), []);
        assert_eq!(server.contenders(&name), 0);
    }
}
