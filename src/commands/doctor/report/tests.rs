use std::time::Duration;

use super::*;

fn sound(url: &str) -> Endpoint {
    let answer = Answer {
        version: Some("3.5.16".into()),
        role: Some(Role::Leader),
        member: Some("8e9e".into()),
        cluster: vec!["cdf8".into()],
        latency: Some(Duration::from_micros(1250)),
        clock_ahead: None,
    };
    Endpoint { url: url.into(), tls: Some(Tls::Verified), answer: Ok(answer) }
}

fn useless(url: &str, kind: Kind) -> Endpoint {
    let failure = Failure::new(kind, "it failed").because("for a reason").hint("do better");
    Endpoint { url: url.into(), tls: None, answer: Err(failure) }
}

fn check(name: &'static str, verdict: Verdict) -> Check {
    Check { name, verdict }
}

fn report(findings: &Findings) -> Report<'_> {
    Report { backend: Name::Etcd, name: Some("/x"), findings }
}

#[test]
fn the_table_is_aligned_and_hints_stand_below_what_they_are_about() {
    let findings = Findings {
        endpoints: vec![sound("https://a:2379"), useless("https://bb:2379", Kind::Unreachable)],
        checks: vec![
            check("lease", Verdict::Good("granted".into())),
            check("clock", Verdict::Unknown("who knows".into())),
        ],
    };
    let expected = "\
ok       https://a:2379   etcd 3.5.16, leader, member 8e9e, 1.2 ms, TLS verified
warning  https://bb:2379  it failed: for a reason
                          hint: do better
ok       lease            granted
unknown  clock            who knows
the lock /x on etcd can be had
";
    assert_eq!(report(&findings).text(), expected);
}

#[test]
fn one_useful_endpoint_is_enough() {
    let endpoints = vec![useless("a", Kind::Denied), sound("b"), useless("c", Kind::Unreachable)];
    let findings = Findings { endpoints, checks: vec![check("lease", Verdict::Good(String::new()))] };
    assert_eq!(report(&findings).failure(), None);
}

#[test]
fn a_check_that_failed_decides() {
    let denied = Failure::new(Kind::Denied, "no right").hint("get one");
    let findings = Findings {
        endpoints: vec![sound("a"), useless("b", Kind::Unreachable)],
        checks: vec![check("cluster", Verdict::Good(String::new())), check("rights", Verdict::Bad(denied))],
    };
    let failure = report(&findings).failure().expect("a failure");
    assert_eq!((failure.kind, failure.message.as_str()), (Kind::Denied, "no lock can be had"));
    assert_eq!((failure.causes, failure.hint.as_deref()), (vec!["no right".to_owned()], Some("get one")));
    assert!(report(&findings).text().ends_with("\nthe lock /x on etcd cannot be had\n"));
}

#[test]
fn without_a_useful_endpoint_the_one_that_got_farthest_decides() {
    let kind = |kinds: &[Kind]| {
        let endpoints = kinds.iter().map(|kind| useless("a", *kind)).collect();
        report(&Findings { endpoints, checks: Vec::new() }).failure().map(|failure| failure.kind)
    };
    assert_eq!(kind(&[Kind::Unreachable, Kind::Unreachable]), Some(Kind::Unreachable));
    assert_eq!(kind(&[Kind::Unreachable, Kind::Denied, Kind::Usage]), Some(Kind::Denied));
    assert_eq!(kind(&[Kind::Unreachable, Kind::Usage]), Some(Kind::Usage));
}

#[test]
fn in_json_what_is_unknown_is_null() {
    let findings = Findings { endpoints: vec![sound("a"), useless("b", Kind::Unreachable)], checks: Vec::new() };
    let json: Value = serde_json::from_str(&report(&findings).json()).expect("JSON");
    assert_eq!((&json["schema"], &json["backend"], &json["name"]), (&json!(1), &json!("etcd"), &json!("/x")));
    assert_eq!((&json["ok"], &json["exit"]), (&json!(true), &json!(0)));
    let expected = json!({
        "url": "b", "state": "warning", "message": "it failed: for a reason", "hint": "do better", "version": null,
        "role": null, "member": null, "cluster": null, "latency_ms": null, "tls": null, "clock_ahead_seconds": null,
    });
    assert_eq!(json["endpoints"][1], expected);
    assert_eq!(json["endpoints"][0]["latency_ms"], json!(1.25));
}

#[test]
fn a_server_s_words_reach_no_terminal_as_they_are() {
    let findings =
        Findings { endpoints: Vec::new(), checks: vec![check("lease", Verdict::Good("\u{1b}[31m\n".into()))] };
    assert!(!report(&findings).text().contains('\u{1b}'));
}
