//! Addresses as users write them.

use std::path::PathBuf;

use reqwest::Url;

use crate::lock::Name;
use crate::lock::transport::endpoint::Endpoint;

/// Consul's agent on this host, where its own tools look for it.
pub(super) const CONSUL_AGENT: &str = "127.0.0.1:8500";

/// An address of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A server.
    Server(Endpoint),
    /// The directory of the local backend.
    Directory(PathBuf),
}

/// How plain addresses are to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// `host:port` is http.
    Http,
    /// `host:port` is https, since TLS is set up.
    Https,
    /// So is `http://`: Consul's tools let `CONSUL_HTTP_SSL` overrule the scheme in `CONSUL_HTTP_ADDR`.
    AlwaysHttps,
}

/// Whether one of these addresses can only be this backend's: `file:` is the local one's, `unix:` is Consul's.
#[must_use]
pub(super) fn speak_for(list: &str, backend: Name) -> bool {
    let wanted = match backend {
        Name::Local => "file",
        Name::Consul => "unix",
        Name::Etcd => return false,
    };
    list.split(',').any(|one| scheme(one.trim()).is_some_and(|(scheme, _)| scheme == wanted))
}

/// Reads addresses that are separated by commas.
///
/// # Errors
///
/// Why one of them is not an address of this backend, to follow the name of the setting.
pub(super) fn parse(list: &str, backend: Name, plain: Plain) -> Result<Vec<Address>, String> {
    list.split(',').map(|one| address(one.trim(), backend, plain)).collect()
}

/// Reads a domain whose servers DNS tells of.
///
/// # Errors
///
/// Why it is none, to follow the name of the setting.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // A longer label or name is not to be had in DNS; the services' names take their share.
    if name.len() > 220
        || name.split('.').any(|label| label.is_empty() || label.len() > 63 || !label.chars().all(allowed))
    {
        return Err(format!("`{text}` is not the name of a domain"));
    }
    Ok(name.to_owned())
}

fn address(text: &str, backend: Name, plain: Plain) -> Result<Address, String> {
    let expected = || {
        let expected = match backend {
            Name::Etcd => "http://HOST:PORT or https://HOST:PORT",
            Name::Consul => "http://HOST:PORT, https://HOST:PORT or unix:///SOCKET",
            Name::Local => "file:///DIR",
        };
        format!("`{}` is not an address for the backend {backend}: {expected}", without_login(text))
    };
    match (backend, scheme(text)) {
        (Name::Local, Some(("file", _))) => {
            let path = Url::parse(text).ok().filter(|url| url.query().is_none() && url.fragment().is_none());
            path.and_then(|url| url.to_file_path().ok()).map(Address::Directory).ok_or_else(expected)
        }
        (Name::Consul, Some(("unix", rest))) => {
            let path = PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
            if path.is_absolute() { Ok(Address::Server(Endpoint::Unix { path })) } else { Err(expected()) }
        }
        (Name::Etcd | Name::Consul, Some(("http", _))) => server(text, plain == Plain::AlwaysHttps),
        (Name::Etcd | Name::Consul, Some(("https", _))) => server(text, true),
        (Name::Etcd | Name::Consul, None) if has_port(text) => server(&format!("http://{text}"), plain != Plain::Http),
        (Name::Etcd | Name::Consul, None) if !text.is_empty() => {
            Err(format!("`{}` has no port: etcd listens on 2379, Consul on 8500", without_login(text)))
        }
        _ => Err(expected()),
    }
}

