//! What distlock does with each signal: one table.

use distlock_core::signal::Signal;
use nix::sys::signal::{SigSet, Signal as NixSignal};

/// How the processes of distlock treat one signal.
struct Treatment {
    signal: NixSignal,
    /// The supervisor takes it, to forward it or to stop.
    supervisor: bool,
    /// The keeper ignores it.
    keeper_ignores: bool,
    /// If distlock was started with this signal ignored, so is the command. Every other signal is at its default.
    inherited: bool,
}

const fn treat(signal: NixSignal, supervisor: bool, keeper_ignores: bool, inherited: bool) -> Treatment {
    Treatment { signal, supervisor, keeper_ignores, inherited }
}

const TABLE: [Treatment; 12] = [
    treat(NixSignal::SIGINT, true, true, true),
    treat(NixSignal::SIGTERM, true, true, false),
    treat(NixSignal::SIGHUP, true, true, true),
    treat(NixSignal::SIGQUIT, true, true, true),
    treat(NixSignal::SIGUSR1, true, true, false),
    treat(NixSignal::SIGUSR2, true, true, false),
    treat(NixSignal::SIGWINCH, true, false, false),
    treat(NixSignal::SIGCONT, true, false, false),
    treat(NixSignal::SIGTSTP, true, true, false),
    treat(NixSignal::SIGTTIN, true, true, false),
    treat(NixSignal::SIGTTOU, true, true, false),
    treat(NixSignal::SIGPIPE, false, true, false),
];

fn those(wanted: impl Fn(&Treatment) -> bool) -> Vec<NixSignal> {
    TABLE.iter().filter(|row| wanted(row)).map(|row| row.signal).collect()
}

/// Returns the signals that the supervisor takes.
pub(crate) fn of_supervisor() -> Vec<NixSignal> {
    those(|row| row.supervisor)
}

/// Returns the signals that the keeper ignores.
pub(crate) fn ignored_by_keeper() -> Vec<NixSignal> {
    those(|row| row.keeper_ignores)
}

/// Returns the signals whose ignored disposition the command inherits.
pub(crate) fn inherited() -> Vec<NixSignal> {
    those(|row| row.inherited)
}

/// Returns a set of these signals.
pub(crate) fn set(signals: impl IntoIterator<Item = NixSignal>) -> SigSet {
    signals.into_iter().collect()
}

/// Returns the signal in core's terms.
pub(crate) fn from_nix(signal: NixSignal) -> Signal {
    Signal::from_number(signal as i32)
}

/// Returns the signal in nix's terms; None for a signal without a name.
pub(crate) fn to_nix(signal: Signal) -> Option<NixSignal> {
    NixSignal::try_from(signal.number()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_that_ends_a_command_reaches_the_supervisor() {
        let supervisor = of_supervisor();
        for signal in NixSignal::iterator().filter(|signal| from_nix(*signal).ends_a_command()) {
            assert!(supervisor.contains(&signal) && ignored_by_keeper().contains(&signal), "{signal}");
        }
    }
}
