//! Datagrams in: what belongs to a connection waits in its queue for its turn; what is a stranger's waits in the strangers'.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use bytes::BytesMut;
use libp2p_identity::PeerId;

use super::state::{Arrived, ConnId, ConnState, Inbox, Phase, Start};
use super::{Node, STRANGERS};
use crate::abuse::Offence;
use crate::conn::quic::{Arrival, Claim, Inbound, Meta, Quic, SocketId, Stranger, Transmit};
use crate::conn::transport::Transport;
use crate::error::{Closed, DialError};
use crate::limits::{DATAGRAM_OVERHEAD_BYTES, HANDSHAKE_PACKET_WORK, Limits, PACKET_WORK};
use crate::node::credit::Credit;
use crate::node::{Event, member};
use crate::proto::pace::deadline;
use crate::report::Carrier;
use crate::wake::{Key, Why};

/// Answers that belong to no connection wait here; more are dropped, since strangers ask again.
pub(super) const ANSWERS_MAX: usize = 64;

/// No QUIC packet of a connection is shorter: its flags, an id, a number and a tag (RFC 9000 section 10.3).
const PACKET_BYTES_MIN: usize = 21;

/// What a connection gets when it is admitted.
pub(super) type Admitted = (std::sync::Arc<crate::budget::Account>, Credit, Inbox);

/// Everybody whose identity is not known.
pub(super) struct Strangers {
    /// First packets of those of whom nothing is known.
    new: Queue,
    /// Packets of those who have a token of ours.
    returning: Queue,
    /// Connections whose handshake is under way and that have something to do.
    pub(super) ring: VecDeque<usize>,
    /// Whether the next packet is a new one's, if there is one.
    new_is_next: bool,
    /// First packets that may be opened now, in millionths.
    tokens: u64,
    filled: Instant,
}

/// Datagrams that wait.
#[derive(Default)]
struct Queue {
    datagrams: VecDeque<(Instant, Meta, BytesMut)>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, now: Instant, meta: Meta, data: BytesMut, cap: u64) -> bool {
        let bytes = self.bytes.saturating_add(datagram_cost(&data));
        if bytes > cap {
            return false;
        }
        self.bytes = bytes;
        self.datagrams.push_back((now, meta, data));
        true
    }

    fn pop(&mut self) -> Option<(Instant, Meta, BytesMut)> {
        let entry = self.datagrams.pop_front()?;
        self.bytes = self.bytes.saturating_sub(datagram_cost(&entry.2));
        Some(entry)
    }
}

fn datagram_cost(data: &BytesMut) -> u64 {
    (data.capacity() as u64).saturating_add(DATAGRAM_OVERHEAD_BYTES)
}

impl Strangers {
    pub(super) fn new(limits: &Limits, now: Instant) -> Strangers {
        let (new, returning) = (Queue::default(), Queue::default());
        Strangers { new, returning, ring: VecDeque::new(), new_is_next: true, tokens: burst(limits), filled: now }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.new.bytes.saturating_add(self.returning.bytes)
    }

    /// The next datagram, and whether it is of somebody of whom nothing is known: by turns with those who have a token, so that neither
    /// can keep the other out.
    fn pop(&mut self) -> Option<(bool, (Instant, Meta, BytesMut))> {
        let is_new = if self.new_is_next { !self.new.datagrams.is_empty() } else { self.returning.datagrams.is_empty() };
        let entry = if is_new { self.new.pop() } else { self.returning.pop() }?;
        self.new_is_next = !is_new;
        Some((is_new, entry))
    }

