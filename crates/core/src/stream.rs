//! The heart: one interface for all that runs on a stream.
//!
//! A [`StreamMachine`] is driven whenever something may have changed for it. It reads and writes through [`StreamIo`] as
//! far as it can and says what it waits for. It never flushes: what was written leaves when the node drains, after everything that was
//! ready has been driven, so that a negotiation, the request behind it and other requests share packets.
//!
//! The transport below is a [`StreamPort`]; QUIC streams are one, multiplexed byte pipes will be another.

mod machine;
pub(crate) mod memory;
mod port;
mod state;

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::{
    FRONT_BYTES_MAX, GATHER_BYTES, HEADER_BYTES_MAX, Limits, OUTBOX_BYTES_FIRST, OUTBOX_BYTES_MAX, PIN_BYTES, SMALL_PIECE_BYTES,
};
use crate::message::Message;
use crate::topic::Feeds;
use crate::wake::Why;

pub use machine::{Input, Next, Output, StreamMachine, Waits};
pub use port::{Read, StreamPort};
use state::Finish;
pub(crate) use state::{IoState, Moved};

/// Asked for more than a header may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// What of the surroundings a machine may look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) now: Instant,
    pub(crate) limits: &'a Limits,
    /// Bytes of datagrams that this connection has received in all: a stream that waits while others of the same peer move, or while a
    /// lost packet is repaired over a slow link, is not stuck.
    pub(crate) connection_in: u64,
    /// Stream bytes that it has handed to the transport in all.
    pub(crate) connection_out: u64,
}

/// A machine's view of its stream, for the time of one drive.
pub struct StreamIo<'a> {
    around: Around<'a>,
    port: &'a mut dyn StreamPort,
    state: &'a mut IoState,
    outputs: &'a mut Vec<Output>,
    feeds: Option<&'a mut Feeds>,
    blocked: bool,
}

