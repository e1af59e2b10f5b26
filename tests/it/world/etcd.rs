//! etcd servers, and requests to them through etcd's JSON gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::http;
use super::permits::ClusterPermit;
use super::server::{Node, binary, free_address, start_on_free_ports};
use super::{Entry, Proxy, Run, Server, ServerTls, World, poll_for, secs};

/// Tested series of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V34,
    V35,
}

impl Version {
    fn binary(self, name: &str) -> String {
        let series = match self {
            Self::V34 => "etcd-3.4",
            Self::V35 => "etcd-3.5",
        };
        binary(&format!("{series}/{name}"))
    }
}

/// One etcd member.
pub struct Etcd {
    version: Version,
    client: SocketAddr,
    /// Address with TLS. The harness uses the address without TLS.
    secure: Option<SocketAddr>,
    /// Whether [`Etcd::enable_auth`] was called.
    guarded: AtomicBool,
    node: Node,
    /// Permit of the cluster; none for single members.
    _permit: Option<Arc<ClusterPermit>>,
}

/// Password of root, which exists once authentication is enabled.
const ROOT_PASSWORD: &str = "root-password";

impl Etcd {
    /// Starts a single member.
    pub fn start(version: Version) -> Self {
        Self::start_with(version, &[])
    }

    /// Starts a single member with further options of etcd.
    pub fn start_with(version: Version, options: &[&str]) -> Self {
        cluster_with(version, 1, &options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>()).remove(0)
    }

    /// Starts a single member that serves by TLS, with a client certificate if `tls` demands it. Its authentication
    /// tokens expire after `token_ttl` seconds.
    pub fn start_secure(version: Version, tls: &ServerTls, token_ttl: u32) -> Self {
        let options = [tls.etcd_options(), vec![format!("--auth-token-ttl={token_ttl}"), "--bcrypt-cost=4".into()]];
        start_on_free_ports(|| {
            let addresses = Addresses { secure: Some(free_address()), ..Addresses::free() };
            let cluster = format!("etcd-0=http://{}", addresses.advertised);
            let member = Self::launch(version, "etcd-0", &addresses, &cluster, &options.concat());
            member.wait_ready()?;
            Ok(member)
        })
    }

