//! One connection's turn: its queue, then its timers, then its streams, as far as its share goes.

use std::time::Instant;

use super::admission::CODE_NO_ROOM;
use super::state::{Arrived, ConnState, Phase};
use super::{Event, Node};
use crate::abuse::Offence;
use crate::conn::event::ConnEvent;
use crate::conn::quic::Inbound;
use crate::conn::transport::Transport;
use crate::error::{Closed, DialError};
use crate::limits::PACKET_WORK;
use crate::proto::pace::deadline;
use crate::report::Counters;
use crate::wake::{Key, Why};

/// So many packets are opened before the streams that they fed are looked at.
const PACKETS_AT_ONCE: usize = 32;

impl Node {
    /// Serves a connection up to `may` work units. Returns what it cost and whether work is left.
    pub(super) fn serve_conn(&mut self, now: Instant, slot: usize, may: u64) -> (u64, bool) {
        let mut cost = self.take_owed(slot);
        loop {
            // Streams get a part of each visit: else who sends more than it is served would have its own requests, and the answers to them, wait until all
            // that it has sent was opened.
            let share = may.saturating_sub(cost).div_ceil(2);
            let packets = self.serve_inbox(now, slot, share, &mut cost);
            if packets > 0 {
                self.heard_from_rival(now, slot);
            }
            let Some(conn) = self.conn_mut(slot) else {
                return (cost, false);
            };
            if conn.timers_may_run() {
                conn.timer_due = None;
                conn.quic.handle_timeout(now);
                cost = cost.saturating_add(PACKET_WORK);
            }
            if self.settle(now, slot) {
                return (cost, false);
            }
            self.take_events(now, slot);
            self.open_streams(now, slot);
            let drives = self.serve_streams(now, slot, may.saturating_sub(cost), &mut cost);
            if cost >= may || (packets == 0 && drives == 0) {
                break;
            }
        }
        cost = cost.saturating_add(self.take_owed(slot));
        self.review_credit(now, slot);
        self.keep_calm(now, slot);
        if self.settle(now, slot) {
            return (cost, false);
        }
        self.rearm(slot);
        self.watch_for_jam(now, slot);
        self.send_later(slot);
        self.trace_turn(now, slot);
        let more = self.conn_mut(slot).is_some_and(|conn| {
            conn.note_flow(now);
            conn.rest(now);
            (!conn.inbox.is_empty() && conn.quic.wants_input())
                || conn.timer_due.is_some()
                || !conn.ready.is_empty()
                || conn.to_open
        });
        (cost, more)
    }

    /// What was done for a connection and is not charged yet.
    fn take_owed(&mut self, slot: usize) -> u64 {
        self.conn_mut(slot).map_or(0, |conn| std::mem::take(&mut conn.owed))
    }

