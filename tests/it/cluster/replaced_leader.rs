//! A replaced leader of etcd revokes leases that its successor has renewed.

use super::on_both_versions;
use crate::loss::{Lease, await_nothing_left, locked};
use crate::world::{Entry, Etcd, Ledger, Server, World, etcd, millis, poll_for, poll_until, secs};

/// A leader that was paused for longer than a lease revokes it, although its successor has renewed it. Whether it does so
/// after it resumes depends on timing, so the test revokes the leases itself.
#[test]
fn revocation_of_replaced_leases_loses_no_lock() {
    on_both_versions(|version| {
        let members = etcd::cluster(version, 3);
        let world = World::at("etcd", &members.iter().map(Etcd::url).collect::<Vec<_>>().join(","));
        let (name, ledger, lease) =
            (world.name("jobs/backup"), Ledger::new(&world), Lease { ttl: secs(6), grace: secs(1) });
        let holder = locked(&world, lease, &name).args(ledger.command(secs(12))).spawn();
        poll_until("the command", secs(30), || ledger.holds().len() == 1);
        let waiter = locked(&world, lease, &name).args(ledger.command(millis(200))).spawn();
        poll_until("the waiter", secs(30), || members[0].contenders(&name) == 2);
        let old_entries = members[0].entries(&name);

        let leader = etcd::leader(&members);
        members[leader].hand_over_to(&members[(leader + 1) % 3]);
        let new_entries = poll_for("fresh leases", secs(30), || {
            let new_entries = members[0].entries(&name);
            new_entries.iter().zip(&old_entries).all(|(new, old)| new.lease != old.lease).then_some(new_entries)
        });
        let positions = |entries: &[Entry]| -> Vec<_> {
            entries.iter().map(|entry| (entry.key.clone(), entry.revision, entry.value.clone())).collect()
        };
        assert_eq!(positions(&new_entries), positions(&old_entries), "keys, positions and records must not change");
        let leases = |entries: &[Entry]| -> Vec<_> {
            entries.iter().map(|entry| entry.lease.clone().expect("a lease")).collect()
        };
        for lease in leases(&old_entries) {
            members[0].end_lease(&lease);
        }

        let holder = holder.wait_within(secs(30)).assert_code(0);
        let waiter = waiter.wait_within(secs(30)).assert_code(0);
        assert_eq!((&*holder.stderr, &*waiter.stderr), ("", ""));
        ledger.assert_exclusive(2);
        await_nothing_left(&members[0], &name, &[leases(&old_entries), leases(&new_entries)].concat(), secs(2));
    });
}
