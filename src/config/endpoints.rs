//! Parsing of addresses.

use std::path::PathBuf;

use reqwest::Url;

use crate::lock::BackendName;
use crate::lock::transport::endpoint::Endpoint;

/// Default address of Consul's agent, as in its own tools.
pub(super) const CONSUL_AGENT: &str = "127.0.0.1:8500";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Server(Endpoint),
    /// Directory of the local backend.
    Directory(PathBuf),
}

/// Scheme of addresses that do not name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemeDefault {
    Http,
    Https,
    /// https, also for `http://`: Consul's tools let `CONSUL_HTTP_SSL` override the scheme in `CONSUL_HTTP_ADDR`.
    AlwaysHttps,
}

/// Returns whether an address of the list fits this backend only: `file:` is for local, `unix:` for Consul.
#[must_use]
pub(super) fn scheme_implies(list: &str, backend: BackendName) -> bool {
    let wanted = match backend {
        BackendName::Local => "file",
        BackendName::Consul => "unix",
        BackendName::Etcd => return false,
    };
    list.split(',').any(|one| scheme(one.trim()).is_some_and(|(scheme, _)| scheme == wanted))
}

/// Parses addresses separated by commas.
///
/// # Errors
///
/// Why one of them is not an address for this backend, to follow the name of the setting.
pub(super) fn parse(list: &str, backend: BackendName, default: SchemeDefault) -> Result<Vec<Address>, String> {
    list.split(',').map(|one| address(one.trim(), backend, default)).collect()
}

/// Parses the name of a domain whose SRV records list the servers.
///
/// # Errors
///
/// Why it is not a domain name, to follow the name of the setting.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // Limits of DNS: 63 for a label, 253 for a name, including the name of the service.
    if name.len() > 220
        || name.split('.').any(|label| label.is_empty() || label.len() > 63 || !label.chars().all(allowed))
    {
        return Err(format!("`{text}` is not a domain name"));
    }
    Ok(name.to_owned())
}

fn address(text: &str, backend: BackendName, default: SchemeDefault) -> Result<Address, String> {
    let expected = || {
        let expected = match backend {
            BackendName::Etcd => "http://HOST:PORT or https://HOST:PORT",
            BackendName::Consul => "http://HOST:PORT, https://HOST:PORT or unix:///SOCKET",
            BackendName::Local => "file:///DIR",
        };
        format!("`{}` is not an address for the backend {backend}; expected {expected}", without_credentials(text))
    };
    match (backend, scheme(text)) {
        (BackendName::Local, Some(("file", _))) => {
            let path = Url::parse(text).ok().filter(|url| url.query().is_none() && url.fragment().is_none());
            path.and_then(|url| url.to_file_path().ok()).map(Address::Directory).ok_or_else(expected)
        }
        (BackendName::Consul, Some(("unix", rest))) => {
            let path = PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
            if path.is_absolute() { Ok(Address::Server(Endpoint::Unix { path })) } else { Err(expected()) }
        }
        (BackendName::Etcd | BackendName::Consul, Some(("http", _))) => {
            server(text, default == SchemeDefault::AlwaysHttps)
        }
        (BackendName::Etcd | BackendName::Consul, Some(("https", _))) => server(text, true),
        (BackendName::Etcd | BackendName::Consul, None) if has_port(text) => {
            server(&format!("http://{text}"), default != SchemeDefault::Http)
        }
        (BackendName::Etcd | BackendName::Consul, None) if !text.is_empty() => {
            Err(format!("`{}` has no port: etcd listens on 2379, Consul on 8500", without_credentials(text)))
        }
        _ => Err(expected()),
    }
}

