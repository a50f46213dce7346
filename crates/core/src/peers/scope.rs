//! How far an IP address reaches: the special-purpose address registries of IANA (RFC 6890, RFC 8190) as tables.
//!
//! <https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>.
//! The most specific row decides. What no row names is global, but of IPv6 only within 2000::/3, since nothing else is given out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use multiaddr::{Multiaddr, Protocol};

/// How far an address reaches. In order: the later ones of the first five reach farther.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This machine only.
    Loopback,
    /// This link only.
    Link,
    /// A private network: RFC 1918 and unique local addresses (RFC 4193).
    Private,
    /// What a provider's NAT and its customers share (RFC 6598).
    Shared,
    /// The Internet.
    Global,
    /// For examples in texts: nobody has one.
    Documentation,
    /// For measurements in laboratories.
    Benchmarking,
    /// Groups of hosts, never one peer.
    Multicast,
    /// Everything else that is no address of a host: unspecified, broadcast, translated, reserved.
    Reserved,
}

impl Scope {
    /// Whether an address of this scope means the same host to somebody who heard of it over a path of scope `path`, so that it may be
    /// dialled or told. It does if it reaches at least as far as that path: who was seen at a global address has no say about my
    /// private network, while my neighbour has.
    pub fn holds_over(self, path: Scope) -> bool {
        self <= Scope::Global && path <= self
    }

    /// Whether it can be the address of one host at all, so that a person may ask for it to be dialled.
    pub fn is_host(self) -> bool {
        !matches!(self, Scope::Multicast | Scope::Reserved)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scope::Loopback => "of one machine (loopback)",
            Scope::Link => "link-local",
            Scope::Private => "private",
            Scope::Shared => "shared behind a provider's NAT",
            Scope::Global => "global",
            Scope::Documentation => "reserved for documentation",
            Scope::Benchmarking => "reserved for benchmarks",
            Scope::Multicast => "multicast",
            Scope::Reserved => "reserved",
        })
    }
}

/// The first address of a range, the length of its prefix in bits, its scope, and where that is written.
type Row<A> = (A, u8, Scope, &'static str);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// The first four groups of an address whose others are zero.
const fn v6(a: u16, b: u16, c: u16, d: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)
}

const V4: &[Row<Ipv4Addr>] = &[
    (v4(0, 0, 0, 0), 8, Scope::Reserved, "RFC 791 section 3.2: this network"),
    (v4(10, 0, 0, 0), 8, Scope::Private, "RFC 1918"),
    (v4(100, 64, 0, 0), 10, Scope::Shared, "RFC 6598"),
    (v4(127, 0, 0, 0), 8, Scope::Loopback, "RFC 1122 section 3.2.1.3"),
    (v4(169, 254, 0, 0), 16, Scope::Link, "RFC 3927"),
    (v4(172, 16, 0, 0), 12, Scope::Private, "RFC 1918"),
    (
        v4(192, 0, 0, 0),
        24,
        Scope::Reserved,
        "RFC 6890 section 2.1: protocol assignments, RFC 7335, RFC 7600 and RFC 8880 among them",
    ),
    (v4(192, 0, 0, 9), 32, Scope::Global, "RFC 7723: port control anycast"),
    (v4(192, 0, 0, 10), 32, Scope::Global, "RFC 8155: TURN anycast"),
    (v4(192, 0, 2, 0), 24, Scope::Documentation, "RFC 5737: TEST-NET-1"),
    (v4(192, 31, 196, 0), 24, Scope::Global, "RFC 7535: AS112"),
    (v4(192, 52, 193, 0), 24, Scope::Global, "RFC 7450: AMT"),
    (v4(192, 88, 99, 0), 24, Scope::Reserved, "RFC 7526: deprecated 6to4 relay anycast"),
    (v4(192, 168, 0, 0), 16, Scope::Private, "RFC 1918"),
    (v4(192, 175, 48, 0), 24, Scope::Global, "RFC 7534: AS112"),
    (v4(198, 18, 0, 0), 15, Scope::Benchmarking, "RFC 2544"),
    (v4(198, 51, 100, 0), 24, Scope::Documentation, "RFC 5737: TEST-NET-2"),
    (v4(203, 0, 113, 0), 24, Scope::Documentation, "RFC 5737: TEST-NET-3"),
    (v4(224, 0, 0, 0), 4, Scope::Multicast, "RFC 5771"),
    (v4(240, 0, 0, 0), 4, Scope::Reserved, "RFC 1112 section 4, with the limited broadcast of RFC 8190"),
];

