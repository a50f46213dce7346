//! multistream-select: agreeing on what a stream speaks (<https://github.com/multiformats/multistream-select>).
//!
//! The dialer is lazy: it sends the header, its one proposal and the protocol's first message together, and reads what follows only
//! after the listener has agreed. On the wire that is the same as waiting; it is safe here because there is one proposal and nothing
//! else is negotiated on the stream before.

use std::sync::Arc;

use strait_wire::framing;
use strait_wire::multistream::{self, MESSAGE_BYTES_MAX, Message};

use crate::error::{Breach, StreamError};
use crate::proto::pace::deadline;
use crate::proto::{Registry, reuse};
use crate::stream::{Next, Output, StreamIo, StreamMachine};
use crate::wake::Why;

/// A dialer may propose so many protocols on one stream. Implementations that try several versions propose two to four.
pub const PROPOSALS_MAX: usize = 8;

/// The largest line with its length.
const LINE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 2;

/// What reading one line of the negotiation gave.
enum Line<T> {
    Header,
    NotAvailable,
    /// `ls`.
    List,
    /// A name, and what it is to us.
    Name(Option<T>),
    Missing,
    Bad(Breach),
}

fn read_line<T>(io: &mut StreamIo<'_>, known: impl Fn(&str) -> Option<T>) -> Line<T> {
    // Nearly always the line came whole: more is asked for only when it did not.
    let whole = matches!(framing::frame(io.at_hand(), MESSAGE_BYTES_MAX), Ok(Some(_)));
    let bytes = if whole { io.at_hand() } else { io.peek(LINE_BYTES_MAX) };
    let decoded = multistream::decode(bytes, MESSAGE_BYTES_MAX);
    let decoded = decoded.map(|line| {
        line.map(|(message, used)| match message {
            Message::Header => (Line::Header, used),
            Message::NotAvailable => (Line::NotAvailable, used),
            Message::List => (Line::List, used),
            Message::Protocol(name) => (Line::Name(known(name)), used),
        })
    });
    match decoded {
        Ok(Some((line, used))) => {
            io.consume(used);
            line
        }
        Ok(None) => match io.peer_reset() {
            Some(code) => Line::Bad(Breach::Reset(code)),
            None if io.no_more() => Line::Bad(Breach::Cut),
            None => Line::Missing,
        },
        Err(_) => Line::Bad(Breach::Malformed("multistream-select")),
    }
}

/// The side that answers on a stream that the peer opened. Its outcome is [`Output::Agreed`] or [`Output::Failed`].
#[derive(Debug)]
pub(crate) struct Listener {
    registry: Arc<Registry>,
    greeted: bool,
    proposals: usize,
    until: Option<std::time::Instant>,
}

impl Listener {
    pub(crate) fn new(registry: Arc<Registry>) -> Listener {
        Listener { registry, greeted: false, proposals: 0, until: None }
    }

    fn fail(io: &mut StreamIo<'_>, error: StreamError) -> Next {
        io.reset(0);
        io.stop(0);
        io.output(Output::Failed(error));
        Next::Done
    }
}

