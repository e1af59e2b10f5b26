use etcd_client::proto::{PbDeleteResponse, PbPutResponse, PbResponseHeader, PbResponseOp};
use proptest::prelude::*;

use super::*;

const KEY: &str = "/x/5";

fn prefix() -> Prefix {
    Prefix::new("/x")
}

fn kv(key: &str, created: i64) -> PbKeyValue {
    PbKeyValue {
        key: key.into(),
        create_revision: created,
        mod_revision: created,
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

fn entered(reply: PbTxnResponse) -> Result<View, Odd> {
    View::entered(Reply::of(reply)?, &prefix(), KEY, 5, "{}")
}

#[test]
fn a_key_that_was_put_is_first_or_stands_behind_others() {
    let alone = entered(reply(true, vec![put(), range(vec![kv(KEY, 9)], false), range(vec![kv(KEY, 9)], false)]));
    let alone = alone.expect("a view");
    assert_eq!((alone.own.clone().map(|own| own.created), alone.line(9)), (Some(9), None));
    let keys = range(vec![kv("/x/1", 4), kv(KEY, 9), kv("/x/6/1", 1)], false);
    let behind = entered(reply(true, vec![put(), keys, range(vec![kv("/x/6/1", 1)], true)])).expect("a view");
    assert_eq!(behind.line(9).map(|line| line.before), Some(b"/x/1".to_vec()));
}

#[test]
fn a_reply_that_lacks_something_is_no_lock() {
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
fn a_queue_is_read_to_its_end_and_past_nested_names() {
    let first = range(vec![kv("/x/1", 4), kv("/x/2/a", 1)], true);
    let mut view = entered(reply(true, vec![put(), first, range(vec![kv("/x/2/a", 1)], true)])).expect("a view");
    // All that is nested there is left out.
    assert_eq!(view.rest(), Some(&b"/x/20"[..]));
    let page = |kvs, more| Reply::of(reply(true, vec![range(kvs, more)])).expect("a reply");
    assert!(view.clone().read_on(page(vec![], true), &prefix()).is_err(), "no end");
    assert!(view.clone().read_on(page(vec![kv("/x/1", 4)], true), &prefix()).is_err(), "backwards");
    view.read_on(page(vec![kv("/x/3", 2)], true), &prefix()).expect("a page");
    assert_eq!(view.rest(), Some(&b"/x/3\0"[..]));
    view.read_on(page(vec![kv("/x/4", 7)], false), &prefix()).expect("a page");
    assert_eq!(view.rest(), None);
    let line = view.line(9).expect("others");
    assert_eq!((line.first, line.before, line.ahead), (b"/x/3".to_vec(), b"/x/4".to_vec(), 3));
}

#[test]
fn what_confirms_a_key_tells_of_that_key() {
    let read = |kvs: Vec<PbKeyValue>, other| {
        let parts = vec![range(kvs, false), range(other, false)];
        Confirmed::of(Reply::of(reply(true, parts))?, KEY, &[b"/x/1"])
    };
    assert_eq!(read(vec![kv(KEY, 9)], vec![kv("/x/1", 4)]).map(|read| read.complete), Ok(true));
    assert_eq!(read(vec![kv(KEY, 9)], vec![]).map(|read| read.complete), Ok(false));
    assert_eq!(read(vec![], vec![]).map(|read| read.own), Ok(None));
    assert!(read(vec![kv("/x/6", 9)], vec![]).is_err());
    assert!(read(vec![kv(KEY, 9), kv(KEY, 9)], vec![]).is_err());
    assert!(read(vec![kv(KEY, 9)], vec![kv("/x/2", 4)]).is_err());
}

#[test]
fn a_deletion_tells_what_was_deleted() {
    let deleted =
        |prev_kvs| PbTxnOpResponse::ResponseDeleteRange(PbDeleteResponse { prev_kvs, ..PbDeleteResponse::default() });
    let left = |succeeded, parts| Left::of(Reply::of(reply(succeeded, parts))?, KEY);
    assert_eq!(left(true, vec![deleted(vec![kv(KEY, 4)])]), Ok(Left::Deleted(own(kv(KEY, 4)))));
    assert_eq!(left(false, vec![]), Ok(Left::Untouched));
    assert!(left(true, vec![deleted(vec![])]).is_err());
    assert!(left(true, vec![deleted(vec![kv("/x/6", 4)])]).is_err());
    assert!(left(true, vec![]).is_err());
}

prop_compose! {
    fn any_kv()(key in prop::sample::select(vec!["/x/5", "/x/1", "/x/1/2", "/y", ""]), created in -1..20_i64) -> PbKeyValue {
        kv(key, created)
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
    fn no_reply_makes_a_panic_nor_a_lock_of_nothing(
        header in prop::option::of((-1..20_i64, 0..3_u64)),
        succeeded: bool,
        parts in prop::collection::vec(any_part(), 0..5),
    ) {
        let whole = parts.len() == 3;
        let responses = parts.into_iter().map(|response| PbResponseOp { response }).collect();
        let header = header.map(|(revision, raft_term)| PbResponseHeader { revision, raft_term, ..PbResponseHeader::default() });
        let reply = PbTxnResponse { header, succeeded, responses };
        let view = entered(reply.clone());
        if let Ok(view) = &view {
            prop_assert!(whole && view.revision > 0 && view.term > 0);
            prop_assert!(view.own.as_ref().is_none_or(|own| own.created > 0));
        }
        let _ = Reply::of(reply.clone()).and_then(|reply| View::looked(reply, &prefix(), KEY));
        let _ = Reply::of(reply.clone()).and_then(|reply| Confirmed::of(reply, KEY, &[b"/x/1"]));
        let _ = Reply::of(reply.clone()).and_then(|reply| Left::of(reply, KEY));
        let _ = Reply::of(reply).and_then(|reply| Rebound::of(reply, KEY));
    }
}
