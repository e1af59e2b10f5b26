//! `--on-lost relock` and `--on-lost restart` while all members are unreachable.

use super::Kind;
use crate::relock::{freeze_and_thaw, restart_after_outage};
use crate::world::Mode;

#[test]
fn relock_continues_after_short_loss_of_all_members() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        freeze_and_thaw(&*cluster.members[0], &cluster.proxies, Mode::Cut);
    });
}

#[test]
fn restart_recovers_from_loss_of_all_members() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        restart_after_outage(&*cluster.members[0], &cluster.proxies);
    });
}
