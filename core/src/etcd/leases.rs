//! The leases of one contender, and the change to a fresh one.

/// So many leases are remembered, to be revoked with the lock. Older ones have expired by themselves.
const REMEMBERED: usize = 8;

/// Which leases are a contender's own. Pure.
#[derive(Clone, Debug)]
pub struct Leases {
    first: i64,
    bound: i64,
    others: Vec<i64>,
    changing: bool,
}

impl Leases {
    /// One lease, to which the key is going to be bound.
    pub fn new(lease: i64) -> Self {
        Self { first: lease, bound: lease, others: Vec::new(), changing: false }
    }

    /// The lease that the key is named after.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// The lease that the key is bound to, unless a change is under way.
    pub fn bound(&self) -> i64 {
        self.bound
    }

    /// Whether the key may be bound to another lease already, or is to be.
    pub fn changing(&self) -> bool {
        self.changing
    }

    /// Whether it is one of ours.
    pub fn ours(&self, lease: i64) -> bool {
        self.bound == lease || self.others.contains(&lease)
    }

    /// Nothing is known of what became of the first, and of its key: another one takes its place.
    pub fn start_anew(&mut self, lease: i64) {
        self.remember(self.bound);
        (self.first, self.bound) = (lease, lease);
    }

    /// Those that the key is not known to be bound to.
    pub fn others(&self) -> &[i64] {
        &self.others
    }

    /// All of them, the bound one first.
    pub fn all(&self) -> impl Iterator<Item = i64> {
        std::iter::once(self.bound).chain(self.others.iter().copied())
    }

    /// The key must get another lease. Until it has one, nothing is known of the old one.
    pub fn change(&mut self) {
        self.changing = true;
    }

    /// A lease that the key may be bound to from now on.
    pub fn try_another(&mut self, lease: i64) {
        self.changing = true;
        self.remember(lease);
    }

    fn remember(&mut self, lease: i64) {
        if self.others.len() == REMEMBERED {
            self.others.remove(0);
        }
        self.others.push(lease);
    }

    /// The key is bound to this one, and no request that is still under way can bind it to another.
    pub fn changed_to(&mut self, lease: i64) {
        self.others.retain(|other| *other != lease);
        self.others.push(std::mem::replace(&mut self.bound, lease));
        self.changing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_over_when_one_succeeded() {
        let mut leases = Leases::new(1);
        assert!(leases.ours(1) && !leases.ours(2) && !leases.changing());
        leases.try_another(2);
        leases.try_another(3);
        assert!(leases.changing() && leases.ours(1) && leases.ours(2) && leases.ours(3));
        assert_eq!(leases.bound(), 1);
        leases.changed_to(3);
        assert!(!leases.changing());
        assert_eq!((leases.first(), leases.bound()), (1, 3));
        assert_eq!(leases.all().collect::<Vec<_>>(), [3, 2, 1]);
    }

    #[test]
    fn one_that_may_have_been_granted_is_remembered() {
        let mut leases = Leases::new(1);
        leases.start_anew(2);
        assert_eq!((leases.first(), leases.bound(), leases.others()), (2, 2, &[1][..]));
        assert!(!leases.changing());
    }

    #[test]
    fn not_all_are_remembered() {
        let mut leases = Leases::new(1);
        for lease in 2..100 {
            leases.try_another(lease);
            leases.changed_to(lease);
        }
        assert_eq!(leases.all().next(), Some(99));
        assert!(leases.all().count() <= REMEMBERED + 2);
        assert!(leases.ours(98) && !leases.ours(1));
    }
}
