//! `--on-lost relock` and `--on-lost restart` where all members are out of reach for a while.

use super::Kind;
use crate::relock::{comes_back, frozen_for_a_while};
use crate::world::Mode;

#[test]
fn relock_goes_on_when_all_members_were_out_of_reach_for_less_than_the_lease() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        frozen_for_a_while(&*cluster.members[0], &cluster.proxies, Mode::Cut);
    });
}

#[test]
fn restart_comes_back_when_all_members_were_out_of_reach() {
    Kind::each(|kind| {
        let cluster = kind.cluster();
        comes_back(&*cluster.members[0], &cluster.proxies);
    });
}
