//! Signals: which of them the command is to get, and when one stops or ends the job.

use crate::signal::Signal;

use super::{Action, Group, Keeper, Machine, PARTING, Phase, SAME_SIGNAL};
use std::time::Duration;

use crate::error::Failure;
use crate::lease::MAX_RELEASE;
use crate::messages::{FromSupervisor, Verdict};
use crate::time::Instant;

/// A signal to the whole group reaches all its members within microseconds. Then the witness is asked whether it got it
/// too.
const SAME_MOMENT: Duration = Duration::from_millis(5);
/// The two of a group get a signal within this time, even where the processors are busy.
const SAME_SIGNAL_TO_BOTH: Duration = Duration::from_millis(100);
/// A witness that does not answer for so long is stopped.
const TESTIMONY: Duration = Duration::from_secs(1);

/// A signal of which the witness has not spoken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecided {
    signal: Signal,
    came: Instant,
    asked: bool,
}

impl Undecided {
    /// When something is to be done about it: to ask the witness, or to do without.
    pub(super) fn due(&self) -> Instant {
        self.came + if self.asked { TESTIMONY } else { SAME_MOMENT }
    }
}

impl Machine {
    /// The shell is to see the job stopped. Where the command has a group of its own there is no terminal, so no shell
    /// waits for it to stop, and nobody would wake this process in time for its deadline.
    pub(super) fn command_stopped(&mut self, signal: Signal) {
        if self.group != Group::Own {
            (self.stopped, self.stopping) = (Some(signal), true);
        }
    }

    /// The command goes on.
    pub(super) fn command_continued(&mut self) {
        (self.stopped, self.stopping) = (None, false);
    }

    /// Stops, once it is known that the command did not go on meanwhile, and that there is nothing to do here.
    pub(super) fn stop(&mut self) {
        let free = self.killing.is_none() && self.keeper == Keeper::Linked && self.phase != Phase::Over;
        if std::mem::take(&mut self.stopping)
            && free
            && let Some(signal) = self.stopped
        {
            self.actions.push(Action::StopSelf(signal));
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, keyboard: bool, now: Instant) {
        let runs = matches!(self.phase, Phase::Armed | Phase::Running | Phase::Frozen);
        // Of a terminal that hangs up only the leader of the session hears.
        let by_driver = keyboard && !matches!(signal, Signal::SIGHUP | Signal::SIGCONT);
        let group = take(&mut self.witnessed, signal);
        let undecided = runs && self.group == Group::Witnessed && !by_driver && !group;
        if !group && !undecided {
            self.known.push((signal, now + SAME_SIGNAL_TO_BOTH));
        }
        match (self.phase, signal) {
            (Phase::Waiting, Signal::SIGTSTP) => self.actions.push(Action::StopSelf(signal)),
            // Whose end comes already needs no other.
            (Phase::Waiting, _) if self.keeper == Keeper::Gone => {}
            (Phase::Waiting, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT) => {
                let interrupted = Failure::interrupted(signal, format_args!("while waiting for {}", self.name));
                self.verdict = Some(Verdict::Failed(interrupted));
                self.keeper_exit_deadline = self.keeper_exit_deadline.or(Some(now + MAX_RELEASE + PARTING));
                self.forward(signal, now);
            }
            (_, Signal::SIGTTIN | Signal::SIGTTOU) | (Phase::Waiting | Phase::Over, _) => {}
            // The terminal's driver has sent it to the command as well, if that runs.
            _ if by_driver && self.group != Group::Own => self.group_signal(signal),
            _ if group => self.got_without_us(signal, now),
            _ if undecided => self.undecided.push(Undecided { signal, came: now, asked: false }),
            _ => self.forward(signal, now),
        }
    }

    fn group_signal(&mut self, signal: Signal) {
        self.actions.push(Action::Post(FromSupervisor::GroupSignal(signal)));
    }

    /// The command has it already; it counts all the same.
    fn got_without_us(&mut self, signal: Signal, now: Instant) {
        if self.counts(signal, now) {
            self.group_signal(signal);
        }
    }

    /// The whole group got the signal, so the command has it.
    pub(super) fn testified(&mut self, signal: Signal, now: Instant) {
        if let Some(index) = self.undecided.iter().position(|known| known.signal == signal) {
            self.undecided.remove(index);
            self.got_without_us(signal, now);
        } else if !take(&mut self.known, signal) {
            self.witnessed.push((signal, now + SAME_SIGNAL_TO_BOTH));
        }
    }

    /// The witness has told all that it got before it was asked.
    pub(super) fn all_told(&mut self, now: Instant) {
        for alone in self.undecided.extract_if(.., |known| known.asked).collect::<Vec<_>>() {
            self.forward(alone.signal, now);
        }
    }

    /// What the witness does not speak of was sent to this process alone.
    pub(super) fn decide(&mut self, now: Instant) {
        self.witnessed.retain(|(_, until)| now < *until);
        self.known.retain(|(_, until)| now < *until);
        let mut ask = false;
        for known in &mut self.undecided {
            if !known.asked && now >= known.due() {
                (known.asked, ask) = (true, true);
            }
        }
        if ask {
            self.actions.push(Action::AskWitness);
        }
        let gone = self.group != Group::Witnessed;
        for alone in self.undecided.extract_if(.., |known| gone || now >= known.due()).collect::<Vec<_>>() {
            self.forward(alone.signal, now);
        }
    }

    pub(super) fn forward(&mut self, signal: Signal, now: Instant) {
        if self.counts(signal, now) {
            self.actions.push(Action::Post(FromSupervisor::Signal(signal)));
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
