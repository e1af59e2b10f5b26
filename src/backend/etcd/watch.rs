//! Watching a few keys, across connections, without missing a change.

use etcd_client::{EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};

use super::client::{Client, Link};
use super::queue::Own;
use crate::backend::{Outcome, Trouble};

/// What happened to a watched key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision of the change.
    pub revision: i64,
    /// What is there now; None when it was deleted.
    pub now: Option<Own>,
}

/// Waits for the first change of one of the `keys` after the revision `after`.
///
/// When the client turns to another endpoint the watch goes with it. [`Trouble::Uncertain`] when it broke or cannot
/// be resumed at that revision: the keys must be read again.
pub async fn change(client: &Client, keys: &[&[u8]], after: i64) -> Outcome<Change> {
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
            Ok(None) => return Err(client.uncertain(link, "the watch ended".to_owned())),
            Err(error) => return Err(client.judge(link, &error).into()),
        };
        if message.canceled() {
            return Err(canceled(client, link, &message));
        }
        if let Some(change) = first(&message) {
            return Ok(change);
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

fn canceled(client: &Client, link: &Link, message: &WatchResponse) -> Trouble {
    if message.compact_revision() > 0 {
        // The history before that revision is gone, on every endpoint alike: no reason to leave this one.
        let cause = format!("what happened before revision {} is compacted", message.compact_revision());
        return Trouble::Uncertain { answered: true, cause };
    }
    client.uncertain(link, format!("the watch was canceled: {}", message.cancel_reason()))
}

fn first(message: &WatchResponse) -> Option<Change> {
    let event = message.events().first()?;
    let kv = event.kv()?;
    let now = (event.event_type() == EventType::Put).then(|| Own::from(kv));
    Some(Change { revision: kv.mod_revision(), now })
}

impl From<&KeyValue> for Own {
    fn from(kv: &KeyValue) -> Self {
        Self { created: kv.create_revision(), lease: kv.lease(), value: kv.value().to_vec() }
    }
}
