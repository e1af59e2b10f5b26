//! The keeper: the asynchronous process. It connects, queues, acquires, starts the command, renews, watches and releases;
//! it is the parent and reaper of the command's tree. [`machine`] decides, this file does.

pub mod calls;
pub mod machine;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, setpgid};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::backend::{Backend, Name, Note, Place, Prepared, Trouble, Want};
use crate::clock::{Alarm, Instant};
use crate::error::{Failure, Kind, chain};
use crate::handle;
use crate::lease::MAX_ATTEMPT;
use crate::link::{Account, FromKeeper, FromSupervisor, Link, Received, Verdict};
use crate::process::{Group, Inherited, Spawn, exec_error, heed, ignore, register, report_pipe};
use crate::tree::{Change, Tree, Usage};
use crate::witness::Watched;
use calls::{COUNT, Request};
use machine::{Action, Event, Machine, Rules};

/// What the keeper needs; both processes know it, since one is forked from the other.
#[derive(Debug)]
pub struct Job {
    /// What the machine goes by.
    pub rules: Rules,
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
pub fn run(job: &Job, link: Link<FromKeeper>, watched: Option<Watched>) -> u8 {
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
    ignore(&[
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        // A limit on the size of files is an error like a full disk, no reason to die.
        Signal::SIGXFSZ,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ]);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&children()), None)?;
    Tree::adopt()
}

fn children() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set
}

fn live(job: &Job, link: Link<FromKeeper>, watched: Option<Watched>, tree: Tree) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let result = runtime.block_on(async { Keeper::new(job, link, watched, tree)?.run().await });
    // A look-up of a host name may still hang in a thread of the runtime's; the process ends all the same.
    runtime.shutdown_background();
    result
}

/// How often the servers are asked to end a lease that was given up.
const GIVE_UP_AGAIN: Duration = Duration::from_millis(300);
/// How much longer than it may live the keeper stays to end it.
const LINGER: Duration = Duration::from_secs(5);

