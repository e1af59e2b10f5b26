//! Watches on a few keys, across connections, without missing a change.

use etcd_client::proto::PbEvent;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};

use distlock_core::etcd::queue::{OwnKey, Prefix};
use distlock_core::outcome::{Outcome, Trouble};

use super::client::Client;
use super::connection::Connection;
use super::transactions;

const PUT: i32 = EventType::Put as i32;
const DELETE: i32 = EventType::Delete as i32;
const UNKNOWN_EVENT: &str = "the watch sent an event of an unknown kind";

/// Change of a watched key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Revision of the change.
    pub revision: i64,
    /// The key afterwards; None if it was deleted.
    pub now: Option<OwnKey>,
}

/// Waits for the first change of one of the `keys` after the revision `after`.
///
/// If the client changes its endpoint, the watch continues there. Fails with [`Trouble::Uncertain`] if the watch broke
/// or cannot be resumed at that revision: the keys must be read again.
pub(super) async fn next_change(client: &Client, keys: &[&[u8]], after: i64) -> Outcome<Change> {
    loop {
        let mut connection = client.connection().await?;
        let current = connection.clone();
        tokio::select! {
            change = next_change_on(client, &mut connection, keys, after) => return change,
            () = client.until_left(&current) => {}
        }
    }
}

async fn next_change_on(client: &Client, connection: &mut Connection, keys: &[&[u8]], after: i64) -> Outcome<Change> {
    let mut stream = match open(connection, keys, after).await {
        Ok(stream) => stream,
        Err(error) => return Err(client.classify(connection, &error).into()),
    };
    loop {
        let message = next_message(client, connection, &mut stream).await?;
        if message.canceled() {
            return Err(canceled(client, connection, &message));
        }
        if let Some(event) = message.0.events.into_iter().next() {
            return parse(event).ok_or_else(|| client.uncertain(connection, UNKNOWN_EVENT));
        }
    }
}

async fn open(connection: &mut Connection, keys: &[&[u8]], after: i64) -> Result<WatchStream, etcd_client::Error> {
    let options = WatchOptions::new().with_start_revision(after + 1);
    let mut keys = keys.iter();
    let mut stream = connection.client.watch(keys.next().copied().unwrap_or_default(), Some(options.clone())).await?;
    for key in keys {
        stream.watch(*key, Some(options.clone())).await?;
    }
    Ok(stream)
}

async fn next_message(client: &Client, connection: &Connection, stream: &mut WatchStream) -> Outcome<WatchResponse> {
    match stream.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(client.uncertain(connection, "the watch ended")),
        Err(error) => Err(client.classify(connection, &error).into()),
    }
}

/// Reads the history of a lock from the revision `held_revision`, at which this contender held it, to the creation of
/// its current key at `create_revision`. Returns whether only its own keys (`own_keys`) changed in between; false if
/// the history is compacted.
pub(super) async fn no_other_contender_between(
    client: &Client,
    prefix: &Prefix,
    held_revision: i64,
    own_keys: &[String],
    create_revision: i64,
) -> Outcome<bool> {
    let mut connection = client.connection().await?;
    let (start, end) = prefix.range();
    let options = WatchOptions::new().with_range(end).with_start_revision(held_revision + 1);
    let mut stream = match connection.client.watch(start, Some(options)).await {
        Ok(stream) => stream,
        Err(error) => return Err(client.classify(&connection, &error).into()),
    };
    loop {
        let message = next_message(client, &connection, &mut stream).await?;
        match message.canceled() {
            true if message.compact_revision() > 0 => return Ok(false),
            true => return Err(canceled(client, &connection, &message)),
            false => {}
        }
        for event in message.0.events {
            let Some(kv) = event.kv else { return Err(client.uncertain(&connection, UNKNOWN_EVENT)) };
            // The loop ends at the latest with the creation of the current key, which is part of this history.
            if prefix.is_contender(&kv.key) && !own_keys.iter().any(|key| key.as_bytes() == kv.key) {
                return Ok(kv.mod_revision == create_revision);
            }
        }
    }
}

fn canceled(client: &Client, connection: &Connection, message: &WatchResponse) -> Trouble {
    if message.compact_revision() > 0 {
        // All endpoints lack that history, so there is no reason to leave this one.
        let cause = format!("the history before revision {} is compacted", message.compact_revision());
        return Trouble::inconclusive(cause);
    }
    client.uncertain(connection, &format!("the server canceled the watch: {}", message.cancel_reason()))
}

/// Returns None for an event of an unknown kind.
fn parse(event: PbEvent) -> Option<Change> {
    let kv = event.kv?;
    let revision = kv.mod_revision;
    match event.r#type {
        PUT => Some(Change { revision, now: Some(transactions::own_key(kv)) }),
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
        assert!(parse(event(PUT, kv())).is_some_and(|change| change.revision == 4 && change.now.is_some()));
        assert_eq!(parse(event(DELETE, kv())), Some(Change { revision: 4, now: None }));
        assert_eq!(parse(event(2, kv())), None);
        assert_eq!(parse(event(PUT, None)), None);
    }
}
