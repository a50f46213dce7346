//! One stream's record: what has come and is not read, what is to go, and how far each direction is.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use strait_wire::yamux::INITIAL_WINDOW;

use super::receive::Chunks;
use super::{ENTRY_BYTES, TAIL_BYTES_MAX};
use crate::proto::Priority;

/// The peer's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receive {
    Open,
    /// FIN has come.
    Finished,
    /// It was reset: by the peer, or with our own reset, which ends both directions. Our own lets what has come be read first.
    Reset(u64),
    /// We want no more of it: what comes is dropped and gets no new credit. The code is for the reset that may be needed.
    Stopped(u32),
}

/// Our direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Send {
    Open,
    /// FIN follows what is queued.
    Ending,
    /// FIN was handed to the pipe.
    Ended,
    /// The peer reset the stream.
    Refused(u64),
    /// We reset the stream.
    Reset,
}

/// Events that wait to be told, as bits.
pub(super) const READABLE: u8 = 1;
pub(super) const WRITABLE: u8 = 2;
pub(super) const STOPPED: u8 = 4;
pub(super) const DELIVERED: u8 = 8;

/// Bytes that were received and not read.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// What its memory costs beside a chunk's: bookkeeping, and the buffer when it is our own.
    cost: u32,
    /// The received chunk that it is a slice of, 0 when it is a copy.
    chunk: u64,
}

/// What a stream has received and nobody has read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Piece>,
    /// Small pieces are copied together in here; all of it is behind `pieces`.
    tail: BytesMut,
    tail_cost: u32,
    stored: u64,
}

impl Inbox {
    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let bytes = std::mem::take(&mut self.tail).freeze();
            self.pieces.push_back(Piece { bytes, cost: std::mem::take(&mut self.tail_cost), chunk: 0 });
        }
    }

    /// Keeps a slice of the current chunk.
    pub(super) fn keep(&mut self, bytes: Bytes, chunks: &mut Chunks) {
        self.close_tail();
        self.stored = self.stored.saturating_add(bytes.len() as u64);
        let chunk = chunks.pin(ENTRY_BYTES);
        self.pieces.push_back(Piece { bytes, cost: ENTRY_BYTES, chunk });
    }

    /// Keeps a copy.
    pub(super) fn copy(&mut self, bytes: &[u8], chunks: &mut Chunks) {
        if self.tail.capacity().saturating_sub(self.tail.len()) < bytes.len() || self.tail.is_empty() {
            self.close_tail();
            // As much again as is stored, so that a stream of single bytes costs few allocations and little waste.
            let room = usize::try_from(self.stored).unwrap_or(usize::MAX).clamp(32, TAIL_BYTES_MAX).max(bytes.len());
            self.tail = BytesMut::with_capacity(room);
            self.tail_cost = u32::try_from(self.tail.capacity()).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES);
            chunks.add(self.tail_cost);
        }
        self.tail.extend_from_slice(bytes);
        self.stored = self.stored.saturating_add(bytes.len() as u64);
    }

    /// The next bytes, at most `max`.
    pub(super) fn take(&mut self, max: usize, chunks: &mut Chunks) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.close_tail();
        }
        let piece = self.pieces.front_mut()?;
        let bytes = piece.bytes.split_to(max.min(piece.bytes.len()));
        if piece.bytes.is_empty() {
            chunks.release(piece.cost, piece.chunk);
            self.pieces.pop_front();
            self.shrink();
        }
        self.stored = self.stored.saturating_sub(bytes.len() as u64);
        chunks.took(bytes.len());
        Some(bytes)
    }

    /// A queue that was long keeps its table; an empty one need not.
    fn shrink(&mut self) {
        if self.pieces.is_empty() && self.pieces.capacity() > 16 {
            self.pieces = VecDeque::new();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, chunks: &mut Chunks) {
        self.close_tail();
        for piece in std::mem::take(&mut self.pieces) {
            chunks.took(piece.bytes.len());
            chunks.release(piece.cost, piece.chunk);
        }
        self.stored = 0;
    }

    /// Copies what holds chunks in memory, so that they can go.
    pub(super) fn unpin(&mut self, chunks: &mut Chunks) {
        for piece in self.pieces.iter_mut().filter(|piece| piece.chunk != 0) {
            chunks.release(piece.cost, piece.chunk);
            piece.bytes = Bytes::copy_from_slice(&piece.bytes);
            piece.cost = u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES);
            piece.chunk = 0;
            chunks.add(piece.cost);
        }
    }
}

