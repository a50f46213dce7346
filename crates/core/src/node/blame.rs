//! Who broke a rule, and what of that was authenticated: only this is held against an identity. All else is an address's, and where nothing
//! shows that it receives what is sent to it, it is marked as one that can be forged. The tables are in [`crate::abuse`].

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;

use super::Node;
use super::state::Phase;
use crate::abuse::{AbuseRecord, Offence, Offender};
use crate::conn::event::{Blame, Lost};
use crate::error::{Breach, Closed, RequestError};

/// A connection that the other side ends so soon, and that was of no use, was made for nothing.
const CHURN_WITHIN: Duration = Duration::from_secs(10);

impl Node {
    /// What there is to tell of abuse: nothing before [`Limits::abuse_interval`](crate::Limits::abuse_interval) is over, then what happened in
    /// it, merged; each record is told once. If nobody asks, it goes on being merged within the same bounds.
    pub fn abuse(&mut self, now: Instant) -> Vec<AbuseRecord> {
        self.abuse.take(now, self.wall.unix_time(), false)
    }

    /// The same, of an interval that is not over too: for when nobody will ask again.
    pub fn abuse_rest(&mut self, now: Instant) -> Vec<AbuseRecord> {
        self.abuse.take(now, self.wall.unix_time(), true)
    }

    /// Something was done from an address. `proved`: it was shown that it receives what is sent to it.
    pub(super) fn accuse_address(&mut self, now: Instant, address: IpAddr, proved: bool, what: Offence, bytes: usize) {
        self.abuse.note(now, Offender::at(address, proved), what, bytes as u64, None);
    }

    /// An identity did something that was authenticated.
    pub(super) fn accuse_peer(&mut self, now: Instant, peer: PeerId, address: SocketAddr, what: Offence, bytes: u64) {
        self.abuse.note(now, Offender::Peer(peer), what, bytes, Some(address));
    }

    /// The same of the identity in `slot`, if it has proved it.
    pub(super) fn accuse(&mut self, now: Instant, slot: usize, what: Offence, bytes: u64) {
        let known = self.conn(slot).and_then(|conn| match conn.phase {
            Phase::Open(peer) => Some((peer, conn.home.unwrap_or(conn.quic.remote()))),
            _ => None,
        });
        if let Some((peer, address)) = known {
            self.accuse_peer(now, peer, address, what, bytes);
        }
    }

    /// A protocol was broken on a stream.
    pub(super) fn accuse_breach(&mut self, now: Instant, slot: usize, breach: Breach) {
        let (what, bytes) = match breach {
            Breach::TooLarge { len, .. } => (Offence::Oversized, len),
            Breach::Cut | Breach::Malformed(_) => (Offence::Malformed, 0),
            Breach::Slow => (Offence::Stalled, 0),
            Breach::Reset(_) => (Offence::ResetFlood, 0),
        };
        self.accuse(now, slot, what, bytes);
    }

    /// What a request of ours came to.
    pub(super) fn accuse_reply(&mut self, now: Instant, slot: usize, error: &RequestError) {
        match error {
            RequestError::Broken(breach) => self.accuse_breach(now, slot, *breach),
            RequestError::Stalled { got, .. } => self.accuse(now, slot, Offence::Stalled, *got),
            _ => {}
        }
    }

    /// A connection has ended, before its end is told.
    pub(super) fn accuse_lost(&mut self, now: Instant, slot: usize, lost: &Lost) {
        let Some(conn) = self.conn(slot) else {
            return;
        };
        let address = conn.home.unwrap_or(conn.quic.remote()).ip();
        match conn.phase {
            Phase::Greeting => {
                let what = match (lost.breach, &lost.closed) {
                    (Blame::Nobody, Closed::Here(_)) => Offence::HandshakeStalled,
                    (Blame::Nobody, _) => Offence::HandshakeAbandoned,
                    _ => Offence::HandshakeBroken,
                };
                let (proved, bytes) = (conn.proved, usize::try_from(conn.wire_in).unwrap_or(usize::MAX));
                self.accuse_address(now, address, proved, what, bytes);
            }
            Phase::Open(_) => {
                let (soon, useless) = (now.saturating_duration_since(conn.since) < CHURN_WITHIN, conn.usage.is_none());
                let left = matches!(lost.closed, Closed::There { .. } | Closed::Broken(_)) && !conn.dialled;
                match lost.breach {
                    Blame::Peer => self.accuse(now, slot, Offence::ProtocolViolation, 0),
                    Blame::Anybody => self.accuse_address(now, address, true, Offence::BadSeal, 0),
                    Blame::Nobody if left && soon && useless => self.accuse_address(now, address, true, Offence::Churn, 0),
                    Blame::Nobody => {}
                }
            }
            Phase::Dialling(_) | Phase::Closed => {}
        }
    }
}
