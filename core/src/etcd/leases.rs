//! The leases of one contender, and the change to a fresh one.

/// Number of leases besides the bound one that are kept to be revoked with the lock, one more after a change. Older ones
/// expire by themselves.
const MAX_OTHERS: usize = 8;

/// Leases that belong to one contender.
#[derive(Clone, Debug)]
pub struct Leases {
    first: i64,
    bound: i64,
    others: Vec<i64>,
    changing: bool,
}

impl Leases {
    /// Creates the leases of a contender whose key will be bound to `lease`.
    pub fn new(lease: i64) -> Self {
        Self { first: lease, bound: lease, others: Vec::new(), changing: false }
    }

    /// Returns the lease that the key is named after.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Returns the lease that the key is bound to, unless a change is in progress.
    pub fn bound(&self) -> i64 {
        self.bound
    }

    /// Returns whether the key needs another lease or may already be bound to one.
    pub fn changing(&self) -> bool {
        self.changing
    }

    /// Returns whether `lease` belongs to this contender.
    pub fn contains(&self, lease: i64) -> bool {
        self.bound == lease || self.others.contains(&lease)
    }

    /// Returns the leases that the key is not known to be bound to.
    pub fn others(&self) -> &[i64] {
        &self.others
    }

    /// Returns all leases, the bound one first.
    pub fn all(&self) -> impl Iterator<Item = i64> {
        std::iter::once(self.bound).chain(self.others.iter().copied())
    }

    /// Starts over with `lease` and a key named after it: the grant of the first one may have been applied or not.
    pub fn replace(&mut self, lease: i64) {
        self.push_other(self.bound);
        (self.first, self.bound) = (lease, lease);
    }

    /// Records that the key must be bound to another lease. Until it is, renewals of the bound lease prove nothing.
    pub fn begin_change(&mut self) {
        self.changing = true;
    }

    /// Adds a lease that the key may be bound to from now on.
    pub fn add_candidate(&mut self, lease: i64) {
        self.changing = true;
        self.push_other(lease);
    }

    /// Records that the key is bound to `lease`, and that no pending request can bind it to another one.
    pub fn bind(&mut self, lease: i64) {
        self.others.retain(|other| *other != lease);
        self.others.push(std::mem::replace(&mut self.bound, lease));
        self.changing = false;
    }

    fn push_other(&mut self, lease: i64) {
        if self.others.len() == MAX_OTHERS {
            self.others.remove(0);
        }
        self.others.push(lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_ends_when_a_candidate_is_bound() {
        let mut leases = Leases::new(1);
        assert!(leases.contains(1) && !leases.contains(2) && !leases.changing());
        leases.add_candidate(2);
        leases.add_candidate(3);
        assert!(leases.changing() && leases.contains(1) && leases.contains(2) && leases.contains(3));
        assert_eq!(leases.bound(), 1);
        leases.bind(3);
        assert!(!leases.changing());
        assert_eq!((leases.first(), leases.bound()), (1, 3));
        assert_eq!(leases.all().collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn replaced_lease_is_kept_for_revocation() {
        let mut leases = Leases::new(1);
        leases.replace(2);
        assert_eq!((leases.first(), leases.bound(), leases.others()), (2, 2, &[1][..]));
        assert!(!leases.changing());
    }

    #[test]
    fn number_of_kept_leases_is_limited() {
        let mut leases = Leases::new(1);
        for lease in 2..100 {
            leases.add_candidate(lease);
            leases.bind(lease);
        }
        assert_eq!(leases.all().next(), Some(99));
        assert!(leases.all().count() <= MAX_OTHERS + 2);
        assert!(leases.contains(98) && !leases.contains(1));
    }
}
