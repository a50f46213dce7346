//! A stream as its machine sees it, and how streams end.
//!
//! Yamux has one FIN for each direction and one RST for both. So, beside QUIC (RFC 9000 section 3):
//!
//! * **finish** is the same.
//! * **reset** ends both directions at once, for there is nothing else that tells the peer to wait no longer. What has come can still be
//!   read, on both sides; then the reader gets the code.
//! * **stop** cannot be said. What comes is dropped and gets no new credit, so that a peer that goes on writing stops after at most a window; its
//!   writer is told when our direction has ended too: with a reset, at once when it has used up its credit, else after
//!   `Limits::drain_deadline`, so that it can read what we said last (some implementations drop what is unread on a reset).
//! * **Stopped** is told when the peer resets: there is no other way for it to refuse our bytes. A code comes with it only
//!   from peers that put one into the length of their reset.
//! * **Delivered** means: handed to the pipe behind everything else. There are no acknowledgements to wait for.

use bytes::Bytes;

use super::stream::{READABLE, Receive, Send};
use super::{LINGER_MAX, SEND_ENTRY_BYTES, Session, WRITE_BYTES_MIN};
use crate::proto::Priority;
use crate::stream::{Read, StreamPort};

/// One stream of a connection. A number that no stream has reads as finished and refuses what is written.
pub(crate) struct Port<'a> {
    session: &'a mut Session,
    id: u32,
}

impl Session {
    /// The stream with this number.
    pub(crate) fn port(&mut self, stream: u64) -> Port<'_> {
        // Numbers of streams fit, and 0 is nobody's.
        Port { session: self, id: u32::try_from(stream).unwrap_or(0) }
    }
}

impl Port<'_> {
    /// From its next frame on.
    pub(crate) fn set_priority(&mut self, priority: Priority) {
        if let Some(stream) = self.session.streams.get_mut(&self.id) {
            stream.priority = priority;
        }
    }
}

impl StreamPort for Port<'_> {
    fn read(&mut self, max: usize) -> Result<Read, u64> {
        let Some(stream) = self.session.streams.get_mut(&self.id) else {
            return Ok(Read::Finished);
        };
        if let Some(bytes) = stream.inbox.take(max.max(1), &mut self.session.chunks) {
            let taken = bytes.len() as u64;
            stream.unread = stream.unread.saturating_sub(taken);
            // The first bytes begin the measure, those behind them are measured.
            match stream.pace.since {
                Some(_) => stream.pace.read = stream.pace.read.saturating_add(taken),
                None => stream.pace.since = self.session.now,
            }
            if stream.wants_update() {
                self.session.control_of(self.id);
            }
            return Ok(Read::Chunk(bytes));
        }
        match stream.receive {
            Receive::Open => Ok(Read::Blocked),
            Receive::Stopped(_) => Ok(Read::Finished),
            Receive::Finished => {
                stream.receive_told = true;
                self.session.forget_if_over(self.id);
                Ok(Read::Finished)
            }
            Receive::Reset(_) if stream.receive_told => Ok(Read::Finished),
            Receive::Reset(code) => {
                stream.receive_told = true;
                self.session.forget_if_over(self.id);
                Err(code)
            }
        }
    }

    fn write(&mut self, chunk: &mut Bytes) -> Result<usize, u64> {
        let Some(stream) = self.session.streams.get(&self.id) else {
            return Err(0);
        };
        match stream.send {
            Send::Open => {}
            Send::Refused(code) => return Err(code),
            Send::Ending | Send::Ended | Send::Reset => return Err(0),
        }
        if chunk.is_empty() {
            return Ok(0);
        }
        let room = self.session.send_room(stream.priority);
        // A few bytes at a time would cost a frame each.
        let enough = room >= (chunk.len() as u64).min(WRITE_BYTES_MIN);
        let take = if enough { room.min(stream.credit_out.into()).min(chunk.len() as u64) } else { 0 };
        if take == 0 {
            self.session.wants_room(self.id);
            return Ok(0);
        }
        if let Some(stream) = self.session.streams.get_mut(&self.id) {
            let part = chunk.split_to(usize::try_from(take).unwrap_or(0));
            stream.credit_out = stream.credit_out.saturating_sub(u32::try_from(take).unwrap_or(u32::MAX));
            stream.queued = stream.queued.saturating_add(take);
            stream.outbox.push_back(part);
            self.session.send_cost = self.session.send_cost.saturating_add(take).saturating_add(SEND_ENTRY_BYTES);
        }
        self.session.has_data(self.id);
        Ok(usize::try_from(take).unwrap_or(0))
    }

    fn finish(&mut self) {
        if let Some(stream) = self.session.streams.get_mut(&self.id)
            && stream.send == Send::Open
        {
            stream.send = Send::Ending;
            self.session.has_data(self.id);
        }
    }

    fn reset(&mut self, code: u32) {
        let Some(stream) = self.session.streams.get_mut(&self.id) else {
            return;
        };
        let ended = stream.send == Send::Ended && stream.receive == Receive::Finished;
        if ended || matches!(stream.send, Send::Refused(_) | Send::Reset) {
            return;
        }
        if stream.receive == Receive::Open {
            self.session.grown = self.session.grown.saturating_sub(stream.grown());
            stream.receive = Receive::Reset(code.into());
            self.session.event(self.id, READABLE);
        }
        self.session.reset_now(self.id, code);
    }

    fn stop(&mut self, code: u32) {
        let Some(stream) = self.session.streams.get_mut(&self.id) else {
            return;
        };
        stream.inbox.clear(&mut self.session.chunks);
        match stream.receive {
            Receive::Open => {
                self.session.grown = self.session.grown.saturating_sub(stream.grown());
                stream.receive = Receive::Stopped(code);
                self.session.linger_if_stopped(self.id);
            }
            Receive::Stopped(_) => {}
            Receive::Finished | Receive::Reset(_) => {
                stream.receive_told = true;
                self.session.forget_if_over(self.id);
            }
        }
    }
}

impl Session {
    fn reset_now(&mut self, id: u32, code: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send = Send::Reset;
            stream.reset = Some(code);
        }
        self.drop_outbox(id);
        self.control_of(id);
    }

    /// Our direction has ended and nobody reads the peer's: it gets some time to end by itself.
    pub(super) fn linger_if_stopped(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !matches!(stream.receive, Receive::Stopped(_)) || stream.send != Send::Ended || stream.lingers {
            return;
        }
        stream.lingers = true;
        if let Some(by) = self.now.and_then(|now| now.checked_add(self.drain_deadline)) {
            self.lingering.push_back((by, id));
        }
        if self.lingering.len() > LINGER_MAX {
            self.end_oldest_lingering();
        }
        self.end_if_stopped(id);
    }

    /// A peer without credit cannot even end its direction's bytes: it is told that nobody wants them.
    pub(super) fn end_if_stopped(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|stream| stream.lingers && stream.credit_in == 0) {
            self.end_lingering(id);
        }
    }

    pub(super) fn end_oldest_lingering(&mut self) {
        if let Some((_, id)) = self.lingering.front().copied() {
            self.end_lingering(id);
        }
    }

    pub(super) fn end_lingering(&mut self, id: u32) {
        self.lingering.retain(|(_, queued)| *queued != id);
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.lingers = false;
        if let Receive::Stopped(code) = stream.receive {
            self.reset_now(id, code);
        }
    }
}
