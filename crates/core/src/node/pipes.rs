//! Pipes: connections over TCP, or over whatever else carries bytes in order. Their driver reads and writes; everything else is the same as for
//! QUIC: a stranger's handshake is charged to the strangers, bytes wait in the connection's inbox for its turn, and connections send in turns.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use libp2p_identity::PeerId;

use super::Node;
use super::state::{Arrived, ConnId, Phase};
use crate::abuse::Offence;
use crate::conn::pipe::stage::Identity;
use crate::conn::piped::{PipeEnd, Piped};
use crate::conn::quic::SocketId;
use crate::conn::transport::{Pipe, Transport};
use crate::error::{Closed, DialError};
use crate::limits::{DATAGRAM_OVERHEAD_BYTES, PACKET_WORK, PIPE_CHUNK_BYTES_MAX, PIPE_WRITE_BYTES};
use crate::report::Carrier;

/// What a driver tells of a pipe.
#[derive(Debug)]
pub enum PipeEvent {
    /// The address of this machine that it is bound to. Best told before anything else; without it, it is not found out at once when that address is
    /// [gone](Node::local_addresses_changed).
    Local(IpAddr),
    /// The pipe that was asked for is there.
    Connected,
    /// Bytes have come, at most [`PIPE_CHUNK_BYTES_MAX`], in an allocation of about their own size.
    Data(BytesMut),
    /// It has not taken all of the last write: there is no room. The driver keeps the rest.
    Full,
    /// It has taken what was kept.
    Room,
    /// It has ended, or could not be made. [`PipeAction::Close`] follows.
    End(PipeEnd),
}

/// What a driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipeAction {
    /// Make a pipe to this address. [`PipeEvent::Connected`] or [`PipeEvent::End`] is to follow.
    Connect {
        /// The pipe's name.
        conn: ConnId,
        /// Where to.
        remote: SocketAddr,
    },
    /// Write what is in the buffer, all of it and behind what is kept.
    Write {
        /// The pipe.
        conn: ConnId,
    },
    /// Read again. Reading stops when [`Node::handle_pipe`] says so.
    Read {
        /// The pipe.
        conn: ConnId,
    },
    /// Close it: what was written leaves first, unless `now` says that it waited long enough. The name is not valid any more.
    Close {
        /// The pipe.
        conn: ConnId,
        /// At once, whatever is kept.
        now: bool,
    },
}

/// The pipes of a node.
pub(super) struct Pipes {
    pub(super) identity: Arc<Identity>,
    /// Which numbers are free below `next`.
    free: Vec<usize>,
    next: usize,
}

impl Pipes {
    pub(super) fn new(identity: Identity) -> Pipes {
        Pipes { identity: Arc::new(identity), free: Vec::new(), next: 0 }
    }

    /// A free slot: an odd number, since the even ones are the QUIC endpoint's.
    fn take(&mut self) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            let number = self.next;
            self.next = number.saturating_add(1);
            number
        });
        number.saturating_mul(2).saturating_add(1)
    }

    pub(super) fn give_back(&mut self, slot: usize) {
        if slot % 2 == 1 {
            self.free.push(slot / 2);
        }
    }
}

