//! Lookup of SRV records at the system's name servers. The C library looks up addresses only.

use std::cmp::Reverse;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Time that one name server has for its answer.
const SERVER_TIMEOUT: Duration = Duration::from_millis(900);
/// Longest answer in a datagram, in bytes. Some networks drop larger datagrams.
const MAX_DATAGRAM: u16 = 1232;

/// Server that an SRV record names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Without a trailing dot.
    pub host: String,
    pub port: u16,
}

/// Answer of a name server.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Targets(Vec<Target>),
    /// The answer does not fit into a datagram.
    Truncated,
}

/// Returns the servers that are published under this name, in the order of preference; none if the name does not exist.
///
/// # Errors
///
/// The failure of each name server.
pub(crate) async fn srv(name: &str) -> Result<Vec<Target>, String> {
    let mut failures = Vec::new();
    for server in name_servers() {
        match timeout(SERVER_TIMEOUT, ask(server, name)).await {
            Ok(Ok(targets)) => return Ok(targets),
            Ok(Err(error)) => failures.push(format!("name server {}: {error}", server.ip())),
            Err(_) => failures.push(format!("name server {}: no answer", server.ip())),
        }
    }
    Err(failures.join(", "))
}

/// Returns the system's name servers, or this host if none is configured, as the C library does.
fn name_servers() -> Vec<SocketAddr> {
    let text = std::fs::read(RESOLV_CONF).unwrap_or_default();
    let named = resolv_conf::Config::parse(text).map(|config| config.nameservers).unwrap_or_default();
    let mut addresses: Vec<IpAddr> = named.iter().map(IpAddr::from).collect();
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses.into_iter().map(|address| SocketAddr::from((address, 53))).collect()
}

async fn ask(server: SocketAddr, name: &str) -> io::Result<Vec<Target>> {
    // An attacker who forges an answer must guess this number and the port that the kernel chooses.
    let id = u16::try_from(getrandom::u32().map_err(io::Error::other)? >> 16).unwrap_or_default();
    let query = query(id, name).map_err(io::Error::other)?;
    match ask_by_datagram(server, id, name, &query).await? {
        Answer::Targets(targets) => Ok(targets),
        Answer::Truncated => ask_by_stream(server, id, name, &query).await,
    }
}

async fn ask_by_datagram(server: SocketAddr, id: u16, name: &str, query: &[u8]) -> io::Result<Answer> {
    let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(MAX_DATAGRAM)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // A datagram that does not answer this question may be forged, so the answer may still arrive.
        if let Some(answer) = parse(&buffer[..length], id, name) {
            return answer.map_err(io::Error::other);
        }
    }
}

async fn ask_by_stream(server: SocketAddr, id: u16, name: &str, query: &[u8]) -> io::Result<Vec<Target>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(u16::try_from(query.len()).map_err(io::Error::other)?).await?;
    stream.write_all(query).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    match parse(&answer, id, name) {
        Some(Ok(Answer::Targets(targets))) => Ok(targets),
        Some(Err(error)) => Err(io::Error::other(error)),
        Some(Ok(Answer::Truncated)) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn query(id: u16, name: &str) -> Result<Vec<u8>, simple_dns::SimpleDnsError> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new(name)?, TYPE::SRV.into(), CLASS::IN.into(), false));
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: MAX_DATAGRAM, version: 0 });
    packet.build_bytes_vec()
}

/// Parses an answer. Returns None if the bytes do not answer this question.
fn parse(bytes: &[u8], id: u16, name: &str) -> Option<Result<Answer, String>> {
    let packet = Packet::parse(bytes).ok()?;
    let asked = packet.questions.first()?;
    let same = asked.qname.to_string().eq_ignore_ascii_case(name) && asked.qtype == TYPE::SRV.into();
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !same {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Ok(Answer::Truncated));
    }
    Some(match packet.rcode() {
        RCODE::NoError | RCODE::NameError => Ok(Answer::Targets(targets(&packet))),
        code => Err(format!("{code:?}")),
    })
}

fn targets(packet: &Packet) -> Vec<Target> {
    let mut records: Vec<_> = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::SRV(srv) => Some(srv),
            _ => None,
        })
        .collect();
    records.sort_by_key(|record| (record.priority, Reverse(record.weight)));
    let targets = records.into_iter().map(|record| Target { host: record.target.to_string(), port: record.port });
    // The root domain as the target means that the service does not exist (RFC 2782).
    targets.filter(|target| !target.host.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;

    use super::*;

    const NAME: &str = "_etcd-client._tcp.example.com";

    fn answer(change: impl FnOnce(&mut Packet)) -> Vec<u8> {
        let query = query(7, NAME).unwrap();
        let mut packet = Packet::parse(&query).unwrap().into_reply();
        change(&mut packet);
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn srv(priority: u16, weight: u16, target: &'static str) -> ResourceRecord<'static> {
        let target = Name::new(target).unwrap();
        let data = RData::SRV(SRV { priority, weight, port: 2379, target });
        ResourceRecord::new(Name::new(NAME).unwrap(), CLASS::IN, 60, data)
    }

    fn hosts(bytes: &[u8]) -> Vec<String> {
        match parse(bytes, 7, NAME) {
            Some(Ok(Answer::Targets(targets))) => targets.into_iter().map(|target| target.host).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn targets_are_in_the_order_of_preference() {
        let records = [srv(20, 0, "c.example.com"), srv(10, 1, "b.example.com"), srv(10, 9, "a.example.com")];
        let bytes = answer(|packet| packet.answers.extend(records));
        assert_eq!(hosts(&bytes), ["a.example.com", "b.example.com", "c.example.com"]);
    }

    #[test]
    fn an_unknown_name_or_service_has_no_servers() {
        assert!(hosts(&answer(|packet| *packet.rcode_mut() = RCODE::NameError)).is_empty());
        assert!(hosts(&answer(|_| {})).is_empty());
        assert!(hosts(&answer(|packet| packet.answers.push(srv(0, 0, "")))).is_empty());
    }

    #[test]
    fn a_name_server_s_failure_is_not_an_empty_answer() {
        let bytes = answer(|packet| *packet.rcode_mut() = RCODE::ServerFailure);
        assert!(matches!(parse(&bytes, 7, NAME), Some(Err(_))));
        let bytes = answer(|packet| packet.set_flags(PacketFlag::TRUNCATION));
        assert_eq!(parse(&bytes, 7, NAME), Some(Ok(Answer::Truncated)));
    }

    #[test]
    fn answers_to_other_questions_are_ignored() {
        let bytes = answer(|packet| packet.answers.push(srv(0, 0, "evil.example.com")));
        assert_eq!(parse(&bytes, 8, NAME), None);
        assert_eq!(parse(&bytes, 7, "_etcd-client._tcp.example.org"), None);
        assert_eq!(parse(&query(7, NAME).unwrap(), 7, NAME), None, "a question is not an answer");
        assert!(parse(&bytes, 7, &NAME.to_uppercase()).is_some());
    }

    #[test]
    fn broken_answers_cause_no_panic() {
        let bytes = answer(|packet| packet.answers.push(srv(0, 0, "a.example.com")));
        for end in 0..bytes.len() {
            let _ = parse(&bytes[..end], 7, NAME);
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut broken = bytes.clone();
                broken[at] ^= 1 << bit;
                let _ = parse(&broken, 7, NAME);
            }
        }
    }
}
