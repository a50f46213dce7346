//! What a node is in the middle of, for gauges, pages and explanations. Nothing changes by looking.

use std::time::Instant;

use libp2p_identity::PeerId;

use super::Node;
use super::role::Role;
use super::state::{ConnState, Phase};
use crate::report::{ConnectionNow, Now, PeerNow, StreamsNow};

impl Node {
    /// What there is, in numbers. The time is in proportion to the streams.
    pub fn now(&self) -> Now {
        let limits = &self.config.limits;
        let mut now = Now {
            peers: self.peers.len() as u64,
            handshakes: self.places.taken().into(),
            handshakes_max: limits.handshakes_max.into(),
            slots: self.slots.taken().into(),
            slots_max: limits.connections_max.into(),
            memory: self.ledger.committed(),
            memory_max: self.ledger.budget(),
            memory_held: self.held(),
            starved: self.starved.len() as u64,
            book: self.book.bytes(),
            book_max: self.book.bytes_max(),
            subscriptions: self.topics.subscribers() as u64,
            closing: self.closing,
            ..Now::default()
        };
        let [quic, tcp] = &mut now.connections;
        for conn in self.conns.iter().flatten() {
            now.streams = now.streams.saturating_add(conn.streams.len() as u64);
            if matches!(conn.phase, Phase::Open(_)) {
                let count = if conn.quic.is_quic() { &mut *quic } else { &mut *tcp };
                *count = count.saturating_add(1);
            }
        }
        now
    }

    /// What there is to say of a peer, if it is connected. The time is in proportion to its streams.
    pub fn peer_now(&self, at: Instant, peer: &PeerId) -> Option<PeerNow> {
        let slots = self.peers.get(peer)?;
        let connections = slots.iter().filter_map(|slot| self.conn(*slot)).map(|conn| connection(at, conn)).collect();
        let agent = self.identity(peer).map(|identity| identity.agent.clone());
        Some(PeerNow { peer: *peer, agent, protected: self.slots.protects(peer), connections })
    }
}

fn connection(at: Instant, conn: &ConnState) -> ConnectionNow {
    let ago = |then: Instant| at.saturating_duration_since(then);
    ConnectionNow {
        carrier: conn.carrier(),
        address: conn.address(),
        dialled: conn.dialled,
        age: ago(conn.since),
        silent: ago(conn.heard),
        rtt: conn.quic.rtt(),
        bytes_in: conn.bytes_in,
        bytes_out: conn.bytes_out,
        granted: conn.account.granted(),
        granted_max: conn.account.max(),
        starved: conn.starved,
        retired: conn.retired.is_some(),
        kept_short: conn.calm.enough(),
        streams: streams(conn),
    }
}

pub(super) fn streams(conn: &ConnState) -> StreamsNow {
    let mut now = StreamsNow { all: conn.streams.len() as u64, ..StreamsNow::default() };
    let count = |count: &mut u64, is: bool| *count = count.saturating_add(is.into());
    for (_, stream) in &conn.streams {
        count(&mut now.to_open, stream.number.is_none());
        count(&mut now.queued, matches!(stream.role, Role::Queued));
        if stream.number.is_some() && !stream.queued && !matches!(stream.role, Role::Queued) {
            count(&mut now.resting, stream.rests());
            count(&mut now.for_peer, stream.waits.peer && !stream.rests());
            count(&mut now.for_room, stream.waits.room);
            count(&mut now.for_memory, stream.waits.memory);
            count(&mut now.for_app, stream.waits.app);
        }
    }
    now
}
