//! Clusters of three members: faults, elections and restarts while jobs hold and await a lock.

mod elections;
mod member_faults;
mod on_lost;
mod paused_leader;
mod replaced_leader;
mod rolling_restart;

use std::thread;

use crate::loss::Lease;
use crate::world::{Cluster, Version, secs};

/// Kind of cluster under test.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Etcd(Version),
    Consul,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Etcd(Version::V34), Self::Etcd(Version::V35), Self::Consul];

    fn cluster(self) -> Cluster {
        match self {
            Self::Etcd(version) => Cluster::etcd(version),
            Self::Consul => Cluster::consul(),
        }
    }

    /// Returns a lease that outlives the loss of a follower.
    fn short(self) -> Lease {
        let ttl = match self {
            Self::Etcd(_) => secs(5),
            Self::Consul => secs(10),
        };
        Lease { ttl, grace: secs(1) }
    }

    /// Returns a lease that outlives the loss of the leader and the election that follows.
    fn long(self) -> Lease {
        let ttl = match self {
            Self::Etcd(_) => secs(10),
            Self::Consul => secs(30),
        };
        Lease { ttl, grace: secs(1) }
    }

    /// Runs a test on one cluster of each kind, all at the same time.
    fn each(test: impl Fn(Self) + Sync) {
        thread::scope(|scope| {
            for kind in Self::ALL {
                let test = &test;
                let thread = thread::Builder::new().name(format!("{kind:?}"));
                thread.spawn_scoped(scope, move || test(kind)).expect("a thread");
            }
        });
    }
}

/// Runs a test on both versions of etcd at the same time.
fn on_both_versions(test: impl Fn(Version) + Sync) {
    thread::scope(|scope| {
        for version in [Version::V34, Version::V35] {
            let test = &test;
            scope.spawn(move || test(version));
        }
    });
}