    /// Takes one token of the bucket.
    fn pay(&mut self, now: Instant, limits: &Limits) -> bool {
        let passed = u64::try_from(now.saturating_duration_since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(u64::from(limits.strangers_per_second));
        self.tokens = self.tokens.saturating_add(earned).min(burst(limits));
        self.filled = now;
        match self.tokens.checked_sub(1_000_000) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }

    fn has_work(&self) -> bool {
        !self.new.datagrams.is_empty() || !self.returning.datagrams.is_empty() || !self.ring.is_empty()
    }
}

fn burst(limits: &Limits) -> u64 {
    u64::from(limits.handshakes_max).saturating_mul(2_000_000)
}

impl Node {
    /// Takes a datagram. Cannot fail: what cannot be used or kept is loss, and counted.
    pub fn handle_datagram(&mut self, now: Instant, meta: Meta, data: BytesMut) {
        let totals = &mut self.counters.totals;
        totals.datagrams_in = totals.datagrams_in.saturating_add(1);
        totals.datagram_bytes_in = totals.datagram_bytes_in.saturating_add(data.len() as u64);
        let (remote, bytes) = (meta.remote.ip(), data.len());
        // Each kind has a half: those whose addresses are false cannot keep those out who have proved theirs.
        let cap = self.strangers_account.max() / 2;
        let kept = match self.quic.claim(&data) {
            Claim::Connection => {
                self.route(now, meta, data, false);
                if bytes < PACKET_BYTES_MIN {
                    self.accuse_address(now, remote, false, Offence::BadPacket, bytes);
                }
                return;
            }
            // A handshake costs what nobody has turns for yet, so it waits for the strangers' turn.
            Claim::Returning => self.strangers.returning.push(now, meta, data, cap),
            Claim::Stranger => self.strangers.new.push(now, meta, data, cap),
        };
        if kept {
            self.turns.activate(STRANGERS);
        } else {
            self.drop_stranger(now, remote, bytes);
        }
    }

    /// A stranger's datagram is one too many.
    fn drop_stranger(&mut self, now: Instant, remote: IpAddr, bytes: usize) {
        self.counters.totals.strangers_dropped = self.counters.totals.strangers_dropped.saturating_add(1);
        self.accuse_address(now, remote, false, Offence::StrangerFlood, bytes);
    }

    /// Looks up whose a datagram is, and begins a handshake if it is a stranger's that `may_begin` one. Returns the work of that. `at` is when
    /// it arrived.
    fn route(&mut self, at: Instant, meta: Meta, data: BytesMut, may_begin: bool) -> u64 {
        let mut buffer = Vec::new();
        match self.quic.handle(at, meta, data, &mut buffer) {
            Arrival::Nothing => {
                self.counters.totals.dropped_unknown = self.counters.totals.dropped_unknown.saturating_add(1);
            }
            Arrival::Response(transmit) => self.answer(transmit, buffer),
            Arrival::Conn(slot, inbound) => self.enqueue(at, slot, inbound),
            Arrival::Stranger(stranger) => return self.decide(at, meta.socket, stranger, may_begin),
        }
        0
    }

    fn enqueue(&mut self, now: Instant, slot: usize, inbound: Inbound) {
        let (remote, bytes) = (inbound.meta.remote.ip(), inbound.bytes);
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        if conn.inbox.push(Arrived::Datagram(inbound), &self.config.limits) {
            self.activate(slot);
        } else {
            self.counters.totals.dropped_full = self.counters.totals.dropped_full.saturating_add(1);
            conn.trace_dropped(now, bytes, "too many wait for this node's turn");
            // Nobody has looked whether it is really of that connection's peer.
            self.accuse_address(now, remote, false, Offence::PacketFlood, bytes);
        }
    }

    pub(super) fn answer(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push_back((transmit, bytes));
        } else {
            self.counters.totals.answers_dropped = self.counters.totals.answers_dropped.saturating_add(1);
        }
    }

