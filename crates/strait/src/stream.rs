//! Raw streams: two halves, each with its own end.

mod io;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use strait_core::{PeerId, StreamError, StreamRef};
use tokio::sync::OwnedSemaphorePermit;

use crate::shared::Shared;

/// A raw stream. Split it to use its directions from two tasks.
#[derive(Debug)]
pub struct Stream {
    /// To send.
    pub send: SendHalf,
    /// To receive.
    pub recv: RecvHalf,
}

/// What both halves share: the stream's name, and its place in the window.
struct Common {
    shared: Arc<Shared>,
    name: StreamRef,
    peer: PeerId,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Common {
    fn drop(&mut self) {
        self.shared.ask(|state, _| {
            state.raw.remove(&self.name);
        });
    }
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("peer", &self.peer).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The sending half. Dropping it unfinished resets this direction: the peer sees that bytes are missing.
#[derive(Debug)]
pub struct SendHalf {
    common: Arc<Common>,
    finished: bool,
}

/// The receiving half. Dropping it tells the peer to stop sending.
#[derive(Debug)]
pub struct RecvHalf {
    common: Arc<Common>,
    finished: bool,
    /// Told again at each further read: an error must not turn into an end.
    failed: Option<StreamError>,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, name: StreamRef, peer: PeerId, permit: Option<OwnedSemaphorePermit>) -> Stream {
        let common = Arc::new(Common { shared, name, peer, _permit: permit });
        Stream {
            send: SendHalf { common: common.clone(), finished: false },
            recv: RecvHalf { common, finished: false, failed: None },
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.send.common.peer
    }

    /// The two halves.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

impl Common {
    fn ended(&self) -> Option<Option<StreamError>> {
        self.shared.lock().raw.get(&self.name).and_then(|wait| wait.ended.clone())
    }
}

impl SendHalf {
    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.common.peer
    }

    /// Writes as much of `chunk` as there is room for, at least one byte, and removes it from the front. Bytes are not copied. Safe to
    /// cancel: what was not removed was not written.
    ///
    /// # Errors
    /// [`StreamError`]: nothing more can be written.
    pub async fn write(&mut self, chunk: &mut Bytes) -> Result<usize, StreamError> {
        poll_fn(|context| self.poll_chunk(context, chunk)).await
    }

    pub(crate) fn poll_chunk(&mut self, context: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<usize, StreamError>> {
        if chunk.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.finished {
            return Poll::Ready(Err(StreamError::ClosedHere));
        }
        let common = &self.common;
        common.shared.ask(|state, now| {
            let result = match state.raw.get(&common.name).and_then(|wait| wait.ended.clone()) {
                // A peer that has given up both directions refuses what is written.
                Some(Some(StreamError::Reset(code))) => Err(StreamError::Stopped(code)),
                Some(error) => Err(error.unwrap_or(StreamError::ClosedHere)),
                None => state.core.write(now, common.name, chunk),
            };
            if let (Ok(0), Some(wait)) = (&result, state.raw.get_mut(&common.name)) {
                wait.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(result)
        })
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`StreamError`]: a part may have been written.
    pub async fn write_all(&mut self, bytes: impl Into<Bytes>) -> Result<(), StreamError> {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            self.write(&mut bytes).await?;
        }
        Ok(())
    }

    /// Waits until the stream is over: the connection was lost, the peer has reset it or refuses further bytes, or (`None`) both directions have ended.
    /// For who has nothing to write for now, or reads no further for now, and must not find out only later. Safe to cancel.
    pub async fn ended(&mut self) -> Option<StreamError> {
        let (common, finished) = (&self.common, self.finished);
        poll_fn(|context| {
            common.shared.ask(|state, now| {
                match state.raw.get(&common.name).map(|wait| wait.ended.clone()) {
                    None => return Poll::Ready(Some(StreamError::ClosedHere)),
                    Some(Some(ended)) => return Poll::Ready(ended),
                    Some(None) => {}
                }
                // While there are bytes to read, a reset shows by its other half alone: that the peer wants no more.
                if !finished && let Err(error) = state.core.write(now, common.name, &mut Bytes::new()) {
                    return Poll::Ready(Some(error));
                }
                if let Some(wait) = state.raw.get_mut(&common.name) {
                    wait.writer = Some(context.waker().clone()); // this half is borrowed, so nobody writes meanwhile
                }
                Poll::Pending
            })
        })
        .await
    }

    /// Ends this direction in order, behind what was written. The other goes on.
    ///
    /// # Errors
    /// [`StreamError`] when the stream is over.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        if let Some(ended) = self.common.ended() {
            return ended.map_or(Ok(()), Err);
        }
        self.common.shared.ask(|state, now| state.core.finish(now, self.common.name))
    }

    /// Gives the stream up, both directions: what was not delivered is lost, and nothing more can be read. The peer is told `code`:
    /// [`StreamError::Reset`] when it reads, [`StreamError::Stopped`] when it writes. The same over every transport.
    pub fn reset(&mut self, code: u32) {
        self.finished = true;
        self.common.shared.ask(|state, now| state.core.reset(now, self.common.name, code));
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished {
            self.reset(0);
        }
    }
}

impl RecvHalf {
    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.common.peer
    }

