//! Renewals on one stream, and rule 1's condition for believing one.
//!
//! The stream is opened here rather than by etcd-client, which keeps the reply to the request that opens it to itself:
//! that one is a renewal like any other, and behind a slow network each round trip counts.

use crate::sys::clock;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::proto::PbLeaseKeepAliveResponse;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::client::Client;
use super::link::Link;
use super::view::{self, Confirmed};
use super::{Contender, gone};
use distlock_core::etcd::believable;
use distlock_core::outcome::{Outcome, Trouble};
use distlock_core::time::Instant;

/// In this time a server answers, and no proxy gets to its next renewal of a long lease.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// `etcdserverpb.LeaseKeepAliveRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(int64, tag = "1")]
    id: i64,
}

/// An open stream of renewals for one lease.
pub(super) struct KeepAlive {
    lease: i64,
    link: Link,
    asks: mpsc::Sender<Ask>,
    replies: Streaming<PbLeaseKeepAliveResponse>,
}

/// A renewal that the server acknowledged.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// Sampled before it was sent.
    s: Instant,
    /// The Raft term in its reply.
    term: u64,
}

impl KeepAlive {
    /// Opens a stream with a first renewal.
    async fn open(client: &Client, link: Link, lease: i64) -> Outcome<(Self, Renewal)> {
        let s = clock::now();
        let (asks, asked) = mpsc::channel(1);
        // There is room for one.
        let _ = asks.try_send(Ask { id: lease });
        let mut request = Request::new(ReceiverStream::new(asked));
        link.sign(request.metadata_mut());
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let mut grpc = tonic::client::Grpc::new(link.channel.clone());
        grpc.ready().await.map_err(|error| Trouble::from(client.judge(&link, &error.into())))?;
        let opened = grpc.streaming(request, path, ProstCodec::<Ask, PbLeaseKeepAliveResponse>::default()).await;
        let replies = opened.map_err(|status| Trouble::from(client.judge(&link, &status.into())))?.into_inner();
        let mut stream = Self { lease, link, asks, replies };
        let term = stream.reply(client).await?;
        Ok((stream, Renewal { s, term }))
    }

    /// Whether it is for this lease, on the connection that is in use.
    pub(super) fn serves(&self, client: &Client, lease: i64) -> bool {
        self.lease == lease && client.is_current(&self.link)
    }

    /// Sends one renewal and awaits its reply. A stream on which this did not return must not be used again: the reply
    /// that comes next would be taken for another renewal's.
    async fn renew(&mut self, client: &Client) -> Outcome<Renewal> {
        let s = clock::now();
        if self.asks.try_send(Ask { id: self.lease }).is_err() {
            return Err(client.uncertain(&self.link, "the stream of renewals ended"));
        }
        Ok(Renewal { s, term: self.reply(client).await? })
    }

    /// The Raft term of the next reply.
    async fn reply(&mut self, client: &Client) -> Outcome<u64> {
        let odd = |why: &str| Err(client.uncertain(&self.link, why));
        match self.replies.message().await {
            Err(status) => return Err(client.judge(&self.link, &status.into()).into()),
            Ok(None) => odd("the stream of renewals ended"),
            Ok(Some(reply)) if reply.id != self.lease => odd("a renewal of another lease was answered"),
            Ok(Some(reply)) if reply.ttl <= 0 => Err(gone()),
            Ok(Some(reply)) => Ok(reply.header.map_or(0, |header| header.raft_term)),
        }
        .inspect(|_| self.link.hear())
    }
}

/// Whether each renewal of this lease is answered by a server. A proxy that renews by itself answers the first, and others
/// when its own next one is due: what `s` they have nobody knows.
pub(super) async fn each_is_answered(client: &Client, lease: i64) -> Outcome<bool> {
    let (mut stream, _) = KeepAlive::open(client, client.link().await?, lease).await?;
    timeout(ANSWERED_WITHIN, stream.renew(client)).await.map_or(Ok(false), |renewal| renewal.map(|_| true))
}

/// What one renewal needs to know.
struct Plan {
    lease: i64,
    key: String,
    others: Vec<Vec<u8>>,
    /// The Raft term of the last confirmed read.
    before: u64,
}

/// A renewal that was acknowledged, and the read that followed it on the same connection.
pub(super) struct Attempt {
    before: u64,
    renewal: Renewal,
    read: Confirmed,
    stream: KeepAlive,
}

impl Plan {
    async fn carry_out(self, client: Rc<Client>, idle: Option<KeepAlive>) -> Outcome<Attempt> {
        let (stream, renewal) = match idle {
            Some(mut stream) => {
                let renewal = stream.renew(&client).await?;
                (stream, renewal)
            }
            None => KeepAlive::open(&client, client.link().await?, self.lease).await?,
        };
        let others: Vec<_> = self.others.iter().map(Vec::as_slice).collect();
        let reply = client.read_on(&stream.link, view::confirm(&self.key, &others)).await?;
        let read = client.understood(Confirmed::of(reply, &self.key, &others))?;
        Ok(Attempt { before: self.before, renewal, read, stream })
    }
}

impl Contender {
    /// Renews the lease. What an earlier call has begun and not seen to its end goes on meanwhile: a late reply counts with
    /// its own `s`, and where every reply is late there is no other.
    pub(super) async fn try_renew(&self) -> Outcome<Instant> {
        if self.entry.borrow().leases.changing() {
            return self.change_lease().await;
        }
        let (lease, key, others) = (self.lease(), self.key(), self.ahead());
        // Out of its place while in use: one that is dropped half-way is not used again.
        let idle = self.keep_alive.borrow_mut().take().filter(|stream| stream.serves(&self.client, lease));
        let plan = Plan { lease, key, others, before: self.entry.borrow().term };
        self.renewing.join(plan.carry_out(Rc::clone(&self.client), idle));
        let attempt = self.renewing.first().await?;
        self.renewing.clear();
        self.believe(attempt)
    }

    fn believe(&self, attempt: Attempt) -> Outcome<Instant> {
        let Attempt { before, renewal, read, stream } = attempt;
        let term = read.term;
        let own = self.confirmed(read)?;
        let mut entry = self.entry.borrow_mut();
        entry.term = term;
        if believable(before, renewal.term, term) && own.lease == entry.leases.bound() {
            self.keep_alive.replace(Some(stream));
            return Ok(renewal.s);
        }
        // The next call, which has all of its time before it, sees to that.
        entry.leases.change();
        Err(Trouble::inconclusive(format!("{}: another leader", self.client.endpoint())))
    }
}