    fn serve_inbox(&mut self, now: Instant, slot: usize, may: u64, cost: &mut u64) -> usize {
        let (limits, registry) = (&self.config.limits, &self.registry);
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return 0;
        };
        let stranger = conn.is_stranger();
        let mut spent = 0u64;
        let mut packets = 0usize;
        // When what is unread has filled the window, the rest waits, and the pipe behind it.
        let Counters { totals, delays, .. } = &mut self.counters;
        while spent < may && packets < PACKETS_AT_ONCE && conn.quic.wants_input() {
            let inbound = match (conn.inbox.pop(limits), &mut conn.quic) {
                (Some(Arrived::Datagram(inbound)), Transport::Quic(_)) => inbound,
                (Some(Arrived::Chunk { at, data }), Transport::Pipe(pipe)) => {
                    packets = packets.saturating_add(1);
                    let bytes = data.len();
                    conn.wire_in = conn.wire_in.saturating_add(bytes as u64);
                    pipe.piped.handle_bytes(now, data);
                    // What cannot be opened ends it.
                    conn.heard = now;
                    spent = spent.saturating_add(PACKET_WORK).saturating_add(pipe.piped.take_work());
                    conn.trace_received(now, bytes, now.saturating_duration_since(at));
                    spent = spent.saturating_add(conn.accept_streams(registry, totals));
                    continue;
                }
                _ => break,
            };
            packets = packets.saturating_add(1);
            let (waited, bytes) = (now.saturating_duration_since(inbound.at), inbound.bytes);
            delays.note(waited);
            if waited > limits.delay_max {
                totals.dropped_late = totals.dropped_late.saturating_add(1);
                spent = spent.saturating_add(1);
                conn.trace_dropped(now, bytes, "it had waited too long for this node's turn");
                continue;
            }
            spent = spent.saturating_add(Node::packet_work(stranger, bytes));
            match open_datagram(now, conn, inbound) {
                Some(work) => {
                    if work > 0 {
                        conn.heard = now;
                    }
                    conn.trace_received(now, bytes, waited);
                    spent = spent.saturating_add(work).saturating_add(conn.accept_streams(registry, totals));
                }
                None => {
                    totals.dropped_moved = totals.dropped_moved.saturating_add(1);
                    conn.trace_dropped(now, bytes, "its peer changes its address too often");
                }
            }
        }
        conn.end_if_read(now);
        if std::mem::take(&mut conn.moved_out) {
            self.accuse(now, slot, Offence::AddressFlood, 0);
        }
        *cost = cost.saturating_add(spent);
        packets
    }

    /// Exchanges endpoint events. True when the connection is gone and its slot was freed.
    pub(super) fn settle(&mut self, now: Instant, slot: usize) -> bool {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return true;
        };
        let gone = match &mut conn.quic {
            Transport::Quic(quic) => {
                let totals = &mut self.counters.totals;
                totals.quic_faults = totals.quic_faults.saturating_add(u64::from(quic.failed()));
                self.quic.settle(quic)
            }
            Transport::Pipe(_) => self.settle_pipe(slot),
        };
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut).filter(|_| gone) else {
            return false;
        };
        // The loss itself may not have been looked at yet: tell it before the slot goes.
        let mut lost = None;
        while let Some(event) = conn.quic.poll() {
            if let ConnEvent::Lost(reason) = event {
                lost = Some(reason);
            }
        }
        if let Some(lost) = lost {
            self.accuse_lost(now, slot, &lost);
            self.end_conn(now, slot, lost.closed, lost.dial);
        } else {
            self.end_conn(now, slot, Closed::Here("closed"), DialError::Closing);
        }
        self.remove_conn(slot);
        true
    }

    /// Keeps the transport's next timer in the list.
    pub(super) fn rearm(&mut self, slot: usize) {
        if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) {
            let at = conn.quic.poll_timeout().map(|at| (at, Why::Transport));
            self.wakes.set(&mut conn.transport_armed, Key::Transport(slot), at);
        }
    }

    fn take_events(&mut self, now: Instant, slot: usize) {
        loop {
            let Some(conn) = self.conn_mut(slot) else {
                return;
            };
            match conn.quic.poll() {
                None => return,
                Some(ConnEvent::Packets) => self.take_packets(now, slot),
                Some(ConnEvent::Connected) => self.connected(now, slot),
                Some(ConnEvent::Lost(lost)) => {
                    self.accuse_lost(now, slot, &lost);
                    self.end_conn(now, slot, lost.closed, lost.dial);
                }
                // Most were accepted with the packet that opened them.
                Some(ConnEvent::Opened) => {
                    if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) {
                        let work = conn.accept_streams(&self.registry, &mut self.counters.totals);
                        conn.owed = conn.owed.saturating_add(work);
                    }
                }
                Some(ConnEvent::Readable(number) | ConnEvent::Writable(number)) => {
                    self.stream_stirred(slot, number, None);
                }
                Some(ConnEvent::Delivered(number)) => {
                    // Most are forgotten by now; one that lingers for this goes.
                    if let Some(index) = conn.numbers.get(&number).copied()
                        && let Some(stream) = conn.streams.get_mut(index)
                    {
                        stream.io.delivered = true;
                        conn.queue(index);
                    }
                }
                Some(ConnEvent::Stopped(number, code)) => self.stream_stirred(slot, number, Some(code)),
                // `open_streams` follows in the same turn.
                Some(ConnEvent::Available) => {
                    if let Some(conn) = self.conn_mut(slot) {
                        conn.no_credit = false;
                    }
                }
            }
        }
    }

    fn stream_stirred(&mut self, slot: usize, number: u64, stopped: Option<u64>) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let Some(index) = conn.numbers.get(&number).copied() else {
            return;
        };
        let name = conn.stream_ref(index);
        if let Some(stream) = conn.streams.get_mut(index) {
            stream.io.stirred();
            if let Some(code) = stopped {
                stream.io.peer_stopped.get_or_insert(code);
            }
            if stream.role.is_raw()
                && !stream.told_ready
                && let Some(name) = name
            {
                stream.told_ready = true;
                self.events.push_back(Event::Ready { stream: name });
            }
        }
        if let Some(conn) = self.conn_mut(slot) {
            conn.queue(index);
        }
    }

    /// The handshake is complete: the stranger has a name.
    fn connected(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let (id, remote) = (conn.id, conn.quic.remote());
        let (carrier, begun) = (conn.carrier(), conn.since);
        let was = conn.phase.clone();
        let peer = match (&was, conn.quic.peer()) {
            (Phase::Greeting, Some(peer)) => peer,
            (Phase::Dialling(wanted), Some(peer)) if *wanted == peer => peer,
            (Phase::Dialling(wanted), Some(found)) => {
                let error = DialError::WrongPeer { wanted: *wanted, found };
                self.end_conn(now, slot, Closed::Here("another identity answered"), error);
                return self.close_transport(now, slot, 0, "");
            }
            (Phase::Open(_) | Phase::Closed, _) => return,
            (_, None) => {
                // Cannot be: the verifier has accepted a certificate that names a peer.
                self.end_conn(now, slot, Closed::Here("no identity"), DialError::Incompatible("no identity".to_owned()));
                return self.close_transport(now, slot, 0, "");
            }
        };
        if self.is_surplus(now, &peer) {
            self.counters.totals.connections_surplus = self.counters.totals.connections_surplus.saturating_add(1);
            if peer != self.peer_id && was == Phase::Greeting {
                self.accuse_peer(now, peer, remote, Offence::SurplusConnections, 0);
            }
            self.end_conn(
                now,
                slot,
                Closed::Here("too many connections to one identity"),
                DialError::Full("connections to this peer"),
            );
            return self.close_transport(now, slot, CODE_NO_ROOM, "too many connections of one identity");
        }
        if was == Phase::Greeting {
            self.abuse.forgive(remote.ip());
            if !self.find_slot(now, slot) {
                return;
            }
            self.slots.take(false);
            self.places.free(slot);
        }
        if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) {
            conn.phase = Phase::Open(peer);
            conn.home = Some(remote);
            conn.in_strangers_ring = false;
            conn.since = now;
            conn.heard = now;
            self.wakes.set(&mut conn.armed, Key::Conn(slot), None);
        }
        self.strangers.ring.retain(|queued| *queued != slot);
        self.peers.entry(peer).or_default().push(slot);
        self.settle_rivals(now, &peer);
        self.counters.totals.connections_opened = self.counters.totals.connections_opened.saturating_add(1);
        let opened = self.counters.carrier(carrier);
        opened.connections_opened = opened.connections_opened.saturating_add(1);
        self.counters.handshake(carrier).note(now.saturating_duration_since(begun));
        self.events.push_back(Event::Connected { conn: id, peer, dialled: was != Phase::Greeting });
        self.note_origin(now, slot, peer, was == Phase::Greeting);
        if was == Phase::Greeting {
            self.trace_from_the_beginning(now, slot, peer, false);
        }
        self.ask_identity(slot);
        self.activate(slot);
        self.reached(now, &peer, id);
    }

    /// Opens streams that wait, in order, as far as the peer's credit and our memory go.
    pub(super) fn open_streams(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        conn.to_open = false;
        if !matches!(conn.phase, Phase::Open(_)) {
            return;
        }
        let mut starved = false;
        let mut opened = 0u64;
        while let Some((index, serial)) = conn.opening.front().copied() {
            let Some(stream) = conn.streams.get_mut(index).filter(|stream| stream.serial == serial) else {
                conn.opening.pop_front();
                continue;
            };
            if conn.no_credit {
                break;
            }
            let base = crate::limits::Limits::streams_cost(1);
            if !stream.io.grant.resize(base.saturating_add(stream.reserve)) {
                starved = true;
                break;
            }
            stream.io.base = base;
            let Some(number) = conn.quic.open() else {
                // Not asked for again before the peer says so: giving back what was not needed would wake those who wait for memory.
                conn.no_credit = true;
                stream.io.grant.shrink(0);
                break;
            };
            stream.number = Some(number);
            // The peer does not know of it yet.
            stream.io.dried();
            // What had to wait has got its deadline when it was first looked at.
            let waits = stream.open_by.take().and_then(|(by, within)| by.checked_sub(within));
            stream.since = Some(waits.unwrap_or(now));
            self.wakes.set(&mut stream.armed, Key::Stream(slot, index), None);
            let priority = stream.priority;
            conn.set_priority(index, priority);
            conn.numbers.insert(number, index);
            conn.opening.pop_front();
            conn.queue(index);
            opened = opened.saturating_add(1);
        }
        let waiting = conn.opening.len();
        self.counters.totals.streams_out = self.counters.totals.streams_out.saturating_add(opened);
        self.arm_opening(now, slot);
        if starved {
            self.note_starved(slot);
        }
        self.end_resting(slot, waiting);
    }

    /// What waits to be opened does not wait for ever: a peer may give no credit at all.
    fn arm_opening(&mut self, now: Instant, slot: usize) {
        let limits = &self.config.limits;
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        // In order, so all before the first that is armed are armed too.
        for (index, serial) in conn.opening.iter().rev() {
            let Some(stream) = conn.streams.get_mut(*index).filter(|stream| stream.serial == *serial) else {
                continue;
            };
            if stream.open_by.is_some() {
                return;
            }
            let within = stream.opening_deadline(limits);
            let by = deadline(now, within);
            stream.open_by = Some((by, within));
            self.wakes.set(&mut stream.armed, Key::Stream(slot, *index), Some((by, Why::Negotiation)));
        }
    }
}

/// Opens a datagram. Returns the work of the frames that it brought; `None` when it is dropped, because its sender's address changes too often.
fn open_datagram(now: Instant, conn: &mut ConnState, inbound: Inbound) -> Option<u64> {
    let (meta, before) = (inbound.meta, conn.quic.remote());
    if meta.remote != before && !conn.moves.may(now) {
        return None;
    }
    conn.wire_in = conn.wire_in.saturating_add(inbound.bytes as u64);
    let work = conn.quic.as_quic().map_or(0, |quic| quic.handle(inbound));
    if conn.quic.remote() != before {
        conn.moved_out |= conn.moves.moved();
        conn.note_path();
    }
    // Only what was authenticated can have moved the path; the socket follows it.
    if conn.quic.remote() == meta.remote {
        conn.socket = meta.socket;
    }
    if work > 0 {
        conn.local = meta.local_ip.map(|local| local.to_canonical()).or(conn.local);
    }
    Some(work)
}
