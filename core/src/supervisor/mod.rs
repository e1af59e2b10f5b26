//! State machine of the supervisor. It owns the second, independent guard of the deadlines, the forwarding of signals,
//! and the final verdict. It does no I/O: [`Machine::on`] takes an event and the current time and returns actions. It
//! imports the vocabulary of this crate (`lease`, `messages`, `error` and such), never the keeper or a backend.
//!
//! ```text
//!          deadlines           started, thawed             verdict
//! Waiting ───────────> Armed ───────────────────> Running ─────────> Ended
//!                        ^                           │
//!                        └─ deadlines ── Frozen <────┘
//!
//! from every state: to Waiting if the lock was lost before the start, and before a restart;
//!                   to Ended after the keeper's verdict, or after its death once the tree is empty
//!
//! Waiting           after a signal: 6 s until the keeper is killed
//! Armed, Running    the kill deadline, then a kill every few milliseconds; the keeper too once it is silent
//! Frozen            none
//! Ended             1 s until a keeper with a verdict is killed, 6 s if it still releases
//!
//! Armed, Running and Frozen: 500 ms for the keeper to react to a kill that the user requested
//! ```
//!
//! # Invariants
//!
//! - Deadlines are acknowledged only in a state in which the supervisor kills when they pass (rule 5).
//! - From the kill deadline on, the tree is killed repeatedly until it is empty, frozen, or covered by a newer
//!   deadline.
//! - A deadline counts only after all messages were read: a newer one may follow in the link.
//! - After the keeper's death the tree is killed and empty before the lease is released.
//! - The command gets each signal once, whether it was sent to the supervisor or to the whole process group.
//!
//! | file | content |
//! |---|---|
//! | `events` | events and actions |
//! | `state` | what the machine remembers, and its next timer |
//! | `keeper` | messages and death of the keeper |
//! | `deadlines` | kill deadlines, exit of the keeper |
//! | `signals` | signals, the witness, suspended jobs |

mod deadlines;
mod events;
mod keeper;
mod signals;
mod state;

pub use events::{Action, Event, Group};
pub use state::Machine;

use crate::time::Instant;
use state::KeeperState;

impl Machine {
    /// Handles one event and returns the actions to perform, in order.
    ///
    /// The caller sends [`Event::Tick`] once it has read all messages of the keeper: deadlines are not checked before,
    /// because a newer one may follow one that passed while the supervisor was stopped.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let more_may_follow = matches!(event, Event::Message(_));
        match event {
            Event::Message(message) => self.message(message, now),
            Event::LinkClosed => self.keeper = self.keeper.max(KeeperState::Disconnected),
            Event::KeeperExited => self.handle_keeper_exit(now),
            Event::TreeEmpty => self.tree_empty(),
            Event::Signal { signal, keyboard } => self.signal(signal, keyboard, now),
            Event::GroupSignal(signal) => self.witness_received(signal, now),
            Event::WitnessAnswered => self.witness_answered(now),
            // Stops again unless the command has continued or there is something to do.
            Event::WokenByWitness => self.stop_pending = true,
            Event::WitnessGone => self.group = Group::Shared,
            Event::Tick => {}
        }
        self.check_undecided(now);
        if !more_may_follow {
            self.check_deadlines(now);
            self.stop_if_pending();
        }
        std::mem::take(&mut self.actions)
    }
}

#[cfg(test)]
mod tests;
