//! A server that keeps its promise, and no more: a lease lives for its TTL after the last renewal, or longer.

use std::collections::BTreeMap;

use super::{Micros, Random, SECOND};

/// One life of a contender: a lease and the key that is bound to it.
pub(crate) type Contender = u32;

/// Leases, and the queue of one lock.
pub(crate) struct Server {
    ttl: Micros,
    /// When each lease ends.
    leases: BTreeMap<Contender, Micros>,
    /// The contenders in the order in which they came, with their tokens.
    queue: Vec<(Contender, u64)>,
    revision: u64,
    /// There is no leader before then.
    pub down_until: Micros,
    /// Everybody who was first in the queue, in this order.
    heads: Vec<Contender>,
}

impl Server {
    pub(crate) fn new(ttl: Micros) -> Self {
        Self { ttl, leases: BTreeMap::new(), queue: Vec::new(), revision: 0, down_until: 0, heads: Vec::new() }
    }

    /// Grants a lease and enters the queue, each once.
    pub(crate) fn enter(&mut self, who: Contender, now: Micros, random: &mut Random) {
        if self.leases.contains_key(&who) {
            return;
        }
        self.renewed(who, now, random);
        self.revision += 1;
        self.queue.push((who, self.revision));
        self.note_head();
    }

    /// Renews a lease, if it is there.
    pub(crate) fn renew(&mut self, who: Contender, now: Micros, random: &mut Random) -> bool {
        let there = self.leases.contains_key(&who);
        if there {
            self.renewed(who, now, random);
        }
        there
    }

    fn renewed(&mut self, who: Contender, now: Micros, random: &mut Random) {
        // Servers look at their leases now and then.
        self.leases.insert(who, now + self.ttl + random.mostly(0, SECOND));
    }

    /// Ends a lease, and says whether it was there.
    pub(crate) fn end(&mut self, who: Contender) -> bool {
        let there = self.leases.remove(&who).is_some();
        self.queue.retain(|(queued, _)| *queued != who);
        self.note_head();
        there
    }

    /// Ends what has expired. While there is no leader nothing does.
    pub(crate) fn expire(&mut self, now: Micros) {
        if now < self.down_until {
            return;
        }
        let expired: Vec<_> = self.leases.iter().filter(|(_, end)| now >= **end).map(|(who, _)| *who).collect();
        for who in expired {
            self.end(who);
        }
    }

    /// Another leader is elected, which gives every lease its whole time again.
    pub(crate) fn fail_over(&mut self, until: Micros) {
        self.down_until = until;
        for end in self.leases.values_mut() {
            *end = until + self.ttl;
        }
    }

    pub(crate) fn has(&self, who: Contender) -> bool {
        self.leases.contains_key(&who)
    }

    /// Who holds the lock.
    pub(crate) fn head(&self) -> Option<Contender> {
        self.queue.first().map(|(who, _)| *who)
    }

    pub(crate) fn token(&self, who: Contender) -> Option<u64> {
        self.queue.iter().find(|(queued, _)| *queued == who).map(|(_, token)| *token)
    }

    /// Whether nobody held the lock between the two.
    pub(crate) fn nobody_between(&self, before: Contender, now: Contender) -> bool {
        self.heads.ends_with(&[before, now])
    }

    fn note_head(&mut self) {
        if let Some(head) = self.head()
            && self.heads.last() != Some(&head)
        {
            self.heads.push(head);
        }
    }
}
