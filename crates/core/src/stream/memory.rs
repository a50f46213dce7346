//! A transport in memory: what machines are driven on by tests and by the fuzz targets. Nothing in the stack uses it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Read, StreamPort};

/// The far end of a stream, in memory.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) incoming: VecDeque<Bytes>,
    pub(crate) incoming_finished: bool,
    pub(crate) incoming_reset: Option<u64>,
    pub(crate) outgoing: Vec<u8>,
    /// How many reads and writes the transport saw.
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    pub(crate) room: usize,
    pub(crate) refused: Option<u64>,
    pub(crate) finished: bool,
    pub(crate) reset: Option<u32>,
    pub(crate) stopped: Option<u32>,
}

impl Pipe {
    /// Whether there is something to read, which a transport would have told.
    pub(crate) fn is_readable(&self) -> bool {
        !self.incoming.is_empty() || self.incoming_finished || self.incoming_reset.is_some()
    }
}

impl StreamPort for Pipe {
    fn read(&mut self, max: usize) -> Result<Read, u64> {
        self.reads = self.reads.saturating_add(1);
        if let Some(code) = self.incoming_reset {
            return Err(code);
        }
        let Some(mut chunk) = self.incoming.pop_front() else {
            return Ok(if self.incoming_finished { Read::Finished } else { Read::Blocked });
        };
        if chunk.len() > max {
            let front = chunk.split_to(max);
            self.incoming.push_front(chunk);
            return Ok(Read::Chunk(front));
        }
        Ok(Read::Chunk(chunk))
    }

    fn write(&mut self, chunk: &mut Bytes) -> Result<usize, u64> {
        if let Some(code) = self.refused {
            return Err(code);
        }
        let taken = chunk.len().min(self.room);
        self.room = self.room.saturating_sub(taken);
        self.writes = self.writes.saturating_add(usize::from(taken > 0));
        self.outgoing.extend_from_slice(&chunk.split_to(taken));
        Ok(taken)
    }

    fn finish(&mut self) {
        self.finished = true;
    }

    fn reset(&mut self, code: u32) {
        self.reset = Some(code);
    }

    fn stop(&mut self, code: u32) {
        self.stopped = Some(code);
    }
}
