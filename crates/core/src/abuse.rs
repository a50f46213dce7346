//! Evidence of abuse, for firewalls: who did what, how often, since when. Nothing is blocked here; `docs/abuse-feed.md` has it field by field.
//!
//! Whatever attackers do, the tables stay within their caps and what is told within a rate: occurrences are merged by who and what over an
//! interval, and are told when it is over. Where a table is full, the one that did the least makes room and is counted among the
//! [others](Offender::Others); so those who do much are named, however many do little. The three kinds of names have a table each, so that no
//! forged address pushes out an identity.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;

use crate::budget::Grant;

/// Bytes of one entry: a name, its numbers, and its part of a map that is half full.
pub const ABUSE_ENTRY_BYTES: u64 = 384;

macro_rules! offences {
    ($($(#[$doc:meta])* $name:ident $text:literal from $least:literal;)*) => {
        /// What somebody did. The set is fixed: no word of a remote is ever in a record.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Offence {
            $($(#[$doc])* $name,)*
        }

        impl Offence {
            /// All of them.
            pub const ALL: &'static [Offence] = &[$(Offence::$name,)*];

            /// Its name for logs, such as `churn`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Offence::$name => $text,)*
                }
            }

            /// So often within an interval it has to happen before somebody is named for it: below, it happens to honest peers too.
            pub fn least(self) -> u64 {
                match self {
                    $(Offence::$name => $least,)*
                }
            }
        }
    };
}

offences! {
    /// First packets beyond the rate, the queue or the places of strangers. Each handshake that is completed from the same address makes up for
    /// [`FORGIVEN`] of them: many honest peers may share it.
    StrangerFlood "stranger_flood" from 64;
    /// First packets that cannot be opened.
    BadPacket "bad_packet" from 8;
    /// Handshakes that were not complete within their deadline, or stood still when their place was needed.
    HandshakeStalled "handshake_stalled" from 4;
    /// Handshakes that broke a rule: a wrong certificate, signature or parameter.
    HandshakeBroken "handshake_broken" from 4;
    /// Handshakes that were ended by the other side, or by silence.
    HandshakeAbandoned "handshake_abandoned" from 16;
    /// Connections that were ended by the other side within seconds, with nothing ever exchanged.
    Churn "churn" from 16;
    /// Packets beyond what a connection's queue holds: congestion control would have kept them back.
    PacketFlood "packet_flood" from 1024;
    /// Bytes on a connection that fail its authentication.
    BadSeal "bad_seal" from 1;
    /// A rule of the transport was broken: QUIC or Yamux frames that must not be.
    ProtocolViolation "protocol_violation" from 1;
    /// A message that its protocol does not know at this point, or that was cut off.
    Malformed "malformed" from 1;
    /// A message above its protocol's limit was announced or sent.
    Oversized "oversized" from 1;
    /// A message or a negotiation that stood still.
    Stalled "stalled" from 2;
    /// Streams given up by the side that opened them.
    ResetFlood "reset_flood" from 512;
    /// The address of a connection has changed more often than is answered.
    AddressFlood "address_flood" from 1;
    /// A slot was held and never used, until somebody else needed it.
    Squatting "squatting" from 1;
    /// More connections than one identity may have.
    SurplusConnections "surplus_connections" from 4;
}

/// A completed handshake makes up for so many first packets that were too many.
pub const FORGIVEN: u64 = 64;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Offender {
    /// An identity: what it did was authenticated. Identities cost nothing; the address that it came from is beside it in the record.
    Peer(PeerId),
    /// An address that has proved that it receives what is sent to it. IPv6: the /64 that it is in, with zeros behind.
    Address(IpAddr),
    /// An address as it stands in a packet. Anybody can have forged it.
    Forgeable(IpAddr),
    /// All that could not be named: each did little, or there were too many.
    Others,
}

impl Offender {
    /// An address of which it is known whether it was `proved`.
    pub fn at(address: IpAddr, proved: bool) -> Offender {
        let network = match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 => v4,
        };
        if proved { Offender::Address(network) } else { Offender::Forgeable(network) }
    }
}

/// One offence of one offender within an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbuseRecord {
    /// Who.
    pub who: Offender,
    /// What.
    pub what: Offence,
    /// How often.
    pub count: u64,
    /// Bytes of the datagrams or messages that it was done with, as far as is known; of an oversized message what was announced.
    pub bytes: u64,
    /// Where the handshake of an identity was completed from. Nobody can forge that.
    pub address: Option<SocketAddr>,
    /// The first time, since 1970-01-01T00:00:00Z.
    pub first: Duration,
    /// The last time.
    pub last: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    count: u64,
    bytes: u64,
    address: Option<SocketAddr>,
    first: Instant,
    last: Instant,
}

impl Entry {
    fn absorb(&mut self, other: &Entry) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.first = self.first.min(other.first);
        if other.last >= self.last {
            self.last = other.last;
            self.address = other.address;
        }
    }
}

/// Entries of one kind of name.
type Named = BTreeMap<(Offender, Offence), Entry>;

/// One table: three kinds of names, and what has none.
#[derive(Debug, Default)]
struct Table {
    peers: Named,
    addresses: Named,
    forgeable: Named,
    others: BTreeMap<Offence, Entry>,
}

impl Table {
    fn of(&mut self, who: &Offender) -> Option<&mut Named> {
        match who {
            Offender::Peer(_) => Some(&mut self.peers),
            Offender::Address(_) => Some(&mut self.addresses),
            Offender::Forgeable(_) => Some(&mut self.forgeable),
            Offender::Others => None,
        }
    }

