//! Findings as a table for people, as JSON, and as the failure that decides the exit code. No I/O.

use serde_json::{Value, json};

use distlock_core::error::{Failure, Kind};

use crate::exit;
use crate::lock::BackendName;
use crate::lock::probe::{Check, CheckResult, EndpointFinding, Findings, Role, ServerInfo, Tls};
use crate::report::one_line;

/// Version of the JSON's schema.
const SCHEMA: u32 = 1;

/// Findings about one backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report<'a> {
    pub backend: BackendName,
    /// Name of the lock whose permissions were tested.
    pub name: Option<&'a str>,
    pub findings: &'a Findings,
}

// States of endpoints and checks, as scripts match them.
const OK: &str = "ok";
const UNKNOWN: &str = "unknown";
const WARNING: &str = "warning";
const ERROR: &str = "error";

/// State of an endpoint or a check.
struct Line<'a> {
    subject: &'a str,
    state: &'static str,
    message: String,
    hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// Returns the failure with which acquiring the lock would end; None if it could be acquired.
    #[must_use]
    pub(super) fn failure(&self) -> Option<Failure> {
        let failed_check = self.findings.checks.iter().find_map(|check| match &check.result {
            CheckResult::Failed(failure) => Some(failure),
            _ => None,
        });
        let no_lock = |failure: &Failure, causes: Vec<String>| Failure {
            causes,
            hint: failure.hint.clone(),
            ..Failure::new(failure.kind, "no lock can be acquired")
        };
        if let Some(failure) = failed_check {
            return Some(no_lock(failure, vec![with_causes(failure)]));
        }
        if self.any_usable() {
            return None;
        }
        let failures = || self.endpoints().filter_map(|endpoint| Some((endpoint, endpoint.info.as_ref().err()?)));
        let (_, most_informative) = failures().min_by_key(|(_, failure)| informativeness(failure.kind))?;
        let causes = failures().map(|(endpoint, failure)| format!("{}: {}", endpoint.url, with_causes(failure)));
        Some(no_lock(most_informative, causes.collect()))
    }

    /// Returns a table with a line for each endpoint and each check.
    #[must_use]
    pub(super) fn text(&self) -> String {
        let lines: Vec<_> =
            self.endpoints().map(|endpoint| self.endpoint_line(endpoint)).chain(self.check_lines()).collect();
        let widest = lines.iter().map(|line| line.subject.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        for line in &lines {
            text += &format!("{:<7}  {:<widest$}  {}\n", line.state, line.subject, one_line(&line.message));
            if let Some(hint) = line.hint {
                text += &format!("{:<7}  {:<widest$}  hint: {}\n", "", "", one_line(hint));
            }
        }
        let lock = self.name.map_or_else(|| "a lock".to_owned(), |name| format!("the lock {name}"));
        let can = if self.failure().is_none() { "can" } else { "cannot" };
        text + &format!("{lock} on {} {can} be acquired\n", self.backend)
    }

    /// Returns one object on one line; unknown values are null.
    #[must_use]
    pub(super) fn json(&self) -> String {
        let failure = self.failure();
        let endpoints: Vec<_> = self.endpoints().map(|endpoint| self.endpoint_json(endpoint)).collect();
        let checks: Vec<_> = self
            .check_lines()
            .map(
                |line| json!({ "name": line.subject, "state": line.state, "message": line.message, "hint": line.hint }),
            )
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

    fn endpoints(&self) -> impl Iterator<Item = &'a EndpointFinding> {
        self.findings.endpoints.iter()
    }

    fn any_usable(&self) -> bool {
        self.endpoints().any(|endpoint| endpoint.info.is_ok())
    }

    fn endpoint_line(&self, endpoint: &'a EndpointFinding) -> Line<'a> {
        let subject = endpoint.url.as_str();
        match &endpoint.info {
            Ok(info) => {
                let message = describe(self.backend, info, endpoint.tls);
                Line { subject, state: OK, message, hint: None }
            }
            Err(failure) => {
                let state = if self.any_usable() { WARNING } else { ERROR };
                Line { subject, state, message: with_causes(failure), hint: failure.hint.as_deref() }
            }
        }
    }

    fn check_lines(&self) -> impl Iterator<Item = Line<'a>> {
        self.findings.checks.iter().map(check_line)
    }

    fn endpoint_json(&self, endpoint: &EndpointFinding) -> Value {
        let line = self.endpoint_line(endpoint);
        let unknown = ServerInfo::default();
        let info = endpoint.info.as_ref().unwrap_or(&unknown);
        json!({
            "url": endpoint.url,
            "state": line.state,
            "message": line.message,
            "hint": line.hint,
            "version": info.version,
            "role": info.role.map(role),
            "member": info.member,
            "cluster": (!info.cluster.is_empty()).then_some(&info.cluster),
            "latency_ms": info.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            "tls": endpoint.tls.map(tls),
        })
    }
}

/// Returns the rank of a failure among those of several endpoints: the request that got farthest comes first.
fn informativeness(kind: Kind) -> u8 {
    match kind {
        Kind::Denied => 0,
        Kind::Unreachable => 2,
        _ => 1,
    }
}

fn check_line(check: &Check) -> Line<'_> {
    let (state, message, hint) = match &check.result {
        CheckResult::Passed(found) => (OK, found.clone(), None),
        CheckResult::Unknown(reason) => (UNKNOWN, reason.clone(), None),
        CheckResult::Warning { message, hint } => (WARNING, message.clone(), Some(hint.as_str())),
        CheckResult::Failed(failure) => (ERROR, with_causes(failure), failure.hint.as_deref()),
    };
    Line { subject: check.name, state, message, hint }
}

fn with_causes(failure: &Failure) -> String {
    std::iter::once(&failure.message).chain(&failure.causes).map(String::as_str).collect::<Vec<_>>().join(": ")
}

fn describe(backend: BackendName, info: &ServerInfo, security: Option<Tls>) -> String {
    if backend == BackendName::Local {
        return "on this host".to_owned();
    }
    let version = info.version.as_ref().map(|version| format!("{backend} {version}"));
    let parts = [
        Some(version.unwrap_or_else(|| format!("{backend}, unknown version"))),
        info.role.map(|of_server| role(of_server).to_owned()),
        info.member.as_ref().map(|member| format!("member {member}")),
        info.latency.map(|latency| format!("{:.1} ms", latency.as_secs_f64() * 1000.0)),
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