impl StreamMachine for Listener {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        let within = io.limits().negotiation_deadline;
        let until = *self.until.get_or_insert(deadline(io.now(), within));
        if io.now() >= until {
            return Listener::fail(io, StreamError::Idle(within));
        }
        let outcome = loop {
            // An answer that has no room is not gathered either: the next proposal waits in the transport.
            if io.room() < LINE_BYTES_MAX {
                break Next::ROOM;
            }
            match read_line(io, |name| self.registry.find(name)) {
                Line::Header if !self.greeted => {
                    self.greeted = true;
                    io.write_with(multistream::protocol_len(multistream::HEADER), multistream::header);
                }
                Line::Name(found) if self.greeted => {
                    self.proposals = self.proposals.saturating_add(1);
                    if let Some(found) = found {
                        // Names were checked when they were registered.
                        let (name, suffix) = (self.registry.name(found.number), found.suffix());
                        io.write_with(multistream::protocol_of_len(name, suffix), |out| {
                            multistream::protocol_of(name, suffix, out)
                        });
                        io.output(Output::Agreed { protocol: found.number, reused: found.reused });
                        return Next::Done;
                    }
                    io.write_with(multistream::protocol_len("na"), multistream::na);
                }
                Line::List if self.greeted => {
                    self.proposals = self.proposals.saturating_add(1);
                    io.write_with(multistream::protocol_len("na"), multistream::na);
                }
                Line::Missing => break Next::PEER,
                // A dialer that was told `na` and leaves has done nothing wrong. Nor has a lazy one, whose first message came right
                // behind its proposal and is no line. The refusal has to arrive: a reset would overtake it.
                Line::Bad(_) if self.proposals > 0 => {
                    io.finish();
                    io.stop(0);
                    io.output(Output::Quiet);
                    return Next::Done;
                }
                Line::Bad(breach) => return Listener::fail(io, StreamError::Broken(breach)),
                _ => return Listener::fail(io, StreamError::Broken(Breach::Malformed("negotiation out of order"))),
            }
            if self.proposals >= PROPOSALS_MAX {
                return Listener::fail(io, StreamError::Broken(Breach::Malformed("too many proposals")));
            }
        };
        io.wake_at(until, Why::Negotiation);
        outcome
    }
}

/// What the dialer knows of the listener's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not all of it has come. The deadline is set.
    Pending,
    /// The protocol is agreed on.
    Agreed,
    /// The listener does not have it.
    Unsupported,
    /// The listener did not answer in time.
    Late(std::time::Duration),
    /// The listener broke the negotiation.
    Broken(Breach),
}

/// The dialing side, as a part of a protocol's machine.
#[derive(Debug)]
pub(crate) struct Dialer {
    name: &'static str,
    /// What is proposed behind the name.
    suffix: &'static str,
    sent: bool,
    greeted: bool,
    agreed: bool,
    until: Option<std::time::Instant>,
}

impl Dialer {
    pub(crate) fn new(name: &'static str) -> Dialer {
        Dialer { name, suffix: "", sent: false, greeted: false, agreed: false, until: None }
    }

    /// Proposes to use the stream for several exchanges ([`reuse`]).
    pub(crate) fn reusing(name: &'static str) -> Dialer {
        Dialer { suffix: reuse::SUFFIX, ..Dialer::new(name) }
    }

    pub(crate) fn agreed(&self) -> bool {
        self.agreed
    }

    /// Writes the header and the proposal. False while there is no room.
    pub(crate) fn propose(&mut self, io: &mut StreamIo<'_>) -> bool {
        if self.sent {
            return true;
        }
        // Names were checked when they were defined.
        let proposal = multistream::protocol_of_len(self.name, self.suffix);
        self.sent = io.write_with(multistream::protocol_len(multistream::HEADER).saturating_add(proposal), |out| {
            multistream::header(out);
            multistream::protocol_of(self.name, self.suffix, out);
        });
        self.sent
    }

    /// Reads the answer as far as it has come. The deadline starts here: call it when the proposal has left this side.
    pub(crate) fn answer(&mut self, io: &mut StreamIo<'_>) -> Answer {
        if self.agreed {
            return Answer::Agreed;
        }
        if !self.greeted
            && let Some(used) = multistream::accepted(io.at_hand(), self.name, self.suffix)
        {
            io.consume(used);
            self.agreed = true;
            return Answer::Agreed;
        }
        loop {
            match read_line(io, |name| (name.strip_suffix(self.suffix) == Some(self.name)).then_some(())) {
                Line::Header if !self.greeted => self.greeted = true,
                Line::Name(Some(())) if self.greeted => {
                    self.agreed = true;
                    return Answer::Agreed;
                }
                Line::NotAvailable if self.greeted => return Answer::Unsupported,
                Line::Missing => break,
                Line::Bad(breach) => return Answer::Broken(breach),
                _ => return Answer::Broken(Breach::Malformed("negotiation out of order")),
            }
        }
        let within = io.limits().negotiation_deadline;
        let until = *self.until.get_or_insert(deadline(io.now(), within));
        if io.now() >= until {
            return Answer::Late(within);
        }
        io.wake_at(until, Why::Negotiation);
        Answer::Pending
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
