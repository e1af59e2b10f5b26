//! The transactions, and the parsing of their replies. A reply that does not fit its request is malformed.

use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp};

use distlock_core::etcd::queue::{ContendersAhead, OwnKey, Prefix};

/// Number of keys per page: a reply must stay below the client's limit of 4 MiB.
const PAGE_SIZE: i64 = 500;

/// Creates the key unless it exists, and reads the queue. Safe to repeat.
pub(super) fn enter(prefix: &Prefix, key: &str, lease: i64, value: &str) -> Txn {
    let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
    let absent = Compare::create_revision(key, CompareOp::Equal, 0);
    let with_queue = |first| [vec![first], queue(prefix)].concat();
    Txn::new().when([absent]).and_then(with_queue(put)).or_else(with_queue(TxnOp::get(key, None)))
}

/// Reads the key and the queue.
pub(super) fn read_queue(prefix: &Prefix, key: &str) -> Txn {
    Txn::new().and_then([vec![TxnOp::get(key, None)], queue(prefix)].concat())
}

/// Reads the key, and whether the `others` exist.
pub(super) fn confirm(key: &str, others: &[&[u8]]) -> Txn {
    let others = others.iter().map(|other| TxnOp::get(*other, Some(GetOptions::new().with_keys_only())));
    Txn::new().and_then(std::iter::once(TxnOp::get(key, None)).chain(others).collect::<Vec<_>>())
}

/// Binds the key to another lease, unless it was written since it was read.
pub(super) fn bind(key: &str, create_revision: i64, mod_revision: i64, lease: i64) -> Txn {
    let unchanged = [
        Compare::create_revision(key, CompareOp::Equal, create_revision),
        Compare::mod_revision(key, CompareOp::Equal, mod_revision),
    ];
    let put = TxnOp::put(key, "", Some(PutOptions::new().with_ignore_value().with_lease(lease)));
    Txn::new().when(unchanged).and_then([put]).or_else([TxnOp::get(key, None)])
}

/// Deletes the key, if it was created at `create_revision` or that is unknown, and returns it.
pub(super) fn delete(key: &str, create_revision: Option<i64>) -> Txn {
    let exists = match create_revision {
        Some(create_revision) => Compare::create_revision(key, CompareOp::Equal, create_revision),
        None => Compare::create_revision(key, CompareOp::Greater, 0),
    };
    Txn::new().when([exists]).and_then([TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key()))])
}

/// Reads the first page of the queue without values, and the oldest key with its value: it is the holder's unless it is
/// foreign.
fn queue(prefix: &Prefix) -> Vec<TxnOp> {
    let (start, end) = prefix.range();
    let first = GetOptions::new().with_range(end.clone()).with_limit(PAGE_SIZE).with_keys_only();
    let oldest = GetOptions::new().with_range(end).with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1);
    vec![TxnOp::get(start.as_slice(), Some(first)), TxnOp::get(start, Some(oldest))]
}

/// Reads a further page from `start`, at `revision`.
pub(super) fn read_page(prefix: &Prefix, start: &[u8], revision: i64) -> Txn {
    let options = GetOptions::new().with_range(prefix.range().1).with_limit(PAGE_SIZE).with_keys_only();
    Txn::new().and_then([TxnOp::get(start, Some(options.with_revision(revision)))])
}

/// Why a reply does not fit its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedReply(pub &'static str);

/// Reply to a transaction.
#[derive(Debug)]
pub(super) struct Reply {
    /// Revision at which the transaction was executed.
    pub revision: i64,
    /// Raft term of the member that replied.
    pub term: u64,
    succeeded: bool,
    parts: std::vec::IntoIter<Option<PbTxnOpResponse>>,
}

