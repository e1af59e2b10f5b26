//! Model of a server with one lock. It keeps its promise and no more: a lease lives for its TTL after the last renewal, or
//! longer.

use std::collections::BTreeMap;

use super::{Micros, Random, SECOND};

/// Number of a contender: one lease and the key that is bound to it.
pub(crate) type Contender = u32;

/// Leases, and the queue of the lock.
pub(crate) struct Server {
    ttl: Micros,
    /// When each lease expires.
    leases: BTreeMap<Contender, Micros>,
    /// Contenders in the order of their creation, with their fencing tokens.
    queue: Vec<(Contender, u64)>,
    revision: u64,
    /// There is no leader until then.
    pub(crate) down_until: Micros,
    /// All holders in order.
    holders: Vec<Contender>,
}

impl Server {
    pub(crate) fn new(ttl: Micros) -> Self {
        Self { ttl, leases: BTreeMap::new(), queue: Vec::new(), revision: 0, down_until: 0, holders: Vec::new() }
    }

    /// Grants a lease and adds the contender to the queue. Does nothing the second time.
    pub(crate) fn enter(&mut self, contender: Contender, now: Micros, random: &mut Random) {
        if self.has(contender) {
            return;
        }
        self.set_expiry(contender, now, random);
        self.revision += 1;
        self.queue.push((contender, self.revision));
        self.record_holder();
    }

    /// Renews a lease; returns whether it exists.
    pub(crate) fn renew(&mut self, contender: Contender, now: Micros, random: &mut Random) -> bool {
        let exists = self.has(contender);
        if exists {
            self.set_expiry(contender, now, random);
        }
        exists
    }

    fn set_expiry(&mut self, contender: Contender, now: Micros, random: &mut Random) {
        // Servers check their leases only from time to time.
        self.leases.insert(contender, now + self.ttl + random.mostly(0, SECOND));
    }

    /// Ends a lease and deletes its key; returns whether it existed.
    pub(crate) fn end(&mut self, contender: Contender) -> bool {
        let existed = self.leases.remove(&contender).is_some();
        self.queue.retain(|(queued, _)| *queued != contender);
        self.record_holder();
        existed
    }

    /// Ends expired leases. Without a leader no lease ends.
    pub(crate) fn expire(&mut self, now: Micros) {
        if now < self.down_until {
            return;
        }
        let expired: Vec<_> = self.leases.iter().filter(|(_, expiry)| now >= **expiry).map(|(key, _)| *key).collect();
        for contender in expired {
            self.end(contender);
        }
    }

    /// Elects another leader, which restarts the TTL of each lease.
    pub(crate) fn fail_over(&mut self, until: Micros) {
        self.down_until = until;
        for expiry in self.leases.values_mut() {
            *expiry = until + self.ttl;
        }
    }

    pub(crate) fn has(&self, contender: Contender) -> bool {
        self.leases.contains_key(&contender)
    }

    pub(crate) fn holder(&self) -> Option<Contender> {
        self.queue.first().map(|(contender, _)| *contender)
    }

    /// Returns the fencing token of a contender in the queue.
    pub(crate) fn token(&self, contender: Contender) -> Option<u64> {
        self.queue.iter().find(|(queued, _)| *queued == contender).map(|(_, token)| *token)
    }

    /// Returns whether no other contender held the lock between these two.
    pub(crate) fn follows_directly(&self, earlier: Contender, now: Contender) -> bool {
        self.holders.ends_with(&[earlier, now])
    }

    fn record_holder(&mut self) {
        if let Some(holder) = self.holder()
            && self.holders.last() != Some(&holder)
        {
            self.holders.push(holder);
        }
    }
}