/// The scheme and what follows its colon. In `host:2379` there is none.
fn scheme(text: &str) -> Option<(&str, &str)> {
    text.split_once(':')
        .filter(|(scheme, rest)| rest.starts_with('/') && scheme.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A URL with nothing but a host and perhaps a port; without one it is the scheme's.
fn server(text: &str, https: bool) -> Result<Address, String> {
    let refuse = |why: &str| Err(format!("`{}` {why}", without_login(text)));
    let Ok(url) = Url::parse(text) else { return refuse("is not a URL") };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return refuse("names no host");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("holds a login: use --user and --password-file");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return refuse("holds more than a host and a port");
    }
    let authority = format!("{host}:{port}");
    Ok(Address::Server(if https { Endpoint::Https { authority } } else { Endpoint::Http { authority } }))
}

/// The address as a message may show it: a login, which may hold a secret, is left out.
fn without_login(text: &str) -> String {
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

    fn shown(list: &str, backend: Name, plain: Plain) -> Result<Vec<String>, String> {
        let show = |address| match address {
            Address::Server(endpoint) => endpoint.to_string(),
            Address::Directory(path) => format!("dir {}", path.display()),
        };
        parse(list, backend, plain).map(|list| list.into_iter().map(show).collect())
    }

    #[test]
    fn addresses_are_read() {
        for (list, backend, plain, expected) in [
            ("h:2379", Name::Etcd, Plain::Http, "http://h:2379"),
            ("h:2379", Name::Etcd, Plain::Https, "https://h:2379"),
            ("http://h:2379", Name::Etcd, Plain::Https, "http://h:2379"),
            ("http://h:8500", Name::Consul, Plain::AlwaysHttps, "https://h:8500"),
            ("https://h:2379/", Name::Etcd, Plain::Http, "https://h:2379"),
            ("https://h", Name::Consul, Plain::Http, "https://h:443"),
            ("http://h", Name::Consul, Plain::Http, "http://h:80"),
            ("[::1]:2379", Name::Etcd, Plain::Http, "http://[::1]:2379"),
            ("https://[fe80::1]:2379", Name::Etcd, Plain::Http, "https://[fe80::1]:2379"),
            ("unix:///run/consul.sock", Name::Consul, Plain::Http, "unix:///run/consul.sock"),
            ("unix:/run/consul.sock", Name::Consul, Plain::Https, "unix:///run/consul.sock"),
            ("file:///var/a%20b", Name::Local, Plain::Http, "dir /var/a b"),
            ("file:/var/lock", Name::Local, Plain::Https, "dir /var/lock"),
        ] {
            assert_eq!(shown(list, backend, plain), Ok(vec![expected.to_owned()]), "{list}");
        }
        let three = shown("a:1, https://b:2,c:3", Name::Etcd, Plain::Http);
        assert_eq!(three, Ok(["http://a:1", "https://b:2", "http://c:3"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn what_is_not_an_address_of_the_backend_is_refused() {
        for (list, backend) in [
            ("", Name::Etcd),
            ("h", Name::Etcd),
            ("h:", Name::Etcd),
            (":2379", Name::Etcd),
            ("h:0", Name::Etcd),
            ("h:70000", Name::Etcd),
            ("h:1,", Name::Etcd),
            ("unix:///s", Name::Etcd),
            ("file:///d", Name::Etcd),
            ("ftp://h:1", Name::Consul),
            ("file:///d", Name::Consul),
            ("unix://s", Name::Consul),
            ("http://h:1/path", Name::Consul),
            ("http://h:1?q", Name::Consul),
            ("h:1/path:2", Name::Etcd),
            ("http://h:1", Name::Local),
            ("h:1", Name::Local),
            ("/dir", Name::Local),
            ("file:dir", Name::Local),
            ("file://host/dir", Name::Local),
        ] {
            assert!(parse(list, backend, Plain::Http).is_err(), "{list} on {backend}");
        }
    }

    #[test]
    fn domains_are_names() {
        assert_eq!(domain("example.com."), Ok("example.com".into()));
        assert_eq!(domain("lan"), Ok("lan".into()));
        for text in ["", ".", "a..b", "https://example.com", "a b", "a:2379", &"x".repeat(64), &"x.".repeat(120)] {
            assert!(domain(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_login_in_an_address_is_refused_and_not_shown() {
        for text in ["http://me:secret@h:1", "me:secret@h:1", "http://me:secret@h:1/p", "ftp://me:secret@h"] {
            let refusal = parse(text, Name::Etcd, Plain::Http).unwrap_err();
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }
}
