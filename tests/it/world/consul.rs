//! Consul servers and agents, and requests to their HTTP API.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::http::{self, encode_path};
use super::permits::ClusterPermit;
use super::server::{Node, binary, free_address, start_on_free_ports};
use super::{Entry, Run, Server, ServerTls, World, poll_for, secs};

/// One Consul server or client agent.
pub struct Consul {
    http: SocketAddr,
    rpc: SocketAddr,
    /// The address at which other agents reach it.
    gossip: SocketAddr,
    /// Address with TLS. The harness uses the address without TLS.
    secure: Option<SocketAddr>,
    /// The header line of a token with all permissions; empty if the server needs no tokens.
    login: String,
    policies: AtomicU32,
    node: Node,
    /// Permit of the cluster; none for single servers.
    _permit: Option<Arc<ClusterPermit>>,
}

/// Token of the harness for servers that need tokens.
const MASTER_TOKEN: &str = "5ec4e7b0-aaaa-bbbb-cccc-0123456789ab";

impl Consul {
    /// Starts a development agent: a single server that starts fast and loses its data at a restart.
    pub fn start() -> Self {
        start_on_free_ports(|| {
            let server = Self::launch("consul", free_address(), &["-dev".to_owned()]);
            server.wait_ready(1)?;
            Ok(server)
        })
    }

    /// Starts a development agent that serves by TLS, without tokens.
    pub fn start_open(tls: &ServerTls) -> Self {
        Self::start_with_tls(tls, &[], "")
    }

    /// Starts a development agent that serves by TLS and denies every request without a token that permits it.
    pub fn start_secure(tls: &ServerTls) -> Self {
        let options = [
            "-hcl=acl { enabled = true, default_policy = \"deny\" }".to_owned(),
            format!("-hcl=acl {{ tokens {{ master = \"{MASTER_TOKEN}\", agent = \"{MASTER_TOKEN}\" }} }}"),
        ];
        Self::start_with_tls(tls, &options, &format!("X-Consul-Token: {MASTER_TOKEN}\r\n"))
    }

    fn start_with_tls(tls: &ServerTls, options: &[String], login: &str) -> Self {
        start_on_free_ports(|| {
            let secure = free_address();
            let mut options = [options, &tls.consul_options()].concat();
            options.extend(["-dev".into(), format!("-hcl=ports {{ https = {} }}", secure.port())]);
            let mut server = Self::launch("consul", free_address(), &options);
            server.secure = Some(secure);
            login.clone_into(&mut server.login);
            server.wait_ready(1)?;
            Ok(server)
        })
    }

    /// Starts a development agent that also listens on this Unix socket.
    pub fn start_on_socket(socket: &Path) -> Self {
        let addresses = format!("-hcl=addresses {{ http = \"127.0.0.1 unix://{}\" }}", socket.display());
        start_on_free_ports(|| {
            let server = Self::launch("consul", free_address(), &["-dev".to_owned(), addresses.clone()]);
            server.wait_ready(1)?;
            Ok(server)
        })
    }

    /// Creates a token with these rules; returns its secret.
    pub fn token(&self, rules: &str) -> String {
        let name = format!("rules-{}", self.policies.fetch_add(1, Ordering::Relaxed));
        self.json("PUT", "/v1/acl/policy", &json!({ "Name": name, "Rules": rules }).to_string());
        let token = self.json("PUT", "/v1/acl/token", &json!({ "Policies": [{ "Name": name }] }).to_string());
        token["SecretID"].as_str().expect("a token").to_owned()
    }

    fn launch(name: &str, gossip: SocketAddr, options: &[String]) -> Self {
        let (http, rpc, wide) = (free_address(), free_address(), free_address());
        let node = Node::start(|dir| {
            let fixed = [
                &*binary("consul/consul"),
                "agent",
                "-bind=127.0.0.1",
                &format!("-node={name}"),
                &format!("-data-dir={}", dir.join("data").display()),
                &format!("-http-port={}", http.port()),
                &format!("-server-port={}", rpc.port()),
                &format!("-serf-lan-port={}", gossip.port()),
                &format!("-serf-wan-port={}", wide.port()),
                "-grpc-port=-1",
                "-dns-port=-1",
                "-log-level=err",
                "-hcl=disable_update_check = true",
            ]
            .map(str::to_owned);
            fixed.iter().chain(options).cloned().collect()
        });
        Self { http, rpc, gossip, secure: None, login: String::new(), policies: AtomicU32::new(0), node, _permit: None }
    }

    /// Waits until it knows this many nodes: only a known node can have sessions.
    fn wait_ready(&self, nodes: usize) -> Result<(), String> {
        self.node.wait_ready(|| {
            let answer = self.request("/v1/catalog/nodes?consistent");
            answer.is_ok_and(|answer| answer.body.matches("\"Node\"").count() >= nodes)
        })
    }

    /// Returns whether it serves requests that need a quorum.
    pub fn is_ready(&self) -> bool {
        self.request("/v1/catalog/nodes?consistent").is_ok_and(|answer| answer.status == 200)
    }

    /// Returns whether it serves in a cluster that can lose another server. A server that was away for ten seconds was
    /// removed, and must become a voter again first.
    pub fn is_whole(&self) -> bool {
        let answer = self.request("/v1/operator/autopilot/health");
        answer.is_ok_and(|answer| answer.status == 200 && answer.body.contains("\"FailureTolerance\":1"))
    }

    /// Returns the server's process id.
    pub fn pid(&self) -> Pid {
        self.node.pid()
    }

    /// Kills the server; its data stays.
    pub fn kill(&self) {
        self.node.kill();
    }