/// Returns the scheme and the text after its colon. `host:2379` has no scheme.
fn scheme(text: &str) -> Option<(&str, &str)> {
    text.split_once(':')
        .filter(|(scheme, rest)| rest.starts_with('/') && scheme.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Parses a URL of only a host and a port. The default port is that of the scheme.
fn server(text: &str, https: bool) -> Result<Address, String> {
    let refuse = |why: &str| Err(format!("`{}` {why}", without_credentials(text)));
    let Ok(url) = Url::parse(text) else { return refuse("is not a URL") };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return refuse("has no host");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("contains credentials: use --user and --password-file");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return refuse("contains more than a host and a port");
    }
    let authority = format!("{host}:{port}");
    Ok(Address::Server(if https { Endpoint::Https { authority } } else { Endpoint::Http { authority } }))
}

/// Returns the address for messages, without credentials.
fn without_credentials(text: &str) -> String {
    match text.rsplit_once('@') {
        None => text.to_owned(),
        Some((before, host)) => {
            let scheme = before.find("://").map_or("", |end| &before[..end + 3]);
            format!("{scheme}...@{host}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str, backend: BackendName, default: SchemeDefault) -> Result<Vec<String>, String> {
        let show = |address| match address {
            Address::Server(endpoint) => endpoint.to_string(),
            Address::Directory(path) => format!("dir {}", path.display()),
        };
        parse(list, backend, default).map(|list| list.into_iter().map(show).collect())
    }

    #[test]
    fn addresses_are_parsed() {
        for (list, backend, default, expected) in [
            ("h:2379", BackendName::Etcd, SchemeDefault::Http, "http://h:2379"),
            ("h:2379", BackendName::Etcd, SchemeDefault::Https, "https://h:2379"),
            ("http://h:2379", BackendName::Etcd, SchemeDefault::Https, "http://h:2379"),
            ("http://h:8500", BackendName::Consul, SchemeDefault::AlwaysHttps, "https://h:8500"),
            ("https://h:2379/", BackendName::Etcd, SchemeDefault::Http, "https://h:2379"),
            ("https://h", BackendName::Consul, SchemeDefault::Http, "https://h:443"),
            ("http://h", BackendName::Consul, SchemeDefault::Http, "http://h:80"),
            ("[::1]:2379", BackendName::Etcd, SchemeDefault::Http, "http://[::1]:2379"),
            ("https://[fe80::1]:2379", BackendName::Etcd, SchemeDefault::Http, "https://[fe80::1]:2379"),
            ("unix:///run/consul.sock", BackendName::Consul, SchemeDefault::Http, "unix:///run/consul.sock"),
            ("unix:/run/consul.sock", BackendName::Consul, SchemeDefault::Https, "unix:///run/consul.sock"),
            ("file:///var/a%20b", BackendName::Local, SchemeDefault::Http, "dir /var/a b"),
            ("file:/var/lock", BackendName::Local, SchemeDefault::Https, "dir /var/lock"),
        ] {
            assert_eq!(parsed(list, backend, default), Ok(vec![expected.to_owned()]), "{list}");
        }
        let three = parsed("a:1, https://b:2,c:3", BackendName::Etcd, SchemeDefault::Http);
        assert_eq!(three, Ok(["http://a:1", "https://b:2", "http://c:3"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn addresses_of_other_backends_are_refused() {
        for (list, backend) in [
            ("", BackendName::Etcd),
            ("h", BackendName::Etcd),
            ("h:", BackendName::Etcd),
            (":2379", BackendName::Etcd),
            ("h:0", BackendName::Etcd),
            ("h:70000", BackendName::Etcd),
            ("h:1,", BackendName::Etcd),
            ("unix:///s", BackendName::Etcd),
            ("file:///d", BackendName::Etcd),
            ("ftp://h:1", BackendName::Consul),
            ("file:///d", BackendName::Consul),
            ("unix://s", BackendName::Consul),
            ("http://h:1/path", BackendName::Consul),
            ("http://h:1?q", BackendName::Consul),
            ("h:1/path:2", BackendName::Etcd),
            ("http://h:1", BackendName::Local),
            ("h:1", BackendName::Local),
            ("/dir", BackendName::Local),
            ("file:dir", BackendName::Local),
            ("file://host/dir", BackendName::Local),
        ] {
            assert!(parse(list, backend, SchemeDefault::Http).is_err(), "{list} on {backend}");
        }
    }

    #[test]
    fn domains_are_checked() {
        assert_eq!(domain("example.com."), Ok("example.com".into()));
        assert_eq!(domain("lan"), Ok("lan".into()));
        for text in ["", ".", "a..b", "https://example.com", "a b", "a:2379", &"x".repeat(64), &"x.".repeat(120)] {
            assert!(domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_in_addresses_are_refused_and_hidden() {
        for text in ["http://me:secret@h:1", "me:secret@h:1", "http://me:secret@h:1/p", "ftp://me:secret@h"] {
            let refusal = parse(text, BackendName::Etcd, SchemeDefault::Http).unwrap_err();
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }
}
