use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tempfile::TempDir;
use tokio::time::timeout;

use distlock_core::error::Kind;
use distlock_core::record::Record;

use super::super::file::Directory;
use super::*;

/// Longer than any step takes on a busy machine.
const TEST_LIMIT: Duration = Duration::from_secs(20);

/// A lock directory, and contenders for the lock `x` in it.
struct World {
    _root: TempDir,
    directory: Directory,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory(root.path().join("locks"));
        Self { _root: root, directory }
    }

    fn file(&self) -> LockFile {
        self.directory.open("x").unwrap()
    }

    /// Returns a contender with its own open file, like that of another job.
    fn contender(&self, id: &str) -> Contender {
        Contender::new(&self.file(), spec(id)).unwrap()
    }

    fn entry(&self) -> Entry {
        entry::read(&self.file().duplicate().unwrap()).unwrap().unwrap()
    }

    fn store(&self, token: u64) {
        entry::write(&self.file().duplicate().unwrap(), &Entry { token, holder: None }).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.directory.0.join("x.lock")
    }

    /// Waits until the kernel lists this number of blocked contenders for the lock.
    async fn until_blocked(&self, waiters: usize) {
        let inode = format!(":{} ", fs::metadata(self.path()).unwrap().ino());
        let blocked = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks.lines().filter(|line| line.contains("-> FLOCK") && line.contains(&inode)).count()
        };
        until(|| blocked() == waiters).await;
    }
}

fn spec(id: &str) -> LockSpec {
    LockSpec {
        relock: false,
        name: "x".into(),
        ttl: Duration::from_secs(15),
        record: Record { id: id.into(), host: "here".into(), ..Record::default() },
    }
}

