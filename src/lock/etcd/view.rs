//! The transactions about a lock, and what their replies show. A reply is believed only where it is one to what was asked.

use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp};

use distlock_core::etcd::queue::{Line, Own, Prefix};

/// So many keys are asked for at once: a reply must stay below the 4 MiB that the client takes in.
const PAGE: i64 = 500;

/// Puts our key unless it exists, and reads the queue. Sent twice it does no more than once.
pub(super) fn enter(prefix: &Prefix, key: &str, lease: i64, value: &str) -> Txn {
    let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
    let absent = Compare::create_revision(key, CompareOp::Equal, 0);
    let reads = |first| [vec![first], queue(prefix)].concat();
    Txn::new().when([absent]).and_then(reads(put)).or_else(reads(TxnOp::get(key, None)))
}

/// Reads our key and the queue.
pub(super) fn look(prefix: &Prefix, key: &str) -> Txn {
    Txn::new().and_then([vec![TxnOp::get(key, None)], queue(prefix)].concat())
}

/// Reads our key, and whether the `others` exist.
pub(super) fn confirm(key: &str, others: &[&[u8]]) -> Txn {
    let others = others.iter().map(|other| TxnOp::get(*other, Some(GetOptions::new().with_keys_only())));
    Txn::new().and_then(std::iter::once(TxnOp::get(key, None)).chain(others).collect::<Vec<_>>())
}

/// Binds our key to another lease, unless it was written since it was read.
pub(super) fn rebind(key: &str, created: i64, modified: i64, lease: i64) -> Txn {
    let same = [
        Compare::create_revision(key, CompareOp::Equal, created),
        Compare::mod_revision(key, CompareOp::Equal, modified),
    ];
    let put = TxnOp::put(key, "", Some(PutOptions::new().with_ignore_value().with_lease(lease)));
    Txn::new().when(same).and_then([put]).or_else([TxnOp::get(key, None)])
}

/// Deletes our key, created at `created` where that is known, and reads it as it was.
pub(super) fn leave(key: &str, created: Option<i64>) -> Txn {
    let there = match created {
        Some(created) => Compare::create_revision(key, CompareOp::Equal, created),
        None => Compare::create_revision(key, CompareOp::Greater, 0),
    };
    Txn::new().when([there]).and_then([TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key()))])
}

/// Keys without values, since they are many, but the oldest with its value: it is the holder unless it is foreign.
fn queue(prefix: &Prefix) -> Vec<TxnOp> {
    let (start, end) = prefix.range();
    let first = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_keys_only();
    let oldest = GetOptions::new().with_range(end).with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1);
    vec![TxnOp::get(start.as_slice(), Some(first)), TxnOp::get(start, Some(oldest))]
}

/// Reads on from `start`, as things were at `revision`.
pub(super) fn page(prefix: &Prefix, start: &[u8], revision: i64) -> Txn {
    let options = GetOptions::new().with_range(prefix.range().1).with_limit(PAGE).with_keys_only();
    Txn::new().and_then([TxnOp::get(start, Some(options.with_revision(revision)))])
}

/// Why a reply is none to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Odd(pub &'static str);

/// The reply to a transaction.
#[derive(Debug)]
pub(super) struct Reply {
    /// The store's revision at that moment.
    pub revision: i64,
    /// The Raft term of the member that replied.
    pub term: u64,
    succeeded: bool,
    parts: std::vec::IntoIter<Option<PbTxnOpResponse>>,
}

impl Reply {
    /// Takes a reply apart.
    pub(super) fn of(reply: PbTxnResponse) -> Result<Self, Odd> {
        let header = reply.header.ok_or(Odd("a reply without a header"))?;
        if header.revision <= 0 || header.raft_term == 0 {
            return Err(Odd("a reply that tells neither its revision nor its term"));
        }
        let parts: Vec<_> = reply.responses.into_iter().map(|part| part.response).collect();
        let (revision, term) = (header.revision, header.raft_term);
        Ok(Self { revision, term, succeeded: reply.succeeded, parts: parts.into_iter() })
    }

    fn range(&mut self) -> Result<PbRangeResponse, Odd> {
        match self.parts.next() {
            Some(Some(PbTxnOpResponse::ResponseRange(range))) => Ok(range),
            _ => Err(Odd("a reply that lacks what was asked for")),
        }
    }

    fn put(&mut self) -> Result<(), Odd> {
        match self.parts.next() {
            Some(Some(PbTxnOpResponse::ResponsePut(_))) => Ok(()),
            _ => Err(Odd("a reply that does not tell of a write")),
        }
    }

    fn deleted(&mut self, key: &str) -> Result<Own, Odd> {
        let Some(Some(PbTxnOpResponse::ResponseDeleteRange(mut deleted))) = self.parts.next() else {
            return Err(Odd("a reply that does not tell of a deletion"));
        };
        match (deleted.prev_kvs.pop(), deleted.prev_kvs.is_empty()) {
            (Some(kv), true) if kv.key == key.as_bytes() => Ok(own(kv)),
            _ => Err(Odd("a reply about the deletion of another key")),
        }
    }

    /// What was found of one key.
    fn one(&mut self, key: &[u8]) -> Result<Option<PbKeyValue>, Odd> {
        let mut range = self.range()?;
        match (range.kvs.pop(), range.kvs.is_empty() && !range.more) {
            (None, true) => Ok(None),
            (Some(kv), true) if kv.key == key && kv.create_revision > 0 => Ok(Some(kv)),
            _ => Err(Odd("a reply about another key")),
        }
    }

