//! The keeper: the asynchronous process. It connects, queues, acquires, starts the command, renews, watches and releases;
//! it is the parent and reaper of the command's tree. [`distlock_core::keeper`] decides, this file acts; `child` is what concerns the
//! command's process.

mod child;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, setpgid};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::job::link::{Link, Received};
use crate::job::witness::Watched;
use crate::lock::{Backend, Name, Note, Prepared, Want};
use crate::sys::clock::{self, Alarm};
use crate::sys::tree::{Tree, usage_of_reaped};
use crate::sys::{
    process::{Group, Inherited, heed, ignore, register},
    runtime, signals,
};
use child::LOOK_AT_PARENT;
use distlock_core::error::Kind;
use distlock_core::keeper::requests::{COUNT, Request};
use distlock_core::keeper::{Action, Event, Machine};
use distlock_core::lease::MAX_REQUEST_TIME;
use distlock_core::messages::{Account, FromKeeper, FromSupervisor, Verdict};
use distlock_core::messages::{Notice, Usage};
use distlock_core::outcome::{Position, Trouble};
use distlock_core::plan::Plan;
use distlock_core::time::Instant;

/// What the keeper needs; both processes know it, since one is forked from the other.
#[derive(Debug)]
pub(crate) struct Job {
    /// What the user asked for.
    pub plan: Plan,
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Where the lock lives.
    pub prepared: Prepared,
    /// Which lock.
    pub want: Want,
    /// The backend that the command is told, `None` without a lock.
    pub backend: Option<Name>,
    /// The soft signal.
    pub signal: Signal,
    /// The process group that the command joins.
    pub group: Group,
    /// The command may be run more than once, so its descriptors are kept for the next run.
    pub reruns: bool,
    /// What the command is to find as distlock did.
    pub inherited: Inherited,
    /// A descriptor that is the supervisor's alone.
    pub report: Option<RawFd>,
}

/// Runs the keeper in this process, which was forked for it. Returns the process's exit code; the verdict goes by the link.
#[must_use]
pub(crate) fn run(job: &Job, link: Link<FromKeeper>, watched: Option<Watched>) -> u8 {
    match prepare(job.group).and_then(|tree| live(job, link, watched, tree)) {
        Ok(()) => crate::exit::OK,
        // Nobody reads this process's stderr: the supervisor tells what happened from the silence.
        Err(_) => crate::exit::code(Kind::Fault),
    }
}

/// Steps out of the way of everything that is meant for the supervisor or the command.
fn prepare(group: Group) -> std::io::Result<Tree> {
    // A name of its own: whoever kills by name must not hit both processes at once.
    let _ = nix::sys::prctl::set_name(c"lock-keeper");
    if group != Group::Unnamed {
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    }
    ignore(&signals::ignored_by_keeper());
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&children()), None)?;
    Tree::adopt()
}

fn children() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set
}

fn live(job: &Job, link: Link<FromKeeper>, watched: Option<Watched>, tree: Tree) -> std::io::Result<()> {
    runtime::block_on(async { Keeper::new(job, link, watched, tree)?.run().await })?
}

/// How often the servers are asked to end a lease that was given up.
const GIVE_UP_AGAIN: Duration = Duration::from_millis(300);
/// How much longer than it may live the keeper stays to end it.
const LINGER: Duration = Duration::from_secs(5);

type Call = Pin<Box<dyn Future<Output = Event>>>;

struct Keeper<'a> {
    job: &'a Job,
    machine: Machine,
    backend: Rc<dyn Backend>,
    calls: [Option<Call>; COUNT],
    /// The turn of the endpoints in which each of them began.
    turns: [usize; COUNT],
    /// Contenders that were given up, and whose leases are still to be ended.
    forsaken: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    link: AsyncFd<Link<FromKeeper>>,
    watched: Option<Watched>,
    notes: Rc<std::cell::RefCell<Vec<String>>>,
    alarm: AsyncFd<Alarm>,
    children: AsyncFd<SignalFd>,
    tree: Tree,
    frozen: bool,
    note: Note,
    command: Option<Pid>,
    /// Tells whether the command's program was executed, until it is known.
    starting: Option<pipe::Receiver>,
    /// What was seen together with the event that was told last.
    seen: VecDeque<Event>,
    /// For the report.
    account: Account,
    lease: Option<String>,
    place: Option<(u64, String)>,
    orphaned: bool,
    /// The command goes on, and until when to see that the supervisor does.
    waking: Option<Instant>,
    /// What was inherited is the command's alone by now, or nobody's.
    detached: bool,
}