    /// Kills the server if it runs, and starts it again on its data and ports; it serves when this returns.
    pub fn restart(&self) {
        self.node.restart();
        self.wait_ready(1).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops the server with SIGSTOP.
    pub fn pause(&self) {
        self.node.pause();
    }

    /// Continues the server.
    pub fn resume(&self) {
        self.node.resume();
    }

    /// Writes a key with these flags and no session.
    pub fn put(&self, key: &str, flags: u64, value: &str) {
        let path = format!("/v1/kv/{}?flags={flags}", encode_path(key.trim_start_matches('/')));
        self.json("PUT", &path, value);
    }

    /// Acquires a key for a session.
    pub fn acquire(&self, key: &str, session: &str) {
        let path = format!("/v1/kv/{}?acquire={session}", encode_path(key.trim_start_matches('/')));
        assert_eq!(self.json("PUT", &format!("{path}&flags=3304740253564472344"), ""), true);
    }

    fn request(&self, path: &str) -> std::io::Result<http::Answer> {
        http::request_with(self.http, "GET", path, &self.login, "")
    }

    #[track_caller]
    fn json(&self, method: &str, path: &str, body: &str) -> Value {
        http::json_with(self.http, method, path, &self.login, body)
    }

    /// Returns whether this server leads its cluster.
    pub fn is_leader(&self) -> bool {
        let answer = self.request("/v1/status/leader");
        answer.is_ok_and(|answer| answer.body.trim() == format!("\"{}\"", self.rpc))
    }
}

impl Server for Consul {
    fn backend(&self) -> &'static str {
        "consul"
    }

    fn address(&self) -> SocketAddr {
        self.http
    }

    fn url(&self) -> String {
        match self.secure {
            Some(address) => format!("https://{address}"),
            None => format!("http://{}", self.http),
        }
    }

    fn entries(&self, prefix: &str) -> Vec<Entry> {
        let path = format!("/v1/kv/{}?recurse&consistent", encode_path(prefix.trim_start_matches('/')));
        let answer = http::answer(self.http, "GET", &path, &self.login, "");
        if answer.status == 404 {
            return Vec::new();
        }
        let entries: Vec<Value> = serde_json::from_str(&answer.body).expect("JSON from Consul");
        let entry = |kv: &Value| Entry {
            key: kv["Key"].as_str().unwrap_or_default().to_owned(),
            value: text(&kv["Value"]),
            lease: kv["Session"].as_str().map(str::to_owned),
            revision: kv["ModifyIndex"].as_u64().unwrap_or_default(),
        };
        entries.iter().map(entry).collect()
    }

    fn delete(&self, key: &str) {
        self.json("DELETE", &format!("/v1/kv/{}", encode_path(key.trim_start_matches('/'))), "");
    }

    fn leases(&self) -> Vec<String> {
        let answer = self.json("GET", "/v1/session/list?consistent", "");
        let sessions = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        sessions.iter().filter_map(|session| session["ID"].as_str()).map(str::to_owned).collect()
    }

    fn end_lease(&self, id: &str) {
        self.json("PUT", &format!("/v1/session/destroy/{id}"), "");
    }

    fn peer_lock(&self, world: &World, name: &str, command: &[String]) -> Run {
        let address = format!("-http-addr={}", self.url());
        let lock = ["lock", &address, "-shell=false", name.trim_start_matches('/')];
        world.command(binary("consul/consul")).args(lock).args(command)
    }
}

/// Starts a cluster of `size` servers, which all serve when this returns.
///
/// `raft_multiplier` scales the timeouts of elections: 1 is fast, 5 is Consul's default.
pub fn cluster(size: usize, raft_multiplier: u32) -> Vec<Consul> {
    let permit = (size > 1).then(|| Arc::new(ClusterPermit::wait()));
    let servers = start_on_free_ports(|| {
        let lan: Vec<_> = (0..size).map(|_| free_address()).collect();
        let mut options = vec![
            "-server".to_owned(),
            format!("-bootstrap-expect={size}"),
            format!("-hcl=performance {{ raft_multiplier = {raft_multiplier} }}"),
            "-retry-interval=1s".to_owned(),
            // A returning server becomes a voter after a second instead of ten.
            "-hcl=autopilot { server_stabilization_time = \"1s\" }".to_owned(),
        ];
        options.extend(lan.iter().map(|address| format!("-retry-join={address}")));
        let launch = |(n, &address): (usize, &SocketAddr)| Consul::launch(&format!("consul-{n}"), address, &options);
        let servers: Vec<_> = lan.iter().enumerate().map(launch).collect();
        servers.iter().try_for_each(|server| server.wait_ready(size))?;
        Ok(servers)
    });
    servers.into_iter().map(|server| Consul { _permit: permit.clone(), ..server }).collect()
}

/// Starts a client agent of these servers, as on most hosts of a Consul cluster.
pub fn agent(servers: &[&Consul]) -> Consul {
    start_on_free_ports(|| {
        let options: Vec<_> = servers.iter().map(|server| format!("-retry-join={}", server.gossip)).collect();
        let agent = Consul::launch("agent", free_address(), &options);
        agent.wait_ready(servers.len() + 1)?;
        Ok(agent)
    })
}

/// Returns the index of the server that leads.
#[track_caller]
pub fn leader(servers: &[Consul]) -> usize {
    poll_for("a leader", secs(60), || servers.iter().position(Consul::is_leader))
}

/// Decodes a value from the API.
fn text(value: &Value) -> String {
    let bytes = BASE64.decode(value.as_str().unwrap_or_default()).expect("base64 from Consul");
    String::from_utf8_lossy(&bytes).into_owned()
}
