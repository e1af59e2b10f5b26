//! Signals: which of them the command gets, and when a signal stops or ends the job.

use std::time::Duration;

use super::events::{Action, Group};
use super::state::{KEEPER_EXIT_BUDGET, KeeperState, Machine, Phase, UndecidedSignal};
use crate::error::Failure;
use crate::lease::MAX_RELEASE;
use crate::messages::{FromSupervisor, Verdict};
use crate::signal::Signal;
use crate::time::Instant;

/// An INT or TERM that repeats the first within this time is the same one, sent both to the process and to its group.
const REPEAT_WINDOW: Duration = Duration::from_secs(1);
/// The supervisor and the witness receive a signal to their group within this time, even on busy processors.
const WITNESS_MATCH_WINDOW: Duration = Duration::from_millis(100);

impl Machine {
    /// Stops the supervisor with its command, so that the shell sees the job stopped. A command in a group of its own
    /// has no terminal: no shell waits for the stop, and no witness would wake the supervisor before its deadline.
    pub(super) fn command_stopped(&mut self, signal: Signal) {
        if self.group != Group::Own {
            (self.command_stopped_by, self.stop_pending) = (Some(signal), true);
        }
    }

    pub(super) fn command_continued(&mut self) {
        (self.command_stopped_by, self.stop_pending) = (None, false);
    }

    /// Stops the supervisor if a stop is pending, the command did not continue, and there is nothing else to do.
    pub(super) fn stop_if_pending(&mut self) {
        let unoccupied = self.kill.is_none() && self.keeper == KeeperState::Connected && self.phase != Phase::Ended;
        if std::mem::take(&mut self.stop_pending)
            && unoccupied
            && let Some(signal) = self.command_stopped_by
        {
            self.actions.push(Action::StopSelf(signal));
        }
    }

    pub(super) fn signal(&mut self, signal: Signal, keyboard: bool, now: Instant) {
        // A terminal that hangs up signals only the leader of the session.
        let typed = keyboard && !matches!(signal, Signal::SIGHUP | Signal::SIGCONT);
        let witnessed = remove(&mut self.witnessed, signal);
        let undecided = self.tree_may_run() && self.group == Group::Witnessed && !typed && !witnessed;
        if !witnessed && !undecided {
            self.handled.push((signal, now + WITNESS_MATCH_WINDOW));
        }
        match (self.phase, signal) {
            (Phase::Waiting, Signal::SIGTSTP) => self.actions.push(Action::StopSelf(signal)),
            // The job ends already.
            (Phase::Waiting, _) if self.keeper_exited() => {}
            (Phase::Waiting, signal) if signal.ends_a_command() => self.interrupt_wait(signal, now),
            (_, Signal::SIGTTIN | Signal::SIGTTOU) | (Phase::Waiting | Phase::Ended, _) => {}
            // The terminal driver has sent it to the command as well.
            _ if typed && self.group != Group::Own => self.report_group_signal(signal),
            _ if witnessed => self.handle_group_signal(signal, now),
            _ if undecided => {
                self.undecided.push(UndecidedSignal { signal, received_at: now, witness_asked: false });
            }
            _ => self.forward(signal, now),
        }
    }

    fn interrupt_wait(&mut self, signal: Signal, now: Instant) {
        let interrupted = Failure::interrupted(signal, format_args!("while waiting for {}", self.lock_name));
        self.verdict = Some(Verdict::Failed(interrupted));
        self.keeper_exit_deadline = self.keeper_exit_deadline.or(Some(now + MAX_RELEASE + KEEPER_EXIT_BUDGET));
        self.forward(signal, now);
    }

    fn report_group_signal(&mut self, signal: Signal) {
        self.actions.push(Action::Send(FromSupervisor::GroupSignal(signal)));
    }

    /// Counts a signal that the command has received directly, and reports it to the keeper.
    fn handle_group_signal(&mut self, signal: Signal, now: Instant) {
        if self.count(signal, now) {
            self.report_group_signal(signal);
        }
    }

    pub(super) fn witness_received(&mut self, signal: Signal, now: Instant) {
        if let Some(index) = self.undecided.iter().position(|undecided| undecided.signal == signal) {
            self.undecided.remove(index);
            self.handle_group_signal(signal, now);
        } else if !remove(&mut self.handled, signal) {
            self.witnessed.push((signal, now + WITNESS_MATCH_WINDOW));
        }
    }

    /// Forwards the signals that the witness was asked about and did not report: only the supervisor received them.
    pub(super) fn witness_answered(&mut self, now: Instant) {
        self.forward_undecided(now, |undecided| undecided.witness_asked);
    }

    /// Asks the witness about undecided signals; forwards those that it does not answer in time.
    pub(super) fn check_undecided(&mut self, now: Instant) {
        self.witnessed.retain(|(_, forget_at)| now < *forget_at);
        self.handled.retain(|(_, forget_at)| now < *forget_at);
        let mut ask = false;
        for undecided in &mut self.undecided {
            if !undecided.witness_asked && now >= undecided.due() {
                (undecided.witness_asked, ask) = (true, true);
            }
        }
        if ask {
            self.actions.push(Action::AskWitness);
        }
        let no_witness = self.group != Group::Witnessed;
        self.forward_undecided(now, |undecided| no_witness || now >= undecided.due());
    }

    fn forward_undecided(&mut self, now: Instant, selected: impl Fn(&UndecidedSignal) -> bool) {
        for undecided in self.undecided.extract_if(.., |undecided| selected(undecided)).collect::<Vec<_>>() {
            self.forward(undecided.signal, now);
        }
    }

    fn forward(&mut self, signal: Signal, now: Instant) {
        if self.count(signal, now) {
            self.actions.push(Action::Send(FromSupervisor::Signal(signal)));
        }
    }

    /// Counts INT and TERM; returns whether the command gets this signal. A repetition within a second is dropped, and
    /// a later INT or TERM kills instead.
    fn count(&mut self, signal: Signal, now: Instant) -> bool {
        if !matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
            return true;
        }
        match self.first_signal {
            Some((_, received_at)) if now.since(received_at) >= REPEAT_WINDOW => {
                self.actions.push(Action::Send(FromSupervisor::Kill));
                self.kill_requested_at = self.kill_requested_at.or(Some(now));
                false
            }
            Some((first, _)) => first != signal,
            None => {
                self.first_signal = Some((signal, now));
                true
            }
        }
    }
}

/// Removes one occurrence of the signal; returns whether there was one.
fn remove(signals: &mut Vec<(Signal, Instant)>, signal: Signal) -> bool {
    let index = signals.iter().position(|(known, _)| *known == signal);
    index.map(|index| signals.remove(index)).is_some()
}
