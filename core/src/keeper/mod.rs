//! State machine of the keeper. It owns every decision about the lock and the command: when to enter the queue, renew,
//! start, freeze, terminate, kill and release. It does no I/O: [`Machine::on`] takes an event and the current time and
//! returns actions. It imports the vocabulary of this crate (`lease`, `messages`, `outcome`, `plan` and such), never
//! the supervisor or a backend.
//!
//! ```text
//! Seeking ───> Held ───> Starting ───> Running ───> Clearing ───> Releasing ───> Done
//!  ^  ^         │            │          │   ^          ^  │           ^
//!  │  └──lost───┘            └─ not started ┼──────────┘  │           │
//!  │                                    v   │             │           │
//!  │                                   Frozen             │           │
//!  └─────────────── --on-lost restart ────────────────────┘           │
//! from Seeking and Held: wait over, signal, access denied ────────────┘
//!
//! Seeking              renewals; --wait; --connect-timeout until a server answers
//! Held                 renewals; --wait; with --try --connect-timeout
//! Starting, Running    renewals; soft and kill deadline
//! Frozen               --wait, at least 3 s; until the tree is stopped, KILL at the kill deadline
//! Clearing             as Running, and the grace of leftovers
//! Releasing            the hard deadline, between 1 s and 5 s
//! ```
//!
//! `Frozen` is not a [`Phase`] of its own: it is a property of a tree in Starting, Running or Clearing. The same holds
//! for a [`Termination`](state::Termination), which adds the time of KILL.
//!
//! # Invariants
//!
//! - The command starts, and a frozen tree continues, only with a confirmed lock, a lease that [allows a
//!   start](crate::lease::Lease::may_start) and deadlines that the supervisor has acknowledged (rules 3, 5 and 9).
//! - From the kill deadline on, every call kills or has a kill pending, unless the tree is empty or stopped.
//! - A release begins only when the tree is empty (or left to run by `--leftover leave`) and no other request is in
//!   flight.
//! - At most one request of each kind is in flight. The answer to an abandoned one changes nothing.
//! - Nothing is done after [`Action::Finish`].
//!
//! | file | content |
//! |---|---|
//! | `events` | events, actions, requests to the backend |
//! | `state` | what the machine remembers |
//! | `timers` | deadlines and due requests |
//! | `requests`, `restarts` | schedules of requests and of restarts |
//! | `lock` | answers of the backend |
//! | `command` | start, signals and end of the command |
//! | `recovery` | `--on-lost restart` and `relock` |
//! | `release` | verdict, release, failure messages |

mod command;
mod events;
mod lock;
mod recovery;
mod release;
mod requests;
mod restarts;
mod state;
mod timers;

pub use events::{Action, Event, Request};
pub use state::Machine;

use crate::messages::Notice;
use crate::time::Instant;
use state::Phase;

impl Machine {
    /// Handles one event and returns the actions to perform, in order. Deadlines are checked first, because the machine
    /// may have been suspended.
    #[must_use]
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        self.check_deadlines(now);
        match event {
            Event::Entered(outcome) => self.entered(outcome, now),
            Event::WaitReturned(outcome) => self.wait_returned(outcome, now),
            Event::Renewed(outcome) => self.renewed(outcome, now),
            Event::WatchFailed(trouble) => self.watch_failed(trouble, now),
            Event::ContinuityVerified(outcome) => self.continuity_verified(outcome, now),
            Event::Frozen => self.tree_stopped(now),
            Event::Released(outcome) => self.released(outcome, now),
            Event::Acknowledged(deadlines) => self.acknowledged(deadlines, now),
            Event::Signal(signal) => self.signal(signal, now),
            Event::GroupSignal(signal) => self.group_signal(signal, now),
            Event::Kill => self.kill(now),
            Event::Orphaned => self.supervisor_died(now),
            Event::Started if self.phase == Phase::Starting => {
                self.phase = Phase::Running;
                self.notice(Notice::Started);
            }
            Event::NotStarted(failure) => self.not_started(failure),
            Event::Reaped { command, empty } => self.reaped(command, empty, now),
            Event::TimedOut(request, endpoint) => self.request_timed_out(request, &endpoint, now),
            Event::Started | Event::Tick => {}
        }
        self.run_requests(now);
        std::mem::take(&mut self.actions)
    }
}

#[cfg(test)]
mod tests;
