//! Request and response: one stream an exchange, limits in the definition.

use std::time::{Duration, Instant};

use strait_wire::framing::{self, FrameError};
use strait_wire::varint;

use crate::error::{Breach, RequestError};
use crate::limits::Limits;
use crate::message::Message;
use crate::proto::pace::{Direction, Pace, deadline};
use crate::proto::select::{Answer, Dialer};
use crate::stream::{Input, Next, Output, StreamIo, StreamMachine, Waits};
use crate::wake::Why;

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
        Outbox { message, header, pace: Pace::new(Direction::Out) }
    }

    pub(super) fn drive(&mut self, io: &mut StreamIo<'_>) -> Send {
        if let Some(header) = &self.header
            && io.room() >= header.len
        {
            io.write(header.bytes());
            self.header = None;
        }
        if self.header.is_none() && io.give_message(&mut self.message) {
            io.finish();
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

/// The asking side. Its one outcome is [`Output::Reply`].
#[derive(Debug)]
pub(crate) struct Client {
    def: &'static Request,
    dialer: Dialer,
    out: Option<Outbox>,
    inbox: Inbox,
    begun: Option<Instant>,
    answer_by: Option<Instant>,
    /// How long the request may be on its way: what was handed to the transport is not there yet.
    travel: usize,
}

impl Client {
    pub(crate) fn new(def: &'static Request, request: Message) -> Client {
        Client {
            def,
            dialer: Dialer::new(def.name),
            inbox: Inbox::new(def.framing, def.reply_bytes_max, request.len()),
            travel: request.len(),
            out: Some(Outbox::new(request, def.framing)),
            begun: None,
            answer_by: None,
        }
    }

    /// Bytes of the reply that are kept.
    pub(super) fn kept(&self) -> u64 {
        self.inbox.kept()
    }

    fn end(&self, io: &mut StreamIo<'_>, result: Result<Message, RequestError>) -> Next {
        // A reply may come before all of the request has left: the rest is given up, or the stream would stay half open.
        if result.is_err() || self.out.is_some() {
            io.reset(0);
        }
        // Nearly always the end came with the reply: looking is cheaper than telling the peer to stop what it has finished.
        if result.is_err() || !io.peer_finished() {
            io.stop(0);
        }
        io.output(Output::Reply(result));
        Next::Done
    }

    fn stalled(&self, io: &StreamIo<'_>) -> RequestError {
        RequestError::Stalled {
            bytes: io.limits().progress_bytes,
            within: io.limits().progress_interval,
            got: self.inbox.got.len() as u64,
        }
    }

    /// Sends; `Some` ends the exchange.
    fn send(&mut self, io: &mut StreamIo<'_>) -> Option<RequestError> {
        let out = self.out.as_mut()?;
        match out.drive(io) {
            Send::Gone => {
                self.out = None;
                // What has left is the transport's and is paid for by its window. A request that kept its memory while it waits
                // for the reply's would be one of several that wait for each other.
                self.inbox.beside = 0;
                if !self.inbox.started() {
                    let _ = io.reserve(0);
                }
            }
            Send::Wait => {}
            // A peer that answers without reading all of the request may do so: its reply decides.
            Send::Stopped(_) => {
                self.out = None;
                io.reset(0);
            }
            Send::Stalled => return Some(self.stalled(io)),
        }
        None
    }

    fn receive(&mut self, io: &mut StreamIo<'_>) -> Result<Next, Result<Message, RequestError>> {
        match self.dialer.answer(io) {
            Answer::Pending => return Ok(Next::PEER),
            Answer::Agreed => {}
            Answer::Unsupported => return Err(Err(RequestError::Unsupported(self.def.name))),
            Answer::Late(within) => return Err(Err(RequestError::NoAnswer(within))),
            Answer::Broken(Breach::Reset(code)) => return Err(Err(RequestError::Rejected(code))),
            Answer::Broken(breach) => return Err(Err(RequestError::Broken(breach))),
        }
        match self.inbox.drive(io) {
            Receive::Whole(message) => Err(Ok(message)),
            Receive::Wait(next) => Ok(next),
            Receive::Breach(Breach::Reset(code)) => Err(Err(RequestError::Rejected(code))),
            Receive::Breach(breach) => Err(Err(RequestError::Broken(breach))),
            Receive::Stalled => Err(Err(self.stalled(io))),
        }
    }
}

impl StreamMachine for Client {
    fn held(&self) -> u64 {
        self.inbox.held().saturating_add(self.out.as_ref().map_or(0, |out| out.message.len() as u64))
    }

    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        let begun = *self.begun.get_or_insert(io.now());
        let total = self.def.total(io.limits());
        let last = deadline(begun, total);
        if io.now() >= last {
            return self.end(io, Err(RequestError::TooLong(total)));
        }
        io.wake_at(last, Why::Total);
        if !self.dialer.propose(io) {
            return Next::ROOM;
        }
        if let Some(error) = self.send(io) {
            return self.end(io, Err(error));
        }
        let next = match self.receive(io) {
            Ok(next) => next,
            Err(result) => return self.end(io, result),
        };
        if self.out.is_some() {
            return match next {
                Next::Wait(waits) => Next::Wait(Waits { peer: true, room: true, ..waits }),
                Next::Done => Next::Done,
            };
        }
        if !self.inbox.started() {
            // The deadline for the answer runs from when the request has left. What the transport has taken may still be on its way: a
            // slow link gets the time for that.
            let travel = (self.travel as u64).checked_div(io.limits().rate_min).unwrap_or(0);
            let within = self.def.deadline.saturating_add(Duration::from_secs(travel));
            let by = *self.answer_by.get_or_insert(deadline(io.now(), within));
            if io.now() >= by {
                return self.end(io, Err(RequestError::NoAnswer(self.def.deadline)));
            }
            io.wake_at(by, Why::Answer);
        }
        next
    }
}

/// The answering side. Its steps are [`Output::Arrived`], then [`Output::Served`], or [`Output::Quiet`] when the application declined.
#[derive(Debug)]
pub(crate) struct Server {
    def: &'static Request,
    state: ServerState,
    begun: Option<Instant>,
}

#[derive(Debug)]
enum ServerState {
    Reading(Inbox),
    /// The request is with the application.
    Working,
    /// `last`: a peer that keeps reading other streams must not leave this one for ever.
    Writing {
        out: Outbox,
        len: usize,
        last: Instant,
    },
}

impl Server {
    pub(crate) fn new(def: &'static Request) -> Server {
        // The reply's memory is granted before the application is asked to make one.
        let inbox = Inbox::new(def.framing, def.request_bytes_max, def.reply_bytes_max);
        Server { def, state: ServerState::Reading(inbox), begun: None }
    }

    /// Bytes of the request that are kept here; then they are the application's.
    pub(super) fn kept(&self) -> u64 {
        match &self.state {
            ServerState::Reading(inbox) => inbox.kept(),
            ServerState::Working | ServerState::Writing { .. } => 0,
        }
    }

    fn end(io: &mut StreamIo<'_>, result: Result<usize, Breach>, code: u32) -> Next {
        if result.is_err() {
            io.reset(code);
        }
        io.stop(code);
        io.output(Output::Served(result));
        Next::Done
    }

    /// The application's own word, which nobody needs to be told of and which is no fault of the peer.
    fn decline(io: &mut StreamIo<'_>, code: u32) -> Next {
        io.reset(code);
        io.stop(0);
        io.output(Output::Quiet);
        Next::Done
    }
}

/// The code with which a stream is reset when the peer broke its protocol.
pub const CODE_BREACH: u32 = 1;
/// The code with which a stream is reset when the peer was too slow.
pub const CODE_SLOW: u32 = 2;
/// The code with which a request is declined by the application.
pub const CODE_DECLINED: u32 = 3;

impl StreamMachine for Server {
    fn held(&self) -> u64 {
        match &self.state {
            ServerState::Reading(inbox) => inbox.held(),
            ServerState::Working => 0,
            ServerState::Writing { out, .. } => out.message.len() as u64,
        }
    }

    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        let begun = *self.begun.get_or_insert(io.now());
        loop {
            match &mut self.state {
                ServerState::Reading(inbox) => {
                    let last = deadline(begun, self.def.total(io.limits()));
                    if io.now() >= last {
                        return Server::end(io, Err(Breach::Slow), CODE_SLOW);
                    }
                    io.wake_at(last, Why::Total);
                    match inbox.drive(io) {
                        Receive::Whole(request) => {
                            self.state = ServerState::Working;
                            io.output(Output::Arrived(request));
                        }
                        Receive::Wait(Next::PEER) if !inbox.started() && !inbox.pace.check(io) => {
                            return Server::end(io, Err(Breach::Slow), CODE_SLOW);
                        }
                        Receive::Wait(next) => return next,
                        Receive::Breach(breach) => return Server::end(io, Err(breach), CODE_BREACH),
                        Receive::Stalled => return Server::end(io, Err(Breach::Slow), CODE_SLOW),
                    }
                }
                ServerState::Working => match io.input() {
                    Some(Input::Reply(reply)) if reply.len() <= self.def.reply_bytes_max => {
                        let len = reply.len();
                        // The request is gone, the reply may be small: the rest goes back.
                        let _ = io.reserve(len as u64);
                        let last = deadline(io.now(), self.def.total(io.limits()));
                        self.state = ServerState::Writing { out: Outbox::new(reply, self.def.framing), len, last };
                    }
                    Some(Input::Reply(_)) => return Server::decline(io, CODE_DECLINED),
                    Some(Input::Reject(code)) => return Server::decline(io, code),
                    None => {
                        // Look at the stream: a client that gave up says so here.
                        io.peek(1);
                        if let Some(code) = io.peer_stopped().or(io.peer_reset()) {
                            return Server::end(io, Err(Breach::Reset(code)), 0);
                        }
                        return Next::APP;
                    }
                },
                ServerState::Writing { out, len, last } => {
                    io.wake_at(*last, Why::Total);
                    return match out.drive(io) {
                        Send::Gone => {
                            let len = *len;
                            Server::end(io, Ok(len), 0)
                        }
                        Send::Wait if io.now() >= *last => Server::end(io, Err(Breach::Slow), CODE_SLOW),
                        Send::Wait => Next::ROOM,
                        Send::Stopped(code) => Server::end(io, Err(Breach::Reset(code)), 0),
                        Send::Stalled => Server::end(io, Err(Breach::Slow), CODE_SLOW),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
