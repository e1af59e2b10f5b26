//! What etcd's replies prove about a contender's key and leases.
//!
//! | module | what it holds |
//! |---|---|
//! | [`queue`] | names of keys, and the order of the contenders |
//! | [`leases`] | the leases of one contender, and the change to a fresh one |
//! | [`key`] | what is known about a contender's key |
//!
//! Invariant: nothing counts as confirmed that a replaced leader, or a request that was applied late, could have caused.

pub mod key;
pub mod leases;
pub mod queue;

/// Returns whether a renewal is confirmed (rule 1), from the Raft terms of the last confirmed read, of the reply to the
/// renewal, and of the read that followed it.
///
/// A paused leader that was replaced acknowledges renewals after it resumes, unknown to the cluster. The renewal is known
/// to be the present leader's only if the same leader confirmed the key before and after it. A term of 0 means unknown.
pub fn terms_confirm_renewal(before: u64, reply: u64, after: u64) -> bool {
    before > 0 && before == reply && reply == after
}

#[cfg(test)]
mod tests {
    use super::terms_confirm_renewal;

    #[test]
    fn only_one_and_the_same_term_confirms_a_renewal() {
        assert!(terms_confirm_renewal(4, 4, 4));
        // Replaced between renewal and read: the old leader may have answered.
        assert!(!terms_confirm_renewal(4, 4, 5));
        // Replaced before: a follower may have stamped the new term on the old leader's reply.
        assert!(!terms_confirm_renewal(4, 5, 5));
        assert!(!terms_confirm_renewal(4, 5, 4));
        assert!(!terms_confirm_renewal(3, 4, 5));
        assert!(!terms_confirm_renewal(0, 0, 0), "unknown terms");
    }
}
