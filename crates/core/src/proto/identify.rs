//! `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0` (libp2p/specs `identify`): what a peer says of itself.
//!
//! The machines carry the message; what is in it is decoded by the node and is the peer's claim, nothing more, except for the
//! key, which has to be the one the connection was authenticated with.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Breach, RequestError};
use crate::message::Message;
use crate::proto::pace::deadline;
use crate::proto::request::{Framing, Inbox, Outbox, Receive, Send};
use crate::proto::select::{Answer, Dialer};
use crate::stream::{Next, Output, StreamIo, StreamMachine, Waits};
use crate::wake::Why;

/// The name under which a node is asked.
pub const NAME: &str = "/ipfs/id/1.0.0";
/// The name under which a node tells unasked.
pub const PUSH_NAME: &str = "/ipfs/id/push/1.0.0";
/// How many such streams of one peer are worked on at once.
pub const PER_PEER_MAX: u16 = 2;
/// The largest message that is read, in bytes. Peers send at most 4 KiB; go reads 8.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// How long an exchange may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Tells: the answer to a question, or (with a dialer) a push.
#[derive(Debug)]
pub(crate) struct Tell {
    dialer: Option<Dialer>,
    out: Option<Outbox>,
    until: Option<std::time::Instant>,
}

impl Tell {
    pub(crate) fn answer(message: Bytes) -> Tell {
        Tell { dialer: None, out: Some(Outbox::new(Message::from(message), Framing::LengthPrefixed)), until: None }
    }

    pub(crate) fn push(message: Bytes) -> Tell {
        Tell { dialer: Some(Dialer::new(PUSH_NAME)), ..Tell::answer(message) }
    }

    fn end(io: &mut StreamIo<'_>, failed: bool) -> Next {
        if failed {
            io.reset(0);
        }
        io.stop(0);
        io.output(Output::Quiet);
        Next::Done
    }
}

impl StreamMachine for Tell {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        let until = *self.until.get_or_insert(deadline(io.now(), DEADLINE));
        if io.now() >= until {
            return Tell::end(io, true);
        }
        io.wake_at(until, Why::Total);
        if let Some(dialer) = &mut self.dialer
            && !dialer.propose(io)
        {
            return Next::ROOM;
        }
        if let Some(out) = &mut self.out {
            match out.drive(io) {
                Send::Gone => self.out = None,
                Send::Wait => return Next::ROOM,
                Send::Stopped(_) | Send::Stalled => return Tell::end(io, true),
            }
        }
        match &mut self.dialer {
            None => Tell::end(io, false),
            Some(dialer) => match dialer.answer(io) {
                Answer::Pending => Next::PEER,
                answer => Tell::end(io, answer != Answer::Agreed),
            },
        }
    }
}

/// Listens: asks (with a dialer) or takes a push. Its outcome is [`Output::Identity`].
#[derive(Debug)]
pub(crate) struct Hear {
    dialer: Option<Dialer>,
    inbox: Inbox,
    until: Option<std::time::Instant>,
}

impl Hear {
    pub(crate) fn pushed() -> Hear {
        Hear { dialer: None, inbox: Inbox::new(Framing::LengthPrefixed, MESSAGE_BYTES_MAX, 0), until: None }
    }

    pub(crate) fn ask() -> Hear {
        Hear { dialer: Some(Dialer::new(NAME)), ..Hear::pushed() }
    }

    /// Bytes of the message that are kept.
    pub(super) fn kept(&self) -> u64 {
        self.inbox.kept()
    }

    fn end(io: &mut StreamIo<'_>, result: Result<Bytes, RequestError>) -> Next {
        if result.is_err() {
            io.reset(0);
        }
        io.finish();
        io.stop(0);
        io.output(Output::Identity(result));
        Next::Done
    }
}

impl StreamMachine for Hear {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        let until = *self.until.get_or_insert(deadline(io.now(), DEADLINE));
        if io.now() >= until {
            return Hear::end(io, Err(RequestError::TooLong(DEADLINE)));
        }
        io.wake_at(until, Why::Total);
        if let Some(dialer) = &mut self.dialer {
            if !dialer.propose(io) {
                return Next::Wait(Waits { room: true, ..Waits::default() });
            }
            match dialer.answer(io) {
                Answer::Pending => return Next::PEER,
                Answer::Agreed => {}
                Answer::Unsupported => return Hear::end(io, Err(RequestError::Unsupported(NAME))),
                Answer::Late(within) => return Hear::end(io, Err(RequestError::NoAnswer(within))),
                Answer::Broken(breach) => return Hear::end(io, Err(RequestError::Broken(breach))),
            }
        }
        match self.inbox.drive(io) {
            Receive::Whole(message) => Hear::end(io, Ok(message.into_bytes())),
            Receive::Wait(next) => next,
            Receive::Breach(breach) => Hear::end(io, Err(RequestError::Broken(breach))),
            Receive::Stalled => Hear::end(io, Err(RequestError::Broken(Breach::Slow))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::testing::Bench;

    fn agreed(name: &str) -> Vec<u8> {
        let mut lines = Vec::new();
        strait_wire::multistream::header(&mut lines);
        strait_wire::multistream::protocol(name, &mut lines).expect("a name");
        lines
    }

    #[test]
    fn what_one_side_tells_the_other_hears() {
        let mut tell = Bench::new(Tell::answer(Bytes::from(vec![5; 300])));
        assert_eq!(tell.drive(), Next::Done);
        let mut hear = Bench::new(Hear::ask());
        hear.receive(agreed(NAME));
        let told = std::mem::take(&mut tell.pipe.outgoing);
        assert_eq!(hear.trickle(&told), Next::Done);
        assert!(matches!(hear.only_output(), Output::Identity(Ok(bytes)) if bytes == vec![5; 300]));
    }

    #[test]
    fn a_push_is_one_write_and_ends_with_the_agreement() {
        let mut push = Bench::new(Tell::push(Bytes::from(vec![5; 30])));
        assert_eq!(push.drive(), Next::PEER);
        assert_eq!(push.pipe.writes, 1);
        assert!(push.pipe.finished);
        assert_eq!(push.receive(agreed(PUSH_NAME)), Next::Done);
    }

    #[test]
    fn an_announced_giant_is_refused_by_its_header() {
        let mut hear = Bench::new(Hear::pushed());
        assert_eq!(hear.receive(vec![0xff, 0xff, 0xff, 0xff, 0x0f]), Next::Done);
        assert!(matches!(hear.only_output(), Output::Identity(Err(RequestError::Broken(Breach::TooLarge { max: 8192, .. })))));
    }

    #[test]
    fn silence_ends() {
        let mut hear = Bench::new(Hear::pushed());
        hear.drive();
        assert_eq!(hear.wait(DEADLINE), Next::Done);
        assert!(matches!(hear.only_output(), Output::Identity(Err(_))));
    }
}
