//! Renewals on a keep-alive stream.
//!
//! The stream is opened here because etcd-client hides the reply to the request that opens it. That reply is a renewal
//! like the others, and on a slow network each round trip counts.

use std::rc::Rc;
use std::time::Duration;

use etcd_client::proto::PbLeaseKeepAliveResponse;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

use super::client::Client;
use super::connection::Connection;
use super::fault;
use super::transactions::{self, Confirmation};
use crate::sys::clock;

/// A server answers within this time. A proxy that renews a long lease by itself does not.
const SERVER_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// `etcdserverpb.LeaseKeepAliveRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct KeepAliveRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

/// Open stream of renewals for one lease.
pub(super) struct KeepAlive {
    lease: i64,
    connection: Connection,
    requests: mpsc::Sender<KeepAliveRequest>,
    replies: Streaming<PbLeaseKeepAliveResponse>,
}

/// Renewal that the server acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    /// Sampled before the request was sent.
    pub sent_at: Instant,
    /// Raft term in the reply.
    pub term: u64,
}

impl KeepAlive {
    /// Opens a stream with a first renewal.
    async fn open(client: &Client, connection: Connection, lease: i64) -> Outcome<(Self, Renewal)> {
        let sent_at = clock::now();
        let (requests, queued) = mpsc::channel(1);
        // The channel is empty, so this succeeds.
        let _ = requests.try_send(KeepAliveRequest { id: lease });
        let mut request = Request::new(ReceiverStream::new(queued));
        connection.add_metadata(request.metadata_mut());
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let mut grpc = tonic::client::Grpc::new(connection.channel.clone());
        grpc.ready().await.map_err(|error| Trouble::from(client.classify(&connection, &error.into())))?;
        let codec = ProstCodec::<KeepAliveRequest, PbLeaseKeepAliveResponse>::default();
        let opened = grpc.streaming(request, path, codec).await;
        let replies = opened.map_err(|status| Trouble::from(client.classify(&connection, &status.into())))?;
        let mut stream = Self { lease, connection, requests, replies: replies.into_inner() };
        let term = stream.reply(client).await?;
        Ok((stream, Renewal { sent_at, term }))
    }

    /// Returns whether the stream is for this lease and on the current connection.
    pub(super) fn is_usable(&self, client: &Client, lease: i64) -> bool {
        self.lease == lease && client.is_current(&self.connection)
    }

    /// Sends one renewal and waits for its reply. If the future is dropped, the stream must not be used again: its next
    /// reply would be taken for that of another renewal.
    async fn renew(&mut self, client: &Client) -> Outcome<Renewal> {
        let sent_at = clock::now();
        if self.requests.try_send(KeepAliveRequest { id: self.lease }).is_err() {
            return Err(client.uncertain(&self.connection, "the keep-alive stream ended"));
        }
        Ok(Renewal { sent_at, term: self.reply(client).await? })
    }

    /// Returns the Raft term of the next reply.
    async fn reply(&mut self, client: &Client) -> Outcome<u64> {
        let uncertain = |why: &str| Err(client.uncertain(&self.connection, why));
        match self.replies.message().await {
            Err(status) => return Err(client.classify(&self.connection, &status.into()).into()),
            Ok(None) => uncertain("the keep-alive stream ended"),
            Ok(Some(reply)) if reply.id != self.lease => uncertain("the server renewed another lease"),
            Ok(Some(reply)) if reply.ttl <= 0 => Err(fault::lease_lost()),
            Ok(Some(reply)) => Ok(reply.header.map_or(0, |header| header.raft_term)),
        }
        .inspect(|_| self.connection.record_answer())
    }
}

/// Returns whether the server itself answers each renewal of this lease. A proxy that renews by itself answers the
/// first one, and each further one when its own next renewal is due, so that the `sent_at` of these means nothing.
pub(super) async fn server_answers_each_renewal(client: &Client, lease: i64) -> Outcome<bool> {
    let (mut stream, _) = KeepAlive::open(client, client.connection().await?, lease).await?;
    timeout(SERVER_ANSWERS_WITHIN, stream.renew(client)).await.map_or(Ok(false), |renewal| renewal.map(|_| true))
}

/// Renewal to send, and what its confirmation depends on.
pub(super) struct RenewalRequest {
    pub lease: i64,
    pub key: String,
    pub keys_ahead: Vec<Vec<u8>>,
    /// Raft term of the last confirmed read.
    pub previous_term: u64,
}

/// Acknowledged renewal, and the read that was sent afterwards on the same connection.
pub(super) struct RenewalAttempt {
    pub previous_term: u64,
    pub renewal: Renewal,
    pub read: Confirmation,
    pub stream: KeepAlive,
}

impl RenewalRequest {
    /// Sends the renewal, on the `idle` stream if there is one, and the read.
    pub(super) async fn send(self, client: Rc<Client>, idle: Option<KeepAlive>) -> Outcome<RenewalAttempt> {
        let (stream, renewal) = match idle {
            Some(mut stream) => {
                let renewal = stream.renew(&client).await?;
                (stream, renewal)
            }
            None => KeepAlive::open(&client, client.connection().await?, self.lease).await?,
        };
        let keys_ahead: Vec<_> = self.keys_ahead.iter().map(Vec::as_slice).collect();
        let reply = client.read_on(&stream.connection, transactions::confirm(&self.key, &keys_ahead)).await?;
        let read = client.parsed(Confirmation::parse(reply, &self.key, &keys_ahead))?;
        Ok(RenewalAttempt { previous_term: self.previous_term, renewal, read, stream })
    }
}
