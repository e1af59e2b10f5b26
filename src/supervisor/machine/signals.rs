//! Signals: which of them the command is to get, and when one stops or ends the job.

use nix::sys::signal::Signal;

use super::{Action, Group, Keeper, Machine, PARTING, Phase, SAME_SIGNAL, TESTIMONY};
use crate::clock::Instant;
use crate::error::Failure;
use crate::keeper::machine::MAX_RELEASE;
use crate::link::{FromSupervisor, Verdict};

impl Machine {
    /// The shell is to see the job stopped. Where the command has a group of its own, only a stop that came through here
    /// is the shell's business.
    pub(super) fn command_stopped(&mut self, signal: i32) {
        let by_terminal = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU].iter().any(|s| *s as i32 == signal);
        if self.group != Group::Own || by_terminal {
            self.actions.push(Action::StopSelf(signal));
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, keyboard: bool, now: Instant) {
        match (self.phase, signal) {
            (Phase::Waiting, Signal::SIGTSTP) => self.actions.push(Action::StopSelf(signal as i32)),
            // Whose end comes already needs no other.
            (Phase::Waiting, _) if self.keeper == Keeper::Gone => {}
            (Phase::Waiting, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT) => {
                let interrupted = Failure::interrupted(signal as i32, format_args!("while waiting for {}", self.name));
                self.verdict = Some(Verdict::Failed(interrupted));
                self.parted = self.parted.or(Some(now + MAX_RELEASE + PARTING));
                self.forward(signal, now);
            }
            (_, Signal::SIGTTIN | Signal::SIGTTOU) | (Phase::Waiting | Phase::Over, _) => {}
            // The terminal's driver has sent it to the command as well, if that runs.
            (Phase::Armed | Phase::Running | Phase::Frozen, _) if keyboard && self.group != Group::Own => {
                self.actions.push(Action::Post(FromSupervisor::Typed(signal as i32)));
            }
            (Phase::Running | Phase::Frozen, _) if self.group == Group::Witnessed => {
                if take(&mut self.witnessed, signal) {
                    // The command has it already; it counts all the same.
                    let _ = self.counts(signal, now);
                } else {
                    self.undecided.push((signal, now + TESTIMONY));
                }
            }
            (Phase::Armed | Phase::Running | Phase::Frozen, _) => self.forward(signal, now),
        }
    }

    /// The whole group got the signal, so the command has it.
    pub(super) fn testified(&mut self, signal: Signal, now: Instant) {
        if take(&mut self.undecided, signal) {
            let _ = self.counts(signal, now);
        } else {
            self.witnessed.push((signal, now + TESTIMONY));
        }
    }

    /// What the witness does not speak of in time was sent to this process alone.
    pub(super) fn decide(&mut self, now: Instant) {
        self.witnessed.retain(|(_, until)| now < *until);
        let over = self.group != Group::Witnessed;
        while let Some((signal, _)) = self.undecided.first().copied().filter(|(_, until)| over || now >= *until) {
            self.undecided.remove(0);
            self.forward(signal, now);
        }
    }

    pub(super) fn forward(&mut self, signal: Signal, now: Instant) {
        if self.counts(signal, now) {
            self.actions.push(Action::Post(FromSupervisor::Signal(signal as i32)));
        }
    }

    /// Counts INT and TERM: the first is the command's, the same again within a second is the same, and a later one
    /// kills. Whether the command is to have it.
    pub(super) fn counts(&mut self, signal: Signal, now: Instant) -> bool {
        if !matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
            return true;
        }
        match self.first {
            Some((_, at)) if now.since(at) >= SAME_SIGNAL => {
                self.actions.push(Action::Post(FromSupervisor::Kill));
                self.kill_wanted = self.kill_wanted.or(Some(now));
                false
            }
            Some((first, _)) => first != signal,
            None => {
                self.first = Some((signal, now));
                true
            }
        }
    }
}

fn take(signals: &mut Vec<(Signal, Instant)>, signal: Signal) -> bool {
    let found = signals.iter().position(|(known, _)| *known == signal);
    found.map(|index| signals.remove(index)).is_some()
}
