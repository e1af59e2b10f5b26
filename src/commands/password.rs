//! Asks for the password of a user who has none configured.

use distlock_core::error::Failure;

use super::ending::EarlyFailure;
use crate::lock::BackendSettings;
use crate::lock::transport::endpoint::Secret;
use crate::sys::process::Inherited;
use crate::sys::prompt::{Answer, Prompt};
use crate::sys::signals;

/// Completes the identity of a user without a password.
pub(super) fn complete(settings: &mut BackendSettings, inherited: &Inherited) -> Result<(), EarlyFailure> {
    let backend = settings.name();
    let Some(identity) = settings.identity() else { return Ok(()) };
    let Some(user) = identity.user.as_ref().filter(|_| identity.password.is_none()) else { return Ok(()) };
    let refuse = |why: &str| {
        Failure::usage(format!("the user {user} has no password, and {why}"))
            .hint("name a file that contains it with --password-file")
    };
    let prompt = Prompt::open().map_err(|error| refuse("there is no terminal to ask for it").because(error))?;
    let answer = prompt.ask(&format!("Password of {user} on {backend}: "), inherited);
    match answer.map_err(|error| refuse("it cannot be read from the terminal").because(error))? {
        Answer::Line(line) => identity.password = Some(Secret::new(line)),
        Answer::EndOfInput => return Err(refuse("none was typed").into()),
        Answer::Signal { signal, keyboard } => {
            let failure = Failure::interrupted(signals::from_nix(signal), "while asking for a password");
            return Err(EarlyFailure { failure, keyboard });
        }
    }
    Ok(())
}
