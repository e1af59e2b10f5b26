//! Losses, and faults that look like one: when the command is killed, and the error message.

mod lease_terms;
mod network;
mod revoked;

use std::thread;
use std::time::Duration;

use distlock_core::time::Instant;

use crate::world::{
    Entry, Finished, Ledger, Run, Running, Server, World, millis, moment, poll_for, poll_until, secs, shared,
};

/// The design's kill budget: from KILL until the whole process tree is dead (rule 2).
const KILL_BUDGET: Duration = millis(500);

/// A lease of a job, and the deadlines that follow from it by the design's formulas (rules 2 and 3).
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    pub(crate) grace: Duration,
}

impl Lease {
    /// The shortest lease that Consul grants, used on etcd too.
    pub(crate) const SHORT: Self = Self { ttl: Duration::from_secs(10), grace: Duration::from_secs(2) };

    pub(crate) fn options(self) -> [String; 4] {
        ["-t".into(), format!("{}s", self.ttl.as_secs()), "--grace".into(), format!("{}s", self.grace.as_secs())]
    }

    /// Returns the time from `sent_at` of the last confirmed renewal to the hard deadline.
    pub(crate) fn hard(self) -> Duration {
        (self.ttl * 99 / 100).saturating_sub(millis(100))
    }

    /// Returns the renewal window: the time from `sent_at` of the last confirmed renewal to the soft deadline.
    pub(crate) fn soft(self) -> Duration {
        self.hard().saturating_sub(KILL_BUDGET + self.grace)
    }

    /// Returns the time from `sent_at` of a confirmed renewal until the next one is due.
    pub(crate) fn interval(self) -> Duration {
        (self.ttl / 3).min(self.soft() / 2)
    }
}

/// Runs the test on all servers at the same time.
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

/// Script that executes its arguments with TERM ignored, and writes the time of the soft signal (seconds of
/// `CLOCK_BOOTTIME`) to the file `soft`.
const STUBBORN: &str = r#"
trap 'read -r now idle </proc/uptime; echo "$now" >>soft' TERM
(trap "" TERM; exec "$@") &
while kill -0 $!; do wait $!; done
"#;

/// A job whose command ignores the soft signal and writes a ledger.
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

    /// Waits until the command runs, and returns when it started.
    #[track_caller]
    fn await_start(&self) -> Instant {
        poll_for("the command", secs(30), || Some(from_boot(self.ledger.holds().first()?.from)))
    }

    /// Waits until the job exits because of a loss.
    #[track_caller]
    fn await_loss(self, world: &World, name: &str, bound: Duration) -> Loss {
        let finished = self.job.wait_within(bound).assert_code(76);
        assert_loss_reported(&finished, name);
        let soft = std::fs::read_to_string(world.path().join("soft")).unwrap_or_default();
        let soft: Vec<_> = soft.lines().map(moment).collect();
        assert_eq!(soft.len(), 1, "expected one soft signal: {soft:?}");
        Loss { soft_signal_at: soft[0], last_seen_at: from_boot(self.ledger.holds()[0].to), finished }
    }
}

/// Times of a stubborn command's death, on `CLOCK_BOOTTIME`.
struct Loss {
    /// Arrival of the soft signal; up to 10 ms early, the precision of `/proc/uptime`.
    soft_signal_at: Instant,
    /// The last note in the ledger; notes come every 10 ms.
    last_seen_at: Instant,
    finished: Finished,
}

/// Script that prints `ready` and sleeps.
pub(crate) const READY: &str = "echo ready; sleep 300";

/// Waits until the command has printed `ready`, which is later than the acquisition.
#[track_caller]
pub(crate) fn await_ready(job: &Running) {
    poll_until("the command", secs(30), || job.stdout() == "ready\n");
}

/// Returns a run of distlock with this lease and lock name; the caller adds the command.
pub(crate) fn locked(world: &World, lease: Lease, name: &str) -> Run {
    world.distlock().args(lease.options()).args([name])
}

pub(crate) fn from_boot(nanos: u64) -> Instant {
    Instant::from_boot(Duration::from_nanos(nanos))
}

/// Panics unless stderr is one error about the loss of this lock, its causes and a hint.
#[track_caller]
fn assert_loss_reported(job: &Finished, name: &str) {
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

/// Waits for the key of the held lock, which is not a queue entry.
#[track_caller]
pub(crate) fn await_held(server: &dyn Server, name: &str) -> Entry {
    poll_for("the held lock", secs(30), || {
        let is_lock = |entry: &Entry| server.backend() == "etcd" || entry.key.ends_with("/.lock");
        server.entries(name).into_iter().find(|entry| is_lock(entry) && entry.lease.is_some())
    })
}

/// Waits until the server has neither keys of this lock nor these leases.
#[track_caller]
pub(crate) fn await_nothing_left(server: &dyn Server, name: &str, leases: &[String], bound: Duration) {
    let started_at = distlock::now();
    let remaining = || {
        let leases: Vec<_> = server.leases().into_iter().filter(|lease| leases.contains(lease)).collect();
        (server.entries(name), leases)
    };
    loop {
        let timed_out = distlock::now().since(started_at) >= bound;
        if remaining() == (Vec::new(), Vec::new()) {
            return;
        }
        assert!(!timed_out, "still on the server after {bound:?}: {:#?}", remaining());
        thread::sleep(millis(5));
    }
}
