//! This node's own addresses, and which of them whom is told.
//!
//! Three things are kept apart. Where it is **bound**: addresses of its interfaces, which the driver puts in place of a wildcard. What its
//! operator has **declared**: behind a port forward, or in Kubernetes, nobody else knows. And what peers have **observed**: that is a hint in what
//! each of them says ([`Identity::observed`](crate::Identity::observed)), which is never told to anybody.
//!
//! The rule: if anything is declared, only that is told, since whoever declares may have a reason to hide the rest; otherwise what is bound. Of
//! that a peer is told only what means the same to it as here, by the scope of the path to it ([`Scope::holds_over`]): loopback only over
//! loopback, private addresses only within private networks. The signed record that goes with it holds the same addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use libp2p_identity::{Keypair, PeerId};
use multiaddr::{Multiaddr, Protocol};
use strait_wire::record::PeerRecord;

use super::record;
use super::scope::{self, Scope};
use crate::limits::{BOOK_ADDRESS_BYTES_MAX, OWN_ADDRESSES_MAX, OWN_RECORD_BYTES};

/// Why an address cannot be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undeclarable {
    /// It begins neither with an IP address nor with a name.
    #[error(
        "it begins with no IP address and no name; it should look like /ip4/A.B.C.D/udp/PORT/quic-v1 or /dns4/NAME/udp/PORT/quic-v1"
    )]
    NoHost,
    /// Nobody could use it.
    #[error("it is {0}, so that nobody could reach this node there")]
    Scope(Scope),
    /// It has no port, or port 0.
    #[error("it names no port; others have to know the one that is forwarded to this node")]
    NoPort,
    /// It names another peer at its end.
    #[error("it names another peer, {0}, at its end")]
    OtherPeer(PeerId),
    /// It is too long to be kept by others.
    #[error("it has {bytes} bytes, and others keep at most {max}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Checks an address that this node's operator declares, and gives it without the node's identity at its end.
///
/// # Errors
/// [`Undeclarable`].
pub fn check_declared(own: &PeerId, address: &Multiaddr) -> Result<Multiaddr, Undeclarable> {
    let mut address = address.clone();
    if let Some(Protocol::P2p(named)) = address.iter().last() {
        if named != *own {
            return Err(Undeclarable::OtherPeer(named));
        }
        address.pop();
    }
    let scope = scope::of_address(&address).ok_or(Undeclarable::NoHost)?;
    // Over the nearest path of all; link-local ones need a zone, which is each machine's own.
    if !scope.holds_over(Scope::Loopback) || scope == Scope::Link {
        return Err(Undeclarable::Scope(scope));
    }
    let is_port = |part: &Protocol<'_>| matches!(part, Protocol::Tcp(port) | Protocol::Udp(port) if *port != 0);
    let is_set = matches!(address.iter().next(), Some(Protocol::Dnsaddr(_))) || address.iter().any(|part| is_port(&part));
    if !is_set {
        return Err(Undeclarable::NoPort);
    }
    if address.len() > BOOK_ADDRESS_BYTES_MAX {
        return Err(Undeclarable::TooLong { bytes: address.len(), max: BOOK_ADDRESS_BYTES_MAX });
    }
    Ok(address)
}

/// This node's own addresses.
#[derive(Debug, Default)]
pub struct Own {
    bound: Vec<Multiaddr>,
    declared: Vec<Multiaddr>,
    /// The number of its signed records. They differ by path, and all of one number say as much as each path may know.
    seq: u64,
    /// Those that were asked for since the last change.
    records: BTreeMap<Scope, Bytes>,
}

impl Own {
    /// Where it is bound. True when that has changed. `unix_nanos`: the date, from which its records are numbered, so that numbers grow over restarts.
    pub fn set_bound(&mut self, bound: Vec<Multiaddr>, unix_nanos: u64) -> bool {
        let changed = self.bound != bound;
        self.bound = bound;
        changed && self.changed(unix_nanos)
    }