    /// The strangers' turn: handshakes that are under way before new ones.
    pub(super) fn serve_strangers(&mut self, now: Instant, may: u64) -> (u64, bool) {
        let mut cost = 0u64;
        while cost < may {
            if let Some(slot) = self.strangers.ring.pop_front() {
                let Some(conn) = self.conn_mut(slot).filter(|conn| conn.in_strangers_ring) else {
                    continue;
                };
                conn.in_strangers_ring = false;
                let (done, more) = self.serve_conn(now, slot, may.saturating_sub(cost));
                cost = cost.saturating_add(done.max(1));
                if more {
                    self.activate(slot);
                }
                continue;
            }
            let Some((is_new, (at, meta, data))) = self.strangers.pop() else {
                break;
            };
            if now.saturating_duration_since(at) > self.config.limits.delay_max {
                self.counters.totals.dropped_late = self.counters.totals.dropped_late.saturating_add(1);
                continue;
            }
            if is_new && !self.strangers.pay(now, &self.config.limits) {
                let totals = &mut self.counters.totals;
                totals.strangers_over_rate = totals.strangers_over_rate.saturating_add(1);
                self.drop_stranger(now, meta.remote.ip(), data.len());
                cost = cost.saturating_add(1);
                continue;
            }
            cost = cost.saturating_add(PACKET_WORK.saturating_mul(10)).saturating_add(data.len() as u64);
            let (remote, bytes) = (meta.remote.ip(), data.len());
            let unknown = self.counters.totals.dropped_unknown;
            cost = cost.saturating_add(self.route(at, meta, data, true));
            if self.counters.totals.dropped_unknown != unknown {
                self.accuse_address(now, remote, false, Offence::BadPacket, bytes);
            }
        }
        (cost, self.strangers.has_work())
    }

    /// Decides at once what becomes of a stranger's first packet, and returns the work of a handshake that was begun.
    fn decide(&mut self, now: Instant, socket: SocketId, stranger: Stranger, may_begin: bool) -> u64 {
        let limits = &self.config.limits;
        let mut buffer = Vec::new();
        let (remote, proved) = stranger.remote();
        // A first packet that is addressed to an id which we might have made, by a chance of 2^-24 or on purpose: it has not waited for its turn.
        if !may_begin || self.places.taken() >= limits.retry_from && !proved {
            self.counters.totals.retries = self.counters.totals.retries.saturating_add(1);
            if let Some(transmit) = self.quic.retry(stranger, socket, &mut buffer) {
                self.answer(transmit, buffer);
            }
            return 0;
        }
        if !self.find_place(now, false) {
            let totals = &mut self.counters.totals;
            totals.strangers_no_place = totals.strangers_no_place.saturating_add(1);
            self.drop_stranger(now, remote.ip(), 0);
            self.quic.ignore(stranger);
            return 0;
        }
        let Some(admitted) = self.admit_stranger(now) else {
            self.counters.totals.refused = self.counters.totals.refused.saturating_add(1);
            let transmit = self.quic.refuse(stranger, socket, &mut buffer);
            self.answer(transmit, buffer);
            return 0;
        };
        self.counters.count_handshake_in(Carrier::Quic);
        let datagram_max = self.datagram_max(remote.ip());
        match self.quic.accept(now, (stranger, datagram_max), &self.config.limits, &mut self.random, &mut buffer) {
            Ok((slot, quic)) => {
                self.places.take(slot, &mut self.random);
                let quic = Transport::Quic(Box::new(quic));
                self.insert(slot, socket, quic, Phase::Greeting, admitted, now);
                if let Some(conn) = self.conn_mut(slot) {
                    conn.proved = proved;
                }
                self.activate(slot);
            }
            Err(answer) => {
                self.counters.totals.handshakes_in_failed = self.counters.totals.handshakes_in_failed.saturating_add(1);
                self.accuse_address(now, remote.ip(), proved, Offence::BadPacket, 0);
                if let Some(answer) = answer {
                    let transmit = Quic::answer(socket, answer);
                    self.answer(transmit, buffer);
                }
            }
        }
        // Accepting has answered with a certificate and its signature, or found out what is wrong as late as that.
        HANDSHAKE_PACKET_WORK
    }

    /// Admits a stranger's handshake, if there is a place and memory.
    pub(super) fn admit_stranger(&mut self, now: Instant) -> Option<Admitted> {
        self.may_greet(now).then(|| self.admit(now)).flatten()
    }

