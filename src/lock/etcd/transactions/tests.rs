use etcd_client::proto::{
    PbDeleteResponse, PbPutResponse, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnRequest,
};
use proptest::prelude::*;

use super::*;

const KEY: &str = "/x/5";

fn prefix() -> Prefix {
    Prefix::new("/x")
}

fn kv(key: &str, create_revision: i64) -> PbKeyValue {
    PbKeyValue {
        key: key.into(),
        create_revision,
        mod_revision: create_revision,
        lease: 5,
        value: b"{}".to_vec(),
        ..PbKeyValue::default()
    }
}

fn range(kvs: Vec<PbKeyValue>, more: bool) -> PbTxnOpResponse {
    PbTxnOpResponse::ResponseRange(PbRangeResponse { kvs, more, ..PbRangeResponse::default() })
}

fn put() -> PbTxnOpResponse {
    PbTxnOpResponse::ResponsePut(PbPutResponse::default())
}

fn reply(succeeded: bool, parts: Vec<PbTxnOpResponse>) -> PbTxnResponse {
    let header = Some(PbResponseHeader { revision: 9, raft_term: 3, ..PbResponseHeader::default() });
    let responses = parts.into_iter().map(|part| PbResponseOp { response: Some(part) }).collect();
    PbTxnResponse { header, succeeded, responses }
}

fn entered(reply: PbTxnResponse) -> Result<QueueSnapshot, MalformedReply> {
    QueueSnapshot::parse_enter(Reply::parse(reply)?, &prefix(), KEY, 5, "{}")
}

#[test]
fn a_created_key_has_its_position_in_the_queue() {
    let alone = entered(reply(true, vec![put(), range(vec![kv(KEY, 9)], false), range(vec![kv(KEY, 9)], false)]));
    let alone = alone.expect("a snapshot");
    assert_eq!((alone.own.clone().map(|own| own.create_revision), alone.ahead(9)), (Some(9), None));
    let keys = range(vec![kv("/x/1", 4), kv(KEY, 9), kv("/x/6/1", 1)], false);
    let behind = entered(reply(true, vec![put(), keys, range(vec![kv("/x/6/1", 1)], true)])).expect("a snapshot");
    assert_eq!(behind.ahead(9).map(|ahead| ahead.predecessor), Some(b"/x/1".to_vec()));
}

#[test]
fn an_incomplete_reply_is_malformed() {
    let whole = || vec![put(), range(vec![kv(KEY, 9)], false), range(vec![kv(KEY, 9)], false)];
    for missing in 0..3 {
        let mut parts = whole();
        parts.remove(missing);
        assert!(entered(reply(true, parts)).is_err(), "without part {missing}");
        let mut empty = reply(true, whole());
        empty.responses[missing].response = None;
        assert!(entered(empty).is_err(), "part {missing} is empty");
        let mut other = whole();
        other[missing] = if missing == 0 { range(vec![], false) } else { put() };
        assert!(entered(reply(true, other)).is_err(), "part {missing} is of another kind");
    }
    assert!(entered(PbTxnResponse { header: None, ..reply(true, whole()) }).is_err());
    let header = Some(PbResponseHeader { revision: 9, ..PbResponseHeader::default() });
    assert!(entered(PbTxnResponse { header, ..reply(true, whole()) }).is_err(), "a term of zero");
    assert!(entered(reply(true, [whole(), vec![put()]].concat())).is_err(), "one part too many");
    assert!(
        entered(reply(false, vec![range(vec![kv("/x/6", 2)], false), range(vec![], false), range(vec![], false)]))
            .is_err()
    );
}

#[test]
fn paging_skips_nested_names_and_ends() {
    let first = range(vec![kv("/x/1", 4), kv("/x/2/a", 1)], true);
    let mut queue = entered(reply(true, vec![put(), first, range(vec![kv("/x/2/a", 1)], true)])).expect("a snapshot");
    // Nested names are skipped as a whole.
    assert_eq!(queue.next_page(), Some(&b"/x/20"[..]));
    let page = |kvs, more| Reply::parse(reply(true, vec![range(kvs, more)])).expect("a reply");
    assert!(queue.clone().parse_page(page(vec![], true), &prefix()).is_err(), "no end");
    assert!(queue.clone().parse_page(page(vec![kv("/x/1", 4)], true), &prefix()).is_err(), "backwards");
    queue.parse_page(page(vec![kv("/x/3", 2)], true), &prefix()).expect("a page");
    assert_eq!(queue.next_page(), Some(&b"/x/3\0"[..]));
    queue.parse_page(page(vec![kv("/x/4", 7)], false), &prefix()).expect("a page");
    assert_eq!(queue.next_page(), None);
    let ahead = queue.ahead(9).expect("others");
    assert_eq!((ahead.holder, ahead.predecessor, ahead.count), (b"/x/3".to_vec(), b"/x/4".to_vec(), 3));
}

