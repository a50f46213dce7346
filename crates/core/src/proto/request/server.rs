//! The side that answers.

use std::time::Instant;

use super::{CODE_BREACH, CODE_DECLINED, CODE_SLOW, Inbox, Outbox, RESTS, Receive, Request, Send, rest};
use crate::error::Breach;
use crate::limits::STREAM_REST_MAX;
use crate::message::Message;
use crate::proto::pace::deadline;
use crate::stream::{Input, Next, Output, StreamIo, StreamMachine};
use crate::wake::Why;

/// The answering side. Its steps are [`Output::Arrived`], then [`Output::Served`], or [`Output::Quiet`] when the application declined. Where the stream is used again,
/// [`Output::Rests`] follows and the next [`Output::Arrived`]; in the end there is one without, or [`Output::Quiet`].
#[derive(Debug)]
pub(crate) struct Server {
    def: &'static Request,
    state: ServerState,
    begun: Option<Instant>,
    /// The stream is used again ([`reuse`](super::reuse)).
    reused: bool,
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
    /// Between two exchanges: until then the next one has to begin.
    Resting(Instant),
}

impl Server {
    pub(crate) fn new(def: &'static Request) -> Server {
        Server { def, state: ServerState::Reading(Server::inbox(def)), begun: None, reused: false }
    }

    /// One whose stream is used again.
    pub(crate) fn reusing(def: &'static Request) -> Server {
        Server { reused: true, ..Server::new(def) }
    }

    /// The reply's memory is granted before the application is asked to make one.
    fn inbox(def: &Request) -> Inbox {
        Inbox::new(def.framing, def.request_bytes_max, def.reply_bytes_max)
    }

    /// Bytes of the request that are kept here; then they are the application's.
    pub(in crate::proto) fn kept(&self) -> u64 {
        match &self.state {
            ServerState::Reading(inbox) => inbox.kept(),
            ServerState::Working | ServerState::Writing { .. } | ServerState::Resting(_) => 0,
        }
    }

    fn answer(&mut self, io: &mut StreamIo<'_>, reply: Message) {
        let len = reply.len();
        // The request is gone, the reply may be small: the rest goes back.
        let _ = io.reserve(len as u64);
        let last = deadline(io.now(), self.def.total(io.limits()));
        self.state = ServerState::Writing { out: Outbox::of(self.def, reply, self.reused), len, last };
    }

    /// The reply is with the transport.
    fn served(&mut self, io: &mut StreamIo<'_>, len: usize) -> Next {
        if !self.reused || !io.is_open() {
            return Server::end(io, Ok(len), 0);
        }
        // A second answer to what is answered would be one to the next request.
        let _ = io.input();
        io.output(Output::Served(Ok(len)));
        io.output(Output::Rests);
        let _ = io.reserve(0);
        let until = deadline(io.now(), STREAM_REST_MAX);
        self.state = ServerState::Resting(until);
        if !io.at_hand().is_empty() {
            // A drive is one exchange: others have their turn before the next (RE-06).
            io.output(Output::More);
            return RESTS;
        }
        rest(io, until)
    }

    fn end(io: &mut StreamIo<'_>, result: Result<usize, Breach>, code: u32) -> Next {
        if result.is_err() {
            io.reset(code);
        }
        io.finish();
        io.stop(code);
        io.output(Output::Served(result));
        Next::Done
    }

    /// The application's own word (RE-07), which nobody needs to be told of and which is no fault of the peer.
    fn decline(io: &mut StreamIo<'_>, code: u32) -> Next {
        io.reset(code);
        io.stop(0);
        io.output(Output::Quiet);
        Next::Done
    }
}

impl StreamMachine for Server {
    fn held(&self) -> u64 {
        match &self.state {
            ServerState::Reading(inbox) => inbox.held(),
            ServerState::Working | ServerState::Resting(_) => 0,
            ServerState::Writing { out, .. } => out.message.len() as u64,
        }
    }

    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        loop {
            match &mut self.state {
                ServerState::Reading(inbox) => {
                    let begun = *self.begun.get_or_insert(io.now());
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
                    Some(Input::Reply(reply)) if reply.len() <= self.def.reply_bytes_max => self.answer(io, reply),
                    Some(Input::Reject(code)) => return Server::decline(io, code),
                    Some(_) => return Server::decline(io, CODE_DECLINED),
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
                            self.served(io, len)
                        }
                        Send::Wait if io.now() >= *last => Server::end(io, Err(Breach::Slow), CODE_SLOW),
                        Send::Wait => Next::ROOM,
                        Send::Stopped(code) => Server::end(io, Err(Breach::Reset(code)), 0),
                        Send::Stalled => Server::end(io, Err(Breach::Slow), CODE_SLOW),
                    };
                }
                // RE-03: what has come before that has waited.
                ServerState::Resting(until) => {
                    if io.at_hand().is_empty() {
                        let until = *until;
                        return rest(io, until);
                    }
                    self.begun = None;
                    self.state = ServerState::Reading(Server::inbox(self.def));
                }
            }
        }
    }
}
