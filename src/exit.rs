//! The table of exit codes: the only place that decides them.
//!
//! | exit | when |
//! |---|---|
//! | the command's | the command exited by itself; 128+N if signal N killed it |
//! | 64 | wrong usage, or a refused configuration |
//! | 69 | no server could be reached or trusted, or no server could grant a lock |
//! | 70 | a fault in distlock or in the system |
//! | 75 | busy: not acquired within `--wait` (`--busy-exit` changes the code) |
//! | 76 | the lock was lost or broken, and the command was killed |
//! | 77 | the backend denied access |
//! | 124 | `--max-hold` has passed |
//! | 126, 127 | the command cannot be executed, or was not found |
//! | 128+N | signal N ended distlock while waiting |

use distlock_core::error::Kind;
use distlock_core::signal::Signal;

pub(crate) const OK: u8 = 0;

/// Returns the exit code of a failure of this kind, without `--busy-exit`.
#[must_use]
pub(crate) fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Usage => 64,
        Kind::Unreachable => 69,
        Kind::Fault => 70,
        Kind::Busy => 75,
        Kind::Lost | Kind::Broken => 76,
        Kind::Denied => 77,
        Kind::MaxHold => 124,
        Kind::NotExecutable => 126,
        Kind::NotFound => 127,
        Kind::Interrupted(signal) => signaled(signal),
    }
}

/// Returns the exit code that shells use for a process killed by `signal`.
#[must_use]
pub(crate) fn signaled(signal: Signal) -> u8 {
    u8::try_from(signal.number()).map_or(u8::MAX, |signal| 128_u8.saturating_add(signal))
}
