//! Slots: who may have one, and who has to give one up. The rule itself is in [`crate::evict`]; why it is so: `docs/admission.md`.
//!
//! A stranger's handshake has a place of its own beside the slots, so a full node can still be reached. Only when it is complete, and an
//! identity proved, does it ask for a slot.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;
use ring::hmac;

use super::Node;
use super::role::Role;
use super::state::{ConnState, Phase};
use crate::abuse::Offence;
use crate::env::Random;
use crate::error::{Closed, DialError, TooManyProtected};
use crate::evict::{Candidate, Idleness, ask_again_in, choose_victim, network_group};
use crate::proto::pace::deadline;

/// RESOURCE_LIMIT_EXCEEDED of libp2p's error codes: come back later. Who does not know it sees an ordinary close.
pub const CODE_NO_ROOM: u32 = 0x1001;
/// GARBAGE_COLLECTED of libp2p's error codes: the connection was not in use and its place was needed.
pub(super) const CODE_DISPLACED: u32 = 0x1005;

/// Who has the slots.
pub(super) struct Slots {
    /// Established ones that others began.
    inbound: u32,
    /// Those that we dialled, established or not.
    outbound: u32,
    /// Peers that the application protects.
    protected: BTreeSet<PeerId>,
    /// Until then nobody can be displaced, as the last look has shown: strangers are refused at their first packet.
    shut_until: Option<Instant>,
    key: hmac::Key,
}

/// What a peer was good for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Use {
    /// When it last gave us something that we had asked for.
    gave: Option<Instant>,
    /// When it was last served something that it had asked for.
    served: Option<Instant>,
}

impl Use {
    /// Notes that bytes of a stream have moved. Only those count that the application has agreed to: neither libp2p's own protocols, nor
    /// pings, nor requests that are still on their way.
    pub(super) fn note(&mut self, now: Instant, role: Role, bytes_in: u64, bytes_out: u64) {
        match role {
            Role::Client { .. } | Role::RawOut { .. } if bytes_in > 0 => self.gave = Some(now),
            Role::Server { told: true, .. } | Role::Subscriber { topic: Some(_), .. } if bytes_out > 0 => self.served = Some(now),
            Role::RawIn { .. } | Role::RawOut { .. } if bytes_in > 0 || bytes_out > 0 => self.served = Some(now),
            _ => {}
        }
    }

    /// Whether nothing was ever exchanged.
    pub(super) fn is_none(&self) -> bool {
        self.gave.is_none() && self.served.is_none()
    }
}