/// How fast a stream's reader is, to size its window by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) since: Option<Instant>,
    pub(super) read: u64,
}

/// What is known of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    // ---- the peer's direction
    pub(super) receive: Receive,
    pub(super) inbox: Inbox,
    /// Bytes that the peer has announced and that were not consumed: those in the inbox, and those of a frame that is still coming.
    pub(super) unread: u64,
    /// What the peer may still send.
    pub(super) credit_in: u32,
    /// What the sum of both is brought back to.
    pub(super) window: u32,
    pub(super) pace: Pace,
    /// The owner of the stream has seen how the peer's direction ends, or does not care.
    pub(super) receive_told: bool,

    // ---- ours
    pub(super) send: Send,
    pub(super) outbox: VecDeque<Bytes>,
    /// Bytes in the outbox.
    pub(super) queued: u64,
    /// What the peer allows us to send beyond what is queued.
    pub(super) credit_out: u32,
    pub(super) priority: Priority,

    // ---- both
    /// The peer has opened it and nobody has accepted it yet.
    pub(super) waiting: bool,
    /// Our SYN has not left yet.
    pub(super) syn: bool,
    /// Our ACK has not left yet.
    pub(super) ack: bool,
    /// We opened it and the peer has not acknowledged it.
    pub(super) unacknowledged: bool,
    /// A reset has to leave.
    pub(super) reset: Option<u32>,
    /// It is in the lane of its priority (or of an earlier one), in the control queue, lingering.
    pub(super) in_lane: bool,
    pub(super) in_control: bool,
    pub(super) lingers: bool,
    pub(super) events: u8,
}

impl Stream {
    fn new() -> Stream {
        Stream {
            receive: Receive::Open,
            inbox: Inbox::default(),
            unread: 0,
            credit_in: INITIAL_WINDOW,
            window: INITIAL_WINDOW,
            pace: Pace { since: None, read: 0 },
            receive_told: false,
            send: Send::Open,
            outbox: VecDeque::new(),
            queued: 0,
            credit_out: INITIAL_WINDOW,
            priority: Priority::Normal,
            waiting: false,
            syn: false,
            ack: false,
            unacknowledged: false,
            reset: None,
            in_lane: false,
            in_control: false,
            lingers: false,
            events: 0,
        }
    }

    /// One of ours.
    pub(super) fn ours() -> Stream {
        Stream { syn: true, unacknowledged: true, ..Stream::new() }
    }

    /// One that the peer has opened.
    pub(super) fn theirs(credit_out: u32) -> Stream {
        Stream { credit_out, waiting: true, ..Stream::new() }
    }

    /// Whether our direction needs nothing more of the pipe, but for a reset.
    pub(super) fn send_over(&self) -> bool {
        matches!(self.send, Send::Ended | Send::Refused(_) | Send::Reset)
    }

    /// Whether nothing more can come that anybody wants.
    pub(super) fn receive_over(&self) -> bool {
        match self.receive {
            Receive::Open => false,
            Receive::Finished | Receive::Reset(_) => self.receive_told,
            // The peer may still send, unless the stream was reset.
            Receive::Stopped(_) => matches!(self.send, Send::Refused(_) | Send::Reset),
        }
    }

    /// Whether the record can go.
    pub(super) fn is_over(&self) -> bool {
        self.send_over() && self.receive_over() && self.reset.is_none() && self.events == 0
    }

    /// Whether a data frame can be made of it.
    pub(super) fn has_data(&self) -> bool {
        self.reset.is_none() && (self.queued > 0 || self.send == Send::Ending)
    }

    /// What would bring the peer's credit back to the window.
    pub(super) fn missing_credit(&self) -> u32 {
        if self.receive != Receive::Open {
            return 0;
        }
        let given = self.unread.saturating_add(u64::from(self.credit_in));
        u32::try_from(u64::from(self.window).saturating_sub(given)).unwrap_or(u32::MAX)
    }

    /// Whether that is worth a frame: half of the window, so that frames are few and credit never comes by the byte.
    pub(super) fn wants_update(&self) -> bool {
        self.missing_credit() >= self.window / 2
    }

    /// What beyond the protocol's own window was offered.
    pub(super) fn grown(&self) -> u64 {
        match self.receive {
            Receive::Open => u64::from(self.window.saturating_sub(INITIAL_WINDOW)),
            _ => 0,
        }
    }
}