impl<'a> Keeper<'a> {
    fn new(job: &'a Job, mut link: Link<FromKeeper>, watched: Option<Watched>, tree: Tree) -> std::io::Result<Self> {
        let notes = Rc::new(std::cell::RefCell::new(Vec::new()));
        let sink = Rc::clone(&notes);
        let note: Note = Rc::new(move |text| sink.borrow_mut().push(text));
        let backend = match job.prepared.contender(job.want.clone(), note.clone()) {
            Ok(backend) => backend,
            Err(failure) => {
                link.post(FromKeeper::Done { verdict: Verdict::Failed(failure), lingers: false });
                return Err(std::io::Error::other("no backend"));
            }
        };
        let children = SignalFd::with_flags(&children(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self {
            job,
            machine: Machine::new(job.plan.clone(), clock::now()),
            backend: Rc::from(backend),
            turns: [0; COUNT],
            calls: [const { None }; COUNT],
            forsaken: Vec::new(),
            link: register(link)?,
            watched,
            notes,
            alarm: register(Alarm::new()?)?,
            children: register(children)?,
            tree,
            frozen: false,
            note,
            command: None,
            starting: None,
            seen: VecDeque::new(),
            account: Account { renewals: 0, command: None, usage: Usage::default() },
            lease: None,
            place: None,
            orphaned: false,
            waking: None,
            detached: false,
        })
    }

    async fn run(&mut self) -> std::io::Result<()> {
        let mut event = Event::Tick;
        loop {
            let mut next = VecDeque::from([event]);
            while let Some(event) = next.pop_front() {
                self.learn(&event);
                for action in self.machine.on(event, clock::now()) {
                    if let Action::Finish(verdict) = action {
                        return self.part(verdict).await;
                    }
                    next.extend(self.perform(action));
                }
            }
            self.tell_news();
            self.wake_parent();
            let look = self.waking.map(|_| clock::now() + LOOK_AT_PARENT);
            self.alarm.get_ref().set(self.machine.wake().into_iter().chain(look).min())?;
            event = self.next_event().await?;
        }
    }

    /// Says how it ended, and stays no longer than a lease needs that could not be given up yet.
    async fn part(&mut self, verdict: Verdict) -> std::io::Result<()> {
        let lingers = !self.forsaken.is_empty();
        self.account.usage = usage_of_reaped();
        self.post(FromKeeper::Account(self.account.clone()));
        self.post(FromKeeper::Done { verdict, lingers });
        while self.link.get_ref().backlog() {
            self.link.writable().await?.clear_ready();
            self.link.get_mut().flush();
        }
        if lingers {
            // Whoever reads what distlock printed is not to wait for this process.
            self.detach();
            // Nobody forwards signals any more.
            heed(&[Signal::SIGINT, Signal::SIGTERM]);
            let forsaken = &mut self.forsaken;
            poll_fn(|context| poll_forsaken(forsaken, context)).await;
        }
        Ok(())
    }

    /// Remembers what the command's environment and the report will tell of the lock.
    fn learn(&mut self, event: &Event) {
        match event {
            Event::Entered(Ok((_, Position::Held { token, key })))
            | Event::WaitReturned(Ok(Position::Held { token, key })) => {
                self.place = Some((*token, key.clone()));
            }
            Event::Renewed(Ok(_)) => self.account.renewals += 1,
            Event::Reaped { command: Some(end), .. } => self.account.command = Some(end.clone()),
            _ => {}
        }
    }

    /// Does one thing. What comes of it at once is an event again.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Begin(request) => self.begin(request),
            Action::Abandon(request) => self.calls[request as usize] = None,
            Action::NextEndpoint(request) => {
                let silent = self.backend.overdue(self.turns[request as usize]);
                return Some(Event::Silent(request, silent));
            }
            Action::Tell(message) => self.post(message),
            Action::Start => return self.start(),
            Action::SignalCommand(signal) => {
                if let (Some(pid), Some(signal)) = (self.command, signals::to_nix(signal)) {
                    // It is our child and not reaped, so the pid is its own.
                    let _ = kill(pid, signal);
                }
            }
            Action::EndTree => {
                self.tree.signal(self.job.signal, None);
                self.tree.signal(Signal::SIGCONT, None);
            }
            Action::KillTree { overdue } => {
                self.tree.kill(None);
                if overdue {
                    let stuck = self.tree.members(None);
                    self.post(FromKeeper::Notice(Notice::Stuck(stuck)));
                }
            }
            Action::Freeze => {
                self.frozen = true;
                return self.tree.freeze().then_some(Event::Frozen);
            }
            Action::Thaw => {
                self.frozen = false;
                self.tree.thaw();
            }
            Action::AbandonContender => self.abandon_contender(),
            Action::ReportLeftovers => self.post(FromKeeper::Notice(Notice::Left(self.tree.members(None)))),
            // The caller ends its loop with this one.
            Action::Finish(_) => {}
        }
        None
    }

    fn begin(&mut self, request: Request) {
        let backend = Rc::clone(&self.backend);
        self.turns[request as usize] = backend.turn();
        self.calls[request as usize] = Some(match request {
            Request::Enter => Box::pin(async move { Event::Entered(backend.enter().await) }),
            Request::Wait => Box::pin(async move { Event::WaitReturned(backend.wait().await) }),
            Request::Renew => Box::pin(async move { Event::Renewed(backend.renew().await) }),
            Request::Watch => Box::pin(async move { Event::WatchFailed(backend.watch().await) }),
            Request::VerifyContinuity => {
                let since = self.machine.ran_under();
                Box::pin(async move { Event::ContinuityVerified(backend.held_continuously_since(since).await) })
            }
            Request::Release => Box::pin(async move { Event::Released(backend.release().await) }),
        });
    }

    /// Leaves the present contender to itself, and makes a new one.
    fn abandon_contender(&mut self) {
        // The settings were good enough for the first one, so they are for another.
        if let Ok(backend) = self.job.prepared.contender(self.job.want.clone(), self.note.clone()) {
            let old = std::mem::replace(&mut self.backend, Rc::from(backend));
            let until = clock::now() + self.job.want.ttl * 2 + LINGER;
            self.forsaken.push(Box::pin(give_up(old, until)));
        }
    }

    fn post(&mut self, message: FromKeeper) {
        if let (Some(watched), Some(kill)) = (&self.watched, message.kill_at()) {
            watched.tell(kill);
        }
        self.link.get_mut().post(message);
    }

    /// Passes on what the backend has noted, and the lease's name as soon as there is one.
    fn tell_news(&mut self) {
        let notes = std::mem::take(&mut *self.notes.borrow_mut());
        for note in notes {
            self.post(FromKeeper::Notice(Notice::Note(note)));
        }
        let lease = self.backend.lease_id();
        if lease != self.lease {
            self.lease.clone_from(&lease);
            if let Some(lease) = lease {
                self.post(FromKeeper::Lease(lease));
            }
        }
    }

    /// Waits for whatever comes first. Time goes before news, so that a deadline that passed in a suspend is seen first.
    async fn next_event(&mut self) -> std::io::Result<Event> {
        if let Some(event) = self.seen.pop_front() {
            return Ok(event);
        }
        loop {
            let backlog = self.link.get_ref().backlog();
            let (calls, forsaken) = (&mut self.calls, &mut self.forsaken);
            let starting = &self.starting;
            let outcome = async move {
                match starting {
                    Some(outcome) => outcome.readable().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ready = self.alarm.readable() => {
                    let mut ready = ready?;
                    self.alarm.get_ref().clear();
                    ready.clear_ready();
                    return Ok(Event::Tick);
                }
                ready = self.children.readable() => {
                    let mut ready = ready?;
                    while self.children.get_ref().read_signal()?.is_some() {}
                    ready.clear_ready();
                    drop(ready);
                    return self.reap();
                }
                ready = outcome => {
                    ready?;
                    if let Some(event) = self.outcome() {
                        return Ok(event);
                    }
                }
                // A closed link would stay readable for ever.
                ready = self.link.readable(), if !self.orphaned => {
                    let mut ready = ready?;
                    match self.link.get_ref().receive()? {
                        Received::Message(FromSupervisor::Acknowledged(deadlines)) => {
                            return Ok(Event::Acknowledged(deadlines));
                        }
                        Received::Message(FromSupervisor::Signal(signal)) => return Ok(Event::Signal(signal)),
                        Received::Message(FromSupervisor::GroupSignal(signal)) => return Ok(Event::GroupSignal(signal)),
                        Received::Message(FromSupervisor::Kill) => return Ok(Event::Kill),
                        Received::Closed => {
                            drop(ready);
                            self.orphaned = true;
                            return Ok(Event::Orphaned);
                        }
                        Received::Nothing => ready.clear_ready(),
                    }
                }
                ready = self.link.writable(), if backlog => {
                    ready?.clear_ready();
                    self.link.get_mut().flush();
                }
                event = poll_fn(|context| {
                    let _ = poll_forsaken(forsaken, context);
                    poll_calls(calls, context)
                }) => return Ok(event),
            }
            self.tell_news();
        }
    }
}