    /// Adds, with at most `max` entries of each kind.
    fn add(&mut self, who: Offender, what: Offence, entry: Entry, max: usize) {
        let mut rest = Some((what, entry));
        if let Some(named) = self.of(&who) {
            if let Some(known) = named.get_mut(&(who, what)) {
                return known.absorb(&entry);
            }
            // Of a full table the one that did the least, and of these the one that did nothing for the longest.
            let full = named.len() >= max;
            let least = named.iter().min_by_key(|(_, entry)| (entry.count, entry.last)).map(|(key, _)| *key).filter(|_| full);
            let gone = least.and_then(|key| named.remove(&key).map(|entry| (key.1, entry)));
            if named.len() < max {
                named.insert((who, what), entry);
                rest = gone;
            }
        }
        if let Some((what, entry)) = rest {
            let entry = Entry { address: None, ..entry };
            self.others.entry(what).and_modify(|known| known.absorb(&entry)).or_insert(entry);
        }
    }

    fn len(&self) -> usize {
        [self.peers.len(), self.addresses.len(), self.forgeable.len(), self.others.len()]
            .iter()
            .fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Everything, the names first: those who did too little to be named are among the others by then.
    fn drain(&mut self) -> impl Iterator<Item = (Offender, Offence, Entry)> {
        let Table { peers, addresses, forgeable, mut others } = std::mem::take(self);
        let mut named = Vec::new();
        for ((who, what), entry) in peers.into_iter().chain(addresses).chain(forgeable) {
            if entry.count >= what.least() {
                named.push((who, what, entry));
            } else {
                let entry = Entry { address: None, ..entry };
                others.entry(what).and_modify(|known| known.absorb(&entry)).or_insert(entry);
            }
        }
        let others = others.into_iter().filter(|(what, entry)| entry.count >= what.least());
        named.into_iter().chain(others.map(|(what, entry)| (Offender::Others, what, entry)))
    }
}

/// What a node has noticed and not told yet.
#[derive(Debug)]
pub(crate) struct Abuse {
    /// Names of one kind, at most.
    max: usize,
    interval: Duration,
    /// This interval's.
    current: Table,
    began: Option<Instant>,
    /// Those of intervals that are over.
    over: Table,
    told: Option<Instant>,
    /// For both tables. The floor of its account is what they can have at the most, so it always grows.
    grant: Grant,
}

impl Abuse {
    /// With at most `max` names of each kind, and `grant` for what they take.
    pub(crate) fn new(max: u32, interval: Duration, grant: Grant) -> Abuse {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Abuse { max, interval, current: Table::default(), began: None, over: Table::default(), told: None, grant }
    }

    /// Entries that the tables can have, with so many names of each kind.
    pub(crate) fn entries_max(max: u32) -> u64 {
        u64::from(max).saturating_mul(3).saturating_add(Offence::ALL.len() as u64).saturating_mul(2)
    }

    /// Notes that somebody did something. O(log n), and O(n) for a name that is new to a full table, n being its cap.
    pub(crate) fn note(&mut self, now: Instant, who: Offender, what: Offence, bytes: u64, address: Option<SocketAddr>) {
        self.turn_over(now);
        self.began.get_or_insert(now);
        self.current.add(who, what, Entry { count: 1, bytes, address, first: now, last: now }, self.max);
        self.account();
    }

    fn account(&mut self) {
        let _ = self.grant.resize(self.held());
    }

    /// A handshake was completed from an address: what was sent from there beyond the rate may have been honest.
    pub(crate) fn forgive(&mut self, address: IpAddr) {
        for proved in [false, true] {
            let who = Offender::at(address, proved);
            let key = (who, Offence::StrangerFlood);
            if let Some(named) = self.current.of(&who)
                && let Some(entry) = named.get_mut(&key)
            {
                entry.count = entry.count.saturating_sub(FORGIVEN);
                if entry.count == 0 {
                    named.remove(&key);
                }
            }
        }
        self.account();
    }

    /// Closes the interval, if it is over.
    fn turn_over(&mut self, now: Instant) {
        if self.began.is_some_and(|began| now.saturating_duration_since(began) >= self.interval) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.began = None;
        for (who, what, entry) in self.current.drain() {
            self.over.add(who, what, entry, self.max);
        }
    }

    /// What is to be told at `now`: nothing before the interval since the last time is over, and each name at most once. With `rest`
    /// everything, once, because nobody will ask again.
    pub(crate) fn take(&mut self, now: Instant, unix_time: Duration, rest: bool) -> Vec<AbuseRecord> {
        self.turn_over(now);
        if rest {
            self.close();
        } else if self.told.is_some_and(|told| now.saturating_duration_since(told) < self.interval) {
            return Vec::new();
        }
        let date = |at: Instant| unix_time.saturating_sub(now.saturating_duration_since(at));
        let record = |(who, what, entry): (Offender, Offence, Entry)| AbuseRecord {
            who,
            what,
            count: entry.count,
            bytes: entry.bytes,
            address: entry.address,
            first: date(entry.first),
            last: date(entry.last),
        };
        let records: Vec<AbuseRecord> = self.over.drain().map(record).collect();
        if !records.is_empty() {
            self.told = Some(now);
        }
        self.account();
        records
    }

    /// Entries in both tables.
    pub(crate) fn len(&self) -> usize {
        self.current.len().saturating_add(self.over.len())
    }

    /// Bytes of both tables.
    pub(crate) fn held(&self) -> u64 {
        (self.len() as u64).saturating_mul(ABUSE_ENTRY_BYTES)
    }

    /// Bytes granted for them.
    pub(crate) fn granted(&self) -> u64 {
        self.grant.bytes()
    }
}

#[cfg(test)]
#[path = "abuse_tests.rs"]
mod tests;