impl Node {
    /// Which ways to secure a pipe are offered, the preferred one first: of `/tls/1.0.0` and `/noise`, which both are by default. For tests
    /// and comparisons. Pipes that are there already keep theirs.
    pub fn set_pipe_security(&mut self, names: &'static [&'static str]) {
        if let Some(identity) = Arc::get_mut(&mut self.pipes.identity) {
            identity.security = names;
        }
    }

    /// A stranger has opened a pipe. `None`: there is no room, or too many handshakes are under way, none of which stands still: close it at once.
    pub fn accept_pipe(&mut self, now: Instant, remote: SocketAddr) -> Option<ConnId> {
        let found = self.config.listen && self.find_place(now, true);
        let admitted = found.then(|| self.admit_stranger(now)).flatten();
        let Some(admitted) = admitted else {
            self.counters.totals.refused = self.counters.totals.refused.saturating_add(1);
            if !found && self.config.listen {
                self.accuse_address(now, remote.ip(), true, Offence::StrangerFlood, 0);
            }
            return None;
        };
        self.counters.count_handshake_in(Carrier::Tcp);
        let piped = Piped::listen(now, &self.pipes.identity, &self.config.limits, &mut self.random);
        let pipe = Pipe { piped, remote, full: false, to_connect: false, connected: true, reading: true };
        let slot = self.pipes.take();
        self.places.take(slot, &mut self.random);
        let conn = self.insert(slot, SocketId(0), Transport::Pipe(Box::new(pipe)), Phase::Greeting, admitted, now);
        if let Some(state) = self.conn_mut(slot) {
            // TCP has its own handshake.
            state.proved = true;
        }
        Some(conn)
    }

    /// Begins to connect to `peer` over TCP. [`Event::Connected`](super::Event::Connected) or [`Event::DialFailed`](super::Event::DialFailed)
    /// will follow.
    ///
    /// # Errors
    /// [`DialError`]: nothing was begun.
    pub fn dial_pipe(&mut self, now: Instant, remote: SocketAddr, peer: PeerId) -> Result<ConnId, DialError> {
        let admitted = self.admit_dial(now, peer)?;
        let piped = Piped::dial(&self.pipes.identity, peer, &self.config.limits, &mut self.random)?;
        let pipe = Pipe { piped, remote, full: true, to_connect: true, connected: false, reading: false };
        let slot = self.pipes.take();
        Ok(self.dialled(now, slot, SocketId(0), Transport::Pipe(Box::new(pipe)), peer, admitted))
    }

    /// Takes note of what happened to a pipe. Returns whether it may be read on: if not, [`PipeAction::Read`] will follow.
    pub fn handle_pipe(&mut self, now: Instant, conn: ConnId, event: PipeEvent) -> bool {
        let Some(slot) = self.pipe_slot(conn) else {
            return false;
        };
        let Some(state) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return false;
        };
        let Some(pipe) = state.quic.as_pipe() else {
            return false;
        };
        match event {
            PipeEvent::Connected => {
                pipe.full = false;
                pipe.connected = true;
                pipe.piped.handle_connected(now);
                pipe.reading = true;
            }
            PipeEvent::Full => pipe.full = true,
            PipeEvent::Room => pipe.full = false,
            PipeEvent::End(end) => {
                self.pipe_ended(now, slot, end);
                return false;
            }
            PipeEvent::Local(local) => {
                let reads = pipe.reading;
                state.local = Some(local.to_canonical());
                return reads;
            }
            PipeEvent::Data(data) => {
                let totals = &mut self.counters.totals;
                totals.pipe_reads = totals.pipe_reads.saturating_add(1);
                totals.pipe_bytes_in = totals.pipe_bytes_in.saturating_add(data.len() as u64);
                if data.is_empty() || pipe.piped.is_over() {
                    return !pipe.piped.is_over();
                }
                if !state.inbox.push(Arrived::Chunk { at: now, data }, &self.config.limits) {
                    // Bytes of a pipe cannot be lost one by one. It cannot be, since reading stops while the inbox's floor has room for more.
                    self.counters.totals.dropped_full = self.counters.totals.dropped_full.saturating_add(1);
                    self.end_conn(now, slot, Closed::Here("no memory for what it sends"), DialError::Full("memory"));
                    self.close_transport(now, slot, 2, "");
                    return false;
                }
                pipe.reading = may_read(state.inbox.bytes(), self.config.limits.inbox_bytes_min) && pipe.piped.wants_input();
            }
        }
        let reads = pipe.reading;
        self.activate(slot);
        self.send_later(slot);
        reads
    }

    /// Takes note of a pipe's end.
    pub(super) fn pipe_ended(&mut self, now: Instant, slot: usize, end: PipeEnd) {
        let Some(state) = self.conn_mut(slot) else {
            return;
        };
        let Some(pipe) = state.quic.as_pipe() else {
            return;
        };
        pipe.reading = false;
        // What came before the end counts: it is opened first.
        if state.inbox.is_empty() {
            pipe.piped.handle_end(now, end);
        } else {
            state.end = Some(end);
        }
        self.activate(slot);
        self.send_later(slot);
    }

    /// The next thing to do to a pipe; what is to be written is in `buffer`, which is cleared. Take all before waiting.
    pub fn poll_pipe(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<PipeAction> {
        buffer.clear();
        self.send_kept_back(now);
        if let Some(action) = self.pipe_closes.pop_front() {
            return Some(action);
        }
        while let Some((slot, _)) = self.out_pipes.pick() {
            let min = self.config.limits.inbox_bytes_min;
            let Some(state) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
                self.out_pipes.served(slot, 0, false);
                continue;
            };
            let (conn, inbox) = (state.id, state.inbox.bytes());
            let Some(pipe) = state.quic.as_pipe() else {
                self.out_pipes.served(slot, 0, false);
                continue;
            };
            if std::mem::take(&mut pipe.to_connect) {
                self.out_pipes.served(slot, 1, true);
                return Some(PipeAction::Connect { conn, remote: pipe.remote });
            }
            if !pipe.full && pipe.piped.poll_output(now, PIPE_WRITE_BYTES, buffer) > 0 {
                let totals = &mut self.counters.totals;
                totals.pipe_writes = totals.pipe_writes.saturating_add(1);
                totals.pipe_bytes_out = totals.pipe_bytes_out.saturating_add(buffer.len() as u64);
                state.trace_sent(now, buffer.len(), buffer.len());
                self.out_pipes.served(slot, PACKET_WORK.saturating_add(buffer.len() as u64), true);
                // What was written may be what streams wait for, or the last word.
                self.activate(slot);
                return Some(PipeAction::Write { conn });
            }
            // Not a word of whether the pipe takes anything: two nodes that both read only when they can write would wait for each other.
            if !pipe.reading && pipe.connected && may_read(inbox, min) && pipe.piped.wants_input() {
                pipe.reading = true;
                self.out_pipes.served(slot, 1, true);
                return Some(PipeAction::Read { conn });
            }
            self.out_pipes.served(slot, 0, false);
            if !self.settle(now, slot) {
                self.rearm(slot);
            } else if let Some(action) = self.pipe_closes.pop_front() {
                return Some(action);
            }
        }
        None
    }

    /// Whether [`drive`](Self::drive) has something to do: writing to pipes gives streams room.
    pub fn has_work(&self) -> bool {
        !self.turns.is_idle()
    }

    /// Whether a pipe is over and its slot can go. Its driver is told to close it.
    pub(super) fn settle_pipe(&mut self, slot: usize) -> bool {
        let Some(state) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return true;
        };
        let conn = state.id;
        let Some(pipe) = state.quic.as_pipe() else {
            return false;
        };
        let abandoned = pipe.piped.is_abandoned();
        if !(abandoned || pipe.piped.is_over()) {
            return false;
        }
        self.pipe_closes.push_back(PipeAction::Close { conn, now: abandoned });
        true
    }

    fn pipe_slot(&self, id: ConnId) -> Option<usize> {
        let slot = usize::try_from(id.slot).ok()?;
        self.conn(slot).is_some_and(|conn| conn.id == id).then_some(slot)
    }

    /// Has a connection's output looked at.
    pub(super) fn send_later(&mut self, slot: usize) {
        if slot % 2 == 1 {
            self.out_pipes.activate(slot);
        } else {
            self.out.activate(slot);
        }
    }
}

/// Whether the inbox's floor has room for one more chunk.
fn may_read(queued: u64, floor: u64) -> bool {
    let chunk = (PIPE_CHUNK_BYTES_MAX as u64).saturating_add(DATAGRAM_OVERHEAD_BYTES);
    queued.saturating_add(chunk) <= floor
}
