//! `--on-lost relock` and `--on-lost restart` where all members are out of reach for a while.

use super::Kind;
use crate::relock::{comes_back, frozen_for_a_while};
use crate::world::Mode;

#[test]
fn relock_continues_after_short_loss_of_all_members() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        frozen_for_a_while(&*cluster.members[0], &cluster.proxies, Mode::Cut);
    });
}

#[test]
fn restart_recovers_from_loss_of_all_members() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        comes_back(&*cluster.members[0], &cluster.proxies);
    });
}
