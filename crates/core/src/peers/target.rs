//! What a multiaddr asks to be dialled: a transport, and a host by number or by name.

use std::net::{IpAddr, SocketAddr};

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use crate::error::DialError;

/// A transport that can be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// QUIC version 1 over UDP.
    Quic,
    /// TCP, on which encryption and multiplexer are negotiated.
    Tcp,
}

impl Way {
    /// What firewalls call it.
    pub fn ip_protocol(self) -> &'static str {
        match self {
            Way::Quic => "UDP",
            Way::Tcp => "TCP",
        }
    }

    /// The multiaddr of a socket address that is dialled this way.
    pub fn address(self, at: SocketAddr) -> Multiaddr {
        let ip = match at.ip() {
            IpAddr::V4(ip) => Protocol::Ip4(ip),
            IpAddr::V6(ip) => Protocol::Ip6(ip),
        };
        let address = Multiaddr::empty().with(ip);
        match self {
            Way::Quic => address.with(Protocol::Udp(at.port())).with(Protocol::QuicV1),
            Way::Tcp => address.with(Protocol::Tcp(at.port())),
        }
    }
}

/// Which addresses of a name are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Both (`/dns`).
    Any,
    /// `/dns4`.
    V4,
    /// `/dns6`.
    V6,
}

/// What an address leads to. The identity is at its end, if the address names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A host by number: can be dialled as it is.
    Number(Way, SocketAddr, Option<PeerId>),
    /// A host by name (`/dns`, `/dns4`, `/dns6`).
    Name(Way, Family, String, u16, Option<PeerId>),
    /// A name under which whole addresses are written (`/dnsaddr`).
    List(String, Option<PeerId>),
}

impl Target {
    /// Reads an address.
    ///
    /// # Errors
    /// [`DialError::BadAddress`] says what about it cannot be dialled.
    pub fn of(address: &Multiaddr) -> Result<Target, DialError> {
        let bad = |why: &str| DialError::BadAddress(format!("{address}: {why}"));
        let mut parts = address.iter();
        let host = match parts.next() {
            Some(Protocol::Ip4(ip)) => Host::Ip(IpAddr::V4(ip)),
            Some(Protocol::Ip6(ip)) => Host::Ip(IpAddr::V6(ip)),
            Some(Protocol::Dns(name)) => Host::Name(Family::Any, name.into_owned()),
            Some(Protocol::Dns4(name)) => Host::Name(Family::V4, name.into_owned()),
            Some(Protocol::Dns6(name)) => Host::Name(Family::V6, name.into_owned()),
            Some(Protocol::Dnsaddr(name)) => {
                let name = checked_name(name.into_owned()).ok_or_else(|| bad("that is no host name"))?;
                return Ok(Target::List(name, last_peer(parts).map_err(bad)?));
            }
            _ => return Err(bad("it does not start with /ip4, /ip6 or a name (/dns, /dns4, /dns6, /dnsaddr)")),
        };
        let (way, port) = match parts.next() {
            Some(Protocol::Udp(port)) => (Way::Quic, port),
            Some(Protocol::Tcp(port)) => (Way::Tcp, port),
            _ => return Err(bad("only UDP and TCP can be dialled")),
        };
        if way == Way::Quic && parts.next() != Some(Protocol::QuicV1) {
            return Err(bad("over UDP only /quic-v1 can be dialled"));
        }
        let peer = last_peer(parts).map_err(bad)?;
        if port == 0 {
            return Err(bad("it names no port"));
        }
        match host {
            Host::Ip(ip) if ip.is_unspecified() => Err(bad("it names no host")),
            Host::Ip(ip) => Ok(Target::Number(way, SocketAddr::new(ip, port), peer)),
            Host::Name(family, name) => {
                let name = checked_name(name).ok_or_else(|| bad("that is no host name"))?;
                Ok(Target::Name(way, family, name, port, peer))
            }
        }
    }

    /// Whose address it says that it is.
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Target::Number(.., peer) | Target::Name(.., peer) | Target::List(_, peer) => *peer,
        }
    }
}

enum Host {
    Ip(IpAddr),
    Name(Family, String),
}

/// The identity that may stand at the end.
fn last_peer<'a>(mut rest: impl Iterator<Item = Protocol<'a>>) -> Result<Option<PeerId>, &'static str> {
    let peer = match rest.next() {
        Some(Protocol::P2p(peer)) => Some(peer),
        None => None,
        Some(_) => return Err("what follows is not known"),
    };
    if rest.next().is_some() { Err("there is more behind the identity") } else { Ok(peer) }
}

/// A host name in lower case and without the final dot, if it is one: labels of at most 63 letters, digits, `-` and `_`, at most 253
/// bytes in all (RFC 1123 section 2.1; the underscore is in wide use). Everything else never reaches a resolver.
fn checked_name(name: String) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
    let good = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (name.len() <= 253 && name.split('.').all(good)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Target, DialError> {
        Target::of(&text.parse().expect("a multiaddr"))
    }

    #[test]
    fn numbers_there_and_back() {
        for text in ["127.0.0.1:4001", "[::1]:9"] {
            let at: SocketAddr = text.parse().expect("an address");
            for way in [Way::Quic, Way::Tcp] {
                assert_eq!(Target::of(&way.address(at)), Ok(Target::Number(way, at, None)));
            }
        }
    }

    #[test]
    fn names_are_read_and_brought_to_one_form() {
        let name = "example.org".to_owned();
        assert_eq!(of("/dns4/Example.ORG./udp/1/quic-v1"), Ok(Target::Name(Way::Quic, Family::V4, name.clone(), 1, None)));
        assert_eq!(of("/dns/example.org/tcp/1"), Ok(Target::Name(Way::Tcp, Family::Any, name.clone(), 1, None)));
        let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let listed = of(&format!("/dnsaddr/example.org/p2p/{peer}")).expect("good");
        assert_eq!(listed, Target::List(name, Some(peer.parse().expect("a peer id"))));
        assert!(listed.peer().is_some());
    }

    #[test]
    fn what_cannot_be_dialled_is_named() {
        for text in [
            "/ip4/1.2.3.4/tcp/80/ws",
            "/ip4/1.2.3.4/tcp/0",
            "/dns4/a..b/udp/1/quic-v1",
            "/dns4/-a.b/udp/1/quic-v1",
            "/dns/a b/tcp/1",
            "/dnsaddr/a.b/tcp/1",
            "/ip4/0.0.0.0/udp/1/quic-v1",
            "/ip4/1.2.3.4/udp/1",
        ] {
            let error = of(text).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(of(&format!("/dns/{}/tcp/1", "a".repeat(64))).is_err(), "a label is too long");
        assert!(of(&format!("/dns/{}a/tcp/1", "a.".repeat(127))).is_err(), "the name is too long");
    }
}
