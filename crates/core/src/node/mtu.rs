//! How large datagrams are tried where.
//!
//! The QUIC crate finds out what a path carries by trying (DPLPMTUD, RFC 8899): by halves between 1,200 bytes and an upper bound, each size up to three times,
//! one in a round trip. A bound that is far above what the path carries costs a dozen lost probes and as many round trips with small datagrams, so large ones
//! are only tried where they may well pass: within this machine, and within private networks if a link of this machine carries them. Across the Internet
//! hardly any path carries more than Ethernet.

use std::net::IpAddr;

use super::Node;
use crate::limits::{DATAGRAM_BYTES_MAX, ETHERNET_DATAGRAM_BYTES};
use crate::peers::scope::{self, Scope};

/// The MTU of a link of which nothing is known.
pub(super) const ETHERNET: u16 = 1_500;
/// The headers of IPv6 and UDP.
const HEADERS: u16 = 48;

impl Node {
    /// Tells the largest IP packet, in bytes, that a link of this machine carries, the loopback aside; where there are several links the largest. 1,500 until told. Connections that
    /// begin from now on try datagrams of that size to peers in private networks.
    pub fn set_link_mtu(&mut self, bytes: u16) {
        self.link_mtu = bytes;
    }

    /// The largest datagram, in bytes, that is tried to a peer.
    pub(super) fn datagram_max(&self, remote: IpAddr) -> u16 {
        datagram_max(remote, self.link_mtu)
    }
}

fn datagram_max(remote: IpAddr, link_mtu: u16) -> u16 {
    const LARGE: u16 = DATAGRAM_BYTES_MAX as u16;
    const USUAL: u16 = ETHERNET_DATAGRAM_BYTES as u16;
    match scope::of(remote) {
        Scope::Loopback => LARGE,
        Scope::Link | Scope::Private => link_mtu.saturating_sub(HEADERS).clamp(USUAL, LARGE),
        _ => USUAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_datagrams_are_tried_where_they_may_pass() {
        let tried = |remote: &str, link_mtu| datagram_max(remote.parse().expect("an address"), link_mtu);
        assert_eq!(tried("127.0.0.1", 1_500), 8_952);
        assert_eq!(tried("::1", 1_500), 8_952);
        assert_eq!(tried("10.0.0.2", 1_500), 1_452, "the link carries no more");
        assert_eq!(tried("10.0.0.2", 9_001), 8_952);
        assert_eq!(tried("fe80::1", 9_001), 8_952);
        assert_eq!(tried("fd00::1", 4_000), 3_952);
        assert_eq!(tried("192.168.0.2", 1_280), 1_452, "a tunnel: the search finds out");
        assert_eq!(tried("192.168.0.2", u16::MAX), 8_952);
        assert_eq!(tried("1.1.1.1", 9_001), 1_452, "whatever our own link carries");
    }
}
