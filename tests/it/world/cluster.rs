//! Clusters of three, whatever their kind, each member behind a proxy of its own.

use super::{Consul, Etcd, Mode, Proxy, Server, Version, World, consul, etcd, poll_for, poll_until, secs};

/// A member that can be struck.
pub trait Member: Server + Send {
    /// Kills it; its data stays.
    fn kill(&self);
    /// Starts it again on its data; it serves when this returns.
    fn restart(&self);
    /// Stops it from running.
    fn pause(&self);
    /// Lets it run again.
    fn resume(&self);
    /// Whether it leads, as it believes; false when it does not say.
    fn leads(&self) -> bool;
    /// Whether it answers a read that needs a quorum.
    fn serves(&self) -> bool;
    /// Whether its cluster can lose another member.
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

/// What can befall a member, or the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL; it is started again afterwards.
    Kill,
    /// SIGSTOP.
    Pause,
    /// The clients' connections carry nothing any more, and new ones are accepted.
    Cut,
}

impl Blow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Pause, Self::Cut];
}

/// Three members, and the proxies through which clients reach them.
pub struct Cluster {
    /// The members.
    pub members: Vec<Box<dyn Member>>,
    /// One to each member.
    pub proxies: Vec<Proxy>,
    /// An agent that is no server, as a job's own host has one; of Consul only.
    agent: Option<Consul>,
}

impl Cluster {
    /// Three members of etcd.
    pub fn etcd(version: Version) -> Self {
        Self::of(etcd::cluster(version, 3), None)
    }

    /// Three Consul servers with the times of elections that users have.
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

    /// The index of the member that leads.
    #[track_caller]
    pub fn leader(&self) -> usize {
        poll_for("a leader", secs(60), || self.members.iter().position(|member| member.leads()))
    }

    /// The others.
    pub fn followers(&self) -> Vec<usize> {
        let leader = self.leader();
        (0..self.members.len()).filter(|&n| n != leader).collect()
    }

    /// Further proxies, one to each member.
    pub fn more_proxies(&self) -> Vec<Proxy> {
        self.members.iter().map(|member| Proxy::to(member.address())).collect()
    }

    /// A world whose jobs reach all members through these proxies, and this one first.
    pub fn world_from(&self, first: usize, proxies: &[Proxy]) -> World {
        let urls: Vec<_> = proxies.iter().cycle().skip(first).take(proxies.len()).map(Proxy::url).collect();
        World::at(self.members[0].backend(), &urls.join(","))
    }

    /// A world whose jobs reach the cluster as users' do when a member may be gone for long: all members, this one first;
    /// of Consul the agent before them, since a session ends with the server that it was created at.
    pub fn world_usual(&self, first: usize) -> World {
        let members = (0..self.members.len()).map(|n| self.proxies[(first + n) % self.members.len()].url());
        let urls: Vec<_> = self.agent.iter().map(Consul::url).chain(members).collect();
        World::at(self.members[0].backend(), &urls.join(","))
    }

    /// Strikes a member, or the way to it.
    pub fn begin(&self, n: usize, proxy: &Proxy, blow: Blow) {
        match blow {
            Blow::Kill => self.members[n].kill(),
            Blow::Pause => self.members[n].pause(),
            Blow::Cut => proxy.set(Mode::Freeze),
        }
    }

    /// Undoes that.
    pub fn undo(&self, n: usize, proxy: &Proxy, blow: Blow) {
        match blow {
            Blow::Kill => self.members[n].restart(),
            Blow::Pause => self.members[n].resume(),
            Blow::Cut => proxy.set(Mode::Pass),
        }
    }

    /// Undoes that, and waits until all is well again.
    pub fn end(&self, n: usize, proxy: &Proxy, blow: Blow) {
        self.undo(n, proxy, blow);
        self.await_health();
    }

    /// Waits until every member serves, and another one can be lost.
    #[track_caller]
    pub fn await_health(&self) {
        for member in &self.members {
            poll_until("a whole cluster", secs(90), || member.serves() && member.tolerates());
        }
    }
}
