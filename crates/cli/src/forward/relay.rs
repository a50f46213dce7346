//! One TCP connection and one stream, each carried into the other until both directions have ended, or one breaks.

use std::io;

use bytes::{Bytes, BytesMut};
use strait::{RecvHalf, SendHalf, StreamError};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::code;

/// Bytes that are read from either side at once. No more of a connection is held here in each direction (FW-07): what one side does not take, the
/// other is not asked for.
const CHUNK_BYTES: usize = 64 << 10;
/// What came in pieces below this is copied into a buffer of its own size: what is written stays in memory until it is acknowledged.
const COPY_BELOW: usize = CHUNK_BYTES / 4;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    /// Both directions have ended in order.
    Whole,
    /// The TCP side was reset or failed.
    Tcp(String),
    /// The stream was reset, or its connection was lost.
    Stream(StreamError),
}

/// A TCP connection that is reset when it is dropped, unless it was told that all went in order: nobody may take a cut for an end (FW-08).
pub(super) struct Held {
    tcp: TcpStream,
    whole: bool,
}

impl Held {
    /// Holds it. Bytes are sent as they come: whoever wrote them decides what goes together.
    pub(super) fn new(tcp: TcpStream) -> Held {
        let _ = tcp.set_nodelay(true); // without it bytes come a little later
        Held { tcp, whole: false }
    }

    /// Waits until the other end has reset it.
    pub(super) async fn reset(&self) -> io::Error {
        reset(&self.tcp).await
    }

    /// Whatever happens next is its end in order.
    pub(super) fn whole(&mut self) {
        self.whole = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.whole {
            let _ = self.tcp.set_zero_linger(); // a socket that is gone already needs no reset
        }
    }
}

/// Carries bytes both ways (FW-05, FW-06, FW-07, FW-08). When it is dropped, both sides are reset.
pub(super) async fn relay(mut held: Held, mut send: SendHalf, mut recv: RecvHalf) -> Carried {
    let carried = {
        let (read, write) = held.tcp.split();
        tokio::select! {
            biased;
            both = async { tokio::try_join!(up(&read, &mut send), down(&mut recv, write)) } => match both {
                Ok(_) => Carried::Whole,
                Err(broken) => broken,
            },
            error = reset(read.as_ref()) => Carried::Tcp(error.to_string()),
        }
    };
    match carried {
        Carried::Whole => held.whole(),
        _ => send.reset(code::TCP), // of what has ended already nobody is told
    }
    carried
}

/// Waits until the TCP connection is reset: also while nothing is read of it or written to it.
async fn reset(tcp: &TcpStream) -> io::Error {
    match tcp.ready(Interest::ERROR).await {
        Ok(_) => match tcp.take_error() {
            Ok(Some(error)) | Err(error) => error,
            // A read or a write was told of it, and says so itself.
            Ok(None) => std::future::pending().await,
        },
        Err(error) => error,
    }
}

/// From TCP to the stream.
async fn up(read: &ReadHalf<'_>, send: &mut SendHalf) -> Result<(), Carried> {
    loop {
        // Nothing is held while nothing comes.
        tokio::select! {
            biased;
            ready = read.readable() => ready.map_err(tcp)?,
            ended = send.ended() => return Err(Carried::Stream(ended.unwrap_or(StreamError::ClosedHere))),
        }
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        match read.try_read_buf(&mut buffer) {
            Ok(0) => return send.finish().map_err(Carried::Stream),
            Ok(len) if len < COPY_BELOW => send.write_all(Bytes::copy_from_slice(&buffer)).await.map_err(Carried::Stream)?,
            Ok(_) => send.write_all(buffer).await.map_err(Carried::Stream)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(tcp(error)),
        }
    }
}

/// From the stream to TCP.
async fn down(recv: &mut RecvHalf, mut write: WriteHalf<'_>) -> Result<(), Carried> {
    while let Some(chunk) = recv.read(CHUNK_BYTES).await.map_err(Carried::Stream)? {
        write.write_all(&chunk).await.map_err(tcp)?;
    }
    write.shutdown().await.map_err(tcp)
}

fn tcp(error: io::Error) -> Carried {
    Carried::Tcp(error.to_string())
}
