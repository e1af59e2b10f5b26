use crate::sys::clock;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::task::Poll;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use distlock_core::error::Kind;
use distlock_core::record::Record;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of its own, and contenders for the lock `x` in it.
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

    /// A contender with an open file of its own, as another job would have.
    fn contender(&self, id: &str) -> Contender {
        Contender::new(&self.file(), want(id)).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.directory.0.join("x.lock")
    }

    /// Waits until the kernel shows as many blocked contenders for the lock.
    async fn until_blocked(&self, waiters: usize) {
        let inode = format!(":{} ", fs::metadata(self.path()).unwrap().ino());
        let blocked = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks.lines().filter(|line| line.contains("-> FLOCK") && line.contains(&inode)).count()
        };
        until(|| blocked() == waiters).await;
    }
}

fn want(id: &str) -> Want {
    Want {
        relock: false,
        name: "x".into(),
        ttl: Duration::from_secs(15),
        record: Record { id: id.into(), host: "here".into(), ..Record::default() },
    }
}

async fn until(condition: impl Fn() -> bool) {
    timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("in time");
}

fn token(place: Position) -> u64 {
    match place {
        Position::Held { token, .. } => token,
        Position::Queued(queue) => panic!("queued behind {queue:?}"),
    }
}

async fn enter(contender: &Contender) -> Position {
    contender.enter().await.unwrap().1
}

async fn wait(contender: &Contender) -> Outcome<Position> {
    timeout(PATIENCE, contender.wait()).await.expect("its turn in time")
}

