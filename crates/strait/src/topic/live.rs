//! One stream to a publisher.

use std::task::{Context, Poll};

use bytes::Bytes;
use strait_core::StreamError;
use strait_core::topic::{FollowError, Session, Wish};

use crate::stream::{RecvHalf, SendHalf, Stream};

/// So much is read at once, at most.
const READ_BYTES: usize = 16 << 10;

/// A stream on which a subscription runs.
#[derive(Debug)]
pub(super) struct Live {
    send: SendHalf,
    recv: RecvHalf,
    session: Session,
    /// What has not been written yet.
    unsent: Bytes,
}

/// Why nothing more comes on a stream.
#[derive(Debug)]
pub(super) enum Ended {
    /// The publisher ended it in order.
    Over,
    Failed(StreamError),
    Broken(FollowError),
}

impl Live {
    pub(super) fn new(stream: Stream, wish: &Wish<'_>) -> Live {
        let (send, recv) = stream.split();
        let (session, unsent) = Session::new(wish);
        Live { send, recv, session, unsent }
    }

    /// The body of the next frame, at most `max` bytes. Safe to cancel.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>, max: usize) -> Poll<Result<Bytes, Ended>> {
        loop {
            let frame = self.session.next(max).map_err(Ended::Broken)?;
            if self.unsent.is_empty() {
                self.unsent = self.session.credit().unwrap_or_default();
            }
            self.write(context);
            if let Some(body) = frame {
                return Poll::Ready(Ok(body));
            }
            match self.recv.poll_chunk(context, READ_BYTES) {
                Poll::Ready(Ok(Some(chunk))) => self.session.push(&chunk),
                Poll::Ready(Ok(None)) if self.session.is_empty() => return Poll::Ready(Err(Ended::Over)),
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(Ended::Broken(FollowError::Broken("it ended in a frame")))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Failed(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Writes as much as there is room for. Who does not read our credit has to be read all the same.
    fn write(&mut self, context: &mut Context<'_>) {
        while !self.unsent.is_empty() {
            match self.send.poll_chunk(context, &mut self.unsent) {
                Poll::Ready(Ok(_)) => {}
                // Why it failed is seen when it is read.
                Poll::Ready(Err(_)) => self.unsent = Bytes::new(),
                Poll::Pending => return,
            }
        }
    }

    /// The application wants no more.
    pub(super) fn finish(&mut self) {
        let _ = self.send.finish(); // it is over all the same
    }
}
