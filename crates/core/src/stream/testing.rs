//! A bench that drives one machine against scripted bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub(crate) use super::memory::Pipe;
use super::*;
use crate::budget::{Account, Grant, Ledger};

/// One machine on one pipe.
pub(crate) struct Bench<M> {
    pub(crate) machine: M,
    pub(crate) pipe: Pipe,
    pub(crate) state: IoState,
    pub(crate) now: Instant,
    pub(crate) limits: Limits,
    pub(crate) outputs: Vec<Output>,
    pub(crate) feeds: Feeds,
    pub(crate) ledger: Ledger,
    account: Arc<Account>,
    pub(crate) connection_in: u64,
    pub(crate) connection_out: u64,
}

impl<M: StreamMachine> Bench<M> {
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn new(machine: M) -> Bench<M> {
        let ledger = Ledger::new(1 << 24);
        let account = ledger.open(0, 1 << 24).expect("fits");
        Bench {
            machine,
            pipe: Pipe { room: usize::MAX, ..Pipe::default() },
            state: IoState::new(account.grant(0).expect("fits")),
            now: Instant::now(),
            limits: Limits::default(),
            outputs: Vec::new(),
            feeds: Feeds::default(),
            ledger,
            account,
            connection_in: 0,
            connection_out: 0,
        }
    }

    pub(crate) fn drive(&mut self) -> Next {
        if self.pipe.is_readable() {
            self.state.stirred();
        }
        let around = Around {
            now: self.now,
            limits: &self.limits,
            connection_in: self.connection_in,
            connection_out: self.connection_out,
        };
        let mut io = StreamIo::new(around, &mut self.pipe, &mut self.state, &mut self.outputs).with_feeds(&mut self.feeds);
        let next = self.machine.drive(&mut io);
        io.flush();
        next
    }

    pub(crate) fn receive(&mut self, bytes: impl Into<Bytes>) -> Next {
        let bytes = bytes.into();
        self.connection_in += bytes.len() as u64;
        self.pipe.incoming.push_back(bytes);
        self.drive()
    }

    /// Receives the bytes in one piece, or nothing at all when there are none.
    pub(crate) fn receive_some(&mut self, bytes: &[u8]) -> Next {
        if bytes.is_empty() { self.drive() } else { self.receive(bytes.to_vec()) }
    }

    /// Receives byte by byte.
    pub(crate) fn trickle(&mut self, bytes: &[u8]) -> Next {
        let mut next = self.drive();
        for byte in bytes {
            next = self.receive(vec![*byte]);
        }
        next
    }

    pub(crate) fn finish(&mut self) -> Next {
        self.pipe.incoming_finished = true;
        self.drive()
    }

    pub(crate) fn wait(&mut self, time: Duration) -> Next {
        self.now += time;
        self.drive()
    }

    /// Takes memory until only so many bytes are left.
    pub(crate) fn ledger_all_but(&self, left: u64) -> Grant {
        self.account.grant(self.ledger.budget() - self.ledger.committed() - left).expect("fits")
    }

    pub(crate) fn only_output(&mut self) -> Output {
        assert_eq!(self.outputs.len(), 1, "{:?}", self.outputs);
        self.outputs.remove(0)
    }
}

struct Collect(usize, Vec<Vec<u8>>);

impl StreamMachine for Collect {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        while let Ok(Some(bytes)) = io.need(self.0) {
            let bytes = bytes.to_vec();
            io.consume(bytes.len());
            self.1.push(bytes);
        }
        Next::PEER
    }
}

#[test]
fn headers_are_put_together_from_any_pieces_and_copied_once() {
    let bytes: Vec<u8> = (0..=254).collect();
    for piece in [1, 2, 3, 7, 85, 255] {
        let mut bench = Bench::new(Collect(5, Vec::new()));
        for part in bytes.chunks(piece) {
            bench.receive(part.to_vec());
        }
        assert_eq!(bench.machine.1.concat(), bytes, "pieces of {piece}");
        assert!(bench.state.moved.copied <= 255, "{} copied for 255", bench.state.moved.copied);
    }
}

#[test]
fn a_header_above_the_cap_is_refused() {
    struct Greedy(bool);
    impl StreamMachine for Greedy {
        fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
            self.0 = io.need(HEADER_BYTES_MAX + 1) == Err(TooLarge);
            Next::Done
        }
    }
    let mut bench = Bench::new(Greedy(false));
    bench.drive();
    assert!(bench.machine.0);
}
