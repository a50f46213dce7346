//! Request and response: limits in the definition, and a stream for each exchange, or for several of them one after the other ([`reuse`](super::reuse)).

mod client;
mod server;

use std::time::{Duration, Instant};

use strait_wire::framing::{self, FrameError};
use strait_wire::varint;

use crate::error::Breach;
use crate::limits::{Limits, PIN_BYTES};
use crate::message::Message;
use crate::proto::pace::{Direction, Pace};
use crate::stream::{Next, Output, StreamIo, Waits};
use crate::wake::Why;

pub(crate) use client::Client;
pub(crate) use server::Server;

/// The code with which a stream is reset when the peer broke its protocol.
pub const CODE_BREACH: u32 = 1;
/// The code with which a stream is reset when the peer was too slow.
pub const CODE_SLOW: u32 = 2;
/// The code with which a request is declined by the application.
pub const CODE_DECLINED: u32 = 3;

/// A stream that is kept for the next exchange: nothing is wrong with it, however long that takes.
const RESTS: Next = Next::Wait(Waits { peer: true, room: false, app: false, memory: false, open_ended: true });

/// No exchange is under way on a stream that is used again: it waits for the next one until then, and ends in order (RE-05).
fn rest(io: &mut StreamIo<'_>, until: Instant) -> Next {
    if io.is_open() && !io.no_more() && io.now() < until {
        io.wake_at(until, Why::Idle);
        return RESTS;
    }
    io.finish();
    io.stop(0);
    io.output(Output::Quiet);
    Next::Done
}

/// How a message's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// A varint length before each message. What is too large is refused before a byte of it is kept.
    #[default]
    LengthPrefixed,
    /// Each message ends where its direction of the stream ends. For protocols of others that do it so.
    EndOfStream,
}

/// The definition of a request/response protocol. Make it a `const`; both sides use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The libp2p protocol name, such as `/app/block/1`.
    pub name: &'static str,
    /// The largest request, in bytes.
    pub request_bytes_max: usize,
    /// The largest reply, in bytes.
    pub reply_bytes_max: usize,
    /// How long the answer may take to begin, beside the time that the request itself needs at the node's slowest rate. Transferring a message may take longer: as long as it makes progress, and
    /// in all this plus its largest size at the node's slowest rate.
    pub deadline: Duration,
    /// How many of a peer's requests are worked on at once, and how many are sent to a peer at once: more wait, without an error.
    pub per_peer_max: u16,
    /// How messages end.
    pub framing: Framing,
    /// Whether it does no harm when the other side works on the same request twice. Then a request whose connection was lost is sent again over a
    /// new one.
    pub idempotent: bool,
}

impl Request {
    /// A length-prefixed protocol.
    pub const fn new(
        name: &'static str,
        request_bytes_max: usize,
        reply_bytes_max: usize,
        deadline: Duration,
        per_peer_max: u16,
    ) -> Request {
        let (framing, idempotent) = (Framing::LengthPrefixed, false);
        Request { name, request_bytes_max, reply_bytes_max, deadline, per_peer_max, framing, idempotent }
    }

    /// The same with another framing.
    pub const fn framing(mut self, framing: Framing) -> Request {
        self.framing = framing;
        self
    }

    /// The same, declared to do no harm when it is done twice. Asking for something is such a protocol, adding something as a rule is not.
    pub const fn idempotent(mut self) -> Request {
        self.idempotent = true;
        self
    }

    /// How long a whole exchange may take.
    pub fn total(&self, limits: &Limits) -> Duration {
        let bytes = self.request_bytes_max.saturating_add(self.reply_bytes_max) as u64;
        let transfer = Duration::from_secs(bytes.checked_div(limits.rate_min).unwrap_or(u64::MAX).min(1 << 30));
        self.deadline.saturating_add(transfer).saturating_add(limits.progress_interval)
    }
}

/// Receives one message.
#[derive(Debug)]
pub(super) struct Inbox {
    framing: Framing,
    max: usize,
    /// Bytes that the exchange needs beside this message. Reserved together with it, so that nothing is held while waiting for more.
    beside: u64,
    /// What was announced, or the limit where nothing is announced.
    size: Option<usize>,
    got: Message,
    pace: Pace,
}

pub(super) enum Receive {
    Whole(Message),
    Wait(Next),
    Breach(Breach),
    Stalled,
}

impl Inbox {
    pub(super) fn new(framing: Framing, max: usize, beside: usize) -> Inbox {
        Inbox { framing, max, beside: beside as u64, size: None, got: Message::new(), pace: Pace::new(Direction::In) }
    }

    /// Bytes of the message that are kept.
    pub(super) fn kept(&self) -> u64 {
        self.got.kept()
    }

    pub(super) fn started(&self) -> bool {
        self.size.is_some()
    }

