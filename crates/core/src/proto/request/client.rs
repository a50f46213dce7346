//! The side that asks.

use std::time::{Duration, Instant};

use super::{CODE_BREACH, Inbox, Outbox, Receive, Request, Send, rest};
use crate::error::{Breach, Closed, RequestError, StreamError};
use crate::limits::STREAM_REST;
use crate::message::Message;
use crate::proto::pace::deadline;
use crate::proto::select::{Answer, Dialer};
use crate::stream::{Input, Next, Output, StreamIo, StreamMachine, Waits};
use crate::wake::Why;

/// The asking side. Its one outcome is [`Output::Reply`]; where the stream is used again, each exchange but the last has that and [`Output::Rests`], and a
/// stream that ends while it rests has [`Output::Quiet`], or [`Output::Failed`] when the peer broke the rules.
#[derive(Debug)]
pub(crate) struct Client {
    def: &'static Request,
    dialer: Dialer,
    /// The stream is used again ([`reuse`](super::reuse)).
    reused: bool,
    /// This is not its first exchange.
    again: bool,
    /// Nothing is asked: until then another request may come.
    rests: Option<Instant>,
    out: Option<Outbox>,
    inbox: Inbox,
    begun: Option<Instant>,
    answer_by: Option<Instant>,
    /// How long the request may be on its way: what was handed to the transport is not there yet.
    travel: usize,
}

impl Client {
    pub(crate) fn new(def: &'static Request, request: Message) -> Client {
        Client::with(def, request, Dialer::new(def.name), false)
    }

    /// One whose stream is used again: further requests come as [`Input::Request`] when it has said that it rests.
    pub(crate) fn reusing(def: &'static Request, request: Message) -> Client {
        Client::with(def, request, Dialer::reusing(def.name), true)
    }

    fn with(def: &'static Request, request: Message, dialer: Dialer, reused: bool) -> Client {
        Client {
            def,
            dialer,
            reused,
            again: false,
            rests: None,
            inbox: Inbox::new(def.framing, def.reply_bytes_max, request.len()),
            travel: request.len(),
            out: Some(Outbox::of(def, request, reused)),
            begun: None,
            answer_by: None,
        }
    }

    /// The next request: all begins anew but what was agreed on.
    fn ask(&mut self, request: Message) {
        let dialer = std::mem::replace(&mut self.dialer, Dialer::new(self.def.name));
        *self = Client { again: true, ..Client::with(self.def, request, dialer, self.reused) };
    }

    /// No exchange is under way, so nothing may come.
    fn rest(&mut self, io: &mut StreamIo<'_>, until: Instant) -> Next {
        if !io.peek(1).is_empty() {
            io.reset(CODE_BREACH);
            io.stop(CODE_BREACH);
            io.output(Output::Failed(StreamError::Broken(Breach::Malformed("a reply to nothing"))));
            return Next::Done;
        }
        rest(io, until)
    }

    /// Bytes of the reply that are kept.
    pub(in crate::proto) fn kept(&self) -> u64 {
        self.inbox.kept()
    }

    fn end(&mut self, io: &mut StreamIo<'_>, result: Result<Message, RequestError>) -> Next {
        if self.reused && result.is_ok() && self.out.is_none() && io.is_open() {
            io.output(Output::Reply(result));
            io.output(Output::Rests);
            let _ = io.reserve(0);
            let until = deadline(io.now(), STREAM_REST);
            self.rests = Some(until);
            return self.rest(io, until);
        }
        // A reply may come before all of the request has left: the rest is given up, or the stream would stay half open.
        if result.is_err() || self.out.is_some() {
            io.reset(0);
        }
        // Nearly always the end came with the reply: looking is cheaper than telling the peer to stop what it has finished.
        if result.is_err() || !io.peer_finished() {
            io.stop(0);
        }
        io.finish();
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
            // It may end what is kept, and did so before it saw this (RE-05).
            Receive::Breach(Breach::Cut) if self.again && !self.inbox.started() => Err(Err(RequestError::Lost(Closed::Leaving))),
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
        if let Some(until) = self.rests {
            match io.input() {
                Some(Input::Request(request)) => self.ask(request),
                _ => return self.rest(io, until),
            }
        }
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
