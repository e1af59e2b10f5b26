//! Watching a few keys, across connections, without missing a change.

use etcd_client::proto::PbEvent;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};

use super::client::Client;
use super::link::Link;
use distlock_core::etcd::queue::{Own, Prefix};
use distlock_core::outcome::{Outcome, Trouble};

const PUT: i32 = EventType::Put as i32;
const DELETE: i32 = EventType::Delete as i32;
const STRANGE: &str = "an event of no known kind";

/// What happened to a watched key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The revision of the change.
    pub revision: i64,
    /// What is there now; None when it was deleted.
    pub now: Option<Own>,
}

/// Waits for the first change of one of the `keys` after the revision `after`.
///
/// When the client turns to another endpoint the watch goes with it. [`Trouble::Uncertain`] when it broke or cannot
/// be resumed at that revision: the keys must be read again.
pub(super) async fn change(client: &Client, keys: &[&[u8]], after: i64) -> Outcome<Change> {
    loop {
        let mut link = client.link().await?;
        let present = link.clone();
        tokio::select! {
            change = change_on(client, &mut link, keys, after) => return change,
            () = client.left(&present) => {}
        }
    }
}

async fn change_on(client: &Client, link: &mut Link, keys: &[&[u8]], after: i64) -> Outcome<Change> {
    let mut stream = match open(link, keys, after).await {
        Ok(stream) => stream,
        Err(error) => return Err(client.judge(link, &error).into()),
    };
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(client.uncertain(link, "the watch ended")),
            Err(error) => return Err(client.judge(link, &error).into()),
        };
        if message.canceled() {
            return Err(canceled(client, link, &message));
        }
        if let Some(event) = message.0.events.into_iter().next() {
            return change_of(event).ok_or_else(|| client.uncertain(link, STRANGE));
        }
    }
}

async fn open(link: &mut Link, keys: &[&[u8]], after: i64) -> Result<WatchStream, etcd_client::Error> {
    let options = WatchOptions::new().with_start_revision(after + 1);
    let mut keys = keys.iter();
    let mut stream = link.client.watch(keys.next().copied().unwrap_or_default(), Some(options.clone())).await?;
    for key in keys {
        stream.watch(*key, Some(options.clone())).await?;
    }
    Ok(stream)
}

/// Reads the history of a lock from the revision `held_at`, at which we held it, to the creation of our present key at
/// `created`: whether no contender's key came or went but those of ours. False where the history is compacted: somebody may
/// have been there.
pub(super) async fn nobody_between(
    client: &Client,
    prefix: &Prefix,
    held_at: i64,
    ours: &[String],
    created: i64,
) -> Outcome<bool> {
    let mut link = client.link().await?;
    let (from, to) = prefix.range();
    let options = WatchOptions::new().with_range(to).with_start_revision(held_at + 1);
    let mut stream = match link.client.watch(from, Some(options)).await {
        Ok(stream) => stream,
        Err(error) => return Err(client.judge(&link, &error).into()),
    };
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(client.uncertain(&link, "the watch ended")),
            Err(error) => return Err(client.judge(&link, &error).into()),
        };
        match message.canceled() {
            true if message.compact_revision() > 0 => return Ok(false),
            true => return Err(canceled(client, &link, &message)),
            false => {}
        }
        for event in message.0.events {
            let Some(kv) = event.kv else { return Err(client.uncertain(&link, STRANGE)) };
            // Our present key's creation comes in the end, so this waits for nothing that does not come.
            if prefix.owns(&kv.key) && !ours.iter().any(|key| key.as_bytes() == kv.key) {
                return Ok(kv.mod_revision == created);
            }
        }
    }
}

fn canceled(client: &Client, link: &Link, message: &WatchResponse) -> Trouble {
    if message.compact_revision() > 0 {
        // The history before that revision is gone, on every endpoint alike: no reason to leave this one.
        let cause = format!("what happened before revision {} is compacted", message.compact_revision());
        return Trouble::inconclusive(cause);
    }
    client.uncertain(link, &format!("the watch was canceled: {}", message.cancel_reason()))
}

/// None where it is of no kind that is known.
fn change_of(event: PbEvent) -> Option<Change> {
    let kv = event.kv?;
    let revision = kv.mod_revision;
    match event.r#type {
        PUT => Some(Change { revision, now: Some(super::view::own(kv)) }),
        DELETE => Some(Change { revision, now: None }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::PbKeyValue;

    use super::*;

    #[test]
    fn an_event_of_an_unknown_kind_is_no_change() {
        let event = |kind, kv| PbEvent { r#type: kind, kv, prev_kv: None };
        let kv = || Some(PbKeyValue { create_revision: 3, mod_revision: 4, ..PbKeyValue::default() });
        assert!(change_of(event(PUT, kv())).is_some_and(|change| change.revision == 4 && change.now.is_some()));
        assert_eq!(change_of(event(DELETE, kv())), Some(Change { revision: 4, now: None }));
        assert_eq!(change_of(event(2, kv())), None);
        assert_eq!(change_of(event(PUT, None)), None);
    }
}
