//! Clusters of three members of any kind, each behind its own proxy.

use super::{Consul, Etcd, Mode, Proxy, Server, Version, World, consul, etcd, poll_for, poll_until, secs};

/// A cluster member that can be killed, restarted and paused.
pub trait Member: Server + Send {
    /// Kills it; its data stays.
    fn kill(&self);
    /// Starts it again on its data; it serves when this returns.
    fn restart(&self);
    /// Stops it with SIGSTOP.
    fn pause(&self);
    /// Continues it.
    fn resume(&self);
    /// Returns whether it regards itself as the leader; false if it does not answer.
    fn leads(&self) -> bool;
    /// Returns whether it answers a read that needs a quorum.
    fn serves(&self) -> bool;
    /// Returns whether its cluster can lose another member.
    fn tolerates(&self) -> bool;
}

macro_rules! member {
    ($server:ty, $tolerates:ident) => {
        impl Member for $server {
            fn kill(&self) {
                <$server>::kill(self);
            }
            fn restart(&self) {
                <$server>::restart(self);
            }
            fn pause(&self) {
                <$server>::pause(self);
            }
            fn resume(&self) {
                <$server>::resume(self);
            }
            fn leads(&self) -> bool {
                self.is_leader()
            }
            fn serves(&self) -> bool {
                self.is_ready()
            }
            fn tolerates(&self) -> bool {
                self.$tolerates()
            }
        }
    };
}

member!(Etcd, is_ready);
member!(Consul, is_whole);

/// Fault of a member, or of the connections to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL. [`Cluster::remove`] starts the member again.
    Kill,
    /// SIGSTOP.
    Pause,
    /// No byte passes in either direction on the clients' connections; new connections are accepted.
    Cut,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Pause, Self::Cut];
}

/// Three members, and the proxies through which clients reach them.
pub struct Cluster {
    /// The members.
    pub members: Vec<Box<dyn Member>>,
    /// A proxy for each member.
    pub proxies: Vec<Proxy>,
    /// A client agent, as on the host of a job; Consul only.
    agent: Option<Consul>,
}

impl Cluster {
    /// Starts three members of etcd.
    pub fn etcd(version: Version) -> Self {
        Self::of(etcd::cluster(version, 3), None)
    }

    /// Starts three Consul servers with the default times of elections, and a client agent.
    pub fn consul() -> Self {
        let servers = consul::cluster(3, 5);
        let agent = consul::agent(&servers.iter().collect::<Vec<_>>());
        Self::of(servers, Some(agent))
    }

    fn of<M: Member + 'static>(members: Vec<M>, agent: Option<Consul>) -> Self {
        let members = members.into_iter().map(|member| Box::new(member) as _).collect();
        let mut cluster = Self { members, proxies: Vec::new(), agent };
        cluster.proxies = cluster.more_proxies();
        cluster
    }

    /// Returns the index of the member that leads.
    #[track_caller]
    pub fn leader(&self) -> usize {
        poll_for("a leader", secs(60), || self.members.iter().position(|member| member.leads()))
    }

    /// Returns the indices of the other members.
    pub fn followers(&self) -> Vec<usize> {
        let leader = self.leader();
        (0..self.members.len()).filter(|&n| n != leader).collect()
    }

    /// Starts further proxies, one for each member.
    pub fn more_proxies(&self) -> Vec<Proxy> {
        self.members.iter().map(|member| Proxy::to(member.address())).collect()
    }

    /// Creates a world whose jobs reach all members through these proxies, the one at index `first` first.
    pub fn world_from(&self, first: usize, proxies: &[Proxy]) -> World {
        let urls: Vec<_> = proxies.iter().cycle().skip(first).take(proxies.len()).map(Proxy::url).collect();
        World::at(self.members[0].backend(), &urls.join(","))
    }

    /// Creates a world whose jobs have the endpoints that the documentation recommends: all members, the one at index
    /// `first` first, on Consul after the client agent, since a session ends with the server that created it.
    pub fn world_usual(&self, first: usize) -> World {
        let members = (0..self.members.len()).map(|n| self.proxies[(first + n) % self.members.len()].url());
        let urls: Vec<_> = self.agent.iter().map(Consul::url).chain(members).collect();
        World::at(self.members[0].backend(), &urls.join(","))
    }

    /// Injects a fault in a member, or in the connections to it.
    pub fn inject(&self, n: usize, proxy: &Proxy, fault: Fault) {
        match fault {
            Fault::Kill => self.members[n].kill(),
            Fault::Pause => self.members[n].pause(),
            Fault::Cut => proxy.set(Mode::Freeze),
        }
    }

    /// Removes a fault.
    pub fn remove(&self, n: usize, proxy: &Proxy, fault: Fault) {
        match fault {
            Fault::Kill => self.members[n].restart(),
            Fault::Pause => self.members[n].resume(),
            Fault::Cut => proxy.set(Mode::Pass),
        }
    }

    /// Removes a fault, and waits until the cluster is healthy.
    pub fn heal(&self, n: usize, proxy: &Proxy, fault: Fault) {
        self.remove(n, proxy, fault);
        self.await_health();
    }

    /// Waits until every member serves and the cluster can lose another one.
    #[track_caller]
    pub fn await_health(&self) {
        for member in &self.members {
            poll_until("a healthy cluster", secs(90), || member.serves() && member.tolerates());
        }
    }
}
