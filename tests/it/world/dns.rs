//! A name server for one test, and distlock processes that use only it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::thread;

use simple_dns::rdata::{A, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

use super::{Run, World, lacks};

/// A name server on its own loopback address. It lives as long as the test process.
pub struct NameServer {
    address: Ipv4Addr,
}

/// The names that a name server knows. All hosts have the address 127.0.0.1.
#[derive(Clone, Default)]
pub struct Zone {
    /// Service, host and port.
    pub services: Vec<(String, String, u16)>,
    /// Whether answers by UDP are truncated, so that clients must use TCP.
    pub truncates: bool,
}

impl NameServer {
    /// Starts a name server; returns none if the machine does not allow port 53 or mounts.
    pub fn start(world: &World, zone: &Zone) -> Option<Self> {
        let (address, datagrams, streams) = Self::bind(world)?;
        let (zone, stream_zone) = (zone.clone(), zone.clone());
        thread::spawn(move || serve_datagrams(&datagrams, &zone));
        thread::spawn(move || serve_streams(&streams, &stream_zone));
        Some(Self { address })
    }

    /// Starts a name server that never answers.
    pub fn silent(world: &World) -> Option<Self> {
        let (address, datagrams, streams) = Self::bind(world)?;
        // The sockets stay open until the test process exits.
        std::mem::forget((datagrams, streams));
        Some(Self { address })
    }

    /// Returns its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn bind(world: &World) -> Option<(Ipv4Addr, UdpSocket, TcpListener)> {
        let may_mount = Self::in_own_mounts(world, "true").run().code() == Some(0);
        let at = |n: u32| Ipv4Addr::from(0x7f4d_0000 + (std::process::id() + n) % 0xffff + 1);
        let bound = (0..64).map(at).find_map(|address| {
            Some((address, UdpSocket::bind((address, 53)).ok()?, TcpListener::bind((address, 53)).ok()?))
        });
        let bound = bound.filter(|_| may_mount);
        if bound.is_none() {
            lacks("permission to use port 53 and to mount");
        }
        bound
    }

    /// Returns distlock with this as its only name server.
    pub fn distlock(&self, world: &World) -> Run {
        fs::write(world.path().join("resolv.conf"), format!("nameserver {}\n", self.address)).expect("a file");
        let script = r#"mount --bind resolv.conf /etc/resolv.conf && exec "$@""#;
        Self::in_own_mounts(world, "sh").args(["-c", script, "sh", env!("CARGO_BIN_EXE_distlock")])
    }

    fn in_own_mounts(world: &World, program: &str) -> Run {
        world.command("unshare").args(["--user", "--map-root-user", "--mount", program])
    }
}

fn serve_datagrams(socket: &UdpSocket, zone: &Zone) {
    let mut buffer = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        if let Some(answer) = zone.answer(&buffer[..length], zone.truncates) {
            // The client may have closed its socket.
            let _ = socket.send_to(&answer, client);
        }
    }
}

fn serve_streams(listener: &TcpListener, zone: &Zone) {
    for mut stream in listener.incoming().map_while(Result::ok) {
        let mut length = [0; 2];
        let mut query = Vec::new();
        let read = stream.read_exact(&mut length).and_then(|()| {
            query.resize(u16::from_be_bytes(length).into(), 0);
            stream.read_exact(&mut query)
        });
        if let Some(answer) = read.ok().and_then(|()| zone.answer(&query, false)) {
            let length = u16::try_from(answer.len()).expect("a short answer").to_be_bytes();
            let _ = stream.write_all(&[&length, &answer[..]].concat());
        }
    }
}

impl Zone {
    fn answer(&self, query: &[u8], truncate: bool) -> Option<Vec<u8>> {
        let query = Packet::parse(query).ok()?;
        let name = query.questions.first()?.qname.clone();
        let text = name.to_string();
        let mut answer = query.into_reply();
        let add = |answer: &mut Packet<'_>, data| {
            answer.answers.push(ResourceRecord::new(Name::new_unchecked(&text).into_owned(), CLASS::IN, 1, data));
        };
        for (_, host, port) in self.services.iter().filter(|(service, ..)| *service == text) {
            let target = Name::new_unchecked(host).into_owned();
            add(&mut answer, RData::SRV(SRV { priority: 0, weight: 0, port: *port, target }));
        }
        let asks_for_address = answer.questions[0].qtype == simple_dns::TYPE::A.into();
        let is_host = self.services.iter().any(|(_, host, _)| *host == text);
        if is_host && asks_for_address {
            add(&mut answer, RData::A(A { address: Ipv4Addr::LOCALHOST.into() }));
        }
        if answer.answers.is_empty() && !is_host {
            *answer.rcode_mut() = RCODE::NameError;
        }
        if truncate && !asks_for_address {
            answer.answers.clear();
            answer.set_flags(PacketFlag::TRUNCATION);
        }
        answer.build_bytes_vec().ok()
    }
}