impl<'a> StreamIo<'a> {
    pub(crate) fn new(
        around: Around<'a>,
        port: &'a mut dyn StreamPort,
        state: &'a mut IoState,
        outputs: &'a mut Vec<Output>,
    ) -> StreamIo<'a> {
        state.deadline = None;
        let mut io = StreamIo { around, port, state, outputs, feeds: None, blocked: false };
        // What an earlier drive left goes first: the transport says only once that there is room, and a machine that still saw none
        // would wait for a second word.
        if !io.state.unsent.is_empty() {
            io.flush();
        }
        io
    }

    /// With the node's topics.
    pub(crate) fn with_feeds(mut self, feeds: &'a mut Feeds) -> StreamIo<'a> {
        self.feeds = Some(feeds);
        self
    }

    /// What the node publishes.
    pub fn feeds(&mut self) -> Option<&mut Feeds> {
        self.feeds.as_deref_mut()
    }

    /// Counts keys of a topic that were looked at for this stream.
    pub fn looked(&mut self, keys: u32) {
        self.state.moved.looks = self.state.moved.looks.saturating_add(keys.into());
    }

    /// Counts a frame of a topic that was begun.
    pub fn told(&mut self) {
        self.state.moved.told = self.state.moved.told.saturating_add(1);
    }

    /// The time of this drive.
    pub fn now(&self) -> Instant {
        self.around.now
    }

    /// The node's limits.
    pub fn limits(&self) -> &Limits {
        self.around.limits
    }

    /// Bytes received from this peer on the wire, and stream bytes handed to the transport for it, over all streams.
    pub fn connection_bytes(&self) -> (u64, u64) {
        (self.around.connection_in, self.around.connection_out)
    }

    /// Bytes consumed from and given to this stream so far.
    pub fn stream_bytes(&self) -> (u64, u64) {
        (self.state.moved.bytes_in, self.state.moved.bytes_out)
    }

    /// The next `n` bytes in one piece, or `None` while they have not come. For headers only.
    ///
    /// # Errors
    /// [`TooLarge`] when `n` is above [`HEADER_BYTES_MAX`].
    pub fn need(&mut self, n: usize) -> Result<Option<&[u8]>, TooLarge> {
        if n > HEADER_BYTES_MAX {
            return Err(TooLarge);
        }
        let ready = self.peek(n);
        Ok((ready.len() >= n).then_some(ready).and_then(|ready| ready.get(..n)))
    }

    /// What is there of the next `max` bytes (at most [`HEADER_BYTES_MAX`]), in one piece. Each byte is copied at most
    /// once, however small the pieces are in which it comes.
    pub fn peek(&mut self, max: usize) -> &[u8] {
        if self.state.held {
            return &[];
        }
        let max = max.min(HEADER_BYTES_MAX);
        while self.state.head.len() < max {
            if self.state.head.is_empty() && self.state.front.len() >= max {
                break;
            }
            if self.state.head.is_empty() && self.state.front.is_empty() {
                if !self.pull(FRONT_BYTES_MAX) {
                    break;
                }
                continue;
            }
            if self.state.front.is_empty() && !self.pull(FRONT_BYTES_MAX) {
                break;
            }
            if self.state.head.is_empty() {
                // The front is a part of the header: is there more? Only then gather.
                let first = std::mem::take(&mut self.state.front);
                if !self.pull(FRONT_BYTES_MAX) {
                    self.state.front = first;
                    break;
                }
                self.gather(&first);
            }
            let missing = max.saturating_sub(self.state.head.len()).min(self.state.front.len());
            let piece = self.state.front.split_to(missing);
            self.gather(&piece);
        }
        let ready = if self.state.head.is_empty() { &self.state.front[..] } else { &self.state.head[..] };
        ready.get(..max).unwrap_or(ready)
    }

    /// Of the next bytes those that are there in one piece, without asking for more than it takes to have any: empty when there are none.
    pub(crate) fn at_hand(&mut self) -> &[u8] {
        if self.state.held {
            return &[];
        }
        if self.state.head.is_empty() && self.state.front.is_empty() {
            self.pull(FRONT_BYTES_MAX);
        }
        if self.state.head.is_empty() { &self.state.front } else { &self.state.head }
    }

    fn gather(&mut self, piece: &[u8]) {
        self.state.head.extend_from_slice(piece);
        self.state.moved.copied = self.state.moved.copied.saturating_add(piece.len() as u64);
    }

    /// Takes a chunk from the port into `front`. False when there is none now.
    fn pull(&mut self, max: usize) -> bool {
        if self.state.dry {
            return false;
        }
        if self.state.peer_finished || self.state.peer_reset.is_some() {
            self.state.dry = true;
            return false;
        }
        match self.port.read(max) {
            Ok(Read::Chunk(chunk)) => {
                self.state.front = chunk;
                return true;
            }
            Ok(Read::Blocked) => {}
            Ok(Read::Finished) => self.state.peer_finished = true,
            Err(code) => self.state.peer_reset = Some(code),
        }
        self.state.dry = true;
        false
    }

    /// Removes `n` bytes that [`peek`](Self::peek) or [`need`](Self::need) has shown.
    pub fn consume(&mut self, n: usize) {
        let from_head = n.min(self.state.head.len());
        self.state.head.advance(from_head);
        if self.state.head.is_empty() {
            self.state.head = BytesMut::new();
        }
        let from_front = n.saturating_sub(from_head).min(self.state.front.len());
        self.state.front.advance(from_front);
        self.count_in(from_head.saturating_add(from_front));
    }

    fn count_in(&mut self, n: usize) {
        self.state.moved.bytes_in = self.state.moved.bytes_in.saturating_add(n as u64);
    }

    /// Takes the next chunk of at most `max` bytes without copying it, or `None` when there is none now.
    pub fn take(&mut self, max: usize) -> Option<Bytes> {
        if self.state.held || max == 0 {
            return None;
        }
        if !self.state.head.is_empty() {
            let n = max.min(self.state.head.len());
            let chunk = self.state.head.split_to(n).freeze();
            self.count_in(n);
            return Some(chunk);
        }
        if self.state.front.is_empty() && !self.pull(max) {
            return None;
        }
        let n = max.min(self.state.front.len());
        let chunk = self.state.front.split_to(n);
        self.count_in(n);
        Some(chunk)
    }

    /// As [`take`](Self::take), but pieces that are small are copied into one, of at most [`GATHER_BYTES`].
    pub fn take_gathered(&mut self, max: usize) -> Option<Bytes> {
        let first = self.take(max)?;
        let most = max.min(GATHER_BYTES);
        if first.len() >= SMALL_PIECE_BYTES.min(most) {
            return Some(first);
        }
        let Some(second) = self.take(most.saturating_sub(first.len())) else {
            return Some(first);
        };
        let mut all = BytesMut::from(&first[..]);
        let mut next = Some(second);
        while let Some(piece) = next {
            all.extend_from_slice(&piece);
            next = self.take(most.saturating_sub(all.len()));
        }
        self.copied(all.len());
        Some(all.freeze())
    }

    /// Whether the peer has finished its direction and everything was consumed.
    pub fn peer_finished(&mut self) -> bool {
        if self.state.held || !self.state.head.is_empty() || !self.state.front.is_empty() {
            return false;
        }
        if !self.state.peer_finished && self.pull(FRONT_BYTES_MAX) {
            return false;
        }
        self.state.peer_finished
    }

    /// Whether nothing can come any more beside what is already shown. True at the earliest after a
    /// [`peek`](Self::peek) or [`take`](Self::take) that gave less than was asked for.
    pub fn no_more(&self) -> bool {
        self.state.peer_finished || self.state.peer_reset.is_some()
    }

    /// The code with which the peer has reset its direction.
    pub fn peer_reset(&self) -> Option<u64> {
        self.state.peer_reset
    }

    /// The code with which the peer has refused further bytes of ours.
    pub fn peer_stopped(&self) -> Option<u64> {
        self.state.peer_stopped
    }

    /// Room for small writes now, in bytes; 0 when the stream is blocked.
    pub fn room(&self) -> usize {
        if self.blocked || !self.state.unsent.is_empty() || self.state.finish != Finish::No {
            return 0;
        }
        OUTBOX_BYTES_MAX.saturating_sub(self.state.outbox.len())
    }

    /// Gathers a small write (copied once). Returns how much was taken: [`room`](Self::room) at most.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        if let Some(bytes) = bytes.get(..taken).filter(|bytes| !bytes.is_empty()) {
            self.write_with(taken, |out| out.extend_from_slice(bytes));
        }
        taken
    }

    /// Has `put` gather a small write of `bytes` at most. False, and nothing was done, when there is no [`room`](Self::room) for so many.
    pub(crate) fn write_with(&mut self, bytes: usize, put: impl FnOnce(&mut BytesMut)) -> bool {
        if self.room() < bytes {
            return false;
        }
        let outbox = &mut self.state.outbox;
        if outbox.capacity() == 0 {
            outbox.reserve(bytes.max(OUTBOX_BYTES_FIRST));
        }
        let before = outbox.len();
        put(outbox);
        let written = outbox.len().saturating_sub(before);
        self.copied(written);
        true
    }

    /// Hands a chunk over without copying it. What was taken is removed from the front of `chunk`; returns how much.
    pub fn give(&mut self, chunk: &mut Bytes) -> usize {
        // A small chunk behind small writes shares their buffer: one record for the transport, not two.
        if chunk.len() <= self.room() && !self.state.outbox.is_empty() {
            let taken = self.write(chunk);
            chunk.advance(taken);
            return taken;
        }
        if self.state.finish != Finish::No || !self.flush() {
            return 0;
        }
        let large = chunk.len() > PIN_BYTES;
        match self.port.write(chunk) {
            Ok(0) => {
                self.blocked = !chunk.is_empty();
                0
            }
            Ok(taken) => {
                self.state.pins |= large;
                self.state.moved.bytes_out = self.state.moved.bytes_out.saturating_add(taken as u64);
                taken
            }
            Err(code) => {
                self.state.peer_stopped.get_or_insert(code);
                0
            }
        }
    }

    /// Hands a message over, chunk by chunk, as far as there is room. True when all of it is gone.
    pub fn give_message(&mut self, message: &mut Message) -> bool {
        while let Some(chunk) = message.front() {
            let taken = self.give(chunk);
            message.took(taken);
            if taken == 0 {
                return false;
            }
        }
        true
    }

    /// Puts what was gathered into the transport. True when nothing is left here.
    pub(crate) fn flush(&mut self) -> bool {
        if self.state.unsent.is_empty() && !self.state.outbox.is_empty() {
            self.state.unsent = std::mem::take(&mut self.state.outbox).freeze();
        }
        while !self.state.unsent.is_empty() {
            match self.port.write(&mut self.state.unsent) {
                Ok(0) => {
                    self.blocked = true;
                    return false;
                }
                Ok(taken) => self.state.moved.bytes_out = self.state.moved.bytes_out.saturating_add(taken as u64),
                Err(code) => {
                    self.state.peer_stopped.get_or_insert(code);
                    self.state.unsent = Bytes::new();
                }
            }
        }
        if self.state.finish == Finish::Wanted {
            self.state.finish = Finish::Done;
            self.state.cut = self.state.peer_stopped.is_some();
            self.port.finish();
        }
        true
    }

    /// Whether there are small writes, and nothing but them, that could wait for more to come.
    pub(crate) fn may_wait(&self) -> bool {
        !self.state.outbox.is_empty() && self.state.unsent.is_empty() && self.state.finish == Finish::No
    }

    /// The code with which the peer refused what we had not ended yet: not all that was to be said was heard.
    pub(crate) fn cut_off(&self) -> Option<u64> {
        self.state.peer_stopped.filter(|_| self.state.cut || self.state.finish != Finish::Done)
    }

    /// Whether our direction was neither ended nor refused.
    pub(crate) fn is_open(&self) -> bool {
        self.state.finish == Finish::No && self.state.peer_stopped.is_none()
    }

    /// As [`IoState::undelivered`].
    pub(crate) fn undelivered(&self) -> bool {
        self.state.undelivered()
    }

    /// Whether everything written is in the transport's hands.
    pub fn flushed(&mut self) -> bool {
        self.flush()
    }

    /// Closes our direction behind what was written.
    pub fn finish(&mut self) {
        if self.state.finish == Finish::No {
            self.state.finish = Finish::Wanted;
        }
    }

    /// Gives our direction up.
    pub fn reset(&mut self, code: u32) {
        self.state.outbox = BytesMut::new();
        self.state.unsent = Bytes::new();
        self.state.pins = false;
        if self.state.finish != Finish::Done {
            self.state.finish = Finish::Done;
            self.port.reset(code);
        }
    }

    /// Gives both directions up: the peer's ends here as if it had been reset with the same code.
    pub fn abandon(&mut self, code: u32) {
        self.state.held = false;
        self.reset(code);
        self.state.front = Bytes::new();
        self.state.head = BytesMut::new();
        if !self.state.peer_finished && self.state.peer_reset.is_none() {
            self.port.stop(code);
            self.state.peer_reset = Some(code.into());
        }
    }

    /// Wants nothing more from the peer.
    pub fn stop(&mut self, code: u32) {
        if self.state.held {
            self.state.late.stop = Some(code);
            return;
        }
        self.state.front = Bytes::new();
        self.state.head = BytesMut::new();
        if !self.state.peer_finished && self.state.peer_reset.is_none() {
            self.port.stop(code);
        }
        self.state.peer_finished = true;
    }

    /// Whether both directions have ended: ours finished or reset, the peer's consumed, reset or refused.
    pub fn closed(&self) -> bool {
        let ours = self.state.finish == Finish::Done || self.state.peer_stopped.is_some();
        let theirs = self.state.peer_finished || self.state.peer_reset.is_some();
        ours && theirs && self.state.front.is_empty() && self.state.head.is_empty()
    }

    /// Asks to be driven at `at` at the latest. The earliest of several in one drive counts; a drive starts with none.
    pub fn wake_at(&mut self, at: Instant, why: Why) {
        if self.state.deadline.is_none_or(|(earlier, _)| at < earlier) {
            self.state.deadline = Some((at, why));
        }
    }

    /// Sees to it that `bytes` more than the stream's own bookkeeping may be held. False, with nothing changed, when there is
    /// no memory now: answer with [`Next::MEMORY`].
    #[must_use]
    pub fn reserve(&mut self, bytes: u64) -> bool {
        self.state.grant.resize(self.state.base.saturating_add(bytes))
    }

    /// The application's word, once.
    pub fn input(&mut self) -> Option<Input> {
        self.state.input.take()
    }

    /// Tells the node.
    pub fn output(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Counts bytes that were copied in user space.
    pub fn copied(&mut self, bytes: usize) {
        self.state.moved.copied = self.state.moved.copied.saturating_add(bytes as u64);
    }

    pub(crate) fn hold_reads(&mut self, hold: bool) {
        self.state.held = hold;
    }

    /// The proposal is written: our direction may end behind it.
    pub(crate) fn late_finish(&mut self) {
        if std::mem::take(&mut self.state.late.finish) {
            self.finish();
        }
    }

    /// The answer was read: the peer's further bytes may be refused.
    pub(crate) fn late_stop(&mut self) {
        if let Some(code) = self.state.late.stop.take() {
            self.stop(code);
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
