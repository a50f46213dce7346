//! Which addresses a ticket carries.

use strait_core::Multiaddr;
use strait_core::peers::scope::{self, Scope};

use crate::ticket::ADDR_BYTES_MAX;

/// Addresses offered in a ticket, at most: a receiver tries so many at once, and tickets stay short.
const OFFERED_MAX: usize = 8;

/// Those of a node's addresses that go into its tickets, farther reaching ones first, and QUIC before TCP. Loopback is last, for a receiver on the same
/// machine, and keeps its place however many there are.
pub fn for_ticket(addrs: &[Multiaddr]) -> Vec<Multiaddr> {
    let usable = addrs.iter().filter_map(|addr| {
        let rank = rank(scope::of_address(addr)?)?;
        (addr.to_vec().len() <= ADDR_BYTES_MAX).then_some((rank, addr))
    });
    let mut found: Vec<(u8, &Multiaddr)> = usable.collect();
    found.sort_by_key(|(rank, addr)| (*rank, is_tcp(addr)));
    found.dedup();
    if found.len() > OFFERED_MAX {
        // On one machine nothing blocks UDP.
        let last = found.iter().rposition(|(_, addr)| !is_tcp(addr)).unwrap_or(found.len() - 1);
        let last = found.remove(last);
        found.truncate(OFFERED_MAX - 1);
        found.push(last);
    }
    found.into_iter().map(|(_, addr)| addr.clone()).collect()
}

/// Whether an address is reached over TCP.
pub(super) fn is_tcp(addr: &Multiaddr) -> bool {
    addr.protocol_stack().any(|name| name == "tcp")
}

/// Order in a ticket, or `None` for addresses that another machine cannot use (link-local ones need a zone that is ours alone).
fn rank(scope: Scope) -> Option<u8> {
    match scope {
        Scope::Loopback => Some(2),
        Scope::Private | Scope::Shared => Some(1),
        _ if scope.is_host() && scope != Scope::Link => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(addrs: &[&str]) -> Vec<String> {
        let addrs: Vec<Multiaddr> = addrs.iter().map(|text| text.parse().unwrap()).collect();
        for_ticket(&addrs).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn of_each_kind_quic_comes_first() {
        let tcp = |ip: &str| format!("/ip4/{ip}/tcp/4001");
        let all = [tcp("127.0.0.1"), tcp("192.168.1.5"), quic("127.0.0.1"), quic("192.168.1.5")];
        let want = [quic("192.168.1.5"), tcp("192.168.1.5"), quic("127.0.0.1"), tcp("127.0.0.1")];
        assert_eq!(ticket(&all.each_ref().map(String::as_str)), want);
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
        let names = ["/dns4/example.org/udp/1/quic-v1", "/dns4/localhost/udp/1/quic-v1"];
        assert_eq!(ticket(&[names[1], names[0]]), names, "a name that was announced");
        assert!(ticket(&["/unix/a"]).is_empty());
    }

    #[test]
    fn many_addresses_are_cut_and_loopback_stays() {
        let many: Vec<String> = (0..100)
            .map(|i| quic(&format!("10.0.0.{i}")))
            .chain([quic("127.0.0.1"), "/ip4/127.0.0.1/tcp/1".to_owned()])
            .collect();
        let got = ticket(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((got.len(), got.last()), (OFFERED_MAX, Some(&quic("127.0.0.1"))));
    }
}
