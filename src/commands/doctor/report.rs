//! What was found, as a table for people, as JSON, and as the failure that decides the exit code. Pure.

use serde_json::{Value, json};

use crate::exit;
use crate::lock::Name;
use crate::lock::probe::{Answer, Check, Endpoint, Findings, Role, Tls, Verdict};
use crate::report::one_line;
use distlock_core::error::{Failure, Kind};

/// The version of the JSON's schema.
const SCHEMA: u32 = 1;

/// The findings about one backend, and the lock that was asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report<'a> {
    /// The backend.
    pub backend: Name,
    /// The lock's name, if one was given.
    pub name: Option<&'a str>,
    /// What was found.
    pub findings: &'a Findings,
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Unknown,
    Warning,
    Error,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One line: what was looked at, how it is, and what can be done.
struct Line<'a> {
    subject: &'a str,
    state: State,
    message: String,
    hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// What a lock would fail with; None where it could be had.
    #[must_use]
    pub(super) fn failure(&self) -> Option<Failure> {
        let of_check = self.findings.checks.iter().find_map(|check| match &check.verdict {
            Verdict::Bad(failure) => Some(failure),
            _ => None,
        });
        let failed = |failure: &Failure, causes: Vec<String>| Failure {
            causes,
            hint: failure.hint.clone(),
            ..Failure::new(failure.kind, "no lock can be had")
        };
        if let Some(failure) = of_check {
            return Some(failed(failure, vec![in_full(failure)]));
        }
        if self.any_usable() {
            return None;
        }
        let failures = || self.endpoints().filter_map(|endpoint| Some((endpoint, endpoint.answer.as_ref().err()?)));
        let (_, farthest) = failures().min_by_key(|(_, failure)| rank(failure.kind))?;
        let causes = failures().map(|(endpoint, failure)| format!("{}: {}", endpoint.url, in_full(failure)));
        Some(failed(farthest, causes.collect()))
    }

    /// A table with a line for every endpoint and every check.
    #[must_use]
    pub(super) fn text(&self) -> String {
        let lines: Vec<_> =
            self.endpoints().map(|endpoint| self.endpoint_line(endpoint)).chain(self.check_lines()).collect();
        let widest = lines.iter().map(|line| line.subject.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        for line in &lines {
            text += &format!("{:<7}  {:<widest$}  {}\n", line.state.word(), line.subject, one_line(&line.message));
            if let Some(hint) = line.hint {
                text += &format!("{:<7}  {:<widest$}  hint: {}\n", "", "", one_line(hint));
            }
        }
        let what = self.name.map_or_else(|| "a lock".to_owned(), |name| format!("the lock {name}"));
        let end = if self.failure().is_none() { "can be had" } else { "cannot be had" };
        text + &format!("{what} on {} {end}\n", self.backend)
    }

    /// One object on one line; what is unknown is null.
    #[must_use]
    pub(super) fn json(&self) -> String {
        let failure = self.failure();
        let endpoints: Vec<_> = self.endpoints().map(|endpoint| self.endpoint_json(endpoint)).collect();
        let checks: Vec<_> = self
            .check_lines()
            .map(|line| json!({ "name": line.subject, "state": line.state.word(), "message": line.message, "hint": line.hint }))
            .collect();
        let object = json!({
            "schema": SCHEMA,
            "backend": self.backend,
            "name": self.name,
            "endpoints": endpoints,
            "checks": checks,
            "ok": failure.is_none(),
            "exit": failure.map_or(exit::OK, |failure| exit::code(failure.kind)),
        });
        format!("{object}\n")
    }

    fn endpoints(&self) -> impl Iterator<Item = &'a Endpoint> {
        self.findings.endpoints.iter()
    }

    fn any_usable(&self) -> bool {
        self.endpoints().any(|endpoint| endpoint.answer.is_ok())
    }

    fn endpoint_line(&self, endpoint: &'a Endpoint) -> Line<'a> {
        let subject = endpoint.url.as_str();
        match &endpoint.answer {
            Ok(answer) => {
                let message = describe(self.backend, answer, endpoint.tls);
                Line { subject, state: State::Ok, message, hint: None }
            }
            Err(failure) => {
                let state = if self.any_usable() { State::Warning } else { State::Error };
                Line { subject, state, message: in_full(failure), hint: failure.hint.as_deref() }
            }
        }
    }

    fn check_lines(&self) -> impl Iterator<Item = Line<'a>> {
        self.findings.checks.iter().map(check_line)
    }

    fn endpoint_json(&self, endpoint: &Endpoint) -> Value {
        let line = self.endpoint_line(endpoint);
        let unknown = Answer::default();
        let answer = endpoint.answer.as_ref().unwrap_or(&unknown);
        json!({
            "url": endpoint.url,
            "state": line.state.word(),
            "message": line.message,
            "hint": line.hint,
            "version": answer.version,
            "role": answer.role.map(role),
            "member": answer.member,
            "cluster": (!answer.cluster.is_empty()).then_some(&answer.cluster),
            "latency_ms": answer.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            "tls": endpoint.tls.map(tls),
            "clock_ahead_seconds": answer.clock_ahead.map(|ahead| ahead.as_secs_f64()),
        })
    }
}

/// Of several endpoints that are of no use, the one that got farthest tells most.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Denied => 0,
        Kind::Unreachable => 2,
        _ => 1,
    }
}

fn check_line(check: &Check) -> Line<'_> {
    let (state, message, hint) = match &check.verdict {
        Verdict::Good(seen) => (State::Ok, seen.clone(), None),
        Verdict::Unknown(why) => (State::Unknown, why.clone(), None),
        Verdict::Doubtful { what, hint } => (State::Warning, what.clone(), Some(hint.as_str())),
        Verdict::Bad(failure) => (State::Error, in_full(failure), failure.hint.as_deref()),
    };
    Line { subject: check.name, state, message, hint }
}

fn in_full(failure: &Failure) -> String {
    std::iter::once(&failure.message).chain(&failure.causes).map(String::as_str).collect::<Vec<_>>().join(": ")
}

fn describe(backend: Name, answer: &Answer, security: Option<Tls>) -> String {
    if backend == Name::Local {
        return "on this host".to_owned();
    }
    let version = answer.version.as_ref().map(|version| format!("{backend} {version}"));
    let parts = [
        Some(version.unwrap_or_else(|| format!("{backend}, version not told"))),
        answer.role.map(|part| role(part).to_owned()),
        answer.member.as_ref().map(|member| format!("member {member}")),
        answer.latency.map(|latency| format!("{:.1} ms", latency.as_secs_f64() * 1000.0)),
        security.map(|security| format!("TLS {}", tls(security))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Client => "client",
    }
}

fn tls(tls: Tls) -> &'static str {
    match tls {
        Tls::Off => "off",
        Tls::Verified => "verified",
        Tls::Unverified => "unverified",
    }
}

#[cfg(test)]
mod tests;
