//! A rolling restart of all members while eleven contenders hold and await the lock.

use std::collections::HashSet;
use std::fs;

use super::Kind;
use crate::world::{Finished, Ledger, millis, poll_until, secs};

/// Script that appends its number to a file and then executes the remaining arguments.
const NUMBERED: &str = r#"echo "$1" >>"$2"; shift 2; exec "$@""#;

/// Contenders that hold the lock until a member has restarted: every restart has a holder and waiters, and the lock
/// changes hands between restarts.
const HOLD_UNTIL_RESTARTED: [usize; 3] = [0, 4, 8];

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
            let hold = match HOLD_UNTIL_RESTARTED.iter().position(|holder| *holder == n) {
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
            let remaining = member.contenders(&name);
            assert!(
                remaining >= 11 - HOLD_UNTIL_RESTARTED[n],
                "{remaining} contenders remain before the restart of member {n}"
            );
            member.restart();
            cluster.await_health();
            fs::write(restarted(n), "").expect("a file in the world");
        }
        let jobs: Vec<_> = jobs.into_iter().map(|job| job.wait_within(secs(240)).assert_code(0)).collect();
        for job in &jobs {
            let is_problem =
                |line: &str| ["distlock: warning: ", "distlock: error: "].iter().any(|level| line.starts_with(level));
            assert!(!job.stderr.lines().any(is_problem), "{}", job.describe());
        }
        ledger.assert_exclusive(11);
        let order = fs::read_to_string(order).expect("the order");
        assert_order(kind, &order.lines().map(|n| n.parse().expect("a number")).collect::<Vec<_>>(), &jobs);
    });
}

/// Panics unless each contender ran once, and in the order of the queue. Exception: on Consul a waiter acquires a lock that
/// was free for two seconds because the waiters ahead had no server; these lose their positions and queue again.
fn assert_order(kind: Kind, order: &[usize], jobs: &[Finished]) {
    let mut waiting: Vec<_> = (0..jobs.len()).collect();
    let mut queued_again = HashSet::new();
    for n in order {
        let index = waiting.iter().position(|m| m == n).unwrap_or_else(|| panic!("{n} ran twice: {order:?}"));
        let passed: Vec<_> = waiting[..index].iter().filter(|m| !queued_again.contains(*m)).copied().collect();
        let allowed =
            matches!(kind, Kind::Consul) && jobs[*n].stderr.contains("no waiter ahead acquires the free lock");
        assert!(passed.is_empty() || allowed, "{n} passed {passed:?}: {order:?}\n{}", jobs[*n].describe());
        queued_again.extend(passed);
        waiting.remove(index);
    }
    assert_eq!(waiting, [] as [usize; 0], "{order:?}");
}
