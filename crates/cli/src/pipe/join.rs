//! Bytes in frames, so that each side learns that the other has taken all, before either ends.

use std::io;

use bytes::{Bytes, BytesMut};
use strait::{RecvHalf, SendHalf, StreamError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::CODE_CUT;
use crate::forward::{LEN_BYTES, read_exact};

/// Bytes of a frame at most (PI-04), and all that is held in each direction (PI-08).
const FRAME_BYTES_MAX: usize = u16::MAX as usize;
/// A frame of no bytes: first that ours have ended, then that all of theirs was taken (PI-05, PI-06).
const MARK: [u8; LEN_BYTES] = [0; LEN_BYTES];

/// What was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Bytes that the other side has taken.
    pub sent: u64,
    /// Bytes that were taken here.
    pub received: u64,
}

/// Why a pipe broke.
#[derive(Debug)]
pub enum Broken {
    /// The stream, or its connection.
    Stream(StreamError),
    /// What is read here.
    Input(io::Error),
    /// What is written to here.
    Output(io::Error),
    /// The other side does not keep to the protocol.
    Malformed,
}

impl From<StreamError> for Broken {
    fn from(error: StreamError) -> Broken {
        match error {
            StreamError::ClosedHere => Broken::Malformed, // it has ended in the middle of a frame
            error => Broken::Stream(error),
        }
    }
}

/// Whose word that all was taken comes last. Who has said the first one and hears the last is done, and so is who says the last, but has to keep the
/// connection until the other has gone: bytes that were not read yet are lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Says so as soon as it is so: the side that waited.
    First,
    /// Says so when the other has: the side that connected.
    Last,
}

/// Carries bytes both ways until both have ended and both sides have taken all. `closed` is called when nothing more comes, so that whoever
/// reads the output sees its end while the other direction goes on.
///
/// # Errors
/// [`Broken`]; the other side is told that the stream is cut (PI-07).
pub async fn join<W: AsyncWrite + Unpin>(
    (mut send, mut recv): (SendHalf, RecvHalf),
    word: Word,
    input: impl AsyncRead + Unpin,
    output: W,
    closed: impl FnOnce(W) -> io::Result<()>,
) -> Result<Joined, Broken> {
    let (taken, all_taken) = oneshot::channel();
    let down = async {
        let received = take(&mut recv, output, closed).await?;
        if word == Word::Last {
            mark(&mut recv).await?;
        }
        let _ = taken.send(()); // the other direction may have failed, and says so
        if word == Word::First {
            mark(&mut recv).await?;
        }
        match recv.read(1).await? {
            None => Ok(received),
            Some(_) => Err(Broken::Malformed),
        }
    };
    let both = tokio::try_join!(up(&mut send, input, all_taken), down);
    match both {
        Ok((sent, received)) => Ok(Joined { sent, received }),
        Err(broken) => {
            send.reset(CODE_CUT);
            Err(broken)
        }
    }
}

async fn up(send: &mut SendHalf, mut input: impl AsyncRead + Unpin, all_taken: oneshot::Receiver<()>) -> Result<u64, Broken> {
    let mut sent = 0u64;
    loop {
        let mut buffer = BytesMut::with_capacity(LEN_BYTES + FRAME_BYTES_MAX);
        buffer.extend_from_slice(&MARK); // the length goes here
        let mut space = (&mut input).take(FRAME_BYTES_MAX as u64);
        let read = tokio::select! {
            biased;
            read = space.read_buf(&mut buffer) => read.map_err(Broken::Input)?,
            ended = send.ended() => return Err(ended.unwrap_or(StreamError::ClosedHere).into()),
        };
        if read == 0 {
            break;
        }
        let len = u16::try_from(read).map_err(|_| Broken::Malformed)?; // ours: no more was asked for
        if let Some(head) = buffer.first_chunk_mut::<LEN_BYTES>() {
            *head = len.to_be_bytes();
        }
        // A small frame is copied: what is written stays in memory as it is until it is acknowledged.
        let frame = if read < FRAME_BYTES_MAX / 4 { Bytes::copy_from_slice(&buffer) } else { buffer.freeze() };
        send.write_all(frame).await?;
        sent = sent.saturating_add(read as u64);
    }
    send.write_all(MARK.to_vec()).await?;
    tokio::select! {
        biased;
        taken = all_taken => taken.map_err(|_| Broken::Malformed)?, // ours: whoever takes ends with an error of its own
        ended = send.ended() => return Err(ended.unwrap_or(StreamError::ClosedHere).into()),
    }
    send.write_all(MARK.to_vec()).await?;
    send.finish()?;
    Ok(sent)
}

/// All that comes, until its end.
async fn take<W: AsyncWrite + Unpin>(
    recv: &mut RecvHalf,
    mut output: W,
    closed: impl FnOnce(W) -> io::Result<()>,
) -> Result<u64, Broken> {
    let mut received = 0u64;
    loop {
        let mut left = frame_len(recv).await?;
        if left == 0 {
            break;
        }
        while left > 0 {
            let chunk = recv.read(left).await?.ok_or(Broken::Malformed)?;
            left = left.saturating_sub(chunk.len());
            received = received.saturating_add(chunk.len() as u64);
            output.write_all(&chunk).await.map_err(Broken::Output)?;
        }
        output.flush().await.map_err(Broken::Output)?;
    }
    closed(output).map_err(Broken::Output)?;
    Ok(received)
}

/// The other side's word that it has taken all.
async fn mark(recv: &mut RecvHalf) -> Result<(), Broken> {
    match frame_len(recv).await? {
        0 => Ok(()),
        _ => Err(Broken::Malformed),
    }
}

async fn frame_len(recv: &mut RecvHalf) -> Result<usize, Broken> {
    let head = read_exact(recv, LEN_BYTES).await?;
    let head = <[u8; LEN_BYTES]>::try_from(head).map_err(|_| Broken::Malformed)?;
    Ok(usize::from(u16::from_be_bytes(head)))
}