    fn own(&mut self, key: &str) -> Result<Option<Own>, Odd> {
        Ok(self.one(key.as_bytes())?.map(own))
    }

    fn end(mut self) -> Result<(), Odd> {
        self.parts.next().is_none().then_some(()).ok_or(Odd("a reply to more than was asked"))
    }
}

/// What one transaction saw of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The store's revision at that moment; watching goes on from here.
    pub revision: i64,
    /// The Raft term in the reply.
    pub term: u64,
    /// Our key, where it exists.
    pub own: Option<Own>,
    /// The oldest key in the range, which may be foreign, with its value.
    pub oldest: Option<(Vec<u8>, Vec<u8>)>,
    contenders: Vec<(Vec<u8>, i64)>,
    /// From where there is more to be read.
    rest: Option<Vec<u8>>,
}

impl View {
    /// Reads the reply to [`enter`], which put `value` under `lease`.
    pub(super) fn entered(mut reply: Reply, prefix: &Prefix, key: &str, lease: i64, value: &str) -> Result<Self, Odd> {
        let own = if reply.succeeded {
            reply.put()?;
            Some(Own { created: reply.revision, modified: reply.revision, lease, value: value.into() })
        } else {
            reply.own(key)?
        };
        Self::queue(reply, prefix, own)
    }

    /// Reads the reply to [`look`].
    pub(super) fn looked(mut reply: Reply, prefix: &Prefix, key: &str) -> Result<Self, Odd> {
        let own = reply.own(key)?;
        Self::queue(reply, prefix, own)
    }

    fn queue(mut reply: Reply, prefix: &Prefix, own: Option<Own>) -> Result<Self, Odd> {
        let (revision, term) = (reply.revision, reply.term);
        let first = reply.range()?;
        let oldest = reply.range()?.kvs.into_iter().next().map(|kv| (kv.key, kv.value));
        reply.end()?;
        let mut view = Self { revision, term, own, oldest, contenders: Vec::new(), rest: None };
        view.add(first, prefix)?;
        Ok(view)
    }

    /// Where to go on reading; None when all was read.
    pub(super) fn rest(&self) -> Option<&[u8]> {
        self.rest.as_deref()
    }

    /// Reads the reply to [`page`].
    pub(super) fn read_on(&mut self, mut reply: Reply, prefix: &Prefix) -> Result<(), Odd> {
        let page = reply.range()?;
        reply.end()?;
        self.add(page, prefix)
    }

    fn add(&mut self, page: PbRangeResponse, prefix: &Prefix) -> Result<(), Odd> {
        let after = page.kvs.last().map(|kv| prefix.after(&kv.key));
        self.rest = match (page.more, after) {
            (false, _) => None,
            (true, Some(after)) if self.rest.as_ref().is_none_or(|before| after > *before) => Some(after),
            (true, _) => return Err(Odd("a page of keys that leads nowhere")),
        };
        let found = page.kvs.into_iter().filter(|kv| prefix.owns(&kv.key));
        self.contenders.extend(found.map(|kv| (kv.key, kv.create_revision)));
        Ok(())
    }

    /// Who stands before the key that was created at `created`; to be asked when all was read.
    pub(super) fn line(&self, created: i64) -> Option<Line> {
        Line::before(created, self.contenders.iter().map(|(key, revision)| (key.as_slice(), *revision)))
    }
}

/// What [`confirm`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// The store's revision at that moment.
    pub revision: i64,
    /// The Raft term in the reply.
    pub term: u64,
    /// Our key, where it exists.
    pub own: Option<Own>,
    /// All the others exist.
    pub complete: bool,
}

impl Confirmed {
    /// Reads the reply.
    pub(super) fn of(mut reply: Reply, key: &str, others: &[&[u8]]) -> Result<Self, Odd> {
        let (revision, term, own) = (reply.revision, reply.term, reply.own(key)?);
        let mut complete = true;
        for other in others {
            complete &= reply.one(other)?.is_some();
        }
        reply.end()?;
        Ok(Self { revision, term, own, complete })
    }
}

/// What became of [`rebind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rebound {
    /// The key has the other lease.
    Done {
        /// The revision of the write.
        revision: i64,
        /// The Raft term in the reply.
        term: u64,
    },
    /// Somebody had written it; what is there now.
    Written(Option<Own>),
}

impl Rebound {
    /// Reads the reply.
    pub(super) fn of(mut reply: Reply, key: &str) -> Result<Self, Odd> {
        let rebound = if reply.succeeded {
            reply.put()?;
            Self::Done { revision: reply.revision, term: reply.term }
        } else {
            Self::Written(reply.own(key)?)
        };
        reply.end()?;
        Ok(rebound)
    }
}

/// What became of [`leave`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The key is gone; what it was.
    Deleted(Own),
    /// There was no such key.
    Untouched,
}

impl Left {
    /// Reads the reply.
    pub(super) fn of(mut reply: Reply, key: &str) -> Result<Self, Odd> {
        let left = if reply.succeeded { Self::Deleted(reply.deleted(key)?) } else { Self::Untouched };
        reply.end()?;
        Ok(left)
    }
}

/// Returns the key as core knows it.
pub(super) fn own(kv: PbKeyValue) -> Own {
    Own { created: kv.create_revision, modified: kv.mod_revision, lease: kv.lease, value: kv.value }
}

#[cfg(test)]
mod tests;