const V6: &[Row<Ipv6Addr>] = &[
    (Ipv6Addr::UNSPECIFIED, 0, Scope::Reserved, "RFC 4291 section 2.4: not given out"),
    (Ipv6Addr::LOCALHOST, 128, Scope::Loopback, "RFC 4291 section 2.5.3"),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        96,
        Scope::Reserved,
        "RFC 4291 section 2.5.5.2: an IPv4 address is to be written as one",
    ),
    // Global in the registry, but its last 32 bits choose an IPv4 host: looked at in `of`.
    (v6(0x64, 0xff9b, 0, 0), 96, Scope::Global, "RFC 6052"),
    (v6(0x64, 0xff9b, 1, 0), 48, Scope::Reserved, "RFC 8215: translation of one's own"),
    (v6(0x100, 0, 0, 0), 64, Scope::Reserved, "RFC 6666: discard"),
    (v6(0x100, 0, 0, 1), 64, Scope::Reserved, "RFC 9780: dummy"),
    (v6(0x2000, 0, 0, 0), 3, Scope::Global, "RFC 4291 section 2.5.4: global unicast"),
    (v6(0x2001, 0, 0, 0), 23, Scope::Reserved, "RFC 2928: protocol assignments, with Teredo (RFC 4380) and ORCHID (RFC 4843)"),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128, Scope::Global, "RFC 7723: port control anycast"),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128, Scope::Global, "RFC 8155: TURN anycast"),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128, Scope::Global, "RFC 9665: SRP anycast"),
    (v6(0x2001, 2, 0, 0), 48, Scope::Benchmarking, "RFC 5180 and RFC 1752"),
    (v6(0x2001, 3, 0, 0), 32, Scope::Global, "RFC 7450: AMT"),
    (v6(0x2001, 4, 0x112, 0), 48, Scope::Global, "RFC 7535: AS112"),
    // Global in the registry, but the keys in them are no locators.
    (v6(0x2001, 0x20, 0, 0), 28, Scope::Reserved, "RFC 7343: ORCHIDv2"),
    (v6(0x2001, 0x30, 0, 0), 28, Scope::Reserved, "RFC 9374: drone remote ids"),
    (v6(0x2001, 0xdb8, 0, 0), 32, Scope::Documentation, "RFC 3849"),
    (v6(0x2002, 0, 0, 0), 16, Scope::Reserved, "RFC 3056, RFC 7526: 6to4 chooses an IPv4 host, and is deprecated"),
    (v6(0x2620, 0x4f, 0x8000, 0), 48, Scope::Global, "RFC 7534: AS112"),
    (v6(0x3fff, 0, 0, 0), 20, Scope::Documentation, "RFC 9637"),
    (v6(0x5f00, 0, 0, 0), 16, Scope::Reserved, "RFC 9602: SRv6 segments"),
    (v6(0xfc00, 0, 0, 0), 7, Scope::Private, "RFC 4193"),
    (v6(0xfe80, 0, 0, 0), 10, Scope::Link, "RFC 4291 section 2.5.6"),
    (v6(0xff00, 0, 0, 0), 8, Scope::Multicast, "RFC 4291 section 2.7"),
];

/// How far `ip` reaches.
pub fn of(ip: IpAddr) -> Scope {
    match ip {
        IpAddr::V4(ip) => of_v4(ip),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            let rows = V6.iter().map(|(first, len, scope, _)| (u128::from(*first), *len, *scope));
            let scope = longest(rows.map(|(first, len, scope)| (share(bits ^ first, 128) >= len, len, scope)));
            match scope {
                // Whoever writes a private IPv4 host into it means the translator's network, not ours.
                Scope::Global if ip.segments().starts_with(&[0x64, 0xff9b]) => {
                    let [.., a, b, c, d] = ip.octets();
                    if of_v4(v4(a, b, c, d)) == Scope::Global { Scope::Global } else { Scope::Reserved }
                }
                scope => scope,
            }
        }
    }
}

/// The IP address that a multiaddr begins with.
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// How far a multiaddr reaches, by the IP address or the name that it begins with. `None` when it begins with neither. Of a name this is what the
/// name alone tells: what it resolves to has to be asked about again.
pub fn of_address(address: &Multiaddr) -> Option<Scope> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(of(ip.into())),
        Protocol::Ip6(ip) => Some(of(ip.into())),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name) => Some(of_name(&name)),
        _ => None,
    }
}

