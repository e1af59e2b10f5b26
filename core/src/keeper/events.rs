//! What the keeper's machine takes in and gives out: events, actions, and the requests to the backend.

use crate::error::Failure;
use crate::lease::Deadlines;
use crate::messages::{FromKeeper, Verdict};
use crate::outcome::{Granted, Outcome, Position, Trouble};
use crate::signal::Signal;
use crate::time::Instant;

/// Request to the backend. At most one of each kind is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Create a contender and enter the queue.
    Enter,
    /// Wait until the position in the queue changes.
    Wait,
    /// Renew the lease and check the lock.
    Renew,
    /// Watch the key of the lock; returns if the lock is lost or broken, or if the watch fails.
    Watch,
    /// Check whether another client held the lock since the last run ([`super::Machine::last_run_token`]).
    VerifyContinuity,
    /// Release the lock, or leave the queue.
    Release,
}

impl Request {
    /// Number of kinds.
    pub const COUNT: usize = 6;

    /// Every kind, in the order of its number.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Enter, Self::Wait, Self::Renew, Self::Watch, Self::VerifyContinuity, Self::Release];
}

/// Input of the machine.
#[derive(Debug)]
pub enum Event {
    /// [`Request::Enter`] returned.
    Entered(Outcome<(Granted, Position)>),
    /// [`Request::Wait`] returned.
    WaitReturned(Outcome<Position>),
    /// [`Request::Renew`] returned; holds the `sent_at` of a confirmed renewal.
    Renewed(Outcome<Instant>),
    /// [`Request::Watch`] returned.
    WatchFailed(Trouble),
    /// [`Request::VerifyContinuity`] returned; true if no other client held the lock.
    ContinuityVerified(Outcome<bool>),
    /// The whole process tree is stopped.
    Frozen,
    /// [`Request::Release`] returned.
    Released(Outcome<()>),
    /// The supervisor guards these deadlines.
    Acknowledged(Deadlines),
    /// The supervisor forwards a signal.
    Signal(Signal),
    /// The whole process group got a signal: the command has it already if it runs.
    GroupSignal(Signal),
    /// The supervisor requests that the command is killed now.
    Kill,
    /// The supervisor died.
    Orphaned,
    /// The command runs.
    Started,
    /// The program could not be executed. Its forked process exits by itself.
    NotStarted(Failure),
    /// Children were reaped.
    Reaped {
        /// How the command ended, if it was among them.
        command: Option<Verdict>,
        /// The process tree is empty.
        empty: bool,
    },
    /// A request of [`Action::NextEndpoint`] timed out at this endpoint.
    TimedOut(Request, String),
    /// Time has passed.
    Tick,
}

impl Event {
    /// Returns the request that this event answers.
    #[must_use]
    pub fn answered_request(&self) -> Option<Request> {
        match self {
            Self::Entered(_) => Some(Request::Enter),
            Self::WaitReturned(_) => Some(Request::Wait),
            Self::Renewed(_) => Some(Request::Renew),
            Self::WatchFailed(_) => Some(Request::Watch),
            Self::ContinuityVerified(_) => Some(Request::VerifyContinuity),
            Self::Released(_) => Some(Request::Release),
            _ => None,
        }
    }
}

/// Output of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this request.
    Begin(Request),
    /// Cancel this request, which is in flight.
    Abandon(Request),
    /// Use another endpoint, because this request, just abandoned, timed out; reply with [`Event::TimedOut`].
    NextEndpoint(Request),
    /// Send this message to the supervisor.
    Send(FromKeeper),
    /// Start the command.
    Start,
    /// Send this signal to the command.
    SignalCommand(Signal),
    /// Send the soft signal to the whole process tree and continue its stopped processes.
    TerminateTree,
    /// Kill the whole process tree.
    KillTree {
        /// The kill budget is over: also report the processes that are left.
        overdue: bool,
    },
    /// Stop the whole process tree; reply with [`Event::Frozen`] once it is stopped.
    Freeze,
    /// Continue what [`Action::Freeze`] stopped.
    Thaw,
    /// Release this contender in the background, as long as its lease may live, and create another one.
    AbandonContender,
    /// Report the processes that continue without the lock.
    ReportLeftovers,
    /// Send this verdict to the supervisor and exit.
    Finish(Verdict),
}
