//! The table of the signals that distlock treats specially, and the conversion to the signals of core.

use nix::sys::signal::{SigSet, Signal as NixSignal};

use distlock_core::signal::Signal;

/// How the processes of distlock treat one signal.
struct Treatment {
    signal: NixSignal,
    /// The supervisor reads it from its signal descriptor, to forward it or to stop.
    read_by_supervisor: bool,
    ignored_by_keeper: bool,
    /// If distlock was started with this signal ignored, the command starts with it ignored. The command starts with every
    /// other signal at its default.
    inherited_if_ignored: bool,
}

const fn row(
    signal: NixSignal,
    read_by_supervisor: bool,
    ignored_by_keeper: bool,
    inherited_if_ignored: bool,
) -> Treatment {
    Treatment { signal, read_by_supervisor, ignored_by_keeper, inherited_if_ignored }
}

const TABLE: [Treatment; 12] = [
    row(NixSignal::SIGINT, true, true, true),
    row(NixSignal::SIGTERM, true, true, false),
    row(NixSignal::SIGHUP, true, true, true),
    row(NixSignal::SIGQUIT, true, true, true),
    row(NixSignal::SIGUSR1, true, true, false),
    row(NixSignal::SIGUSR2, true, true, false),
    row(NixSignal::SIGWINCH, true, false, false),
    row(NixSignal::SIGCONT, true, false, false),
    row(NixSignal::SIGTSTP, true, true, false),
    row(NixSignal::SIGTTIN, true, true, false),
    row(NixSignal::SIGTTOU, true, true, false),
    row(NixSignal::SIGPIPE, false, true, false),
];

fn select(wanted: impl Fn(&Treatment) -> bool) -> Vec<NixSignal> {
    TABLE.iter().filter(|row| wanted(row)).map(|row| row.signal).collect()
}

pub(crate) fn read_by_supervisor() -> Vec<NixSignal> {
    select(|row| row.read_by_supervisor)
}

pub(crate) fn ignored_by_keeper() -> Vec<NixSignal> {
    select(|row| row.ignored_by_keeper)
}

/// Returns the signals that are ignored in the command if distlock was started with them ignored.
pub(crate) fn inherited_if_ignored() -> Vec<NixSignal> {
    select(|row| row.inherited_if_ignored)
}

pub(crate) fn set(signals: impl IntoIterator<Item = NixSignal>) -> SigSet {
    signals.into_iter().collect()
}

/// Converts a signal of nix to the type of core.
pub(crate) fn from_nix(signal: NixSignal) -> Signal {
    Signal::from_number(signal as i32)
}

/// Converts a signal of core to the type of nix; None for a signal without a name.
pub(crate) fn to_nix(signal: Signal) -> Option<NixSignal> {
    NixSignal::try_from(signal.number()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_is_treated_as_listed() {
        let names = |signals: Vec<NixSignal>| signals.iter().map(|signal| &signal.as_str()[3..]).collect::<Vec<_>>();
        let supervisor = ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT", "TSTP", "TTIN", "TTOU"];
        assert_eq!(names(read_by_supervisor()), supervisor);
        let keeper = ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "TSTP", "TTIN", "TTOU", "PIPE"];
        assert_eq!(names(ignored_by_keeper()), keeper);
        assert_eq!(names(inherited_if_ignored()), ["INT", "HUP", "QUIT"]);
    }

    #[test]
    fn supervisor_reads_every_signal_that_ends_a_command() {
        let supervisor = read_by_supervisor();
        for signal in NixSignal::iterator().filter(|signal| from_nix(*signal).ends_a_command()) {
            assert!(supervisor.contains(&signal) && ignored_by_keeper().contains(&signal), "{signal}");
        }
    }
}