/// The names with a meaning of their own, by their last labels, and where that is written. All others are global, if they have a dot.
const NAMES: &[(&str, Scope, &str)] = &[
    ("localhost", Scope::Loopback, "RFC 6761 section 6.3"),
    // Of one link by that RFC, but clusters and home networks use it for all that is theirs.
    ("local", Scope::Private, "RFC 6762 section 3"),
    ("home.arpa", Scope::Private, "RFC 8375"),
    ("internal", Scope::Private, "IANA's special-use domain names: for private networks"),
    ("test", Scope::Private, "RFC 6761 section 6.2"),
    ("example", Scope::Documentation, "RFC 6761 section 6.5"),
    ("invalid", Scope::Reserved, "RFC 6761 section 6.4"),
    ("onion", Scope::Reserved, "RFC 7686: not of the DNS"),
    ("alt", Scope::Reserved, "RFC 9476: not of the DNS"),
];

/// How far a name of the DNS reaches, as far as the name alone tells.
pub fn of_name(name: &str) -> Scope {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let within = |last: &str| name.strip_suffix(last).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    match NAMES.iter().find(|(last, ..)| within(last)) {
        Some((_, scope, _)) => *scope,
        // Completed by the resolver of whoever asks.
        None if !name.contains('.') => Scope::Private,
        None => Scope::Global,
    }
}

fn of_v4(ip: Ipv4Addr) -> Scope {
    let bits = u128::from(u32::from(ip));
    let rows = V4.iter().map(|(first, len, scope, _)| (u128::from(u32::from(*first)), *len, *scope));
    longest(rows.map(|(first, len, scope)| (share(bits ^ first, 32) >= len, len, scope)))
}

/// How many leading bits of `width` are zero in a difference: so many two addresses have in common.
fn share(difference: u128, width: u8) -> u8 {
    let used = 128u32.saturating_sub(difference.leading_zeros());
    width.saturating_sub(u8::try_from(used).unwrap_or(u8::MAX))
}

