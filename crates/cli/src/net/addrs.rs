//! Which addresses a ticket carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use strait_core::Multiaddr;

use crate::ticket::ADDR_BYTES_MAX;

/// Addresses offered in a ticket, at most: a receiver tries so many at once, and tickets stay short.
const OFFERED_MAX: usize = 8;

/// Those of a node's addresses that go into its tickets, farther reaching ones first. Loopback is last, for a receiver on the same
/// machine, and keeps its place however many there are.
pub fn for_ticket(addrs: &[Multiaddr]) -> Vec<Multiaddr> {
    let usable = addrs.iter().filter_map(|addr| {
        let rank = rank(first_ip(&addr.to_string())?)?;
        (addr.to_vec().len() <= ADDR_BYTES_MAX).then_some((rank, addr))
    });
    let mut found: Vec<(u8, &Multiaddr)> = usable.collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.dedup();
    if found.len() > OFFERED_MAX {
        let last = found.pop();
        found.truncate(OFFERED_MAX - 1);
        found.extend(last);
    }
    found.into_iter().map(|(_, addr)| addr.clone()).collect()
}

/// The address in `/ip4/A/...` or `/ip6/A/...`.
fn first_ip(parts: &str) -> Option<IpAddr> {
    let mut parts = parts.split('/').skip(1);
    matches!(parts.next(), Some("ip4" | "ip6")).then(|| parts.next()?.parse().ok()).flatten()
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

    fn ticket(addrs: &[&str]) -> Vec<String> {
        let addrs: Vec<Multiaddr> = addrs.iter().map(|text| text.parse().unwrap()).collect();
        for_ticket(&addrs).iter().map(ToString::to_string).collect()
    }

    fn quic(ip: &str) -> String {
        format!("/{}/{ip}/udp/4001/quic-v1", if ip.contains(':') { "ip6" } else { "ip4" })
    }

    #[test]
    fn farther_reaching_addresses_come_first_and_unusable_ones_not_at_all() {
        let all = [
            "127.0.0.1",
            "192.168.1.5",
            "203.0.113.9",
            "169.254.7.7",
            "100.64.1.1",
            "0.0.0.0",
            "fe80::1",
            "2001:db8::5",
            "::1",
            "fd00::7",
            "224.0.0.1",
        ]
        .map(quic);
        let want = ["203.0.113.9", "2001:db8::5", "192.168.1.5", "100.64.1.1", "fd00::7", "127.0.0.1", "::1"].map(quic);
        assert_eq!(ticket(&all.each_ref().map(String::as_str)), want);
        assert!(ticket(&["/dns4/example.org/udp/1/quic-v1"]).is_empty());
    }

    #[test]
    fn many_addresses_are_cut_and_loopback_stays() {
        let many: Vec<String> = (0..100).map(|i| quic(&format!("10.0.0.{i}"))).chain([quic("127.0.0.1")]).collect();
        let got = ticket(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((got.len(), got.last()), (OFFERED_MAX, Some(&quic("127.0.0.1"))));
    }
}
