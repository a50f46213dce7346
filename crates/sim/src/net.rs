//! The network: which host has which address, and what is on its way to it.

use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::link::{Arrival, Direction, Link, LinkCounters};
use crate::rng::Random;
use crate::tcp::{Addressed, Stack};
use crate::trace::Trace;

/// A host of the world, numbered from 0 in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub(crate) usize);

/// One UDP datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Where it came from, as seen by the receiver.
    pub source: SocketAddr,
    /// Where it was sent to.
    pub destination: SocketAddr,
    /// The two ECN bits (RFC 3168), if the sender set any.
    pub ecn: Option<u8>,
    /// The payload.
    pub payload: Bytes,
}

/// What is under way.
#[derive(Debug)]
enum Packet {
    Datagram(Datagram),
    Segment(Addressed),
}

/// A packet under way. Ordered so that the earliest is the greatest, for the max-heap.
#[derive(Debug)]
struct InFlight {
    at: Duration,
    sequence: u64,
    packet: Packet,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &InFlight) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &InFlight) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &InFlight) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Addresses, links, packets under way, and the hosts' TCP. Time is the time since the start of the world.
#[derive(Debug)]
pub struct Net {
    seed: u64,
    default: Link,
    addresses: BTreeMap<SocketAddr, HostId>,
    /// The address of each host as the others see it; `None` while it is down.
    pub(crate) outside: BTreeMap<HostId, SocketAddr>,
    /// The same by address; TCP's ports are of their own.
    pub(crate) ips: BTreeMap<IpAddr, HostId>,
    /// The port that each host bound at first.
    ports: BTreeMap<HostId, u16>,
    pub(crate) tcp: Stack,
    directions: BTreeMap<(HostId, HostId), Direction>,
    queue: BinaryHeap<InFlight>,
    sequence: u64,
    pub(crate) unroutable: u64,
    pub(crate) trace: Trace,
}

impl Net {
    pub(crate) fn new(seed: u64, trace: Trace) -> Net {
        Net {
            seed,
            default: Link::default(),
            addresses: BTreeMap::new(),
            outside: BTreeMap::new(),
            ips: BTreeMap::new(),
            ports: BTreeMap::new(),
            tcp: Stack::default(),
            directions: BTreeMap::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            unroutable: 0,
            trace,
        }
    }

    /// The link of every direction that was neither set nor used so far.
    pub fn set_default(&mut self, link: Link) {
        self.default = link;
    }

    /// Sets the link from `from` to `to`, in this direction only.
    pub fn set(&mut self, from: HostId, to: HostId, link: Link) {
        self.direction(from, to).link = link;
    }

    /// Sets the links between two hosts, both directions.
    pub fn set_both(&mut self, a: HostId, b: HostId, link: Link) {
        self.set(a, b, link.clone());
        self.set(b, a, link);
    }

    /// The link from `from` to `to`, to look at or to change.
    pub fn link(&mut self, from: HostId, to: HostId) -> &mut Link {
        &mut self.direction(from, to).link
    }

    /// Cuts (`up` false) or heals both directions between two hosts.
    pub fn set_up(&mut self, a: HostId, b: HostId, up: bool) {
        self.link(a, b).up = up;
        self.link(b, a).up = up;
    }

    /// What happened on the way from `from` to `to` so far.
    #[must_use]
    pub fn counters(&self, from: HostId, to: HostId) -> LinkCounters {
        let direction = self.directions.get(&(from, to));
        direction.map_or(LinkCounters::default(), |direction| direction.counters)
    }

    /// Packets that were sent to, or arrived at, an address that nobody has.
    #[must_use]
    pub fn unroutable(&self) -> u64 {
        self.unroutable
    }

    /// Gives a host its outside address. If it had another one, that one is nobody's from now on: what
    /// is still under way to it vanishes, as behind a NAT whose binding has changed.
    ///
    /// # Panics
    /// If another host has this address.
    pub fn bind(&mut self, host: HostId, address: SocketAddr) {
        self.unbind(host);
        let before = self.addresses.insert(address, host);
        assert!(before.is_none(), "{address} belongs to another host");
        self.outside.insert(host, address);
        self.ips.insert(address.ip(), host);
        self.ports.entry(host).or_insert(address.port());
    }

    /// The port that a host's own program is bound to, whatever others see.
    pub(crate) fn bound_port(&self, host: HostId) -> u16 {
        self.ports.get(&host).copied().unwrap_or_default()
    }

    /// Gives a host one more address, for what it sends with [`Turn::send_from`](crate::Turn::send_from). It keeps it for good.
    ///
    /// # Panics
    /// If another host has this address.
    pub fn add_address(&mut self, host: HostId, address: SocketAddr) {
        let before = self.addresses.insert(address, host);
        assert!(before.is_none_or(|before| before == host), "{address} belongs to another host");
    }

    /// Takes a host off the network. What is under way to it vanishes.
    pub fn unbind(&mut self, host: HostId) {
        if let Some(old) = self.outside.remove(&host) {
            self.addresses.remove(&old);
            self.ips.remove(&old.ip());
        }
    }

    /// The address of a host as others see it; `None` while it is off the network.
    #[must_use]
    pub fn address(&self, host: HostId) -> Option<SocketAddr> {
        self.outside.get(&host).copied()
    }

