//! Between multiaddrs and socket addresses.

use std::net::SocketAddr;

use strait_core::peers::Target;
pub use strait_core::peers::Way;
use strait_core::{DialError, Multiaddr, PeerId};
pub use strait_core::{quic_address, tcp_address};

/// The socket address of a QUIC or TCP multiaddr, the way to dial it, and the identity at its end if it names one.
///
/// # Errors
/// [`DialError::BadAddress`] says what about it cannot be dialled; a name has to be looked up first.
pub fn socket_address(address: &Multiaddr) -> Result<(Way, SocketAddr, Option<PeerId>), DialError> {
    match Target::of(address)? {
        Target::Number(way, at, peer) => Ok((way, at, peer)),
        Target::Name(..) | Target::List(..) => {
            Err(DialError::BadAddress(format!("{address}: its name has to be looked up first")))
        }
    }
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