impl Reply {
    pub(super) fn parse(reply: PbTxnResponse) -> Result<Self, MalformedReply> {
        let header = reply.header.ok_or(MalformedReply("malformed reply: no header"))?;
        if header.revision <= 0 || header.raft_term == 0 {
            return Err(MalformedReply("malformed reply: no revision or no Raft term"));
        }
        let parts: Vec<_> = reply.responses.into_iter().map(|part| part.response).collect();
        let (revision, term) = (header.revision, header.raft_term);
        Ok(Self { revision, term, succeeded: reply.succeeded, parts: parts.into_iter() })
    }

    fn range(&mut self) -> Result<PbRangeResponse, MalformedReply> {
        match self.parts.next() {
            Some(Some(PbTxnOpResponse::ResponseRange(range))) => Ok(range),
            _ => Err(MalformedReply("malformed reply: no result of a read")),
        }
    }

    fn put(&mut self) -> Result<(), MalformedReply> {
        match self.parts.next() {
            Some(Some(PbTxnOpResponse::ResponsePut(_))) => Ok(()),
            _ => Err(MalformedReply("malformed reply: no result of a write")),
        }
    }

    fn deleted(&mut self, key: &str) -> Result<OwnKey, MalformedReply> {
        let Some(Some(PbTxnOpResponse::ResponseDeleteRange(mut deleted))) = self.parts.next() else {
            return Err(MalformedReply("malformed reply: no result of a deletion"));
        };
        match (deleted.prev_kvs.pop(), deleted.prev_kvs.is_empty()) {
            (Some(kv), true) if kv.key == key.as_bytes() => Ok(own_key(kv)),
            _ => Err(MalformedReply("malformed reply: deletion of another key")),
        }
    }

    /// Returns one key, if it exists.
    fn one(&mut self, key: &[u8]) -> Result<Option<PbKeyValue>, MalformedReply> {
        let mut range = self.range()?;
        match (range.kvs.pop(), range.kvs.is_empty() && !range.more) {
            (None, true) => Ok(None),
            (Some(kv), true) if kv.key == key && kv.create_revision > 0 => Ok(Some(kv)),
            _ => Err(MalformedReply("malformed reply: another key than requested")),
        }
    }

    fn own(&mut self, key: &str) -> Result<Option<OwnKey>, MalformedReply> {
        Ok(self.one(key.as_bytes())?.map(own_key))
    }

    fn end(mut self) -> Result<(), MalformedReply> {
        self.parts.next().is_none().then_some(()).ok_or(MalformedReply("malformed reply: more results than requested"))
    }
}

/// The queue at one revision. Complete when [`Self::next_page`] returns None.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueSnapshot {
    /// Watches continue from here.
    pub revision: i64,
    /// Raft term in the reply.
    pub term: u64,
    /// The contender's key, if it exists.
    pub own: Option<OwnKey>,
    /// Oldest key in the range, which may be foreign, with its value.
    pub oldest: Option<(Vec<u8>, Vec<u8>)>,
    contenders: Vec<(Vec<u8>, i64)>,
    next_page: Option<Vec<u8>>,
}

impl QueueSnapshot {
    /// Parses the reply to [`enter`], which wrote `value` under `lease`.
    pub(super) fn parse_enter(
        mut reply: Reply,
        prefix: &Prefix,
        key: &str,
        lease: i64,
        value: &str,
    ) -> Result<Self, MalformedReply> {
        let own = if reply.succeeded {
            reply.put()?;
            Some(OwnKey { create_revision: reply.revision, mod_revision: reply.revision, lease, value: value.into() })
        } else {
            reply.own(key)?
        };
        Self::parse_queue(reply, prefix, own)
    }

    /// Parses the reply to [`read_queue`].
    pub(super) fn parse_read(mut reply: Reply, prefix: &Prefix, key: &str) -> Result<Self, MalformedReply> {
        let own = reply.own(key)?;
        Self::parse_queue(reply, prefix, own)
    }

