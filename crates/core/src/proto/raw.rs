//! Raw streams: after the negotiation the bytes are the application's, each direction with its own end.

use std::time::Duration;

use crate::error::{Breach, StreamError};
use crate::proto::pace::deadline;
use crate::proto::select::{Answer, Dialer};
use crate::stream::{Next, Output, StreamIo, StreamMachine, Waits};
use crate::wake::Why;

/// How long nothing may move on a raw stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// The stream is reset after this time without a byte in either direction.
    After(Duration),
    /// The application says itself when it is over; the connection's own idle timeout still holds.
    Never,
}

/// The definition of a protocol of raw streams. Make it a `const`; both sides use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamProtocol {
    /// The libp2p protocol name.
    pub name: &'static str,
    /// How many such streams a peer may have with the application at once, and how many are opened to a peer: more wait.
    pub per_peer_max: u16,
    /// When a stream on which nothing moves is given up.
    pub idle: Idle,
}

impl StreamProtocol {
    /// A definition with all its limits.
    pub const fn new(name: &'static str, per_peer_max: u16, idle: Idle) -> StreamProtocol {
        StreamProtocol { name, per_peer_max, idle }
    }
}

/// Watches over a stream whose bytes the application reads and writes. Its outcome is [`Output::Failed`] or, after both
/// directions have ended, [`Output::Quiet`]; a dialer's [`Output::Confirmed`] comes before.
#[derive(Debug)]
pub(crate) struct Raw {
    def: &'static StreamProtocol,
    dialer: Option<Dialer>,
    seen: Option<(std::time::Instant, (u64, u64))>,
}

impl Raw {
    pub(crate) fn dial(def: &'static StreamProtocol) -> Raw {
        Raw { def, dialer: Some(Dialer::new(def.name)), seen: None }
    }

    pub(crate) fn accept(def: &'static StreamProtocol) -> Raw {
        Raw { def, dialer: None, seen: None }
    }

    fn fail(io: &mut StreamIo<'_>, error: StreamError) -> Next {
        io.hold_reads(false);
        io.reset(0);
        io.stop(0);
        io.output(Output::Failed(error));
        Next::Done
    }

    /// `Some` while the negotiation is not over.
    fn negotiate(&mut self, io: &mut StreamIo<'_>) -> Option<Next> {
        let dialer = self.dialer.as_mut().filter(|dialer| !dialer.agreed())?;
        if !dialer.propose(io) {
            let within = io.limits().negotiation_deadline;
            io.wake_at(deadline(io.now(), within), Why::Negotiation);
            return Some(Next::ROOM);
        }
        io.late_finish();
        io.hold_reads(false);
        let answer = dialer.answer(io);
        match answer {
            Answer::Pending => {
                // The application may write meanwhile, but must not see the peer's answer as data.
                io.hold_reads(true);
                Some(Next::Wait(Waits { peer: true, app: true, ..Waits::default() }))
            }
            Answer::Agreed => {
                io.late_stop();
                io.output(Output::Confirmed);
                None
            }
            Answer::Unsupported => Some(Raw::fail(io, StreamError::Unsupported(self.def.name))),
            Answer::Late(within) => Some(Raw::fail(io, StreamError::Idle(within))),
            Answer::Broken(Breach::Reset(code)) => Some(Raw::fail(io, StreamError::Reset(code))),
            Answer::Broken(breach) => Some(Raw::fail(io, StreamError::Broken(breach))),
        }
    }
}