/// Polls a wait once and drops it.
async fn glance(contender: &Contender) {
    let mut wait = contender.wait();
    poll_fn(|cx| {
        assert!(wait.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// A process that holds something until its input ends; it has said so when this returns.
fn holding(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// util-linux's flock, holding the file at `path`.
fn util_linux(path: &Path) -> Child {
    holding(Command::new("flock").arg(path).args(["sh", "-c", "echo ready; read line"]))
}

fn finish(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Whether util-linux's flock gets the lock at once.
fn free(path: &Path) -> bool {
    Command::new("flock").arg("-n").arg(path).arg("true").status().unwrap().success()
}

#[tokio::test]
async fn one_holds_and_the_next_learns_who_it_is() {
    let world = World::new();
    let (a, b) = (world.contender("a"), world.contender("b"));
    let (granted, place) = a.enter().await.unwrap();
    assert_eq!(granted.cover, None);
    assert!(matches!(&place, Position::Held { key, .. } if *key == world.path().display().to_string()));

    let Position::Queued(queue) = enter(&b).await else { panic!("two hold it") };
    assert_eq!((queue.ahead, queue.lock_delay), (None, false));
    assert_eq!(queue.holder.map(|holder| (holder.id, holder.acquired.is_some())), Some((want("a").record.id, true)));
    a.release().await.unwrap();
    assert!(token(wait(&b).await.unwrap()) > token(place));
    assert_eq!(world.file().read().unwrap().0.map(|holder| holder.id), Some(want("b").record.id));
    b.release().await.unwrap();
    assert_eq!(world.file().read().unwrap().0, None);
}

#[tokio::test]
async fn tokens_grow_and_are_no_older_than_the_clock() {
    let world = World::new();
    let mut last = wall_clock_ms() - 1;
    for _ in 0..50 {
        let contender = world.contender("a");
        let token = token(enter(&contender).await);
        assert!(token > last);
        last = token;
        contender.release().await.unwrap();
    }
    assert_eq!(world.file().read().unwrap(), (None, last));
}

#[tokio::test]
async fn a_clock_set_back_does_not_set_the_token_back() {
    let world = World::new();
    let ahead = wall_clock_ms() + 1_000_000;
    slots::write(&world.file().duplicate().unwrap(), &Entry { seq: 1, token: ahead, holder: None }).unwrap();
    assert_eq!(token(enter(&world.contender("a")).await), ahead + 1);
}

#[tokio::test]
async fn a_counter_at_its_end_is_refused_and_the_lock_stays_free() {
    let world = World::new();
    for (seq, token) in [(1, u64::MAX), (u64::MAX, 1)] {
        slots::write(&world.file().duplicate().unwrap(), &Entry { seq, token, holder: None }).unwrap();
        let contender = world.contender("a");
        assert!(matches!(contender.enter().await, Err(Trouble::Fatal(failure)) if failure.kind == Kind::Fault));
        assert!(free(&world.path()));
    }
}

#[tokio::test]
async fn a_record_that_a_crash_left_behind_is_nobody() {
    let world = World::new();
    let crashed = world.contender("crashed");
    let before = token(enter(&crashed).await);
    drop(crashed);
    assert_eq!(world.file().read().unwrap().0.map(|holder| holder.id), Some(want("crashed").record.id));
    // Whatever another test forks in this moment has the crashed one's file open until it executes a program.
    let next = world.contender("next");
    assert!(token(wait(&next).await.unwrap()) > before);
}

#[tokio::test]
async fn a_wait_that_is_dropped_goes_on_with_the_same_thread() {
    let world = World::new();
    let (a, b) = (world.contender("a"), world.contender("b"));
    enter(&a).await;
    enter(&b).await;
    for _ in 0..3 {
        glance(&b).await;
        world.until_blocked(1).await;
    }
    a.release().await.unwrap();
    token(wait(&b).await.unwrap());
    assert!(!free(&world.path()));
}

#[tokio::test]
async fn waiters_get_their_turn_in_order() {
    let world = World::new();
    let holder = world.contender("holder");
    enter(&holder).await;
    let waiters = ["a", "b", "c"].map(|id| world.contender(id));
    for (n, waiter) in waiters.iter().enumerate() {
        enter(waiter).await;
        glance(waiter).await;
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
async fn a_contender_released_while_it_waits_never_keeps_the_lock() {
    let world = World::new();
    let (a, b, c) = (world.contender("a"), world.contender("b"), world.contender("c"));
    enter(&a).await;
    enter(&b).await;
    glance(&b).await;
    world.until_blocked(1).await;
    b.release().await.unwrap();
    assert!(matches!(b.enter().await, Err(Trouble::Fatal(_))));
    assert_eq!(
        world.file().read().unwrap().0.map(|holder| holder.id),
        Some(want("a").record.id),
        "the holder's record is not its own to remove"
    );

    enter(&c).await;
    a.release().await.unwrap();
    token(wait(&c).await.unwrap());
    c.release().await.unwrap();
    until(|| free(&world.path())).await;
}

#[tokio::test]
async fn util_linux_excludes_us_and_is_excluded() {
    let world = World::new();
    let ours = world.contender("ours");
    let theirs = util_linux(&world.path());
    let Position::Queued(queue) = enter(&ours).await else { panic!("two hold it") };
    assert_eq!(queue.holder, Some(Record::default()), "somebody unknown");
    glance(&ours).await;
    world.until_blocked(1).await;
    finish(theirs);
    token(wait(&ours).await.unwrap());

    assert!(!free(&world.path()));
    ours.release().await.unwrap();
    assert!(free(&world.path()));
}

#[tokio::test]
async fn a_command_that_inherits_the_file_keeps_the_lock() {
    let world = World::new();
    let file = world.file();
    let ours = Contender::new(&file, want("ours")).unwrap();
    enter(&ours).await;
    fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let command = holding(Command::new("sh").args(["-c", "echo ready; read line"]));
    drop((ours, file));
    assert!(!free(&world.path()));
    finish(command);
    until(|| free(&world.path())).await;
}

#[tokio::test]
async fn another_process_of_the_job_releases_for_it() {
    let world = World::new();
    let file = world.file();
    let keeper = Contender::new(&file, want("job")).unwrap();
    enter(&keeper).await;
    let supervisor = Contender::new(&file, want("job")).unwrap();
    supervisor.release().await.unwrap();
    assert!(free(&world.path()));
    assert_eq!(file.read().unwrap().0, None);
}

#[tokio::test]
async fn release_is_idempotent_and_does_nothing_to_others() {
    let world = World::new();
    let (a, b) = (world.contender("a"), world.contender("b"));
    a.release().await.unwrap();
    enter(&a).await;
    a.release().await.unwrap();
    enter(&b).await;
    a.release().await.unwrap();
    assert!(!free(&world.path()));
    assert_eq!(world.file().read().unwrap().0.map(|holder| holder.id), Some(want("b").record.id));
}

#[tokio::test]
async fn a_lock_that_the_command_unlocked_is_known_lost_at_the_release() {
    let world = World::new();
    for still_held in [true, false] {
        let file = world.file();
        let (ours, other) = (Contender::new(&file, want("ours")).unwrap(), world.contender("other"));
        enter(&ours).await;
        flock(&file.duplicate().unwrap(), FlockArg::Unlock).unwrap();
        token(enter(&other).await);
        if !still_held {
            other.release().await.unwrap();
        }
        assert!(matches!(ours.release().await, Err(Trouble::Lost(_))));
    }
}

#[tokio::test]
async fn a_file_that_is_removed_is_a_loss_to_its_holder_and_a_refusal_to_who_waits() {
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
async fn there_is_nothing_to_renew_and_no_bad_news() {
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