    fn launch(version: Version, name: &str, addresses: &Addresses, cluster: &str, options: &[String]) -> Self {
        let secure = addresses.secure.map(|address| format!(",https://{address}")).unwrap_or_default();
        let [client, peer, advertised] =
            [addresses.client, addresses.peer, addresses.advertised].map(|address| format!("http://{address}"));
        let node = Node::start(|dir| {
            let data = dir.join("data").display().to_string();
            let fixed = [
                &*version.binary("etcd"),
                &format!("--name={name}"),
                &format!("--data-dir={data}"),
                &format!("--listen-client-urls={client}{secure}"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={advertised}"),
                &format!("--initial-cluster={cluster}"),
                "--log-level=error",
            ]
            .map(str::to_owned);
            fixed.iter().chain(options).cloned().collect()
        });
        Self {
            version,
            client: addresses.client,
            secure: addresses.secure,
            guarded: AtomicBool::new(false),
            node,
            _permit: None,
        }
    }

    fn wait_ready(&self) -> Result<(), String> {
        self.node.wait_ready(|| self.is_ready())
    }

    /// Returns whether it serves requests that need a quorum.
    pub fn is_ready(&self) -> bool {
        http::request(self.client, "GET", "/health", "").is_ok_and(|answer| answer.body.contains("true"))
    }

    /// Returns the server's process id.
    pub fn pid(&self) -> Pid {
        self.node.pid()
    }

    /// Kills the member; its data stays.
    pub fn kill(&self) {
        self.node.kill();
    }

    /// Kills the member if it runs, and starts it again on its data and ports; it serves when this returns.
    pub fn restart(&self) {
        self.node.restart();
        self.wait_ready().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops the member with SIGSTOP.
    pub fn pause(&self) {
        self.node.pause();
    }

    /// Continues the member.
    pub fn resume(&self) {
        self.node.resume();
    }

    /// Returns the `etcdctl` of this member's version with this endpoint: the member's, or a proxy's.
    pub fn etcdctl(&self, world: &World, url: &str) -> Run {
        let endpoints = format!("--endpoints={url}");
        world.command(self.version.binary("etcdctl")).env("ETCDCTL_API", "3").args([endpoints])
    }

    /// Writes a key, bound to no lease.
    pub fn put(&self, key: &str, value: &str) {
        self.call("kv/put", &json!({ "key": BASE64.encode(key), "value": BASE64.encode(value) }));
    }

    /// Returns whether this member leads its cluster.
    pub fn is_leader(&self) -> bool {
        // A killed member does not answer. A member without a leader names none.
        let answer = http::request(self.client, "POST", "/v3/maintenance/status", "{}");
        let status: Value = answer.ok().and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or_default();
        status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
    }

    /// Returns its id in hexadecimal, as in its requests to its peers.
    pub fn member_id(&self) -> String {
        format!("{:x}", self.id())
    }

    fn id(&self) -> u64 {
        number(&self.call("maintenance/status", &json!({}))["header"]["member_id"])
    }

    /// Transfers the leadership from this member, the leader, to another one.
    pub fn hand_over_to(&self, other: &Self) {
        self.call("maintenance/transfer-leadership", &json!({ "targetID": other.id().to_string() }));
    }

    /// Adds a user with permission to read and write the keys with these prefixes.
    pub fn add_user(&self, name: &str, password: &str, prefixes: &[&str]) {
        self.call("auth/user/add", &json!({ "name": name, "password": password }));
        self.call("auth/role/add", &json!({ "name": name }));
        for prefix in prefixes {
            let range = json!({
                "permType": "READWRITE",
                "key": BASE64.encode(prefix),
                "range_end": BASE64.encode(after(prefix)),
            });
            self.call("auth/role/grant", &json!({ "name": name, "perm": range }));
        }
        self.call("auth/user/grant", &json!({ "user": name, "role": name }));
    }

    /// Enables authentication: every client must log in from now on. The harness logs in as root.
    pub fn enable_auth(&self) {
        self.call("auth/user/add", &json!({ "name": "root", "password": ROOT_PASSWORD }));
        self.call("auth/role/add", &json!({ "name": "root" }));
        self.call("auth/user/grant", &json!({ "user": "root", "role": "root" }));
        self.call("auth/enable", &json!({}));
        self.guarded.store(true, Ordering::Relaxed);
    }

    fn call(&self, method: &str, body: &Value) -> Value {
        let send = |method: &str, headers: &str, body: &Value| {
            http::json_with(self.client, "POST", &format!("/v3/{method}"), headers, &body.to_string())
        };
        if !self.guarded.load(Ordering::Relaxed) {
            return send(method, "", body);
        }
        // Tokens may expire during a test, so each request gets its own.
        let login = send("auth/authenticate", "", &json!({ "name": "root", "password": ROOT_PASSWORD }));
        send(method, &format!("Authorization: {}\r\n", login["token"].as_str().expect("a token")), body)
    }
}

impl Server for Etcd {
    fn backend(&self) -> &'static str {
        "etcd"
    }

    fn address(&self) -> SocketAddr {
        self.client
    }

    fn url(&self) -> String {
        match self.secure {
            Some(address) => format!("https://{address}"),
            None => format!("http://{}", self.client),
        }
    }

    fn entries(&self, prefix: &str) -> Vec<Entry> {
        let end = BASE64.encode(after(prefix));
        let range = json!({ "key": BASE64.encode(prefix), "range_end": end, "sort_target": "CREATE" });
        let answer = self.call("kv/range", &range);
        let entry = |kv: &Value| Entry {
            key: text(&kv["key"]),
            value: text(&kv["value"]),
            lease: kv["lease"].as_str().map(|_| format!("{:x}", number(&kv["lease"]))),
            revision: number(&kv["create_revision"]),
        };
        answer["kvs"].as_array().map(|kvs| kvs.iter().map(entry).collect()).unwrap_or_default()
    }

    fn delete(&self, key: &str) {
        self.call("kv/deleterange", &json!({ "key": BASE64.encode(key) }));
    }

    fn leases(&self) -> Vec<String> {
        let answer = self.call("lease/leases", &json!({}));
        let leases = answer["leases"].as_array().map(Vec::as_slice).unwrap_or_default();
        leases.iter().map(|lease| format!("{:x}", number(&lease["ID"]))).collect()
    }

    fn end_lease(&self, id: &str) {
        let id = u64::from_str_radix(id, 16).expect("a lease id in hexadecimal");
        self.call("lease/revoke", &json!({ "ID": id.to_string() }));
    }

    fn peer_lock(&self, world: &World, name: &str, command: &[String]) -> Run {
        self.etcdctl(world, &self.url()).args(["lock", "--", name]).args(command)
    }
}

/// Starts a cluster of `size` members, which all serve when this returns.
pub fn cluster(version: Version, size: usize) -> Vec<Etcd> {
    cluster_with(version, size, &[])
}

fn cluster_with(version: Version, size: usize, options: &[String]) -> Vec<Etcd> {
    let start = || start_on_free_ports(|| members((0..size).map(|_| Addresses::free()), version, options));
    if size == 1 {
        return start();
    }
    let permit = Arc::new(ClusterPermit::wait());
    with_permit(start(), &permit)
}

/// Shares the permit among the members; dropping the last member returns it.
fn with_permit(members: Vec<Etcd>, permit: &Arc<ClusterPermit>) -> Vec<Etcd> {
    members.into_iter().map(|member| Etcd { _permit: Some(Arc::clone(permit)), ..member }).collect()
}

/// Starts a cluster of three whose members reach each other through proxies, one in front of each member.
pub fn cluster_behind_proxies(version: Version) -> (Vec<Etcd>, Vec<Proxy>) {
    let permit = Arc::new(ClusterPermit::wait());
    let (members, proxies) = start_on_free_ports(|| {
        let peers = [(); 3].map(|()| free_address());
        let proxies = peers.map(Proxy::to);
        let behind =
            |(peer, proxy): (SocketAddr, &Proxy)| Addresses { peer, advertised: proxy.address(), ..Addresses::free() };
        let addresses = peers.into_iter().zip(&proxies).map(behind);
        Ok((members(addresses, version, &[])?, Vec::from(proxies)))
    });
    (with_permit(members, &permit), proxies)
}

fn members(
    addresses: impl Iterator<Item = Addresses>,
    version: Version,
    options: &[String],
) -> Result<Vec<Etcd>, String> {
    let addresses: Vec<_> = addresses.collect();
    let urls: Vec<_> =
        addresses.iter().enumerate().map(|(n, address)| format!("etcd-{n}=http://{}", address.advertised)).collect();
    let members: Vec<_> = addresses
        .iter()
        .enumerate()
        .map(|(n, address)| Etcd::launch(version, &format!("etcd-{n}"), address, &urls.join(","), options))
        .collect();
    members.iter().try_for_each(Etcd::wait_ready)?;
    Ok(members)
}

/// Returns the index of the member that leads.
#[track_caller]
pub fn leader(members: &[Etcd]) -> usize {
    poll_for("a leader", secs(30), || members.iter().position(Etcd::is_leader))
}

struct Addresses {
    client: SocketAddr,
    peer: SocketAddr,
    /// The address at which its peers reach it.
    advertised: SocketAddr,
    secure: Option<SocketAddr>,
}

impl Addresses {
    fn free() -> Self {
        let peer = free_address();
        Self { client: free_address(), peer, advertised: peer, secure: None }
    }
}

/// Returns the end of the range of all keys with this prefix.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    end
}

/// Decodes bytes from the gateway.
fn text(value: &Value) -> String {
    let bytes = BASE64.decode(value.as_str().unwrap_or_default()).expect("base64 from the gateway");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Decodes a 64-bit number from the gateway.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}