    fn parse_queue(mut reply: Reply, prefix: &Prefix, own: Option<OwnKey>) -> Result<Self, MalformedReply> {
        let (revision, term) = (reply.revision, reply.term);
        let first = reply.range()?;
        let oldest = reply.range()?.kvs.into_iter().next().map(|kv| (kv.key, kv.value));
        reply.end()?;
        let mut queue = Self { revision, term, own, oldest, contenders: Vec::new(), next_page: None };
        queue.add(first, prefix)?;
        Ok(queue)
    }

    /// Returns the start of the next page to read; None if the queue is complete.
    pub(super) fn next_page(&self) -> Option<&[u8]> {
        self.next_page.as_deref()
    }

    /// Parses the reply to [`read_page`].
    pub(super) fn parse_page(&mut self, mut reply: Reply, prefix: &Prefix) -> Result<(), MalformedReply> {
        let page = reply.range()?;
        reply.end()?;
        self.add(page, prefix)
    }

    fn add(&mut self, page: PbRangeResponse, prefix: &Prefix) -> Result<(), MalformedReply> {
        let after = page.kvs.last().map(|kv| prefix.next_start(&kv.key));
        self.next_page = match (page.more, after) {
            (false, _) => None,
            (true, Some(after)) if self.next_page.as_ref().is_none_or(|start| after > *start) => Some(after),
            (true, _) => return Err(MalformedReply("malformed reply: a page of keys without an end")),
        };
        let contenders = page.kvs.into_iter().filter(|kv| prefix.is_contender(&kv.key));
        self.contenders.extend(contenders.map(|kv| (kv.key, kv.create_revision)));
        Ok(())
    }

    /// Returns the contenders ahead of the key that was created at `create_revision`. The snapshot must be complete.
    pub(super) fn ahead(&self, create_revision: i64) -> Option<ContendersAhead> {
        ContendersAhead::of(create_revision, self.contenders.iter().map(|(key, revision)| (key.as_slice(), *revision)))
    }
}

/// Result of [`confirm`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Confirmation {
    pub revision: i64,
    /// Raft term in the reply.
    pub term: u64,
    /// The contender's key, if it exists.
    pub own: Option<OwnKey>,
    /// All other keys exist.
    pub all_exist: bool,
}

impl Confirmation {
    pub(super) fn parse(mut reply: Reply, key: &str, others: &[&[u8]]) -> Result<Self, MalformedReply> {
        let (revision, term, own) = (reply.revision, reply.term, reply.own(key)?);
        let mut all_exist = true;
        for other in others {
            all_exist &= reply.one(other)?.is_some();
        }
        reply.end()?;
        Ok(Self { revision, term, own, all_exist })
    }
}

/// Result of [`bind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BindResult {
    Bound {
        /// Revision of the write.
        revision: i64,
        /// Raft term in the reply.
        term: u64,
    },
    /// The key was written or deleted since it was read; the key now.
    KeyChanged(Option<OwnKey>),
}

impl BindResult {
    pub(super) fn parse(mut reply: Reply, key: &str) -> Result<Self, MalformedReply> {
        let result = if reply.succeeded {
            reply.put()?;
            Self::Bound { revision: reply.revision, term: reply.term }
        } else {
            Self::KeyChanged(reply.own(key)?)
        };
        reply.end()?;
        Ok(result)
    }
}

/// Result of [`delete`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeleteResult {
    /// The key before its deletion.
    Deleted(OwnKey),
    NotFound,
}

impl DeleteResult {
    pub(super) fn parse(mut reply: Reply, key: &str) -> Result<Self, MalformedReply> {
        let result = if reply.succeeded { Self::Deleted(reply.deleted(key)?) } else { Self::NotFound };
        reply.end()?;
        Ok(result)
    }
}

pub(super) fn own_key(kv: PbKeyValue) -> OwnKey {
    OwnKey { create_revision: kv.create_revision, mod_revision: kv.mod_revision, lease: kv.lease, value: kv.value }
}

#[cfg(test)]
mod tests;