fn longest(rows: impl Iterator<Item = (bool, u8, Scope)>) -> Scope {
    let within = rows.filter(|(within, ..)| *within);
    within.max_by_key(|(_, len, _)| *len).map_or(Scope::Global, |(.., scope)| scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope(text: &str) -> Scope {
        of(text.parse().expect("an address"))
    }

    /// First and last address of each range, and the neighbours on both sides where they are of another kind. Written by hand from the
    /// registries, not from the tables.
    #[test]
    fn every_range_of_the_registries_has_its_scope() {
        let rows: &[(Scope, &[&str])] = &[
            (Scope::Loopback, &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]),
            (Scope::Link, &["169.254.0.0", "169.254.255.255", "fe80::", "febf:ffff::1"]),
            (Scope::Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"]),
            (Scope::Private, &["fc00::", "fd00::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
            (Scope::Shared, &["100.64.0.0", "100.127.255.255"]),
            (Scope::Documentation, &["192.0.2.0", "192.0.2.255", "198.51.100.1", "203.0.113.255"]),
            (Scope::Documentation, &["2001:db8::", "2001:db8:ffff::1", "3fff::", "3fff:fff:ffff::"]),
            (Scope::Benchmarking, &["198.18.0.0", "198.19.255.255", "2001:2::", "2001:2:0:ffff::"]),
            (Scope::Multicast, &["224.0.0.0", "239.255.255.255", "ff00::", "ff02::1", "ffff:ffff::"]),
            (Scope::Reserved, &["0.0.0.0", "0.255.255.255", "192.0.0.0", "192.0.0.8", "192.0.0.170", "192.0.0.255"]),
            (Scope::Reserved, &["192.88.99.0", "192.88.99.255", "240.0.0.0", "255.255.255.255"]),
            (Scope::Reserved, &["::", "::2", "::ffff:1.1.1.1", "::ffff:127.0.0.1", "64:ff9b:1::1", "100::1", "100:0:0:1::1"]),
            (Scope::Reserved, &["2001::1", "2001:0:ffff::1", "2001:10::1", "2001:1f:ffff::", "2001:20::1", "2001:30::1"]),
            (Scope::Reserved, &["2001:1::4", "2001:1ff:ffff::", "2002::1", "2002:ffff::1", "5f00::1", "fec0::1", "4000::1"]),
            (Scope::Reserved, &["64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::0.0.0.0"]),
            (Scope::Global, &["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"]),
            (Scope::Global, &["128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255"]),
            (
                Scope::Global,
                &["192.0.0.9", "192.0.0.10", "192.0.1.0", "192.0.3.0", "192.31.196.1", "192.52.193.1", "192.88.98.0"],
            ),
            (
                Scope::Global,
                &["192.167.255.255", "192.169.0.0", "192.175.48.1", "198.17.255.255", "198.20.0.0", "223.255.255.255"],
            ),
            (Scope::Global, &["2000::", "2001:1::1", "2001:1::2", "2001:1::3", "2001:3::1", "2001:4:112::1", "2001:200::"]),
            (
                Scope::Global,
                &["2001:db7::", "2001:db9::", "2003::1", "2606:4700::1111", "2620:4f:8000::1", "3ffe::1", "64:ff9b::1.1.1.1"],
            ),
        ];
        for (want, addresses) in rows {
            for address in *addresses {
                assert_eq!(scope(address), *want, "{address}");
            }
        }
    }

    #[test]
    fn names_have_a_scope_too() {
        let rows: &[(Scope, &[&str])] = &[
            (Scope::Loopback, &["localhost", "LocalHost.", "a.localhost"]),
            (Scope::Private, &["a.local", "svc.cluster.local", "printer", "x.home.arpa", "db.internal", "a.test", ""]),
            (Scope::Global, &["a.b", "notlocalhost.org", "a.mylocal", "localhost.org", "internal.net"]),
            (Scope::Reserved, &["a.onion", "x.invalid", "y.alt"]),
            (Scope::Documentation, &["a.example"]),
        ];
        for (want, names) in rows {
            for name in *names {
                assert_eq!(of_name(name), *want, "{name:?}");
            }
        }
        let address = |text: &str| of_address(&text.parse().expect("a multiaddr"));
        assert_eq!(address("/dns4/localhost/tcp/1"), Some(Scope::Loopback));
        assert_eq!(address("/dnsaddr/a.b"), Some(Scope::Global));
        assert_eq!(address("/ip6/::1/udp/1/quic-v1"), Some(Scope::Loopback));
        assert_eq!(address("/tcp/1"), None);
        assert_eq!(address("/memory/1"), None);
    }

    #[test]
    fn rows_begin_at_their_prefix_and_name_their_source() {
        for (first, len, _, source) in V4 {
            assert_eq!(u32::from(*first).checked_shl(u32::from(*len)).unwrap_or(0), 0, "{first}/{len}");
            assert!(source.starts_with("RFC "), "{first}");
        }
        for (first, len, _, source) in V6 {
            assert_eq!(u128::from(*first).checked_shl(u32::from(*len)).unwrap_or(0), 0, "{first}/{len}");
            assert!(source.starts_with("RFC "), "{first}");
        }
    }

    #[test]
    fn what_was_told_from_farther_away_does_not_hold_here() {
        let near_to_far = [Scope::Loopback, Scope::Link, Scope::Private, Scope::Shared, Scope::Global];
        for (at, scope) in near_to_far.iter().enumerate() {
            for (path_at, path) in near_to_far.iter().enumerate() {
                assert_eq!(scope.holds_over(*path), at >= path_at, "{scope:?} over {path:?}");
            }
        }
        for scope in [Scope::Documentation, Scope::Benchmarking, Scope::Multicast, Scope::Reserved] {
            assert!(near_to_far.iter().all(|path| !scope.holds_over(*path)), "{scope:?}");
        }
        assert!(!Scope::Global.holds_over(Scope::Reserved), "nothing holds over what is no path");
    }

    proptest! {
        /// The standard library knows some of the ranges too.
        #[test]
        fn agrees_with_the_standard_library(bits: u32) {
            let ip = Ipv4Addr::from(bits);
            prop_assert_eq!(of(ip.into()) == Scope::Loopback, ip.is_loopback());
            prop_assert_eq!(of(ip.into()) == Scope::Private, ip.is_private());
            prop_assert_eq!(of(ip.into()) == Scope::Link, ip.is_link_local());
            prop_assert_eq!(of(ip.into()) == Scope::Multicast, ip.is_multicast());
            prop_assert_eq!(of(ip.into()) == Scope::Documentation, ip.is_documentation());
        }
    }
}