impl StreamMachine for Raw {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        if let Some(next) = self.negotiate(io) {
            return next;
        }
        if io.closed() {
            if let Some(code) = io.cut_off() {
                // Whose own direction was reset too says more by that: with the other word alone, it has ended in order.
                let error = io.peer_reset().map_or(StreamError::Stopped(code), StreamError::Reset);
                return Raw::fail(io, error);
            }
            io.output(Output::Quiet);
            return Next::Done;
        }
        if let Idle::After(limit) = self.def.idle {
            let bytes = io.stream_bytes();
            let (since, _) = match self.seen {
                Some(seen) if seen.1 == bytes => seen,
                _ => *self.seen.insert((io.now(), bytes)),
            };
            let until = deadline(since, limit);
            if io.now() >= until {
                return Raw::fail(io, StreamError::Idle(limit));
            }
            io.wake_at(until, Why::Idle);
        }
        Next::Wait(Waits { peer: true, room: true, app: true, open_ended: true, ..Waits::default() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::stream::testing::Bench;

    const CHAT: StreamProtocol = StreamProtocol::new("/chat/1", 4, Idle::After(Duration::from_secs(60)));

    fn agreed() -> Vec<u8> {
        let mut lines = Vec::new();
        strait_wire::multistream::header(&mut lines);
        strait_wire::multistream::protocol(CHAT.name, &mut lines).expect("a name");
        lines
    }

    #[test]
    fn the_answer_to_the_proposal_is_never_seen_as_data() {
        let mut bench = Bench::new(Raw::dial(&CHAT));
        let mut first = agreed();
        let rest = first.split_off(10);
        bench.receive(first);
        assert!(bench.outputs.is_empty());
        bench.receive([rest, b"hello".to_vec()].concat());
        assert!(matches!(bench.only_output(), Output::Confirmed));
        let around = crate::stream::Around { now: bench.now, limits: &bench.limits, connection_in: 0, connection_out: 0 };
        let mut io = StreamIo::new(around, &mut bench.pipe, &mut bench.state, &mut bench.outputs);
        assert_eq!(io.take(100).as_deref(), Some(&b"hello"[..]));
    }

    fn act<T>(bench: &mut Bench<Raw>, act: impl FnOnce(&mut StreamIo<'_>) -> T) -> T {
        let around = crate::stream::Around { now: bench.now, limits: &bench.limits, connection_in: 0, connection_out: 0 };
        act(&mut StreamIo::new(around, &mut bench.pipe, &mut bench.state, &mut bench.outputs))
    }

    #[test]
    fn a_stream_is_not_over_before_its_bytes_are_read() {
        let mut bench = Bench::new(Raw::dial(&CHAT));
        let mut whole = agreed();
        whole.extend_from_slice(b"hello");
        // In two pieces, so that what follows the answer is gathered with it.
        let (first, rest) = whole.split_at(10);
        bench.pipe.incoming.extend([Bytes::copy_from_slice(first), Bytes::copy_from_slice(rest)]);
        bench.finish();
        assert!(matches!(bench.only_output(), Output::Confirmed));
        act(&mut bench, |io| io.finish());
        assert!(matches!(bench.drive(), Next::Wait(_)));
        assert!(bench.outputs.is_empty(), "{:?}", bench.outputs);
        assert_eq!(act(&mut bench, |io| io.take(100)).as_deref(), Some(&b"hello"[..]));
        assert!(act(&mut bench, |io| io.peer_finished()));
        assert_eq!(bench.drive(), Next::Done);
        assert!(matches!(bench.only_output(), Output::Quiet));
    }

    #[test]
    fn refusing_the_peers_bytes_early_does_not_break_the_negotiation() {
        let mut bench = Bench::new(Raw::dial(&CHAT));
        bench.drive();
        act(&mut bench, |io| io.stop(9));
        assert_eq!(bench.pipe.stopped, None, "the answer is still wanted");
        bench.receive(agreed());
        assert!(matches!(bench.only_output(), Output::Confirmed));
        assert_eq!(bench.pipe.stopped, Some(9));
    }

    #[test]
    fn a_peer_that_refuses_our_bytes_is_not_an_end_in_order() {
        for finished in [false, true] {
            let mut bench = Bench::new(Raw::accept(&CHAT));
            bench.finish();
            act(&mut bench, |io| assert!(io.peer_finished()));
            if finished {
                act(&mut bench, |io| io.finish());
                bench.drive();
            }
            bench.pipe.refused = Some(4);
            bench.state.peer_stopped = Some(4);
            act(&mut bench, |io| io.finish());
            assert_eq!(bench.drive(), Next::Done);
            let output = bench.only_output();
            match finished {
                true => assert!(matches!(output, Output::Quiet), "all was said before: {output:?}"),
                false => assert!(matches!(output, Output::Failed(StreamError::Stopped(4))), "{output:?}"),
            }
        }
    }

    #[test]
    fn an_end_before_the_proposal_comes_behind_it() {
        let mut bench = Bench::new(Raw::dial(&CHAT));
        bench.state.late.finish = true;
        bench.drive();
        assert_eq!(bench.pipe.outgoing, agreed());
        assert!(bench.pipe.finished);
    }

    #[test]
    fn small_pieces_are_gathered_and_large_ones_are_not_copied() {
        let mut bench = Bench::new(Raw::accept(&CHAT));
        bench.drive();
        let large = Bytes::from(vec![2; 4_000]);
        let small = (0..1_000).map(|_| Bytes::from_static(&[1]));
        bench.pipe.incoming.extend(small.chain([large.clone(), large.clone()]));
        let first = act(&mut bench, |io| io.take_gathered(100)).expect("there");
        assert_eq!(first, vec![1; 100]);
        let second = act(&mut bench, |io| io.take_gathered(100_000)).expect("there");
        assert_eq!(second, [vec![1; 900], vec![2; 4_096 - 900]].concat());
        let third = act(&mut bench, |io| io.take_gathered(100_000)).expect("there");
        assert_eq!(third, vec![2; 4_000 - (4_096 - 900)]);
        assert_eq!(act(&mut bench, |io| io.take_gathered(100_000)).as_deref().map(<[u8]>::as_ptr), Some(large.as_ptr()));
        assert_eq!(bench.state.moved.copied, 100 + 4_096);
        assert_eq!(act(&mut bench, |io| io.take_gathered(100_000)), None);
    }

    #[test]
    fn a_refusal_is_told() {
        let mut bench = Bench::new(Raw::dial(&CHAT));
        let mut lines = Vec::new();
        strait_wire::multistream::header(&mut lines);
        strait_wire::multistream::na(&mut lines);
        assert_eq!(bench.receive(lines), Next::Done);
        assert!(matches!(bench.only_output(), Output::Failed(StreamError::Unsupported("/chat/1"))));
    }

    #[test]
    fn idle_is_measured_from_the_last_byte() {
        let mut bench = Bench::new(Raw::accept(&CHAT));
        bench.drive();
        assert!(matches!(bench.wait(Duration::from_secs(59)), Next::Wait(_)));
        bench.state.moved.bytes_in += 1;
        assert!(matches!(bench.wait(Duration::from_secs(2)), Next::Wait(_)));
        assert_eq!(bench.wait(Duration::from_secs(60)), Next::Done);
        assert!(matches!(bench.only_output(), Output::Failed(StreamError::Idle(_))));
    }
}
