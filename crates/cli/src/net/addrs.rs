//! Which addresses a ticket carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use strait_core::Multiaddr;

use crate::ticket::{ADDR_BYTES_MAX, ADDRS_MAX};

/// Addresses of this machine's interfaces, as far as another machine or program could use them.
pub fn interfaces() -> Vec<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    all.into_iter().filter(|interface| interface.is_oper_up()).map(|interface| interface.ip()).collect()
}

/// The addresses for a ticket: those that the node is bound to, where an unspecified one (`0.0.0.0`, `::`) stands for those of all
/// interfaces. Farther reaching ones come first; loopback is last, for a receiver on the same machine.
pub fn for_ticket(bound: &[Multiaddr], interfaces: &[IpAddr]) -> Vec<Multiaddr> {
    let mut found: Vec<(u8, Multiaddr)> = Vec::new();
    for addr in bound {
        let parts = addr.to_string();
        let Some(ip) = first_ip(&parts) else { continue };
        let stands_for: Vec<IpAddr> = if ip.is_unspecified() {
            interfaces.iter().copied().filter(|other| other.is_ipv4() == ip.is_ipv4()).collect()
        } else {
            vec![ip]
        };
        for ip in stands_for {
            let (Some(rank), Some(addr)) = (rank(ip), with_ip(&parts, ip)) else { continue };
            if addr.to_vec().len() <= ADDR_BYTES_MAX && !found.iter().any(|(_, other)| *other == addr) {
                found.push((rank, addr));
            }
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    // Should there be very many, the loopback address keeps its place.
    if found.len() > ADDRS_MAX {
        let last = found.pop();
        found.truncate(ADDRS_MAX - 1);
        found.extend(last);
    }
    found.into_iter().map(|(_, addr)| addr).collect()
}

/// The address in `/ip4/A/...` or `/ip6/A/...`.
fn first_ip(parts: &str) -> Option<IpAddr> {
    let mut parts = parts.split('/').skip(1);
    matches!(parts.next(), Some("ip4" | "ip6")).then(|| parts.next()?.parse().ok()).flatten()
}

fn with_ip(parts: &str, ip: IpAddr) -> Option<Multiaddr> {
    let rest: Vec<&str> = parts.split('/').skip(3).collect();
    let kind = if ip.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{kind}/{ip}/{}", rest.join("/")).parse().ok()
}

/// Order in a ticket, or `None` for addresses that another machine cannot use (link-local ones need a scope that is ours alone).
fn rank(ip: IpAddr) -> Option<u8> {
    let (local, private) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_private() || is_shared(v4)),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), is_unique_local(v6)),
    };
    match () {
        () if local || ip.is_unspecified() || ip.is_multicast() => None,
        () if ip.is_loopback() => Some(2),
        () if private => Some(1),
        () => Some(0),
    }
}

/// 100.64.0.0/10 (RFC 6598).
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

/// fc00::/7 (RFC 4193).
fn is_unique_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xfe00 == 0xfc00
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ticket(bound: &[&str], interfaces: &[&str]) -> Vec<String> {
        let bound: Vec<Multiaddr> = bound.iter().map(|text| text.parse().unwrap()).collect();
        for_ticket(&bound, &ips(interfaces)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unspecified_address_stands_for_all_interfaces_of_its_kind() {
        let interfaces = ["127.0.0.1", "192.168.1.5", "203.0.113.9", "169.254.7.7", "fe80::1", "2001:db8::5", "::1", "100.64.1.1"];
        let got = ticket(&["/ip4/0.0.0.0/udp/4001/quic-v1"], &interfaces);
        let want = ["203.0.113.9", "192.168.1.5", "100.64.1.1", "127.0.0.1"].map(|ip| format!("/ip4/{ip}/udp/4001/quic-v1"));
        assert_eq!(got, want);
        let got = ticket(&["/ip6/::/udp/9/quic-v1"], &interfaces);
        assert_eq!(got, ["/ip6/2001:db8::5/udp/9/quic-v1", "/ip6/::1/udp/9/quic-v1"]);
    }

    #[test]
    fn concrete_addresses_stay_and_nothing_comes_twice() {
        let bound = ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/0.0.0.0/udp/1/quic-v1", "/dns4/example.org/udp/1/quic-v1"];
        assert_eq!(ticket(&bound, &["127.0.0.1"]), ["/ip4/127.0.0.1/udp/1/quic-v1"]);
    }

    #[test]
    fn many_interfaces_are_cut_to_what_a_ticket_holds() {
        let many: Vec<IpAddr> = (0..100).map(|i| IpAddr::from([10, 0, 0, i])).chain(ips(&["127.0.0.1"])).collect();
        let got = for_ticket(&["/ip4/0.0.0.0/udp/1/quic-v1".parse().unwrap()], &many);
        assert_eq!(got.len(), ADDRS_MAX);
        assert!(got.last().unwrap().to_string().contains("127.0.0.1"));
    }
}