    /// Sends a datagram at `now`. It is part of the trace, whatever becomes of it.
    pub(crate) fn send(&mut self, now: Duration, from: HostId, datagram: Outgoing) {
        let Some(own) = self.address(from) else {
            return;
        };
        let Outgoing { to, ecn, payload, source } = datagram;
        let source = source.unwrap_or(own);
        self.trace.datagram(now, source, to, &payload);
        let Some(host) = self.addresses.get(&to).copied() else {
            self.unroutable += 1;
            return;
        };
        let copies = self.direction(from, host).pass(now, payload.len());
        for arrival in copies.into_iter().flatten() {
            let payload = damage(payload.clone(), &arrival);
            self.push(arrival.at, Packet::Datagram(Datagram { source, destination: to, ecn, payload }));
        }
    }

    fn push(&mut self, at: Duration, packet: Packet) {
        self.sequence += 1;
        self.queue.push(InFlight { at, sequence: self.sequence, packet });
    }

    pub(crate) fn push_segment(&mut self, at: Duration, addressed: Addressed) {
        self.push(at, Packet::Segment(addressed));
    }

    /// When the next packet arrives, or TCP does something by itself.
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        let arrival = self.queue.peek().map(|next| next.at);
        [arrival, self.tcp.next_timer()].into_iter().flatten().min()
    }

    /// The next datagram that has arrived by `now`, and whose address somebody still has. What has come for TCP is done on the way.
    pub(crate) fn receive(&mut self, now: Duration) -> Option<(HostId, Datagram)> {
        while self.queue.peek()?.at <= now {
            let datagram = match self.queue.pop()?.packet {
                Packet::Datagram(datagram) => datagram,
                Packet::Segment(addressed) => {
                    self.receive_segment(now, addressed);
                    continue;
                }
            };
            if let Some(host) = self.addresses.get(&datagram.destination) {
                return Some((*host, datagram));
            }
            self.unroutable += 1;
        }
        None
    }

    pub(crate) fn direction(&mut self, from: HostId, to: HostId) -> &mut Direction {
        let (seed, default) = (self.seed, &self.default);
        self.directions.entry((from, to)).or_insert_with(|| {
            let index = ((from.0 as u64) << 32) | to.0 as u64;
            Direction::new(default.clone(), Random::new(seed, "link", index))
        })
    }
}

/// A datagram that a host wants to send.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) to: SocketAddr,
    pub(crate) ecn: Option<u8>,
    pub(crate) payload: Bytes,
    /// Where it says that it comes from, if that is not its own address.
    pub(crate) source: Option<SocketAddr>,
}

/// Flips the bits that the link damaged. Different draws may hit the same bit and cancel out.
fn damage(payload: Bytes, arrival: &Arrival) -> Bytes {
    if arrival.flips == 0 || payload.is_empty() {
        return payload;
    }
    let mut bytes = BytesMut::from(&payload[..]);
    for position in &arrival.positions[..arrival.flips] {
        let bit = position % (bytes.len() as u64 * 8);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 4001))
    }

    fn net() -> Net {
        let mut net = Net::new(1, Trace::default());
        net.bind(HostId(0), address(1));
        net.bind(HostId(1), address(2));
        net
    }

    fn send(net: &mut Net, now: Duration, to: SocketAddr, payload: &'static [u8]) {
        let payload = Bytes::from_static(payload);
        net.send(now, HostId(0), Outgoing { to, ecn: None, payload, source: None });
    }

    #[test]
    fn equal_times_keep_the_order_of_sending() {
        let mut net = net();
        for payload in [b"a", b"b", b"c"] {
            send(&mut net, MS, address(2), payload);
        }
        assert!(net.receive(10 * MS).is_none());
        let got: Vec<_> = std::iter::from_fn(|| net.receive(11 * MS)).map(|(host, datagram)| (host, datagram.payload)).collect();
        let wanted = [b"a", b"b", b"c"].map(|p| (HostId(1), Bytes::from_static(p)));
        assert_eq!(got, wanted);
    }

    #[test]
    fn what_is_sent_to_an_old_address_vanishes() {
        let mut net = net();
        send(&mut net, MS, address(2), b"under way");
        net.bind(HostId(1), address(9));
        send(&mut net, MS, address(2), b"too late");
        send(&mut net, MS, address(9), b"right");
        let (_, datagram) = net.receive(20 * MS).expect("one arrives");
        assert_eq!(&datagram.payload[..], b"right");
        assert!(net.receive(20 * MS).is_none());
        assert_eq!(net.unroutable(), 2);
    }

    #[test]
    fn corruption_changes_bits_but_never_the_length() {
        let mut net = net();
        net.set(HostId(0), HostId(1), Link::default().corrupt(1.0));
        let mut changed = 0;
        for _ in 0..100 {
            send(&mut net, MS, address(2), b"0123456789");
        }
        while let Some((_, datagram)) = net.receive(20 * MS) {
            assert_eq!(datagram.payload.len(), 10);
            changed += u32::from(&datagram.payload[..] != b"0123456789");
        }
        assert!(changed > 95, "{changed} of 100");
    }

    #[test]
    fn a_partition_cuts_both_ways_until_it_heals() {
        let mut net = net();
        net.set_up(HostId(0), HostId(1), false);
        send(&mut net, MS, address(2), b"lost");
        net.set_up(HostId(0), HostId(1), true);
        send(&mut net, MS, address(2), b"passes");
        let (_, datagram) = net.receive(20 * MS).expect("one arrives");
        assert_eq!(&datagram.payload[..], b"passes");
        assert_eq!(net.counters(HostId(0), HostId(1)).cut, 1);
    }
}
