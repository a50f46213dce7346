//! Between multiaddrs and socket addresses.

use std::net::{IpAddr, SocketAddr};

use multiaddr::Protocol;
use strait_core::{DialError, Multiaddr, PeerId};
pub use strait_core::{quic_address, tcp_address};

/// What can be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// QUIC version 1 over UDP.
    Quic,
    /// TCP, on which encryption and multiplexer are negotiated.
    Tcp,
}

/// The socket address of a QUIC or TCP multiaddr, the way to dial it, and the identity at its end if it names one.
///
/// # Errors
/// [`DialError::BadAddress`] says what about it cannot be dialled.
pub fn socket_address(address: &Multiaddr) -> Result<(Way, SocketAddr, Option<PeerId>), DialError> {
    let bad = |why: &str| DialError::BadAddress(format!("{address}: {why}"));
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        _ => return Err(bad("it does not start with /ip4 or /ip6")),
    };
    let (way, port) = match parts.next() {
        Some(Protocol::Udp(port)) => (Way::Quic, port),
        Some(Protocol::Tcp(port)) => (Way::Tcp, port),
        _ => return Err(bad("only UDP and TCP can be dialled")),
    };
    if way == Way::Quic && parts.next() != Some(Protocol::QuicV1) {
        return Err(bad("over UDP only /quic-v1 can be dialled"));
    }
    let peer = match parts.next() {
        Some(Protocol::P2p(peer)) => Some(peer),
        None => None,
        Some(_) => return Err(bad("what follows is not known")),
    };
    if parts.next().is_some() {
        return Err(bad("there is more behind the identity"));
    }
    if port == 0 || ip.is_unspecified() {
        return Err(bad("it names no host or no port"));
    }
    Ok((way, SocketAddr::new(ip, port), peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for text in ["127.0.0.1:4001", "[::1]:9"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(socket_address(&quic_address(address)), Ok((Way::Quic, address, None)));
            assert_eq!(socket_address(&tcp_address(address)), Ok((Way::Tcp, address, None)));
        }
    }

    #[test]
    fn what_cannot_be_dialled_is_named() {
        for text in [
            "/ip4/1.2.3.4/tcp/80/ws",
            "/ip4/1.2.3.4/tcp/0",
            "/dns4/a.b/udp/1/quic-v1",
            "/ip4/0.0.0.0/udp/1/quic-v1",
            "/ip4/1.2.3.4/udp/1",
        ] {
            let error = socket_address(&text.parse().expect("a multiaddr")).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