    pub(super) fn drive(&mut self, io: &mut StreamIo<'_>) -> Receive {
        if self.size.is_none() {
            match self.header(io) {
                Ok(true) => {}
                Ok(false) => return self.missing(io, false),
                Err(breach) => return Receive::Breach(breach),
            }
        }
        let size = self.size.unwrap_or(self.max);
        // Reserved whole before the first byte is kept: messages that each wait for the other's memory cannot arise.
        let bytes = (size as u64).saturating_mul(Message::HELD_FACTOR).saturating_add(self.beside);
        if !io.reserve(bytes) {
            self.pace.restart();
            return Receive::Wait(Next::MEMORY);
        }
        while self.got.len() < size {
            let Some(chunk) = io.take(size.saturating_sub(self.got.len())) else {
                break;
            };
            let copied = if chunk.len() == size {
                let (whole, copied) = Message::whole(chunk);
                self.got = whole;
                copied
            } else {
                self.got.push(chunk)
            };
            io.copied(copied);
        }
        match self.framing {
            Framing::LengthPrefixed if self.got.len() == size => Receive::Whole(std::mem::take(&mut self.got)),
            Framing::EndOfStream if io.peer_finished() => Receive::Whole(std::mem::take(&mut self.got)),
            Framing::EndOfStream if self.got.len() == size && !io.peek(1).is_empty() => {
                let len = (size as u64).saturating_add(1);
                Receive::Breach(Breach::TooLarge { len, max: self.max as u64 })
            }
            _ => self.missing(io, true),
        }
    }

    /// Reads the length. `Ok(false)` while it has not come.
    fn header(&mut self, io: &mut StreamIo<'_>) -> Result<bool, Breach> {
        if self.framing == Framing::EndOfStream {
            // Begun when the first byte, or the end, is there.
            let begun = !io.peek(1).is_empty() || io.peer_finished();
            self.size = begun.then_some(self.max);
            return Ok(begun);
        }
        match framing::frame_len(io.peek(strait_wire::varint::BYTES_MAX), self.max) {
            Ok(Some((used, size))) => {
                io.consume(used);
                self.size = Some(size);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(FrameError::TooLong { announced, max }) => Err(Breach::TooLarge { len: announced, max: max as u64 }),
            Err(FrameError::Length(_)) => Err(Breach::Malformed("message length")),
        }
    }

    fn held(&self) -> u64 {
        self.got.held()
    }

    fn missing(&mut self, io: &mut StreamIo<'_>, begun: bool) -> Receive {
        if let Some(code) = io.peer_reset() {
            return Receive::Breach(Breach::Reset(code));
        }
        if io.no_more() {
            return Receive::Breach(Breach::Cut);
        }
        if begun && !self.pace.check(io) {
            return Receive::Stalled;
        }
        Receive::Wait(Next::PEER)
    }
}

/// Sends one message.
#[derive(Debug)]
pub(super) struct Outbox {
    message: Message,
    /// The length before the message, as long as it is not written.
    header: Option<Header>,
    /// Our direction of the stream ends with it.
    last: bool,
    pace: Pace,
}

/// The length that is written before a message.
#[derive(Debug)]
struct Header {
    bytes: [u8; varint::BYTES_MAX],
    len: usize,
}

impl Header {
    fn new(length: usize) -> Header {
        let mut bytes = [0; varint::BYTES_MAX];
        let mut rest = &mut bytes[..];
        framing::put_header(length, &mut rest);
        let len = varint::BYTES_MAX.saturating_sub(rest.len());
        Header { bytes, len }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

pub(super) enum Send {
    Gone,
    Wait,
    Stopped(u64),
    Stalled,
}

impl Outbox {
    pub(super) fn new(message: Message, framing: Framing) -> Outbox {
        let header = (framing == Framing::LengthPrefixed).then(|| Header::new(message.len()));
        Outbox { message, header, last: true, pace: Pace::new(Direction::Out) }
    }

    /// For a message of `def`. On a stream that is used again others may follow it (RE-04), but not behind a large one: its memory comes back when all of its
    /// direction is acknowledged, which is told of the end of a stream only.
    fn of(def: &Request, message: Message, reused: bool) -> Outbox {
        let last = !reused || message.len() > PIN_BYTES;
        Outbox { last, ..Outbox::new(message, def.framing) }
    }

    pub(super) fn drive(&mut self, io: &mut StreamIo<'_>) -> Send {
        if let Some(header) = &self.header
            && io.room() >= header.len
        {
            io.write(header.bytes());
            self.header = None;
        }
        if self.header.is_none() && io.give_message(&mut self.message) {
            if self.last {
                io.finish();
            }
            if io.flushed() {
                // A small message is gone from here too when the peer had refused it before.
                return io.cut_off().map_or(Send::Gone, Send::Stopped);
            }
        }
        if let Some(code) = io.peer_stopped() {
            return Send::Stopped(code);
        }
        if !self.pace.check(io) {
            return Send::Stalled;
        }
        Send::Wait
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