    /// Reads at most `max` bytes, at least one. `None`: the peer has finished its direction and everything was read. Bytes are not
    /// copied. Safe to cancel.
    ///
    /// # Errors
    /// [`StreamError`]: what was read before is all that ever comes.
    pub async fn read(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|context| self.poll_chunk(context, max)).await
    }

    pub(crate) fn poll_chunk(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, StreamError>> {
        use strait_core::RawRead;
        if self.finished {
            return Poll::Ready(self.failed.clone().map_or(Ok(None), Err));
        }
        let common = &self.common;
        let result = common.shared.ask(|state, now| {
            let read = match state.raw.get(&common.name).and_then(|wait| wait.ended.clone()) {
                // It is over because the peer refuses our bytes; its own had ended in order, and were all read.
                Some(Some(StreamError::Stopped(_)) | None) => Ok(RawRead::Finished),
                Some(Some(error)) => Err(error),
                None => state.core.read(now, common.name, max),
            };
            if let (Ok(RawRead::Blocked), Some(wait)) = (&read, state.raw.get_mut(&common.name)) {
                wait.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(read)
        });
        result.map(|read| match read {
            Ok(RawRead::Chunk(chunk)) => Ok(Some(chunk)),
            Ok(RawRead::Finished | RawRead::Blocked) => {
                self.finished = true;
                Ok(None)
            }
            Err(error) => {
                self.finished = true;
                self.failed = Some(error.clone());
                Err(error)
            }
        })
    }

    /// Reads all that is left, at most `max` bytes in all.
    ///
    /// # Errors
    /// [`StreamError`]; [`StreamError::Broken`] when the peer sends more than `max`.
    pub async fn read_to_end(&mut self, max: usize) -> Result<Bytes, StreamError> {
        let mut all = bytes::BytesMut::new();
        while let Some(chunk) = self.read(max.saturating_sub(all.len()).saturating_add(1)).await? {
            all.extend_from_slice(&chunk);
            if all.len() > max {
                let breach = strait_core::Breach::TooLarge { len: all.len() as u64, max: max as u64 };
                return Err(StreamError::Broken(breach));
            }
        }
        Ok(all.freeze())
    }

    /// Wants nothing more: what comes is dropped, and the peer is told `code`, [`StreamError::Stopped`] when it writes. Over QUIC it is told
    /// at once. Over TCP (Yamux has no word for this) it is told when the other direction has ended too; until then it can write
    /// as much as its credit covers, and then waits.
    pub fn stop(&mut self, code: u32) {
        self.finished = true;
        self.failed = Some(StreamError::ClosedHere);
        self.common.shared.ask(|state, now| state.core.stop(now, self.common.name, code));
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if !self.finished {
            self.stop(0);
        }
    }
}
