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

/// How long our end of an answered question waits for the asker's. go-libp2p ends its direction only after ours, so that it learns the
/// end by this; js-libp2p ends its own first, and loses the message when the agreement, the message and our end come in one packet.
const LINGER: Duration = Duration::from_millis(50);

/// Tells: the answer to a question, or (with a dialer) a push.
#[derive(Debug)]
pub(crate) struct Tell {
    dialer: Option<Dialer>,
    out: Option<Outbox>,
    until: Option<std::time::Instant>,
    /// The answer is told: our direction ends by then.
    open_until: Option<std::time::Instant>,
}

impl Tell {
    pub(crate) fn answer(message: Bytes) -> Tell {
        Tell { dialer: None, out: Some(Tell::outbox(message).left_open()), until: None, open_until: None }
    }

    pub(crate) fn push(message: Bytes) -> Tell {
        Tell { dialer: Some(Dialer::new(PUSH_NAME)), out: Some(Tell::outbox(message)), until: None, open_until: None }
    }

    fn outbox(message: Bytes) -> Outbox {
        Outbox::new(Message::from(message), Framing::LengthPrefixed)
    }

    /// The answer is told: ends our direction when the asker has ended its own, or soon.
    fn linger(&mut self, io: &mut StreamIo<'_>) -> Next {
        let until = *self.open_until.get_or_insert(deadline(io.now(), LINGER));
        let asker_ended = io.peer_finished() || io.no_more() || io.peer_stopped().is_some();
        if asker_ended || io.now() >= until {
            io.finish();
            return Tell::end(io, false);
        }
        io.wake_at(until, Why::Total);
        Next::PEER
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
            None => self.linger(io),
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
        assert_eq!(tell.drive(), Next::PEER);
        let mut hear = Bench::new(Hear::ask());
        hear.receive(agreed(NAME));
        let told = std::mem::take(&mut tell.pipe.outgoing);
        assert_eq!(hear.trickle(&told), Next::Done);
        assert!(matches!(hear.only_output(), Output::Identity(Ok(bytes)) if bytes == vec![5; 300]));
    }

    #[test]
    fn an_answer_stays_open_until_the_asker_ends_or_a_moment_has_passed() {
        let mut asker_ends = Bench::new(Tell::answer(Bytes::from(vec![5; 300])));
        assert_eq!(asker_ends.drive(), Next::PEER);
        assert!(!asker_ends.pipe.finished, "its end would come in the packet of the message");
        assert_eq!(asker_ends.finish(), Next::Done);
        assert!(asker_ends.pipe.finished);

        let mut asker_waits = Bench::new(Tell::answer(Bytes::from(vec![5; 300])));
        assert_eq!(asker_waits.drive(), Next::PEER);
        assert_eq!(asker_waits.receive(vec![0; 9]), Next::PEER, "more than the question is nothing to us");
        assert_eq!(asker_waits.wait(LINGER), Next::Done);
        assert_eq!((asker_waits.pipe.finished, asker_waits.pipe.reset), (true, None));
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