async fn until(condition: impl Fn() -> bool) {
    timeout(TEST_LIMIT, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("in time");
}

fn token(position: Position) -> u64 {
    match position {
        Position::Held { token, .. } => token,
        Position::Queued(queue) => panic!("queued behind {queue:?}"),
    }
}

async fn enter(contender: &Contender) -> Position {
    contender.enter().await.unwrap().1
}

async fn wait(contender: &Contender) -> Outcome<Position> {
    timeout(TEST_LIMIT, contender.wait()).await.expect("in time")
}

/// Polls a wait once and drops it.
async fn poll_wait_once(contender: &Contender) {
    let mut wait = contender.wait();
    poll_fn(|cx| {
        assert!(wait.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// Starts a process that runs until its input ends; returns when it is ready.
fn spawn_ready(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// Starts flock of util-linux, which holds the file at `path`.
fn spawn_util_linux(path: &Path) -> Child {
    spawn_ready(Command::new("flock").arg(path).args(["sh", "-c", "echo ready; read line"]))
}

fn finish(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Returns whether flock of util-linux gets the lock at once.
fn is_free(path: &Path) -> bool {
    Command::new("flock").arg("-n").arg(path).arg("true").status().unwrap().success()
}

#[tokio::test]
async fn a_waiter_learns_the_holder_and_acquires_next() {
    let world = World::new();
    let (a, b) = (world.contender("a"), world.contender("b"));
    let (granted, position) = a.enter().await.unwrap();
    assert_eq!(granted.cover, None);
    assert!(matches!(&position, Position::Held { key, .. } if *key == world.path().display().to_string()));

    let Position::Queued(queue) = enter(&b).await else { panic!("two contenders hold the lock") };
    assert_eq!((queue.ahead, queue.lock_delay), (None, false));
    assert_eq!(queue.holder.map(|holder| (holder.id, holder.acquired.is_some())), Some((spec("a").record.id, true)));
    a.release().await.unwrap();
    assert!(token(wait(&b).await.unwrap()) > token(position));
    assert_eq!(world.entry().holder.map(|holder| holder.id), Some(spec("b").record.id));
    b.release().await.unwrap();
    assert_eq!(world.entry().holder, None);
}

#[tokio::test]
async fn tokens_grow_and_are_not_below_the_clock() {
    let world = World::new();
    let mut last = wall_clock_ms() - 1;
    for _ in 0..50 {
        let contender = world.contender("a");
        let token = token(enter(&contender).await);
        assert!(token > last);
        last = token;
        contender.release().await.unwrap();
    }
    assert_eq!(world.entry(), Entry { token: last, holder: None });
}

#[tokio::test]
async fn a_clock_set_back_does_not_lower_the_token() {
    let world = World::new();
    let ahead = wall_clock_ms() + 1_000_000;
    world.store(ahead);
    assert_eq!(token(enter(&world.contender("a")).await), ahead + 1);
}

#[tokio::test]
async fn the_largest_token_is_refused_and_the_lock_stays_free() {
    let world = World::new();
    world.store(u64::MAX);
    let contender = world.contender("a");
    assert!(matches!(contender.enter().await, Err(Trouble::Fatal(failure)) if failure.kind == Kind::Fault));
    assert!(is_free(&world.path()));
}

#[tokio::test]
async fn a_record_left_by_a_crash_does_not_hold_the_lock() {
    let world = World::new();
    let crashed = world.contender("crashed");
    let before = token(enter(&crashed).await);
    drop(crashed);
    assert_eq!(world.entry().holder.map(|holder| holder.id), Some(spec("crashed").record.id));
    // A process that another test forks at this moment has the crashed contender's file open until its exec.
    let next = world.contender("next");
    assert!(token(wait(&next).await.unwrap()) > before);
}

#[tokio::test]
async fn a_dropped_wait_continues_with_the_same_thread() {
    let world = World::new();
    let (a, b) = (world.contender("a"), world.contender("b"));
    enter(&a).await;
    enter(&b).await;
    for _ in 0..3 {
        poll_wait_once(&b).await;
        world.until_blocked(1).await;
    }
    a.release().await.unwrap();
    token(wait(&b).await.unwrap());
    assert!(!is_free(&world.path()));
}

#[tokio::test]
async fn waiters_acquire_in_order() {
    let world = World::new();
    let holder = world.contender("holder");
    enter(&holder).await;
    let waiters = ["a", "b", "c"].map(|id| world.contender(id));
    for (n, waiter) in waiters.iter().enumerate() {
        enter(waiter).await;
        poll_wait_once(waiter).await;
        world.until_blocked(n + 1).await;
    }
    let mut before = holder;
    for waiter in waiters {
        before.release().await.unwrap();
        token(wait(&waiter).await.unwrap());
        before = waiter;
    }
}

#[tokio::test]
async fn a_waiter_that_was_released_never_keeps_the_lock() {
    let world = World::new();
    let (a, b, c) = (world.contender("a"), world.contender("b"), world.contender("c"));
    enter(&a).await;
    enter(&b).await;
    poll_wait_once(&b).await;
    world.until_blocked(1).await;
    b.release().await.unwrap();
    assert!(matches!(b.enter().await, Err(Trouble::Fatal(_))));
    assert_eq!(
        world.entry().holder.map(|holder| holder.id),
        Some(spec("a").record.id),
        "only the holder's own record is removed"
    );

    enter(&c).await;
    a.release().await.unwrap();
    token(wait(&c).await.unwrap());
    c.release().await.unwrap();
    until(|| is_free(&world.path())).await;
}

#[tokio::test]
async fn flock_of_util_linux_excludes_and_is_excluded() {
    let world = World::new();
    let own = world.contender("own");
    let other = spawn_util_linux(&world.path());
    let Position::Queued(queue) = enter(&own).await else { panic!("two contenders hold the lock") };
    assert_eq!(queue.holder, Some(Record::default()), "an unknown holder");
    poll_wait_once(&own).await;
    world.until_blocked(1).await;
    finish(other);
    token(wait(&own).await.unwrap());

    assert!(!is_free(&world.path()));
    own.release().await.unwrap();
    assert!(is_free(&world.path()));
}

#[tokio::test]
async fn a_command_that_inherits_the_file_keeps_the_lock() {
    let world = World::new();
    let file = world.file();
    let own = Contender::new(&file, spec("own")).unwrap();
    enter(&own).await;
    fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let command = spawn_ready(Command::new("sh").args(["-c", "echo ready; read line"]));
    drop((own, file));
    assert!(!is_free(&world.path()));
    finish(command);
    until(|| is_free(&world.path())).await;
}

#[tokio::test]
async fn another_process_of_the_job_can_release() {
    let world = World::new();
    let file = world.file();
    let keeper = Contender::new(&file, spec("job")).unwrap();
    enter(&keeper).await;
    let supervisor = Contender::new(&file, spec("job")).unwrap();
    supervisor.release().await.unwrap();
    assert!(is_free(&world.path()));
    assert_eq!(world.entry().holder, None);
}

#[tokio::test]
async fn release_is_idempotent_and_leaves_others_alone() {
    let world = World::new();
    let (a, b) = (world.contender("a"), world.contender("b"));
    a.release().await.unwrap();
    enter(&a).await;
    a.release().await.unwrap();
    enter(&b).await;
    a.release().await.unwrap();
    assert!(!is_free(&world.path()));
    assert_eq!(world.entry().holder.map(|holder| holder.id), Some(spec("b").record.id));
}

#[tokio::test]
async fn a_lock_unlocked_by_the_command_is_lost_at_release() {
    let world = World::new();
    for still_held in [true, false] {
        let file = world.file();
        let (own, other) = (Contender::new(&file, spec("own")).unwrap(), world.contender("other"));
        enter(&own).await;
        flock(&file.duplicate().unwrap(), FlockArg::Unlock).unwrap();
        token(enter(&other).await);
        if !still_held {
            other.release().await.unwrap();
        }
        assert!(matches!(own.release().await, Err(Trouble::Lost(_))));
        if still_held {
            // Dropping it is not enough: a process that another test is starting may still have its descriptor.
            other.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_removed_file_is_a_loss_and_fails_the_waiter() {
    let world = World::new();
    let (holder, waiter) = (world.contender("holder"), world.contender("waiter"));
    enter(&holder).await;
    enter(&waiter).await;
    fs::remove_file(world.path()).unwrap();
    assert!(matches!(holder.release().await, Err(Trouble::Lost(_))));
    assert!(matches!(wait(&waiter).await, Err(Trouble::Fatal(failure)) if failure.message.contains("removed")));
    token(enter(&world.contender("next")).await);
}

#[tokio::test]
async fn renewals_always_succeed_and_the_watch_never_returns() {
    let world = World::new();
    let contender = world.contender("a");
    enter(&contender).await;
    let before = clock::now();
    assert!(contender.renew().await.unwrap() >= before);
    assert_eq!(contender.lease_id(), None);
    poll_fn(|cx| {
        assert!(contender.watch().as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}
