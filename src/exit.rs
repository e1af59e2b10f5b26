//! The table of exit codes. Nothing else decides one.
//!
//! | exit | when |
//! |---|---|
//! | the command's | it ran and ended by itself; 128+N when signal N killed it |
//! | 64 | usage, or a configuration refused |
//! | 69 | no server could be reached or trusted, or none could grant a lock |
//! | 70 | a fault in distlock |
//! | 75 | busy: not acquired within `--wait` (`--busy-exit` changes it) |
//! | 76 | the lock was lost or broken, and the command killed |
//! | 77 | the backend denied access |
//! | 124 | `--max-hold` ran out |
//! | 126, 127 | the command cannot be executed, was not found |
//! | 128+N | signal N ended distlock while waiting |

use distlock_core::error::Kind;
use distlock_core::signal::Signal;

/// The exit code of success.
pub(crate) const OK: u8 = 0;

/// The exit code of a failure of this kind, before `--busy-exit`.
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

/// The exit code that stands for a death by `signal`, as shells have it.
#[must_use]
pub(crate) fn signaled(signal: Signal) -> u8 {
    u8::try_from(signal.number()).map_or(u8::MAX, |signal| 128_u8.saturating_add(signal))
}
