//! Waiting for a lock, time limits, and what a job leaves on the server.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::{
    Consul, Entry, Etcd, Finished, Holder, Mode, Proxy, Server, Version, World, enqueue, everywhere, lacks, millis,
    moment, on_servers, once_in, poll_until, secs, within,
};

/// A command that prints the time.
const NOW: [&str; 3] = ["sh", "-c", r#"read -r now idle </proc/uptime; echo "$now""#];

/// Returns the time from the exit of the holder's command to the start of the next command, which is [`NOW`].
fn handover(holder: &Finished, next: &Finished) -> Duration {
    let printed = |job: &Finished| moment(job.stdout.lines().last().unwrap_or_default());
    printed(next).since(printed(holder))
}

#[test]
fn try_of_a_held_lock_exits_75_within_a_second() {
    everywhere(|world| {
        let name = world.name("held");
        let holder = Holder::with(world, world.distlock().args(["-m", "nightly run"]), &name);
        let tries = [(); 3].map(|()| world.distlock().args(["--try", &name, "echo", "ran"]).run().assert_code(75));
        // The bound is a second. One of three attempts must keep it, because other tests take the processors.
        assert!(tries.iter().any(|job| job.elapsed < secs(1)), "{}", tries[0].describe());
        for job in tries {
            assert_eq!(job.stdout, "");
            assert!(
                job.stderr.starts_with(&format!("distlock: error: {name} not acquired: held by ")),
                "{}",
                job.stderr
            );
            assert!(job.stderr.contains(&format!("pid {}", holder.job.pid())), "{}", job.stderr);
            assert!(job.stderr.contains("nightly run"), "{}", job.stderr);
        }
        holder.release();
        world.distlock().args(["--try", &name, "true"]).run().assert_code(0);
    });
}

#[test]
fn wait_of_a_second_exits_75_after_it() {
    everywhere(|world| {
        let name = world.name("held");
        let _holder = Holder::of(world, &name);
        once_in(3, || {
            let job = world.distlock().args(["--wait", "1s", &name, "echo", "ran"]).run().assert_code(75);
            assert!(job.elapsed >= secs(1), "{}", job.describe());
            assert_eq!(job.stdout, "");
            assert!(job.stderr.contains("not acquired within 1s"), "{}", job.stderr);
            within("a wait of a second", job.elapsed, secs(3))
        });
    });
}

#[test]
fn waiter_acquires_within_200_ms_of_the_release() {
    everywhere(|world| {
        let round = |n: usize| {
            let name = world.name(&format!("released-{n}"));
            let holder = Holder::of(world, &name);
            let waiter = enqueue(world.distlock().args(["--wait", "30s"]), &name, &NOW);
            handover(&holder.release(), &waiter.wait().assert_code(0))
        };
        // Three rounds must keep the bound, which includes the release. Other tests may delay a round, but by less than
        // polling the queue would.
        let prompt_rounds = |delays: &[Duration]| delays.iter().filter(|delay| **delay < millis(200)).count();
        let mut delays = Vec::new();
        while prompt_rounds(&delays) < 3 {
            assert!(delays.len() < 15, "{delays:?}");
            delays.push(round(delays.len()));
            assert!(delays.last() < Some(&secs(2)), "{delays:?}");
        }
        println!("from the exit of one command to the start of the next: {delays:?}");
    });
}

#[test]
fn busy_exit_of_zero_is_silent() {
    everywhere(|world| {
        let name = world.name("held");
        let _holder = Holder::of(world, &name);
        let run = |options: &[&str]| world.distlock().args(options).args(["--try", &name, "echo", "ran"]).run();
        for (options, code, silent) in [
            (&["-E", "0"][..], 0, true),
            (&["--busy-exit=0", "--log-format", "json"], 0, true),
            (&["-E", "9"], 9, false),
            (&["-q"], 75, true),
            (&["-q", "-E", "9"], 9, true),
        ] {
            let job = run(options).assert_code(code);
            assert_eq!((job.stdout.as_str(), job.stderr.is_empty()), ("", silent), "{}", job.describe());
        }
    });
}

#[test]
fn interrupted_waiters_exit_at_once_and_delay_no_other() {
    everywhere(|world| {
        once_in(3, || {
            let name = world.name("queue");
            let holder = Holder::of(world, &name);
            let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
            let interrupted = signals.map(|signal| (signal, enqueue(world.distlock(), &name, &["echo", "ran"])));
            let last = enqueue(world.distlock(), &name, &NOW);
            for (signal, waiter) in interrupted {
                waiter.signal(signal);
                let signaled_at = Instant::now();
                let waiter = waiter.wait().assert_code(128 + signal as i32);
                assert_eq!(waiter.stdout, "");
                within("the exit of a waiter", signaled_at.elapsed(), secs(2))?;
            }
            // Shorter than a remaining lease of an interrupted waiter, or the time until it is passed, would take.
            within("the handover", handover(&holder.release(), &last.wait().assert_code(0)), millis(1_900))
        });
    });
}

#[test]
fn interrupted_waiter_deletes_its_key_and_lease() {
    on_servers(|world, server| {
        let name = world.name("queue");
        let holder = Holder::of(world, &name);
        let before = server.entries(&name);
        let waiter = enqueue(world.distlock(), &name, &["echo", "ran"]);
        let mut leases = Vec::new();
        poll_until("the waiter's key", secs(30), || {
            let new = |entry: &_| !before.iter().any(|old| key(old) == key(entry));
            leases = server.entries(&name).into_iter().filter(new).filter_map(|entry| entry.lease).collect();
            !leases.is_empty()
        });
        waiter.signal(Signal::SIGTERM);
        waiter.wait().assert_code(143);
        let left: Vec<_> = server.entries(&name).iter().map(|entry| entry.key.clone()).collect();
        assert_eq!(left, before.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>());
        assert!(leases.iter().all(|lease| !server.leases().contains(lease)));
        holder.release();
    });
}

/// Waits until no data has passed the proxy for a second.
fn await_silence(proxy: &Proxy) {
    let mut last = (proxy.bytes(), Instant::now());
    poll_until("a second without data", secs(30), || {
        if proxy.bytes() != last.0 {
            last = (proxy.bytes(), Instant::now());
        }
        last.1.elapsed() >= secs(1)
    });
}

/// A firewall forgets an idle connection: the waiter must notice that long before its next renewal.
#[test]
fn forgotten_connection_of_a_waiter_is_noticed() {
    on_servers(|world, server| {
        let name = world.name("forgotten");
        let holder = Holder::of(world, &name);
        let proxy = Proxy::to(server.address());
        let far = World::at(server.backend(), &proxy.url());
        let waiter = enqueue(far.distlock().args(["-t", "10m"]), &name, &["true"]);
        await_silence(&proxy);
        if !proxy.forget() {
            return lacks("the permission to close a connection silently");
        }
        holder.release();
        waiter.wait_within(secs(15)).assert_code(0);
    });
}

fn key(entry: &Entry) -> &str {
    &entry.key
}

#[test]
fn no_key_or_lease_is_left_after_any_orderly_end() {
    // Private servers: every lease and key on them belongs to this test.
    let servers: [fn() -> Box<dyn Server>; 3] =
        [|| Box::new(Etcd::start(Version::V34)), || Box::new(Etcd::start(Version::V35)), || Box::new(Consul::start())];
    std::thread::scope(|scope| {
        for start in servers {
            scope.spawn(move || assert_nothing_is_left(&*start()));
        }
    });
}

fn assert_nothing_is_left(server: &dyn Server) {
    let world = World::on(server);
    let run = |args: &[&str]| world.distlock().args(args).run();
    let assert_clean = |after: &str| {
        assert_eq!(server.leases(), [] as [String; 0], "leases after {after}, on {}", server.backend());
        let keys: Vec<_> = server.entries("/").into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, [] as [String; 0], "keys after {after}, on {}", server.backend());
    };
    run(&["/x", "true"]).assert_code(0);
    assert_clean("success");
    run(&["/x", "false"]).assert_code(1);
    assert_clean("failure");
    run(&["-c", "/x", "kill -KILL $$"]).assert_code(137);
    assert_clean("a killed command");
    run(&["/x", "no-such-command"]).assert_code(127);
    assert_clean("an unknown command");

    let running = world.distlock().args(["/x", "sh", "-c", "echo up; exec sleep 60"]).spawn();
    poll_until("the command", secs(30), || running.stdout() == "up\n");
    running.signal(Signal::SIGTERM);
    running.wait().assert_signal(Signal::SIGTERM);
    assert_clean("a signal while running");

    let holder = Holder::of(&world, "/x");
    let waiter = enqueue(world.distlock(), "/x", &["true"]);
    let behind = enqueue(world.distlock(), "/x", &["true"]);
    run(&["--try", "/x", "true"]).assert_code(75);
    run(&["--wait", "200ms", "/x", "true"]).assert_code(75);
    waiter.signal(Signal::SIGTERM);
    waiter.wait().assert_code(143);
    behind.signal(Signal::SIGINT);
    behind.wait().assert_code(130);
    holder.release();
    assert_clean("a queue of interrupted waiters");

    // Signals while distlock connects or enters the queue.
    for delay in [0, 10, 30, 60, 100] {
        let early = world.distlock().args(["/x", "true"]).spawn();
        std::thread::sleep(millis(delay));
        // The job may have exited.
        let _ = nix::sys::signal::kill(early.pid(), Signal::SIGTERM);
        early.wait();
        assert_clean("an early signal");
    }

    // Signals while a request that creates a lease or key is on its way, and while its reply is.
    let proxy = Proxy::to(server.address());
    proxy.set(Mode::Delay(millis(100)));
    let distant = World::at(server.backend(), &proxy.url());
    for delay in (0..900).step_by(75) {
        let sent = proxy.bytes().0;
        let early = distant.distlock().args(["/x", "sleep", "60"]).spawn();
        poll_until("a request", secs(30), || proxy.bytes().0 > sent);
        std::thread::sleep(millis(delay));
        early.signal(Signal::SIGTERM);
        early.wait();
        assert_clean(&format!("a signal {delay} ms after the first request"));
    }
}
