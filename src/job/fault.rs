//! Failed system calls, as the user sees them.

use distlock_core::error::{Failure, chain};

/// Converts an error into a failure whose causes are the error's chain.
pub(super) fn fault(error: &anyhow::Error) -> Failure {
    let mut failure = Failure::fault("a required system call failed");
    failure.causes = chain(error.as_ref());
    failure
}
