//! tokio's I/O traits for raw streams. They copy between the caller's buffer and the stream; [`RecvHalf::read`] and
//! [`SendHalf::write`] do not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use strait_core::StreamError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{RecvHalf, SendHalf, Stream};

/// The most that one write copies. What the stream has no room for is copied again, and what it takes is kept whole until all of it
/// is acknowledged: so not much at once.
const COPY_BYTES_MAX: usize = 4 << 10;

fn io_error(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Lost(_) => io::ErrorKind::ConnectionAborted,
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        StreamError::Stopped(_) => io::ErrorKind::BrokenPipe,
        StreamError::Unsupported(_) => io::ErrorKind::Unsupported,
        StreamError::Idle(_) => io::ErrorKind::TimedOut,
        StreamError::Broken(_) => io::ErrorKind::InvalidData,
        StreamError::ClosedHere => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, error)
}

impl AsyncRead for RecvHalf {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = ready!(RecvHalf::poll_chunk(&mut self, context, buffer.remaining()));
        if let Some(chunk) = read.map_err(io_error)? {
            buffer.put_slice(&chunk);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let part = bytes.get(..COPY_BYTES_MAX).unwrap_or(bytes);
        let mut chunk = Bytes::copy_from_slice(part);
        SendHalf::poll_chunk(&mut self, context, &mut chunk).map_err(io_error)
    }

    /// Nothing to do: what was written leaves with this turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(io_error))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(context)
    }
}