#[test]
fn a_confirmation_must_be_about_the_requested_keys() {
    let read = |kvs: Vec<PbKeyValue>, other| {
        let parts = vec![range(kvs, false), range(other, false)];
        Confirmation::parse(Reply::parse(reply(true, parts))?, KEY, &[b"/x/1"])
    };
    assert_eq!(read(vec![kv(KEY, 9)], vec![kv("/x/1", 4)]).map(|read| read.all_exist), Ok(true));
    assert_eq!(read(vec![kv(KEY, 9)], vec![]).map(|read| read.all_exist), Ok(false));
    assert_eq!(read(vec![], vec![]).map(|read| read.own), Ok(None));
    assert!(read(vec![kv("/x/6", 9)], vec![]).is_err());
    assert!(read(vec![kv(KEY, 9), kv(KEY, 9)], vec![]).is_err());
    assert!(read(vec![kv(KEY, 9)], vec![kv("/x/2", 4)]).is_err());
}

#[test]
fn a_deletion_returns_the_deleted_key() {
    let deleted =
        |prev_kvs| PbTxnOpResponse::ResponseDeleteRange(PbDeleteResponse { prev_kvs, ..PbDeleteResponse::default() });
    let result = |succeeded, parts| DeleteResult::parse(Reply::parse(reply(succeeded, parts))?, KEY);
    assert_eq!(result(true, vec![deleted(vec![kv(KEY, 4)])]), Ok(DeleteResult::Deleted(own_key(kv(KEY, 4)))));
    assert_eq!(result(false, vec![]), Ok(DeleteResult::NotFound));
    assert!(result(true, vec![deleted(vec![])]).is_err());
    assert!(result(true, vec![deleted(vec![kv("/x/6", 4)])]).is_err());
    assert!(result(true, vec![]).is_err());
}

prop_compose! {
    fn any_kv()(
        key in prop::sample::select(vec!["/x/5", "/x/1", "/x/1/2", "/y", ""]),
        create_revision in -1..20_i64,
    ) -> PbKeyValue {
        kv(key, create_revision)
    }
}

fn any_part() -> impl Strategy<Value = Option<PbTxnOpResponse>> {
    prop_oneof![
        Just(None),
        Just(Some(put())),
        Just(Some(PbTxnOpResponse::ResponseTxn(PbTxnResponse::default()))),
        Just(Some(PbTxnOpResponse::ResponseDeleteRange(PbDeleteResponse::default()))),
        (prop::collection::vec(any_kv(), 0..4), any::<bool>()).prop_map(|(kvs, more)| Some(range(kvs, more))),
    ]
}

proptest! {
    #[test]
    fn no_reply_causes_a_panic_or_an_unproven_lock(
        header in prop::option::of((-1..20_i64, 0..3_u64)),
        succeeded: bool,
        parts in prop::collection::vec(any_part(), 0..5),
    ) {
        let whole = parts.len() == 3;
        let responses = parts.into_iter().map(|response| PbResponseOp { response }).collect();
        let header = header
            .map(|(revision, raft_term)| PbResponseHeader { revision, raft_term, ..PbResponseHeader::default() });
        let reply = PbTxnResponse { header, succeeded, responses };
        let queue = entered(reply.clone());
        if let Ok(queue) = &queue {
            prop_assert!(whole && queue.revision > 0 && queue.term > 0);
            prop_assert!(queue.own.as_ref().is_none_or(|own| own.create_revision > 0));
        }
        let _ = Reply::parse(reply.clone()).and_then(|reply| QueueSnapshot::parse_read(reply, &prefix(), KEY));
        let _ = Reply::parse(reply.clone()).and_then(|reply| Confirmation::parse(reply, KEY, &[b"/x/1"]));
        let _ = Reply::parse(reply.clone()).and_then(|reply| DeleteResult::parse(reply, KEY));
        let _ = Reply::parse(reply).and_then(|reply| BindResult::parse(reply, KEY));
    }
}

/// Rule 10: a write that is applied late must not change what was written since.
#[test]
fn each_write_names_the_revision_it_is_meant_for() {
    use PbTargetUnion::{CreateRevision, ModRevision};

    let conditions = |txn: Txn| -> Vec<_> {
        let compares = PbTxnRequest::from(txn).compare.into_iter();
        compares.map(|compare| (compare.result, compare.target_union.expect("a target"))).collect()
    };
    // The values of etcd's CompareResult.
    let (equal, greater) = (0, 1);
    assert_eq!(conditions(enter(&prefix(), KEY, 5, "{}")), [(equal, CreateRevision(0))]);
    assert_eq!(conditions(bind(KEY, 4, 6, 9)), [(equal, CreateRevision(4)), (equal, ModRevision(6))]);
    assert_eq!(conditions(delete(KEY, Some(4))), [(equal, CreateRevision(4))]);
    assert_eq!(conditions(delete(KEY, None)), [(greater, CreateRevision(0))]);
}