fn poll_calls(calls: &mut [Option<Call>], context: &mut std::task::Context<'_>) -> Poll<Event> {
    for slot in calls {
        if let Some(call) = slot
            && let Poll::Ready(event) = call.as_mut().poll(context)
        {
            *slot = None;
            return Poll::Ready(event);
        }
    }
    Poll::Pending
}

fn poll_forsaken(
    forsaken: &mut Vec<Pin<Box<dyn Future<Output = ()>>>>,
    context: &mut std::task::Context<'_>,
) -> Poll<()> {
    forsaken.retain_mut(|forsaken| forsaken.as_mut().poll(context).is_pending());
    if forsaken.is_empty() { Poll::Ready(()) } else { Poll::Pending }
}

/// Ends the lease or session of a contender as soon as its servers answer, so that nobody waits for one that is abandoned.
async fn give_up(backend: Rc<dyn Backend>, until: Instant) {
    while clock::now() < until {
        let turn = backend.turn();
        match tokio::time::timeout(MAX_REQUEST_TIME, backend.release()).await {
            Ok(Ok(()) | Err(Trouble::Lost(_) | Trouble::Broken(_) | Trouble::Fatal(_))) => return,
            Ok(Err(Trouble::Uncertain { .. })) => {}
            Err(_) => drop(backend.overdue(turn)),
        }
        tokio::time::sleep(GIVE_UP_AGAIN).await;
    }
}
