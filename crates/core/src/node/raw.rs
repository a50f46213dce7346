//! Raw streams: the application reads and writes them directly, so nothing is buffered in between.

use std::time::Instant;

use bytes::Bytes;

use super::state::StreamRef;
use super::{Event, Node};
use crate::error::StreamError;
use crate::limits::STREAM_WORK;
use crate::stream::{Around, IoState, StreamIo};

/// What came of reading a raw stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawRead {
    /// Bytes, in order, never empty.
    Chunk(Bytes),
    /// Nothing now. [`Event::Ready`](super::Event::Ready) will follow.
    Blocked,
    /// The peer has finished its direction and everything was read.
    Finished,
}

impl Node {
    fn with_raw<T>(&mut self, now: Instant, name: StreamRef, act: impl FnOnce(&mut StreamIo<'_>) -> T) -> Option<T> {
        let (slot, index) = {
            let (slot, stream) = self.find_stream(name)?;
            if !stream.role.is_raw() {
                return None;
            }
            (slot, usize::try_from(name.index).ok()?)
        };
        let limits = &self.config.limits;
        let conn = self.conns.get_mut(slot)?.as_deref_mut()?;
        let around = Around { now, limits, connection_in: conn.wire_in, connection_out: conn.bytes_out };
        let stream = conn.streams.get_mut(index)?;
        let mut port = conn.quic.port(stream.number?);
        let before = stream.io.moved;
        let mut outputs = Vec::new();
        let mut io = StreamIo::new(around, &mut port, &mut stream.io, &mut outputs);
        let result = act(&mut io);
        io.flush();
        let closed = io.closed();
        // As when a machine is driven, though outside of the connection's turn. No byte is touched.
        conn.owed = conn.owed.saturating_add(STREAM_WORK);
        let moved = conn.count_moved(now, index, before, &mut self.counters);
        if closed || moved.bytes_in > 0 || moved.bytes_out > 0 {
            self.stir(slot, name);
        }
        self.send_later(slot);
        Some(result)
    }

    /// The state of a raw stream that is not open yet, or whose proposal is not written.
    fn opening(&mut self, name: StreamRef) -> Option<&mut IoState> {
        let (_, stream) = self.find_stream(name)?;
        (stream.role.is_raw() && !stream.begun).then_some(&mut stream.io)
    }

    /// Reads at most `max` bytes without copying them, but for those that came in small pieces, which are gathered: a peer that sends byte by byte must not have
    /// the application look at each.
    ///
    /// # Errors
    /// [`StreamError::Reset`] when the peer has reset its direction, [`StreamError::ClosedHere`] when the stream is over.
    pub fn read(&mut self, now: Instant, name: StreamRef, max: usize) -> Result<RawRead, StreamError> {
        if self.opening(name).is_some() {
            return Ok(RawRead::Blocked);
        }
        let result = self.with_raw(now, name, |io| {
            if let Some(chunk) = io.take_gathered(max.max(1)) {
                return Ok(RawRead::Chunk(chunk));
            }
            if let Some(code) = io.peer_reset() {
                return Err(StreamError::Reset(code));
            }
            Ok(if io.peer_finished() { RawRead::Finished } else { RawRead::Blocked })
        });
        result.unwrap_or(Err(StreamError::ClosedHere))
    }

    /// Writes as much of `chunk` as there is room for, without copying it, and removes it from the front. Returns how much; 0 means
    /// blocked, and [`Event::Ready`](super::Event::Ready) will follow.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] when the peer wants no more, [`StreamError::ClosedHere`] when the stream is over.
    pub fn write(&mut self, now: Instant, name: StreamRef, chunk: &mut Bytes) -> Result<usize, StreamError> {
        if self.opening(name).is_some() {
            return Ok(0);
        }
        let result = self.with_raw(now, name, |io| {
            let taken = io.give(chunk);
            match io.peer_stopped() {
                Some(code) if taken == 0 => Err(StreamError::Stopped(code)),
                _ => Ok(taken),
            }
        });
        result.unwrap_or(Err(StreamError::ClosedHere))
    }

    /// Closes our direction behind what was written. The peer's goes on.
    ///
    /// # Errors
    /// [`StreamError::ClosedHere`] when the stream is over.
    pub fn finish(&mut self, now: Instant, name: StreamRef) -> Result<(), StreamError> {
        if let Some(io) = self.opening(name) {
            io.late.finish = true;
            return Ok(());
        }
        self.with_raw(now, name, |io| io.finish()).ok_or(StreamError::ClosedHere)?;
        if let Some((slot, _)) = self.find_stream(name) {
            self.stir(slot, name);
        }
        Ok(())
    }

    /// Gives the stream up, both directions of it, since that is all that a reset can mean on every transport (on Yamux there is no other, and
    /// go-libp2p's `Reset` is the same on QUIC): what was not delivered is lost, and the peer is told `code`, as [`StreamError::Reset`] by
    /// reading and as [`StreamError::Stopped`] by writing.
    pub fn reset(&mut self, now: Instant, name: StreamRef, code: u32) {
        if self.opening(name).is_some() {
            // Nothing was said yet: there is nothing that the peer could be told of.
            self.events.push_back(Event::Ended { stream: name, error: Some(StreamError::ClosedHere) });
            return self.cancel(name);
        }
        let _ = self.with_raw(now, name, |io| io.abandon(code));
        if let Some((slot, _)) = self.find_stream(name) {
            self.stir(slot, name);
        }
    }

    /// Wants nothing more from the peer, which is told `code`: on QUIC at once; on Yamux, which has no word for this, when our own direction has
    /// ended too, and until then it can write as much as its credit covers.
    pub fn stop(&mut self, now: Instant, name: StreamRef, code: u32) {
        if let Some(io) = self.opening(name) {
            io.late.stop = Some(code);
            return;
        }
        let _ = self.with_raw(now, name, |io| io.stop(code));
        if let Some((slot, _)) = self.find_stream(name) {
            self.stir(slot, name);
        }
    }
}
