//! All members are restarted, one after the other, while many want the lock.

use std::collections::HashSet;
use std::fs;

use super::Kind;
use crate::world::{Finished, Ledger, millis, poll_until, secs};

/// Writes down its number when it runs, and runs the words that follow.
const NUMBERED: &str = r#"echo "$1" >>"$2"; shift 2; exec "$@""#;

/// Those who hold the lock until a member was restarted, so that there is somebody who holds and there are some who wait
/// through every restart, and some change places.
const PATIENT: [usize; 3] = [0, 4, 8];

#[test]
fn rolling_restart_keeps_the_queue_order() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        let first = cluster.world_from(0, &cluster.proxies);
        let (name, ledger, order) = (first.name("jobs/backup"), Ledger::new(&first), first.path().join("order"));
        let restarted = |member: usize| first.path().join(format!("restarted-{member}"));
        let worlds: Vec<_> = (0..11).map(|n| cluster.world_from(n % 3, &cluster.proxies)).collect();
        let mut jobs = Vec::new();
        for (n, world) in worlds.iter().enumerate() {
            let hold = match PATIENT.iter().position(|patient| *patient == n) {
                Some(member) => ledger.command_until(&restarted(member)),
                None => ledger.command(millis(700)),
            };
            let number =
                ["sh", "-c", NUMBERED, "numbered", &n.to_string(), &order.display().to_string()].map(str::to_owned);
            let job = world.distlock().args(["-v"]).args(kind.long().options()).args([&name]);
            jobs.push(job.args(number).args(hold).spawn());
            poll_until("another contender", secs(60), || cluster.members[0].contenders(&name) == n + 1);
        }
        for (n, member) in cluster.members.iter().enumerate() {
            let left = member.contenders(&name);
            assert!(left >= 11 - PATIENT[n], "{left} contenders before member {n} is restarted");
            member.restart();
            cluster.await_health();
            fs::write(restarted(n), "").expect("a file in the world");
        }
        let jobs: Vec<_> = jobs.into_iter().map(|job| job.wait_within(secs(240)).assert_code(0)).collect();
        for job in &jobs {
            let troubled =
                |line: &str| ["distlock: warning: ", "distlock: error: "].iter().any(|sign| line.starts_with(sign));
            assert!(!job.stderr.lines().any(troubled), "{}", job.describe());
        }
        ledger.assert_exclusive(11);
        let order = fs::read_to_string(order).expect("the order");
        assert_order(kind, &order.lines().map(|n| n.parse().expect("a number")).collect::<Vec<_>>(), &jobs);
    });
}

/// Panics unless all ran once, and none before one ahead of it; but on Consul a lock that was free for two seconds, while
/// those ahead had no server, is taken by one that saw it. Those ahead then lose their positions and queue again.
fn assert_order(kind: Kind, order: &[usize], jobs: &[Finished]) {
    let mut left: Vec<_> = (0..jobs.len()).collect();
    let mut queue_again = HashSet::new();
    for n in order {
        let at = left.iter().position(|m| m == n).unwrap_or_else(|| panic!("{n} ran twice: {order:?}"));
        let passed: Vec<_> = left[..at].iter().filter(|m| !queue_again.contains(*m)).copied().collect();
        let excused = matches!(kind, Kind::Consul) && jobs[*n].stderr.contains("no waiter ahead acquires the free lock");
        assert!(passed.is_empty() || excused, "{n} passed {passed:?}: {order:?}\n{}", jobs[*n].describe());
        queue_again.extend(passed);
        left.remove(at);
    }
    assert_eq!(left, [] as [usize; 0], "{order:?}");
}