    /// Sets memory aside for one more connection, if there is some.
    fn admit(&mut self, now: Instant) -> Option<Admitted> {
        let limits = &self.config.limits;
        if self.closing || self.live >= usize::try_from(limits.places()).unwrap_or(usize::MAX) {
            return None;
        }
        let account = self.ledger.open(limits.connection_floor(), limits.connection_bytes_max)?;
        let credit = Credit::new(&account, limits, now)?;
        let inbox = Inbox::new(account.grant(limits.inbox_bytes_min)?);
        Some((account, credit, inbox))
    }

    pub(super) fn insert(
        &mut self,
        slot: usize,
        socket: SocketId,
        quic: Transport,
        phase: Phase,
        (account, credit, inbox): Admitted,
        now: Instant,
    ) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        let id = ConnId { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation: self.generation };
        let mut conn = ConnState::new(Start { id, quic, socket, phase, account, credit, inbox, now });
        let until = deadline(now, self.config.limits.handshake_deadline);
        self.wakes.set(&mut conn.armed, Key::Conn(slot), Some((until, Why::Handshake)));
        if slot >= self.conns.len() {
            self.conns.resize_with(slot.saturating_add(1), || None);
        }
        if let Some(place) = self.conns.get_mut(slot) {
            *place = Some(Box::new(conn));
            self.live = self.live.saturating_add(1);
        }
        self.send_later(slot);
        id
    }

    /// Begins to connect to `peer` at a UDP address. [`Event::Connected`] or [`Event::DialFailed`] will follow.
    ///
    /// # Errors
    /// [`DialError`]: nothing was begun.
    pub fn dial(
        &mut self,
        now: Instant,
        socket: SocketId,
        remote: std::net::SocketAddr,
        peer: PeerId,
    ) -> Result<ConnId, DialError> {
        let admitted = self.admit_dial(now, peer)?;
        let datagram_max = self.datagram_max(remote.ip());
        let (slot, quic) = self.quic.dial(now, (remote, datagram_max), peer, &self.config.limits, &mut self.random)?;
        Ok(self.dialled(now, slot, socket, Transport::Quic(Box::new(quic)), peer, admitted))
    }

    /// Admits a dial of ours.
    pub(super) fn admit_dial(&mut self, now: Instant, peer: PeerId) -> Result<Admitted, DialError> {
        if self.closing {
            return Err(DialError::Closing);
        }
        if peer == self.peer_id {
            return Err(DialError::Itself);
        }
        if !self.may_dial() {
            return Err(DialError::Full("all slots are taken"));
        }
        self.admit(now).ok_or(DialError::Full("all memory is taken"))
    }

    /// Keeps a connection that is being dialled.
    pub(super) fn dialled(
        &mut self,
        now: Instant,
        slot: usize,
        socket: SocketId,
        transport: Transport,
        peer: PeerId,
        admitted: Admitted,
    ) -> ConnId {
        self.counters.totals.dials = self.counters.totals.dials.saturating_add(1);
        let id = self.insert(slot, socket, transport, Phase::Dialling(peer), admitted, now);
        if let Some(carrier) = self.conn(slot).map(ConnState::carrier) {
            let carried = self.counters.carrier(carrier);
            carried.dials = carried.dials.saturating_add(1);
        }
        self.slots.take(true);
        self.trace_from_the_beginning(now, slot, peer, true);
        self.activate(slot);
        id
    }

    /// A connection's own deadline: its handshake took too long, or it is to be looked at for a jam.
    pub(super) fn conn_deadline(&mut self, now: Instant, slot: usize) {
        let waited = self.config.limits.handshake_deadline;
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        if matches!(conn.phase, Phase::Dialling(_) | Phase::Greeting) {
            let (stranger, remote, proved) = (conn.is_stranger(), conn.quic.remote().ip(), conn.proved);
            let bytes = usize::try_from(conn.wire_in).unwrap_or(usize::MAX);
            if stranger {
                self.accuse_address(now, remote, proved, Offence::HandshakeStalled, bytes);
            }
            let totals = &mut self.counters.totals;
            totals.timeouts = totals.timeouts.saturating_add(1);
            totals.handshakes_slow = totals.handshakes_slow.saturating_add(1);
            let closed = Closed::Here("the handshake took too long");
            self.end_conn(now, slot, closed, DialError::NoAnswer { waited });
            self.close_transport(now, slot, 0, "handshake too slow");
        } else {
            self.undo_jam(now, slot);
        }
    }

    /// Frees the slot of a connection that the transport has forgotten.
    pub(super) fn remove_conn(&mut self, slot: usize) {
        let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.live = self.live.saturating_sub(1);
        self.wakes.set(&mut conn.armed, Key::Conn(slot), None);
        self.wakes.set(&mut conn.transport_armed, Key::Transport(slot), None);
        self.wakes.set(&mut conn.retired_armed, Key::Retired(slot), None);
        self.wakes.set(&mut conn.moved_armed, Key::Moved(slot), None);
        self.turns.remove(member(slot));
        self.out.remove(slot);
        self.out_pipes.remove(slot);
        self.pipes.give_back(slot);
        self.strangers.ring.retain(|queued| *queued != slot);
        self.starved.retain(|queued| *queued != slot);
    }

    /// Ends a connection for the application: every stream gets its one outcome, then the connection its event.
    pub(super) fn end_conn(&mut self, now: Instant, slot: usize, closed: Closed, dial: DialError) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let phase = std::mem::replace(&mut conn.phase, Phase::Closed);
        let (id, dialled, carrier) = (conn.id, conn.dialled, conn.carrier());
        if phase == Phase::Closed {
            return;
        }
        let closed = conn.reason.take().unwrap_or(closed);
        if phase != Phase::Greeting {
            self.slots.free(dialled);
        } else if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) {
            // Its place is with the others now: what is left to do is saying goodbye.
            conn.in_strangers_ring = false;
            self.strangers.ring.retain(|queued| *queued != slot);
            self.places.free(slot);
            self.counters.totals.handshakes_in_failed = self.counters.totals.handshakes_in_failed.saturating_add(1);
            let carried = self.counters.carrier(carrier);
            carried.handshakes_in_failed = carried.handshakes_in_failed.saturating_add(1);
        }
        self.end_streams(slot, &closed);
        match phase {
            Phase::Dialling(_) => self.end_traces(now, slot, &dial),
            _ => self.end_traces(now, slot, &closed),
        }
        if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) {
            self.wakes.set(&mut conn.armed, Key::Conn(slot), None);
        }
        match phase {
            Phase::Dialling(peer) => {
                let carried = self.counters.carrier(carrier);
                carried.dials_ended = carried.dials_ended.saturating_add(1);
                self.dial_ended(now, id, peer, dial);
            }
            Phase::Open(peer) => {
                let totals = &mut self.counters.totals;
                totals.connections_closed = totals.connections_closed.saturating_add(1);
                let silent = u64::from(matches!(closed, Closed::Silent(_)));
                totals.connections_silent = totals.connections_silent.saturating_add(silent);
                let carried = self.counters.carrier(carrier);
                carried.connections_closed = carried.connections_closed.saturating_add(1);
                if let Some(slots) = self.peers.get_mut(&peer) {
                    slots.retain(|other| *other != slot);
                    if slots.is_empty() {
                        self.peers.remove(&peer);
                        self.book.disconnected(now, &peer);
                        self.lost(now, peer, &closed);
                    }
                }
                self.events.push_back(Event::Disconnected { conn: id, peer, reason: closed });
            }
            Phase::Greeting | Phase::Closed => {}
        }
        self.activate(slot);
    }

    pub(super) fn close_transport(&mut self, now: Instant, slot: usize, code: u32, reason: &'static str) {
        if let Some(conn) = self.conn_mut(slot) {
            conn.quic.close(now, code, reason);
            self.send_later(slot);
            self.activate(slot);
        }
    }

    /// Work of one packet on a connection.
    pub(super) fn packet_work(stranger: bool, bytes: usize) -> u64 {
        let fixed = if stranger { HANDSHAKE_PACKET_WORK } else { PACKET_WORK };
        fixed.saturating_add(bytes as u64)
    }
}
