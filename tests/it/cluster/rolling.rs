//! All members are restarted, one after the other, while many want the lock.

use std::fs;

use super::Kind;
use crate::loss::locked;
use crate::world::{Ledger, millis, poll_until, secs};

/// Writes down its number when it runs, and runs the words that follow.
const NUMBERED: &str = r#"echo "$1" >>"$2"; shift 2; exec "$@""#;

#[test]
fn all_who_wait_get_their_turn_in_order_while_the_members_are_restarted() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        let first = cluster.world_from(0, &cluster.proxies);
        let (name, ledger, order) = (first.name("jobs/backup"), Ledger::new(&first), first.path().join("order"));
        let worlds: Vec<_> = (0..11).map(|n| cluster.world_from(n % 3, &cluster.proxies)).collect();
        let mut jobs = Vec::new();
        for (n, world) in worlds.iter().enumerate() {
            let hold = if n == 0 { secs(5) } else { millis(700) };
            let number =
                ["sh", "-c", NUMBERED, "numbered", &n.to_string(), &order.display().to_string()].map(str::to_owned);
            jobs.push(locked(world, kind.long(), &name).args(number).args(ledger.command(hold)).spawn());
            poll_until("another contender", secs(30), || cluster.members[0].contenders(&name) == n + 1);
        }
        for member in &cluster.members {
            member.restart();
            cluster.await_health();
        }
        for job in jobs {
            let job = job.wait_within(secs(240)).assert_code(0);
            assert_eq!(job.stderr, "");
        }
        ledger.assert_exclusive(11);
        let order: Vec<usize> =
            fs::read_to_string(order).expect("the order").lines().map(|n| n.parse().expect("a number")).collect();
        assert_eq!(order, (0..11).collect::<Vec<_>>());
    });
}