    /// What its operator has declared. True when that has changed.
    pub fn set_declared(&mut self, declared: Vec<Multiaddr>, unix_nanos: u64) -> bool {
        let changed = self.declared != declared;
        self.declared = declared;
        changed && self.changed(unix_nanos)
    }

    fn changed(&mut self, unix_nanos: u64) -> bool {
        self.seq = self.seq.saturating_add(1).max(unix_nanos);
        self.records.clear();
        true
    }

    /// The IP addresses of its interfaces.
    pub fn local_ips(&self) -> Vec<IpAddr> {
        self.bound.iter().filter_map(scope::ip_of).collect()
    }

    /// All that may be told to somebody, such as in a ticket, where the path is not known.
    pub fn told(&self) -> &[Multiaddr] {
        if self.declared.is_empty() { &self.bound } else { &self.declared }
    }

    /// What a peer is told over a path of scope `path`, what reaches farther first; at most [`OWN_ADDRESSES_MAX`].
    pub fn told_over(&self, path: Scope) -> Vec<Multiaddr> {
        let told = self.told().iter().filter_map(|address| Some((scope::of_address(address)?, address)));
        let mut told: Vec<_> = told.filter(|(scope, _)| scope.holds_over(path)).collect();
        // Beside that the order is the operator's, or the driver's.
        told.sort_by_key(|(scope, _)| std::cmp::Reverse(*scope));
        let mut seen = BTreeSet::new();
        told.retain(|(_, address)| seen.insert(*address));
        told.into_iter().map(|(_, address)| address.clone()).take(OWN_ADDRESSES_MAX).collect()
    }

    /// The same as a signed record (libp2p RFC 0003), as far as it stays within [`OWN_RECORD_BYTES`]. `None` when there is nothing to be told. Signs at most
    /// once for each scope and change.
    pub fn record(&mut self, keypair: &Keypair, path: Scope) -> Option<Bytes> {
        if let Some(record) = self.records.get(&path) {
            return Some(record.clone());
        }
        let mut left = OWN_RECORD_BYTES;
        let mut addresses = self.told_over(path);
        let fits = |address: &Multiaddr| {
            let rest = left.checked_sub(PeerRecord::address_len(address.len()));
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let count = addresses.iter().map(fits).take_while(|fits| *fits).count();
        addresses.truncate(count);
        if addresses.is_empty() {
            return None;
        }
        let record = Bytes::from(record::sign(keypair, self.seq, &addresses)?);
        self.records.insert(path, record.clone());
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().expect("a multiaddr")).collect()
    }

    const BOUND: [&str; 6] = [
        "/ip4/127.0.0.1/udp/1/quic-v1",
        "/ip4/10.0.0.5/udp/1/quic-v1",
        "/ip4/9.9.9.9/udp/1/quic-v1",
        "/ip6/fe80::1/udp/1/quic-v1",
        "/ip6/::1/udp/1/quic-v1",
        "/ip4/100.64.0.1/udp/1/quic-v1",
    ];

    #[test]
    fn a_peer_is_told_what_holds_over_the_path_to_it() {
        let mut own = Own::default();
        assert!(own.set_bound(parse(&BOUND), 7));
        assert!(!own.set_bound(parse(&BOUND), 8), "no change");
        assert_eq!(own.told_over(Scope::Global), parse(&[BOUND[2]]));
        assert_eq!(own.told_over(Scope::Shared), parse(&[BOUND[2], BOUND[5]]));
        assert_eq!(own.told_over(Scope::Private), parse(&[BOUND[2], BOUND[5], BOUND[1]]));
        assert_eq!(own.told_over(Scope::Loopback).len(), BOUND.len());
        assert_eq!(own.told_over(Scope::Documentation), []);
    }

