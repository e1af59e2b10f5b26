//! Renewals on one stream, and rule 1's condition for believing one.

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};

use super::client::{Client, Link};
use crate::backend::{Outcome, Trouble};
use crate::clock::Instant;

/// Whether a renewal may be believed, by the Raft terms of the confirmed read before it, of its own reply, and of the
/// read after it.
///
/// A leader that was paused and replaced goes on acknowledging renewals that nobody else knows of. Only when one and the
/// same leader confirmed our key before and after is the renewal known to be that leader's.
pub fn believable(before: u64, reply: u64, after: u64) -> bool {
    before > 0 && before == reply && reply == after
}

/// An open stream of renewals for one lease.
pub struct KeepAlive {
    lease: i64,
    link: Link,
    keeper: LeaseKeeper,
    replies: LeaseKeepAliveStream,
}

/// A renewal that the server acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// Sampled before it was sent.
    pub s: Instant,
    /// The Raft term in its reply.
    pub term: u64,
}

impl KeepAlive {
    /// Opens a stream; that renews the lease already, but its reply tells no term.
    pub async fn open(client: &Client, lease: i64) -> Outcome<Self> {
        let mut link = client.link().await?;
        match link.client.lease_keep_alive(lease).await {
            Ok((keeper, replies)) => Ok(Self { lease, link, keeper, replies }),
            Err(error) => Err(client.judge(&link, &error).into()),
        }
    }

    /// Whether it is for this lease, on the connection that is in use.
    pub fn serves(&self, client: &Client, lease: i64) -> bool {
        self.lease == lease && client.is_current(&self.link)
    }

    /// Sends one renewal and awaits its reply. A stream on which this did not return must not be used again: the reply
    /// that comes next would be taken for another renewal's.
    pub async fn renew(&mut self, client: &Client) -> Outcome<Renewal> {
        let s = Instant::now();
        let judge = |link: &Link, error| Trouble::from(client.judge(link, &error));
        self.keeper.keep_alive().await.map_err(|error| judge(&self.link, error))?;
        let Some(reply) = self.replies.message().await.map_err(|error| judge(&self.link, error))? else {
            return Err(client.uncertain(&self.link, "the stream of renewals ended".to_owned()));
        };
        if reply.id() != self.lease {
            return Err(client.uncertain(&self.link, "a renewal of another lease was answered".to_owned()));
        }
        if reply.ttl() <= 0 {
            return Err(Trouble::Lost("the lease expired or was revoked".to_owned()));
        }
        Ok(Renewal { s, term: reply.header().map_or(0, etcd_client::ResponseHeader::raft_term) })
    }
}

#[cfg(test)]
mod tests {
    use super::believable;

    #[test]
    fn only_one_leader_s_word_counts() {
        assert!(believable(4, 4, 4));
        // Replaced between the renewal and the read: the renewal may be the old leader's.
        assert!(!believable(4, 4, 5));
        // Replaced before: a follower may have stamped the new term on the old leader's reply.
        assert!(!believable(4, 5, 5));
        assert!(!believable(4, 5, 4));
        assert!(!believable(3, 4, 5));
        // Who tells no term may be anybody.
        assert!(!believable(0, 0, 0));
    }
}
