//! What the supervisor's machine takes in and gives out: events and actions.

use crate::messages::{FromKeeper, FromSupervisor, Notice, Verdict};
use crate::signal::Signal;

/// Input of the machine.
#[derive(Debug)]
pub enum Event {
    /// The keeper sent a message.
    Message(FromKeeper),
    /// The keeper closed the link; its process exits or has exited.
    LinkClosed,
    /// The keeper's process exited.
    KeeperExited,
    /// The supervisor has no children left.
    TreeEmpty,
    /// The supervisor received a signal.
    Signal {
        /// The signal.
        signal: Signal,
        /// The kernel sent it, as the terminal driver does to a whole process group.
        keyboard: bool,
    },
    /// The witness received a signal, so the whole process group did.
    GroupSignal(Signal),
    /// The witness has reported everything that it received before [`Action::AskWitness`].
    WitnessAnswered,
    /// The witness died or closed its link.
    WitnessGone,
    /// The witness woke the supervisor, because a deadline has passed or the keeper is dead.
    WokenByWitness,
    /// Time has passed.
    Tick,
}

/// Process group of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// One of its own.
    Own,
    /// The supervisor's: the terminal's signals reach the command directly.
    Shared,
    /// The supervisor's, with a witness that reports which other signals reach it.
    Witnessed,
}

/// Output of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this message to the keeper.
    Send(FromSupervisor),
    /// Stop the supervisor by the signal that stopped the command.
    StopSelf(Signal),
    /// Request a report from the witness; reply with [`Event::WitnessAnswered`].
    AskWitness,
    /// Kill all descendants except the keeper.
    KillTree,
    /// Kill the keeper and all other descendants.
    KillAll,
    /// Show the remaining descendants to the user.
    ShowStuck,
    /// Kill only the keeper.
    KillKeeper,
    /// Release the lease that the keeper left behind.
    Release,
    /// Close the descriptors that only the command needs.
    CloseStreams,
    /// Show this notice to the user.
    Show(Notice),
    /// Exit with this verdict.
    Finish(Verdict),
}
