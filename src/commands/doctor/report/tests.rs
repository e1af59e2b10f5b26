use std::time::Duration;

use super::*;

fn usable(url: &str) -> EndpointFinding {
    let info = ServerInfo {
        version: Some("3.5.16".into()),
        role: Some(Role::Leader),
        member: Some("8e9e".into()),
        cluster: vec!["cdf8".into()],
        latency: Some(Duration::from_micros(1250)),
    };
    EndpointFinding { url: url.into(), tls: Some(Tls::Verified), info: Ok(info) }
}

fn unusable(url: &str, kind: Kind) -> EndpointFinding {
    let failure = Failure::new(kind, "it failed").because("for a reason").hint("do better");
    EndpointFinding { url: url.into(), tls: None, info: Err(failure) }
}

fn check(name: &'static str, result: CheckResult) -> Check {
    Check { name, result }
}

fn report(findings: &Findings) -> Report<'_> {
    Report { backend: BackendName::Etcd, name: Some("/x"), findings }
}

/// Covers the lines with state ok, warning and unknown, and the last line if the lock can be acquired;
/// `failed_check_decides` covers the others.
#[test]
fn table_is_aligned_and_hints_follow_their_lines() {
    let findings = Findings {
        endpoints: vec![usable("https://a:2379"), unusable("https://bb:2379", Kind::Unreachable)],
        checks: vec![
            check("lease", CheckResult::Passed("granted".into())),
            check("flock", CheckResult::Unknown("not checked".into())),
        ],
    };
    let expected = "\
ok       https://a:2379   etcd 3.5.16, leader, member 8e9e, 1.2 ms, TLS verified
warning  https://bb:2379  it failed: for a reason
                          hint: do better
ok       lease            granted
unknown  flock            not checked
the lock /x on etcd can be acquired
";
    assert_eq!(report(&findings).text(), expected);
}

#[test]
fn one_usable_endpoint_suffices() {
    let endpoints = vec![unusable("a", Kind::Denied), usable("b"), unusable("c", Kind::Unreachable)];
    let findings = Findings { endpoints, checks: vec![check("lease", CheckResult::Passed(String::new()))] };
    assert_eq!(report(&findings).failure(), None);
}

#[test]
fn failed_check_decides() {
    let denied = Failure::new(Kind::Denied, "no permission").hint("get one");
    let findings = Findings {
        endpoints: vec![usable("a"), unusable("b", Kind::Unreachable)],
        checks: vec![
            check("cluster", CheckResult::Passed(String::new())),
            check("rights", CheckResult::Failed(denied)),
        ],
    };
    let failure = report(&findings).failure().expect("a failure");
    assert_eq!((failure.kind, failure.message.as_str()), (Kind::Denied, "no lock can be acquired"));
    assert_eq!((failure.causes, failure.hint.as_deref()), (vec!["no permission".to_owned()], Some("get one")));
    let expected = "\
error    rights   no permission
                  hint: get one
the lock /x on etcd cannot be acquired
";
    assert!(report(&findings).text().ends_with(expected), "{}", report(&findings).text());
}

#[test]
fn most_informative_failure_decides() {
    let kind = |kinds: &[Kind]| {
        let endpoints = kinds.iter().map(|kind| unusable("a", *kind)).collect();
        report(&Findings { endpoints, checks: Vec::new() }).failure().map(|failure| failure.kind)
    };
    assert_eq!(kind(&[Kind::Unreachable, Kind::Unreachable]), Some(Kind::Unreachable));
    assert_eq!(kind(&[Kind::Unreachable, Kind::Denied, Kind::Usage]), Some(Kind::Denied));
    assert_eq!(kind(&[Kind::Unreachable, Kind::Usage]), Some(Kind::Usage));
}

#[test]
fn unknown_values_are_null_in_json() {
    let findings = Findings { endpoints: vec![usable("a"), unusable("b", Kind::Unreachable)], checks: Vec::new() };
    let json: Value = serde_json::from_str(&report(&findings).json()).expect("JSON");
    assert_eq!((&json["schema"], &json["backend"], &json["name"]), (&json!(1), &json!("etcd"), &json!("/x")));
    assert_eq!((&json["ok"], &json["exit"]), (&json!(true), &json!(0)));
    let expected = json!({
        "url": "b", "state": "warning", "message": "it failed: for a reason", "hint": "do better", "version": null,
        "role": null, "member": null, "cluster": null, "latency_ms": null, "tls": null,
    });
    assert_eq!(json["endpoints"][1], expected);
    assert_eq!(json["endpoints"][0]["latency_ms"], json!(1.25));
}

#[test]
fn control_characters_of_servers_are_escaped() {
    let findings =
        Findings { endpoints: Vec::new(), checks: vec![check("lease", CheckResult::Passed("\u{1b}[31m\n".into()))] };
    assert!(!report(&findings).text().contains('\u{1b}'));
}
