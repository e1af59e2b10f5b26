//! What etcd's replies prove about one contender's key and leases.

pub mod entry;
pub mod leases;
pub mod queue;

/// Whether a renewal may be believed, by the Raft terms of the confirmed read before it, of its own reply, and of the
/// read after it.
///
/// A leader that was paused and replaced goes on acknowledging renewals that nobody else knows of. Only when one and the
/// same leader confirmed our key before and after is the renewal known to be that leader's.
pub fn believable(before: u64, reply: u64, after: u64) -> bool {
    before > 0 && before == reply && reply == after
}

#[cfg(test)]
mod tests {
    use super::believable;

    #[test]
    fn only_one_leader_s_word_counts() {
        assert!(believable(4, 4, 4));
        // Replaced between the renewal and the read: the renewal may be the old leader's.
        assert!(!believable(4, 4, 5));
        // Replaced before: a follower may have stamped the new term on the old leader's reply.
        assert!(!believable(4, 5, 5));
        assert!(!believable(4, 5, 4));
        assert!(!believable(3, 4, 5));
        // Who tells no term may be anybody.
        assert!(!believable(0, 0, 0));
    }
}