    #[test]
    fn what_is_declared_stands_for_all() {
        let mut own = Own::default();
        own.set_bound(parse(&BOUND), 7);
        let declared = parse(&["/dns4/node.example.org/udp/4001/quic-v1", "/ip4/10.9.9.9/udp/4001/quic-v1"]);
        assert!(own.set_declared(declared.clone(), 7));
        assert_eq!(own.told(), declared);
        assert_eq!(own.told_over(Scope::Global), declared[..1]);
        assert_eq!(own.told_over(Scope::Private), declared);
        assert!(own.set_declared(Vec::new(), 7));
        assert_eq!(own.told(), parse(&BOUND));
    }

    #[test]
    fn records_are_numbered_upwards_even_if_the_clock_goes_back() {
        let keypair = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let peer = keypair.public().to_peer_id();
        let mut own = Own::default();
        assert_eq!(own.record(&keypair, Scope::Global), None, "nothing to be told");
        let mut last = 0;
        for (port, nanos) in [(1, 1_000), (2, 500), (3, 2_000)] {
            own.set_bound(parse(&[&format!("/ip4/9.9.9.9/udp/{port}/quic-v1"), BOUND[0]]), nanos);
            let record = own.record(&keypair, Scope::Global).expect("something to be told");
            let got = record::verify(&record, &peer, Some(last)).expect("a good record");
            assert!(got.seq > last && got.seq >= nanos, "{got:?}");
            assert_eq!(got.addresses, own.told_over(Scope::Global));
            last = got.seq;
            let near = own.record(&keypair, Scope::Loopback).expect("something to be told");
            let near = record::verify(&near, &peer, Some(last)).expect("a good record");
            assert_eq!((near.seq, near.addresses.len()), (last, 2), "each path has its own, of one number");
        }
    }

    #[test]
    fn a_record_stays_small_enough_for_identify() {
        let keypair = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let mut own = Own::default();
        let name = "n".repeat(60);
        let many: Vec<String> = (0..100).map(|at| format!("/dns4/{name}{at}.org/udp/1/quic-v1")).collect();
        own.set_declared(parse(&many.iter().map(String::as_str).collect::<Vec<_>>()), 1);
        assert_eq!(own.told_over(Scope::Global).len(), OWN_ADDRESSES_MAX);
        let record = own.record(&keypair, Scope::Global).expect("something to be told");
        assert!(record.len() > OWN_RECORD_BYTES / 2 && record.len() < OWN_RECORD_BYTES + 300, "{}", record.len());
    }

    #[test]
    fn what_cannot_be_declared_is_named() {
        let own = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes").public().to_peer_id();
        let other = Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes").public().to_peer_id();
        let check = |text: &str| check_declared(&own, &text.parse().expect("a multiaddr"));
        assert_eq!(check("/tcp/1"), Err(Undeclarable::NoHost));
        assert_eq!(check("/ip4/0.0.0.0/udp/1/quic-v1"), Err(Undeclarable::Scope(Scope::Reserved)));
        assert_eq!(check("/ip4/203.0.113.5/udp/1/quic-v1"), Err(Undeclarable::Scope(Scope::Documentation)));
        assert_eq!(check("/ip6/fe80::1/udp/1/quic-v1"), Err(Undeclarable::Scope(Scope::Link)));
        assert_eq!(check("/ip4/9.9.9.9"), Err(Undeclarable::NoPort));
        assert_eq!(check("/ip4/9.9.9.9/udp/0/quic-v1"), Err(Undeclarable::NoPort));
        assert_eq!(check(&format!("/ip4/9.9.9.9/udp/1/quic-v1/p2p/{other}")), Err(Undeclarable::OtherPeer(other)));
        let bare = parse(&["/ip4/9.9.9.9/udp/1/quic-v1"]).remove(0);
        assert_eq!(check(&format!("{bare}/p2p/{own}")), Ok(bare));
        for good in ["/dns4/a.b/udp/1/quic-v1", "/dnsaddr/a.b", "/ip4/10.1.2.3/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1"] {
            assert!(check(good).is_ok(), "{good}");
        }
    }
}
