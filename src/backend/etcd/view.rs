//! The transactions that enter and read a queue, and what their replies show.

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::queue::{Line, Own, Prefix};

/// What one transaction saw of a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The store's revision at that moment; watching goes on from here.
    pub revision: i64,
    /// The Raft term in the reply.
    pub term: u64,
    /// Our key, where it exists.
    pub own: Option<Own>,
    /// Those before us, where somebody is.
    pub line: Option<Line>,
    /// The oldest key in the range, which may be foreign, with its value.
    pub oldest: Option<(Vec<u8>, Vec<u8>)>,
}

/// Puts our key unless it exists, and reads the queue. Sent twice it does no more than once.
pub fn enter(prefix: &Prefix, key: &str, lease: i64, value: &str) -> Txn {
    let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
    let absent = Compare::create_revision(key, CompareOp::Equal, 0);
    let reads = |first| [vec![first], queue(prefix)].concat();
    Txn::new().when([absent]).and_then(reads(put)).or_else(reads(TxnOp::get(key, None)))
}

/// Reads our key and the queue.
pub fn look(prefix: &Prefix, key: &str) -> Txn {
    Txn::new().and_then([vec![TxnOp::get(key, None)], queue(prefix)].concat())
}

/// Reads our key, and whether the `others` exist.
pub fn confirm(key: &str, others: &[&[u8]]) -> Txn {
    let others = others.iter().map(|other| TxnOp::get(*other, Some(GetOptions::new().with_keys_only())));
    Txn::new().and_then(std::iter::once(TxnOp::get(key, None)).chain(others).collect::<Vec<_>>())
}

/// Binds our key to another lease, unless it was written since it was read.
pub fn rebind(key: &str, created: i64, modified: i64, lease: i64) -> Txn {
    let same = [
        Compare::create_revision(key, CompareOp::Equal, created),
        Compare::mod_revision(key, CompareOp::Equal, modified),
    ];
    let put = TxnOp::put(key, "", Some(PutOptions::new().with_ignore_value().with_lease(lease)));
    Txn::new().when(same).and_then([put]).or_else([TxnOp::get(key, None)])
}

/// What became of [`rebind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebound {
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
    pub fn of(reply: &TxnResponse) -> Self {
        let (revision, term) = reply.header().map_or((0, 0), |header| (header.revision(), header.raft_term()));
        if reply.succeeded() {
            return Self::Done { revision, term };
        }
        Self::Written(reply.op_responses().first().and_then(own))
    }
}

/// Keys without values, since they are many, but the oldest with its value: it is the holder unless it is foreign.
fn queue(prefix: &Prefix) -> Vec<TxnOp> {
    let (start, end) = prefix.range();
    let oldest_first = GetOptions::new().with_range(end).with_sort(SortTarget::Create, SortOrder::Ascend);
    vec![
        TxnOp::get(start.as_slice(), Some(oldest_first.clone().with_keys_only())),
        TxnOp::get(start, Some(oldest_first.with_limit(1))),
    ]
}

impl View {
    /// Reads the reply to [`enter`], which put `value` under `lease`, or to [`look`].
    pub fn of_queue(reply: &TxnResponse, prefix: &Prefix, lease: i64, value: &str) -> Self {
        let (revision, term) = reply.header().map_or((0, 0), |header| (header.revision(), header.raft_term()));
        let mut replies = reply.op_responses().into_iter();
        let own = match replies.next() {
            Some(TxnOpResponse::Put(_)) => {
                Some(Own { created: revision, modified: revision, lease, value: value.into() })
            }
            first => first.and_then(|get| own(&get)),
        };
        let (keys, oldest) = (replies.next(), replies.next());
        let keys = keys.iter().flat_map(found).map(|kv| (kv.key(), kv.create_revision()));
        let line = own.as_ref().and_then(|own| Line::before(prefix, own.created, keys));
        let oldest = oldest.iter().flat_map(found).next().map(|kv| (kv.key().to_vec(), kv.value().to_vec()));
        Self { revision, term, own, line, oldest }
    }

    /// Reads the reply to [`confirm`]. Returns too whether all the others exist.
    pub fn of_keys(reply: &TxnResponse) -> (Self, bool) {
        let (revision, term) = reply.header().map_or((0, 0), |header| (header.revision(), header.raft_term()));
        let replies = reply.op_responses();
        let (first, others) = replies.split_first().map_or((None, replies.as_slice()), |(f, o)| (Some(f), o));
        let complete = others.iter().all(|get| !found(get).is_empty());
        (Self { revision, term, own: first.and_then(own), ..Self::default() }, complete)
    }
}

fn found(reply: &TxnOpResponse) -> &[KeyValue] {
    match reply {
        TxnOpResponse::Get(get) => GetResponse::kvs(get),
        _ => &[],
    }
}

fn own(reply: &TxnOpResponse) -> Option<Own> {
    found(reply).first().map(Own::from)
}