/// For how long a supervisor is woken that stops although the command goes on, and how often it is looked at.
const WAKE_PARENT: Duration = Duration::from_millis(500);
const LOOK_AT_PARENT: Duration = Duration::from_millis(50);

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
            machine: Machine::new(job.rules.clone(), Instant::now()),
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
                for action in self.machine.on(event, Instant::now()) {
                    if let Action::Finish(verdict) = action {
                        return self.part(verdict).await;
                    }
                    next.extend(self.perform(action));
                }
            }
            self.tell_news();
            self.wake_parent();
            let look = self.waking.map(|_| Instant::now() + LOOK_AT_PARENT);
            self.alarm.get_ref().set(self.machine.wake().into_iter().chain(look).min())?;
            event = self.next_event().await?;
        }
    }

    /// Says how it ended, and stays no longer than a lease needs that could not be given up yet.
    async fn part(&mut self, verdict: Verdict) -> std::io::Result<()> {
        let lingers = !self.forsaken.is_empty();
        self.account.usage = Usage::of_reaped();
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
            Event::Entered(Ok((_, Place::Held { token, key }))) | Event::Moved(Ok(Place::Held { token, key })) => {
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
                if let (Some(pid), Ok(signal)) = (self.command, Signal::try_from(signal)) {
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
                    self.post(FromKeeper::Stuck(stuck));
                }
            }
            Action::Freeze => {
                self.frozen = true;
                return self.tree.freeze().then_some(Event::Froze);
            }
            Action::Thaw => {
                self.frozen = false;
                self.tree.thaw();
            }
            Action::Forsake => self.forsake(),
            Action::TellLeft => self.post(FromKeeper::Left(self.tree.members(None))),
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
            Request::Wait => Box::pin(async move { Event::Moved(backend.wait().await) }),
            Request::Renew => Box::pin(async move { Event::Renewed(backend.renew().await) }),
            Request::Watch => Box::pin(async move { Event::News(backend.watch().await) }),
            Request::Prove => {
                let since = self.machine.ran_under();
                Box::pin(async move { Event::Proved(backend.alone(since).await) })
            }
            Request::Release => Box::pin(async move { Event::Released(backend.release().await) }),
        });
    }

    /// Leaves the present contender to itself, and makes a new one.
    fn forsake(&mut self) {
        // The settings were good enough for the first one, so they are for another.
        if let Ok(backend) = self.job.prepared.contender(self.job.want.clone(), self.note.clone()) {
            let old = std::mem::replace(&mut self.backend, Rc::from(backend));
            let until = Instant::now() + self.job.want.ttl * 2 + LINGER;
            self.forsaken.push(Box::pin(give_up(old, until)));
        }
    }

    /// Forks the command. Whether its program can be executed is told later.
    fn start(&mut self) -> Option<Event> {
        let forked = self.fork_command();
        if !self.job.reruns {
            self.detach();
        }
        let error = forked.err()?;
        // There is no process, whose end would be told.
        let empty = self.tree.reap().is_ok_and(|reaped| reaped.empty);
        self.seen.push_back(Event::Reaped { command: None, empty });
        Some(Event::NotStarted(Failure::fault("the system gave no process for the command").because(error)))
    }

    fn fork_command(&mut self) -> std::io::Result<()> {
        let variables = self.variables();
        let holds = match &self.job.prepared {
            Prepared::Local(file) => Some(file.as_fd()),
            _ => None,
        };
        let spawn = Spawn {
            argv: &self.job.argv,
            set: &variables,
            group: self.job.group,
            holds,
            inherited: &self.job.inherited,
        };
        let (outcome, report) = report_pipe()?;
        // All that can fail comes before the fork.
        let outcome = pipe::Receiver::from_owned_fd(outcome)?;
        self.command = Some(spawn.start(&report)?);
        self.starting = Some(outcome);
        Ok(())
    }

    /// What became of the start, if it is known by now.
    fn outcome(&mut self) -> Option<Event> {
        let mut report = [0; 4];
        let event = match self.starting.as_ref()?.try_read(&mut report) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            Ok(length) if length > 0 => {
                // Its process is about to end, and was never the command.
                self.command = None;
                Event::NotStarted(not_started(&self.job.argv, &exec_error(&report[..length])))
            }
            // A command that was killed before its program was executed has started and ended.
            _ => Event::Started,
        };
        self.starting = None;
        Some(event)
    }

    /// Closes what was inherited, once: the numbers may be others' afterwards.
    fn detach(&mut self) {
        if !std::mem::replace(&mut self.detached, true) {
            self.job.inherited.close(&[]);
        }
    }

    /// What the command's environment tells of the lock.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let (Some(backend), Some((token, key))) = (self.job.backend, &self.place) else { return Vec::new() };
        let name = &self.job.want.name;
        let mut variables = vec![
            ("DISTLOCK_FENCING_TOKEN", token.to_string()),
            ("DISTLOCK_HANDLE", handle::of_running(backend, self.backend.lease_id().as_deref(), *token, name)),
            ("DISTLOCK_HELD_NAME", name.clone()),
            ("DISTLOCK_HELD_BACKEND", backend.to_string()),
            ("DISTLOCK_HELD_KEY", key.clone()),
        ];
        match backend {
            Name::Etcd => variables.extend([("ETCD_LOCK_KEY", key.clone()), ("ETCD_LOCK_REV", token.to_string())]),
            Name::Consul => variables.push(("CONSUL_LOCK_HELD", "true".into())),
            Name::Local => {}
        }
        variables
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
            self.post(FromKeeper::Note(note));
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
                        Received::Message(FromSupervisor::Typed(signal)) => return Ok(Event::Typed(signal)),
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

    fn reap(&mut self) -> std::io::Result<Event> {
        let reaped = self.tree.reap()?;
        let mut ended = None;
        let command = self.command;
        for (_, change) in reaped.changes.into_iter().filter(|(pid, _)| Some(*pid) == command) {
            match change {
                Change::Exited(code) => ended = Some(Verdict::Exited(code)),
                Change::Signaled(signal) => ended = Some(Verdict::Signaled(signal)),
                // What was frozen is no job that the user stopped.
                Change::Stopped(_) if self.frozen => {}
                Change::Stopped(signal) => {
                    self.waking = None;
                    self.post(FromKeeper::Stopped(signal));
                }
                Change::Continued => {
                    self.waking = Some(Instant::now() + WAKE_PARENT);
                    self.post(FromKeeper::Continued);
                }
            }
        }
        if ended.is_some() {
            self.command = None;
            // How it started is told before how it ended.
            if let Some(outcome) = self.outcome() {
                let ended = ended.filter(|_| matches!(outcome, Event::Started));
                self.seen.push_back(Event::Reaped { command: ended, empty: reaped.empty });
                return Ok(outcome);
            }
        }
        Ok(Event::Reaped { command: ended, empty: reaped.empty })
    }

    /// Somebody let the command go on and not the job, so the supervisor would stay behind for ever. It may be about to
    /// stop, so this looks again for a while.
    fn wake_parent(&mut self) {
        let Some(until) = self.waking else { return };
        if self.orphaned || Instant::now() >= until {
            self.waking = None;
        } else if Tree::parent_is_stopped() {
            self.waking = None;
            let _ = kill(Pid::parent(), Signal::SIGCONT);
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
    while Instant::now() < until {
        let turn = backend.turn();
        match tokio::time::timeout(MAX_ATTEMPT, backend.release()).await {
            Ok(Ok(()) | Err(Trouble::Lost(_) | Trouble::Broken(_) | Trouble::Fatal(_))) => return,
            Ok(Err(Trouble::Uncertain { .. })) => {}
            Err(_) => drop(backend.overdue(turn)),
        }
        tokio::time::sleep(GIVE_UP_AGAIN).await;
    }
}

/// A command that could not be executed although it was found before the lock was taken.
fn not_started(argv: &[OsString], error: &std::io::Error) -> Failure {
    let program = argv.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::NotExecutable,
    };
    let mut failure = Failure::new(kind, format!("cannot execute {program}"));
    failure.causes = chain(error);
    failure
}
