//! Meaning of a reply's status.

use reqwest::StatusCode;

use distlock_core::error::{Failure, Kind};
use distlock_core::outcome::{Outcome, Trouble};

use crate::lock::backend::NO_LEADER_HINT;
use crate::lock::transport::endpoint::Endpoint;
use crate::lock::transport::tls;

/// Longest part of an error text that is shown, in characters.
const MAX_TEXT: usize = 300;

/// Reply to a request: success, "not found" or "conflict".
pub(super) struct Reply {
    /// 2xx, 404 or 409 after [`classify`].
    pub status: StatusCode,
    /// Index after which to wait for the next change.
    pub index: Option<u64>,
    pub body: String,
}

/// Part of the reply for an unknown datacenter.
const UNKNOWN_DATACENTER: &str = "No path to datacenter";

/// Part of the reply for a namespace or partition on a server without them.
const ENTERPRISE_ONLY: &str = "Consul Enterprise feature";

/// Returns the reply if the request was decided, otherwise the trouble that its status means.
pub(super) fn classify(endpoint: &Endpoint, reply: Reply) -> Outcome<Reply> {
    let body = reply.body.trim();
    let end = body.char_indices().nth(MAX_TEXT).map_or(body.len(), |(end, _)| end);
    let text = body[..end].replace(char::is_control, " ");
    let fatal = |kind, message: &str| Failure::new(kind, format!("{endpoint}: {message}")).because(&text);
    match reply.status {
        status if status.is_success() => Ok(reply),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(reply),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Trouble::Fatal(fatal(Kind::Denied, "the server denies access")))
        }
        StatusCode::BAD_REQUEST if text.contains("HTTP request to an HTTPS server") => {
            Err(Trouble::Fatal(tls::wrong_scheme(endpoint, true)))
        }
        StatusCode::BAD_REQUEST if text.contains(ENTERPRISE_ONLY) => Err(Trouble::Fatal(
            fatal(Kind::Usage, "the server refuses the request")
                .hint("leave out --namespace and --partition, and unset CONSUL_NAMESPACE and CONSUL_PARTITION"),
        )),
        StatusCode::INTERNAL_SERVER_ERROR if is_permanent(&text) => {
            let failure = fatal(Kind::Usage, "the server refuses the request");
            Err(Trouble::Fatal(if text.contains(UNKNOWN_DATACENTER) {
                failure.hint("set --datacenter to one that the servers know")
            } else {
                failure
            }))
        }
        status if is_transient(status) => {
            let hint = text.contains("No cluster leader").then(|| NO_LEADER_HINT.to_owned());
            Err(Trouble::Uncertain { answered: true, cause: format!("{endpoint}: {}: {text}", status.as_u16()), hint })
        }
        status => Err(Trouble::Fatal(
            fatal(Kind::Usage, &format!("the server refuses the request with {status}"))
                .hint("check that the endpoint is a Consul agent or server"),
        )),
    }
}

/// Returns whether a retry may succeed.
fn is_transient(status: StatusCode) -> bool {
    let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY].contains(&status);
    busy || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// Returns whether no retry can succeed although the status is 500: Consul replies so to most invalid requests.
fn is_permanent(text: &str) -> bool {
    ["Invalid Session TTL", "Missing check", "Invalid LockDelay", UNKNOWN_DATACENTER]
        .iter()
        .any(|refusal| text.contains(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, body: &str) -> Outcome<()> {
        let endpoint = Endpoint::Http { authority: "127.0.0.1:8500".into() };
        let status = StatusCode::from_u16(status).expect("a status");
        classify(&endpoint, Reply { status, index: None, body: body.into() }).map(drop)
    }

    fn kind(outcome: Outcome<()>) -> Option<Kind> {
        match outcome {
            Err(Trouble::Fatal(failure)) => Some(failure.kind),
            _ => None,
        }
    }

    #[test]
    fn a_server_without_a_leader_is_uncertain() {
        for (status, body) in [(500, "No cluster leader"), (429, ""), (408, ""), (425, ""), (503, ""), (502, "<html>")]
        {
            assert!(matches!(classified(status, body), Err(Trouble::Uncertain { answered: true, .. })), "{status}");
        }
    }

    #[test]
    fn replies_about_keys_are_returned() {
        for status in [200, 404, 409] {
            assert_eq!(classified(status, ""), Ok(()));
        }
    }

    #[test]
    fn permanent_refusals_are_fatal() {
        assert_eq!(kind(classified(403, "Permission denied")), Some(Kind::Denied));
        assert_eq!(kind(classified(401, "")), Some(Kind::Denied));
        assert_eq!(kind(classified(500, "Invalid Session TTL '5', must be between …")), Some(Kind::Usage));
        assert_eq!(kind(classified(501, "Unsupported method ('PUT')")), Some(Kind::Usage));
        let namespace = classified(400, "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature");
        assert!(
            matches!(namespace, Err(Trouble::Fatal(Failure { hint: Some(hint), .. })) if hint.contains("CONSUL_NAMESPACE"))
        );
        let tls = classified(400, "Client sent an HTTP request to an HTTPS server.");
        assert_eq!(kind(tls), Some(Kind::Unreachable));
    }

    #[test]
    fn texts_of_servers_are_shortened_and_plain() {
        let Err(Trouble::Uncertain { cause, .. }) = classified(500, &format!("\u{1b}[31m{}", "ü".repeat(1000))) else {
            panic!("500 is uncertain");
        };
        assert!(cause.len() < 2 * MAX_TEXT + 50 && !cause.contains('\u{1b}'));
    }
}
