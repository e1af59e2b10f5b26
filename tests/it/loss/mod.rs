//! The lock is lost, or seems to be: when the command ends, and what is said of it.

mod revoked;
mod network;
mod lease_terms;

use std::thread;
use std::time::Duration;

use distlock_core::time::Instant;

use crate::world::{
    Entry, Finished, Ledger, Run, Running, Server, World, millis, moment, poll_for, poll_until, secs, shared,
};

/// From KILL to the moment by which nothing is left (K), as the design fixes it.
const K: Duration = millis(500);

/// A lease under which a command runs, and the deadlines that follow from it by the design's formulas.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    pub(crate) grace: Duration,
}

impl Lease {
    /// The shortest that is worth testing: Consul grants no less than ten seconds, and etcd is tested beside it.
    pub(crate) const SHORT: Self = Self { ttl: Duration::from_secs(10), grace: Duration::from_secs(2) };

    pub(crate) fn options(self) -> [String; 4] {
        ["-t".into(), format!("{}s", self.ttl.as_secs()), "--grace".into(), format!("{}s", self.grace.as_secs())]
    }

    /// From the sending of the last confirmed renewal to the moment by which nothing is left.
    pub(crate) fn hard(self) -> Duration {
        (self.ttl * 99 / 100).saturating_sub(millis(100))
    }

    /// From the sending of the last confirmed renewal to the soft signal.
    pub(crate) fn soft(self) -> Duration {
        self.hard().saturating_sub(K + self.grace)
    }

    /// How old the last confirmed renewal may be while all is well.
    pub(crate) fn interval(self) -> Duration {
        (self.ttl / 3).min(self.soft() / 2)
    }
}

/// Runs the test on all servers at once.
pub(crate) fn on_each(test: impl Fn(&'static dyn Server) + Sync) {
    on_these(&shared::all(), test);
}

pub(crate) fn on_these(servers: &[&'static dyn Server], test: impl Fn(&'static dyn Server) + Sync) {
    thread::scope(|scope| {
        for (n, &server) in servers.iter().enumerate() {
            let test = &test;
            let name = format!("{} {n}", server.backend());
            thread::Builder::new().name(name).spawn_scoped(scope, move || test(server)).expect("a thread");
        }
    });
}

/// Ignores the soft signal with all that is below, writes down when it came (seconds of `CLOCK_BOOTTIME`), and runs the
/// words that follow.
const STUBBORN: &str = r#"
trap 'read -r now idle </proc/uptime; echo "$now" >>soft' TERM
(trap "" TERM; exec "$@") &
while kill -0 $!; do wait $!; done
"#;

/// A job in a world of its own whose stubborn command keeps a ledger.
struct Stubborn {
    job: Running,
    ledger: Ledger,
}

impl Stubborn {
    fn start(world: &World, lease: Lease, name: &str) -> Self {
        let ledger = Ledger::new(world);
        let job =
            locked(world, lease, name).args(["sh", "-c", STUBBORN, "stubborn"]).args(ledger.command(secs(300))).spawn();
        Self { job, ledger }
    }

    /// Waits until its command runs; returns since when.
    #[track_caller]
    fn await_start(&self) -> Instant {
        poll_for("the command", secs(30), || Some(from_boot(self.ledger.holds().first()?.from)))
    }

    /// Waits for its end by loss.
    #[track_caller]
    fn await_loss(self, world: &World, name: &str, bound: Duration) -> Loss {
        let finished = self.job.wait_within(bound).assert_code(76);
        assert_told(&finished, name);
        let soft = std::fs::read_to_string(world.path().join("soft")).unwrap_or_default();
        let soft: Vec<_> = soft.lines().map(moment).collect();
        assert_eq!(soft.len(), 1, "one soft signal: {soft:?}");
        Loss { soft: soft[0], last: from_boot(self.ledger.holds()[0].to), finished }
    }
}

/// When a command that ignores the soft signal was lost; on `CLOCK_BOOTTIME`.
struct Loss {
    /// The soft signal, as exact as the kernel shows it: 10 ms less at most.
    soft: Instant,
    /// The last sign of life, one of which is given every 10 ms.
    last: Instant,
    finished: Finished,
}

/// Tells that it runs.
pub(crate) const READY: &str = "echo ready; sleep 300";

/// Waits until the command says that it runs. The key shows sooner.
#[track_caller]
pub(crate) fn await_ready(job: &Running) {
    poll_until("the command", secs(30), || job.stdout() == "ready\n");
}

/// A command line that lacks only the command.
pub(crate) fn locked(world: &World, lease: Lease, name: &str) -> Run {
    world.distlock().args(lease.options()).args([name])
}

pub(crate) fn from_boot(nanos: u64) -> Instant {
    Instant::from_boot(Duration::from_nanos(nanos))
}

/// Panics unless exactly one error was reported, which names the lock, and what follows are its causes and the way out.
#[track_caller]
fn assert_told(job: &Finished, name: &str) {
    assert_error(job, &format!("the lock {name} was lost and the command killed"));
}

#[track_caller]
fn assert_error(job: &Finished, message: &str) {
    let mut lines = job.stderr.lines();
    assert_eq!(lines.next(), Some(&*format!("distlock: error: {message}")), "{}", job.describe());
    let lines: Vec<_> = lines.collect();
    let (hint, causes) = lines.split_last().unwrap_or_else(|| panic!("{}", job.describe()));
    assert!(hint.starts_with("  hint: ") && !causes.is_empty(), "{}", job.describe());
    assert!(causes.iter().all(|line| line.starts_with("  caused by: ")), "{}", job.describe());
}

/// Waits for the key that stands for the held lock, among those that a lock may have.
#[track_caller]
pub(crate) fn await_held(server: &dyn Server, name: &str) -> Entry {
    poll_for("the held lock", secs(30), || {
        let stands = |entry: &Entry| server.backend() == "etcd" || entry.key.ends_with("/.lock");
        server.entries(name).into_iter().find(|entry| stands(entry) && entry.lease.is_some())
    })
}

/// Waits until nothing of this lock, nor these leases, is left on the server.
#[track_caller]
pub(crate) fn await_nothing_left(server: &dyn Server, name: &str, leases: &[String], bound: Duration) {
    let started = distlock::now();
    let left = || {
        let leases: Vec<_> = server.leases().into_iter().filter(|lease| leases.contains(lease)).collect();
        (server.entries(name), leases)
    };
    loop {
        let late = distlock::now().since(started) >= bound;
        if left() == (Vec::new(), Vec::new()) {
            return;
        }
        assert!(!late, "left after {bound:?}: {:#?}", left());
        thread::sleep(millis(5));
    }
}
