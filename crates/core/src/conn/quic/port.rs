//! One stream of a QUIC connection, as the machines above see it.

use bytes::Bytes;

use super::quic::{self, StreamId, VarInt};
use super::room::{self, Room};
use crate::proto::Priority;
use crate::stream::{Read, StreamPort};

/// One stream of a connection.
pub(crate) struct Port<'a> {
    pub(super) inner: &'a mut quic::Connection,
    pub(super) room: &'a mut Room,
    pub(super) id: StreamId,
}

impl Port<'_> {
    pub(crate) fn set_priority(&mut self, priority: Priority) {
        let level = match priority {
            Priority::Urgent => 1,
            Priority::Normal => 0,
            Priority::Bulk => -1,
        };
        // Fails only when the stream is gone, and then there is nothing to order.
        let _ = self.inner.send_stream(self.id).set_priority(level);
        self.room.leveled(self.id, level);
    }
}

impl StreamPort for Port<'_> {
    fn read(&mut self, max: usize) -> Result<Read, u64> {
        let mut stream = self.inner.recv_stream(self.id);
        let Ok(mut chunks) = stream.read(true) else {
            // Stopped by us, or reported as finished or reset before.
            return Ok(Read::Finished);
        };
        match chunks.next(max) {
            Ok(Some(chunk)) => Ok(Read::Chunk(chunk.bytes)),
            Ok(None) => Ok(Read::Finished),
            Err(quic::ReadError::Blocked) => Ok(Read::Blocked),
            Err(quic::ReadError::Reset(code)) => Err(code.into_inner()),
        }
    }

    fn write(&mut self, chunk: &mut Bytes) -> Result<usize, u64> {
        if chunk.is_empty() {
            return Ok(0);
        }
        let level = self.inner.send_stream(self.id).priority().unwrap_or_default();
        let id = self.id;
        let written = room::write(self.inner, self.room, level, |inner| {
            inner.send_stream(id).write_chunks(std::slice::from_mut(chunk)).map(|written| written.bytes)
        });
        match written {
            Ok(bytes) => self.room.wrote(id, level, bytes, chunk.is_empty()),
            Err(quic::WriteError::Blocked) => self.room.wrote(id, level, 0, false),
            Err(_) => self.room.forget(id),
        }
        match written {
            Ok(bytes) => Ok(bytes),
            Err(quic::WriteError::Blocked) => Ok(0),
            Err(quic::WriteError::Stopped(code)) => Err(code.into_inner()),
            Err(quic::WriteError::ClosedStream) => Err(0),
        }
    }

    fn finish(&mut self) {
        self.room.forget(self.id);
        // Fails when the stream is gone, or when the peer wants no more of it: then a reset ends it, or it would stay half open.
        if let Err(quic::FinishError::Stopped(_)) = self.inner.send_stream(self.id).finish() {
            self.reset(0);
        }
    }

    fn reset(&mut self, code: u32) {
        self.room.forget(self.id);
        let _ = self.inner.send_stream(self.id).reset(VarInt::from_u32(code));
    }

    fn stop(&mut self, code: u32) {
        let _ = self.inner.recv_stream(self.id).stop(VarInt::from_u32(code));
    }
}