impl Slots {
    pub(super) fn new(random: &mut Random) -> Slots {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random.seed());
        Slots { inbound: 0, outbound: 0, protected: BTreeSet::new(), shut_until: None, key }
    }

    pub(super) fn taken(&self) -> u32 {
        self.inbound.saturating_add(self.outbound)
    }

    /// Whether the application protects a peer.
    pub(super) fn protects(&self, peer: &PeerId) -> bool {
        self.protected.contains(peer)
    }

    pub(super) fn take(&mut self, dialled: bool) {
        let count = if dialled { &mut self.outbound } else { &mut self.inbound };
        *count = count.saturating_add(1);
    }

    pub(super) fn free(&mut self, dialled: bool) {
        let count = if dialled { &mut self.outbound } else { &mut self.inbound };
        *count = count.saturating_sub(1);
        self.shut_until = None;
    }

    fn group(&self, address: IpAddr) -> u64 {
        let tag = hmac::sign(&self.key, &network_group(address));
        tag.as_ref().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

impl Node {
    /// Keeps a slot for the newest connection of `peer`, now and whenever it connects: no newcomer displaces it. Not given up before
    /// [`unprotect`](Self::unprotect).
    ///
    /// # Errors
    /// [`TooManyProtected`]: nothing has changed.
    pub fn protect(&mut self, peer: PeerId) -> Result<(), TooManyProtected> {
        let max = self.config.limits.protected_max();
        let protected = &mut self.slots.protected;
        if !protected.contains(&peer) && protected.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(TooManyProtected { max });
        }
        protected.insert(peer);
        Ok(())
    }

    /// Ends [`protect`](Self::protect).
    pub fn unprotect(&mut self, peer: &PeerId) {
        self.slots.protected.remove(peer);
        self.slots.shut_until = None;
    }

    /// Whether an inbound connection more has a free slot.
    fn has_inbound_slot(&self) -> bool {
        let limits = &self.config.limits;
        let kept = limits.outbound_min().saturating_sub(self.slots.outbound);
        self.slots.taken().saturating_add(kept) < limits.connections_max
    }

    /// Whether there is a slot for one more dial.
    pub(super) fn may_dial(&self) -> bool {
        let limits = &self.config.limits;
        let kept = limits.inbound_min().saturating_add(limits.protected_max());
        self.slots.taken() < limits.connections_max && self.slots.outbound < limits.connections_max.saturating_sub(kept)
    }

    /// Whether a stranger's first packet may begin a handshake.
    pub(super) fn may_greet(&self, now: Instant) -> bool {
        self.live < self.greetings_end() && !self.is_shut(now)
    }

    /// From so many connections on, those that say goodbye included, no stranger's handshake begins.
    pub(super) fn greetings_end(&self) -> usize {
        let limits = &self.config.limits;
        let kept = limits.outbound_min().saturating_sub(self.slots.outbound);
        usize::try_from(limits.places().saturating_sub(kept)).unwrap_or(usize::MAX)
    }

    /// Whether a stranger who proved its identity could have no slot now, as the last look has shown.
    pub(super) fn is_shut(&self, now: Instant) -> bool {
        !self.has_inbound_slot() && self.slots.shut_until.is_some_and(|until| now < until)
    }

    /// A stranger in `newcomer` has proved its identity. True when it has a slot now, if need be somebody else's; false when it was
    /// closed for want of one.
    pub(super) fn find_slot(&mut self, now: Instant, newcomer: usize) -> bool {
        if self.has_inbound_slot() {
            return true;
        }
        let (slots, candidates): (Vec<usize>, Vec<Candidate>) = self.candidates(now).unzip();
        let victim = choose_victim(&candidates);
        if let Some((slot, candidate)) = victim.and_then(|at| slots.get(at).zip(candidates.get(at))) {
            self.displace(now, *slot, candidate.idleness());
            return true;
        }
        self.slots.shut_until = Some(deadline(now, ask_again_in(&candidates)));
        let totals = &mut self.counters.totals;
        totals.refused_full = totals.refused_full.saturating_add(1);
        self.end_conn(now, newcomer, Closed::Here("every slot is taken by peers in use"), DialError::Full("slots"));
        self.close_transport(now, newcomer, CODE_NO_ROOM, "no room: every slot is in use");
        false
    }

    /// Every connection that may be displaced, with its slot.
    fn candidates(&self, now: Instant) -> impl Iterator<Item = (usize, Candidate)> {
        self.conns.iter().flatten().filter(|conn| !conn.dialled).filter_map(move |conn| {
            let Phase::Open(peer) = conn.phase else {
                return None;
            };
            let slot = usize::try_from(conn.id.slot).ok()?;
            let newest = self.peers.get(&peer).and_then(|slots| slots.last()) == Some(&slot);
            let protected = newest && self.slots.protected.contains(&peer);
            (!protected).then(|| (slot, self.candidate(now, conn)))
        })
    }

    fn candidate(&self, now: Instant, conn: &ConnState) -> Candidate {
        let ago = |at: Instant| now.saturating_duration_since(at);
        Candidate {
            admitted: ago(conn.since),
            gave: conn.usage.gave.map(ago),
            served: conn.usage.served.map(ago),
            rtt: conn.quic.rtt().max(Duration::from_micros(1)),
            group: self.slots.group(conn.quic.remote().ip()),
        }
    }

    fn displace(&mut self, now: Instant, slot: usize, idleness: Idleness) {
        if idleness == Idleness::Never {
            self.accuse(now, slot, Offence::Squatting, 0);
        }
        let totals = &mut self.counters.totals;
        let count = match idleness {
            Idleness::Never => &mut totals.displaced_never_used,
            Idleness::Idle => &mut totals.displaced_idle,
            Idleness::Served => &mut totals.displaced_served,
        };
        *count = count.saturating_add(1);
        self.end_conn(now, slot, Closed::Here("a newcomer needed its place"), DialError::Closing);
        self.close_transport(now, slot, CODE_DISPLACED, "displaced: the place was needed and this connection idle");
    }
}
