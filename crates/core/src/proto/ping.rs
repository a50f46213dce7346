//! `/ipfs/ping/1.0.0` (libp2p/specs `ping`): 32 bytes go and come back on a stream that may be used again.

use std::time::{Duration, Instant};

use crate::error::{Breach, RequestError, StreamError};
use crate::proto::pace::{Direction, Pace, deadline};
use crate::proto::select::{Answer, Dialer};
use crate::stream::{Next, Output, StreamIo, StreamMachine, Waits};
use crate::wake::Why;

/// The protocol's name.
pub const NAME: &str = "/ipfs/ping/1.0.0";
/// The spec allows a peer two streams: one in use and one that replaces it.
pub const PER_PEER_MAX: u16 = 2;
/// How long the echo may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

const BYTES: usize = 32;

/// Sends back what comes. A peer that pings faster than it reads is slowed by its own window.
#[derive(Debug)]
pub(crate) struct Echo {
    pace: Pace,
}

impl Echo {
    pub(crate) fn new() -> Echo {
        Echo { pace: Pace::new(Direction::In) }
    }

    fn fail(io: &mut StreamIo<'_>, error: StreamError) -> Next {
        io.reset(0);
        io.stop(0);
        io.output(Output::Failed(error));
        Next::Done
    }
}

impl StreamMachine for Echo {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        loop {
            if io.room() < BYTES && !(io.flushed() && io.room() >= BYTES) {
                return Next::Wait(Waits { room: true, open_ended: true, ..Waits::default() });
            }
            let mut echo = [0; BYTES];
            let ready = io.peek(BYTES);
            let some = !ready.is_empty();
            if ready.len() == BYTES {
                echo.copy_from_slice(ready);
                io.consume(BYTES);
                io.write(&echo);
                self.pace.restart();
                continue;
            }
            if let Some(code) = io.peer_reset() {
                return Echo::fail(io, StreamError::Reset(code));
            }
            if io.no_more() {
                io.finish();
                io.output(Output::Quiet);
                return Next::Done;
            }
            if some {
                // Peers send their 32 bytes at once; a part of them is not allowed to wait for ever.
                if !self.pace.check(io) {
                    return Echo::fail(io, StreamError::Broken(Breach::Cut));
                }
                return Next::PEER;
            }
            return Next::Wait(Waits { peer: true, open_ended: true, ..Waits::default() });
        }
    }
}

/// One ping. Its outcome is [`Output::Pong`].
#[derive(Debug)]
pub(crate) struct Pinger {
    dialer: Dialer,
    payload: [u8; BYTES],
    sent: Option<Instant>,
}

impl Pinger {
    pub(crate) fn new(payload: [u8; BYTES]) -> Pinger {
        Pinger { dialer: Dialer::new(NAME), payload, sent: None }
    }

    fn end(io: &mut StreamIo<'_>, result: Result<Duration, RequestError>) -> Next {
        if result.is_err() {
            io.reset(0);
        }
        io.stop(0);
        io.output(Output::Pong(result));
        Next::Done
    }
}

impl StreamMachine for Pinger {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        if !self.dialer.propose(io) {
            io.wake_at(deadline(io.now(), DEADLINE), Why::Total);
            return Next::ROOM;
        }
        if self.sent.is_none() && io.room() >= BYTES {
            io.write(&self.payload);
            self.sent = Some(io.now());
        }
        let sent = self.sent.unwrap_or(io.now());
        let last = deadline(sent, DEADLINE);
        if io.now() >= last {
            return Pinger::end(io, Err(RequestError::NoAnswer(DEADLINE)));
        }
        io.wake_at(last, Why::Total);
        match self.dialer.answer(io) {
            Answer::Pending => return Next::PEER,
            Answer::Agreed => {}
            Answer::Unsupported => return Pinger::end(io, Err(RequestError::Unsupported(NAME))),
            Answer::Late(within) => return Pinger::end(io, Err(RequestError::NoAnswer(within))),
            Answer::Broken(breach) => return Pinger::end(io, Err(RequestError::Broken(breach))),
        }
        let payload = self.payload;
        let ready = io.peek(BYTES);
        if ready.len() == BYTES {
            let same = ready == payload;
            io.consume(BYTES);
            io.finish();
            let result = match same {
                true => Ok(io.now().saturating_duration_since(sent)),
                false => Err(RequestError::Broken(Breach::Malformed("the echo differs"))),
            };
            return Pinger::end(io, result);
        }
        if let Some(code) = io.peer_reset() {
            return Pinger::end(io, Err(RequestError::Rejected(code)));
        }
        if io.no_more() {
            return Pinger::end(io, Err(RequestError::Broken(Breach::Cut)));
        }
        Next::PEER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::testing::Bench;

    fn agreed() -> Vec<u8> {
        let mut lines = Vec::new();
        strait_wire::multistream::header(&mut lines);
        strait_wire::multistream::protocol(NAME, &mut lines).expect("a name");
        lines
    }

    #[test]
    fn an_echo_goes_on_until_the_peer_finishes() {
        let mut bench = Bench::new(Echo::new());
        for round in 0..3u8 {
            bench.trickle(&[round; BYTES]);
        }
        assert_eq!(bench.pipe.outgoing.len(), 3 * BYTES);
        assert_eq!(bench.finish(), Next::Done);
        assert!(bench.pipe.finished);
    }

    #[test]
    fn a_peer_that_never_reads_its_echoes_is_not_read_either() {
        let mut bench = Bench::new(Echo::new());
        bench.pipe.room = BYTES;
        for _ in 0..1000 {
            bench.receive(vec![7; BYTES]);
        }
        assert!(bench.state.held() < 8 << 10, "{} bytes held", bench.state.held());
        assert!(bench.pipe.incoming.len() > 900, "the rest waits in the transport");
    }

    #[test]
    fn a_part_of_a_ping_is_not_waited_for_for_ever() {
        let mut bench = Bench::new(Echo::new());
        bench.receive(vec![7; BYTES - 1]);
        assert_eq!(bench.wait(Duration::from_secs(3)), Next::Done);
        assert!(matches!(bench.only_output(), Output::Failed(_)));
    }

    #[test]
    fn negotiation_and_ping_leave_in_one_write_and_the_time_is_told() {
        let mut bench = Bench::new(Pinger::new([9; BYTES]));
        bench.drive();
        assert_eq!(bench.pipe.writes, 1);
        bench.receive(agreed());
        bench.now += Duration::from_millis(30);
        assert_eq!(bench.receive(vec![9; BYTES]), Next::Done);
        assert!(matches!(bench.only_output(), Output::Pong(Ok(time)) if time == Duration::from_millis(30)));
    }

    #[test]
    fn a_wrong_echo_and_a_missing_one_are_errors() {
        let mut bench = Bench::new(Pinger::new([9; BYTES]));
        bench.receive(agreed());
        bench.receive(vec![8; BYTES]);
        assert!(matches!(bench.only_output(), Output::Pong(Err(RequestError::Broken(_)))));
        let mut bench = Bench::new(Pinger::new([9; BYTES]));
        bench.receive(agreed());
        bench.wait(DEADLINE);
        assert!(matches!(bench.only_output(), Output::Pong(Err(RequestError::NoAnswer(_)))));
    }
}
