//! What a node holds now, as far as it knows: the other side of the ledger, which says what it may hold.
//!
//! Buffers of its own are counted. What the QUIC crate holds is not told by it, and is worked out from what was given to it and what came of it. What has no
//! length that could be asked for is a constant, measured with the allocator. `tests/held.rs` compares the sum with the allocator.

use std::mem::size_of;
use std::time::{Duration, Instant};

use super::state::{ConnState, Stream, StreamRef};
use super::{Event, Node};
use crate::conn::transport::Transport;

/// An idle QUIC connection: 6.4 KB are the QUIC crate's own struct, 2.8 its keys, 1.2 what it remembers of packets that were sent, 0.9 our struct, and the
/// rest are small tables on both sides of the endpoint.
const QUIC_BYTES: u64 = 16_100;
/// An idle connection over a pipe, beside what it counts itself.
const PIPE_BYTES: u64 = 1_100;
/// A stream that is open: its sending half in the QUIC crate, and its places in our tables.
const QUIC_STREAM_BYTES: u64 = 380;
/// A receiving half: the QUIC crate keeps as many as there ever were at once. 300 bytes if its peer has ended it, and 470 with its list of what has come.
const QUIC_RECEIVER_BYTES: u64 = 400;
/// The QUIC crate has an entry for each stream that the peer may open, in two hash tables which are half full.
const QUIC_CREDIT_BYTES: u64 = 2 * 42;
/// And for each packet that was received and not read. A receiving half keeps the room for as many as it ever had.
const QUIC_PACKET_BYTES: u64 = 56;
/// Of a connection over a pipe, what TLS has of its own: a buffer of 4 KiB and the keys, beside what Noise has.
const TLS_BYTES: u64 = 6_750;
/// Streams of which it is looked at each time whether all were read: more would cost too much.
const LOOKED_AT: usize = 8;
/// The bytes of a full packet, about.
const FULL_PACKET_BYTES: u64 = 1_400;
/// How long the peer may hold back an acknowledgement, and some more.
const ACK_DELAY: Duration = Duration::from_millis(50);

/// What the transport may still hold of a connection's bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    /// `wire_in` less `bytes_in` when nothing was unread for the last time: all of that was overhead.
    read: u64,
    /// `bytes_out` of which all is acknowledged.
    acknowledged: u64,
    /// The most bytes that were ever unread.
    unread_ever: u64,
    /// The most streams that there ever were at once.
    streams_ever: u64,
    /// When `bytes_out` was looked at, and what it was.
    mark: (Instant, u64),
}

impl Flow {
    pub(super) fn new(now: Instant) -> Flow {
        Flow { read: 0, acknowledged: 0, unread_ever: 0, streams_ever: 0, mark: (now, 0) }
    }
}

impl ConnState {
    /// Takes note of what the transport can not hold any more. Cheap: it is called in each turn.
    pub(super) fn note_flow(&mut self, now: Instant) {
        if self.streams.len() <= LOOKED_AT {
            match self.unread() {
                0 => self.flow.read = self.wire_in.saturating_sub(self.bytes_in),
                unread => self.flow.unread_ever = self.flow.unread_ever.max(unread),
            }
        }
        self.flow.streams_ever = self.flow.streams_ever.max(self.streams.len() as u64);
        let (at, out) = self.flow.mark;
        if self.quic.unacknowledged() == 0 {
            self.flow.acknowledged = self.bytes_out;
        } else if now.saturating_duration_since(at) > self.quic.rtt().saturating_mul(2).saturating_add(ACK_DELAY)
            && self.heard > at
        {
            // Whoever is heard from acknowledges what came two round trips before.
            self.flow.acknowledged = out;
            self.flow.mark = (now, self.bytes_out);
        }
    }

    /// Allocated bytes, about.
    pub(super) fn held(&self) -> u64 {
        let slots = (self.streams.capacity() as u64).saturating_mul(size_of::<Stream>() as u64);
        let streams = self.streams.iter().map(|(_, stream)| self.held_by(stream));
        let streams = streams.fold(slots, u64::saturating_add);
        let transport = match &self.quic {
            Transport::Quic(_) => self.held_by_quic(),
            Transport::Pipe(pipe) => {
                let tls = if pipe.piped.has_tls() { TLS_BYTES } else { 0 };
                PIPE_BYTES.saturating_add(tls).saturating_add(pipe.piped.held())
            }
        };
        streams.saturating_add(transport).saturating_add(self.inbox.bytes())
    }

    fn held_by_quic(&self) -> u64 {
        let credit = u64::from(self.credit.streams).saturating_mul(QUIC_CREDIT_BYTES);
        let receivers = self.flow.streams_ever.saturating_mul(QUIC_RECEIVER_BYTES);
        let packets = (self.flow.unread_ever / FULL_PACKET_BYTES).next_power_of_two().saturating_mul(QUIC_PACKET_BYTES);
        let unread = self.unread();
        // Beside the bytes of a packet: who shares them.
        let unread = unread.saturating_add(unread / 24);
        let parts = [credit, receivers, packets, unread, self.unacknowledged()];
        parts.iter().fold(QUIC_BYTES, |sum, part| sum.saturating_add(*part))
    }

    fn held_by(&self, stream: &Stream) -> u64 {
        let own = stream.machine.held();
        let carried = if self.quic.is_quic() && stream.number.is_some() { QUIC_STREAM_BYTES } else { 0 };
        own.saturating_add(carried).saturating_add(stream.io.held())
    }

    /// Bytes of datagrams that came for streams, and were not read.
    fn unread(&self) -> u64 {
        if self.streams.iter().all(|(_, stream)| stream.io.dry()) {
            return 0;
        }
        let came = self.wire_in.saturating_sub(self.bytes_in).saturating_sub(self.flow.read);
        // A packet's overhead is a part of what it brings, so there is never much more than the window.
        came.min(self.credit.receive_window.saturating_add(self.credit.receive_window / 8))
    }

    /// Bytes that were given to the transport and not acknowledged. Of a large message all is kept until its last byte is.
    fn unacknowledged(&self) -> u64 {
        let pinned = self.streams.iter().filter(|(_, stream)| stream.io.undelivered());
        let pinned = pinned.fold(0u64, |sum, (_, stream)| sum.saturating_add(stream.io.moved.bytes_out));
        let given = self.bytes_out.saturating_sub(self.flow.acknowledged).min(self.credit.send_window());
        pinned.max(given)
    }
}

impl Node {
    /// Allocated bytes that it holds for its peers, about: within 10 % of what the allocator says wherever that was measured. The time is in proportion to all
    /// streams.
    pub(super) fn held(&self) -> u64 {
        let conns = self.conns.iter().flatten().map(|conn| conn.held());
        let own = [
            self.strangers.bytes(),
            self.book.bytes(),
            self.abuse.held(),
            self.wakes.held(),
            self.quic.held(),
            self.pipes.identity.held(),
            (self.kept_back.capacity() as u64).saturating_mul(size_of::<StreamRef>() as u64),
            (self.events.capacity() as u64).saturating_mul(size_of::<Event>() as u64),
        ];
        conns.chain(own).fold(0, u64::saturating_add)
    }
}
