//! What runs at an address: one bounded turn at a time, paid for in virtual processor time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::exec::Exec;
use crate::net::{Datagram, HostId, Net, Outgoing};
use crate::tcp::{Tcp, TcpId};

/// Polls of app tasks that one instant of virtual time may take before it is a livelock.
pub(crate) const POLLS_MAX: usize = 100_000;

/// A program with an address. The strait node is one; an attacker that writes raw bytes can be another.
pub trait Host: Send {
    /// One bounded turn: take what has arrived, do what is due, send what is ready.
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned;

    /// When the next turn is due though nothing arrives, as virtual time; `None` for never.
    fn wake(&self) -> Option<Duration>;

    /// True if an app has asked for something since the last turn.
    fn is_asked(&self) -> bool {
        false
    }

    /// Looks at all promises that can be checked from outside. Called after every turn.
    ///
    /// # Errors
    /// Which promise is broken, with numbers.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What a turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turned {
    /// Work units, as the host counts them; [`Cost::unit`] turns them into time.
    pub work: u64,
    /// True if work is left that needs neither a datagram nor a deadline.
    pub more: bool,
}

/// What a host's processor takes for its work. While it works, what arrives waits in its socket buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Each turn: a wake-up and its system calls.
    pub turn: Duration,
    /// Each datagram received.
    pub receive: Duration,
    /// Each datagram sent.
    pub send: Duration,
    /// Each work unit, see [`Turned::work`].
    pub unit: Duration,
}

impl Default for Cost {
    /// About one core of a small machine: 5 us for a turn, 1 us for each datagram, 1 ns for a unit
    /// (strait's unit is about the work of one bulk byte).
    fn default() -> Cost {
        Cost {
            turn: Duration::from_micros(5),
            receive: Duration::from_micros(1),
            send: Duration::from_micros(1),
            unit: Duration::from_nanos(1),
        }
    }
}

impl Cost {
    /// The same processor, `factor` times slower.
    #[must_use]
    pub fn slower(self, factor: u32) -> Cost {
        Cost { turn: self.turn * factor, receive: self.receive * factor, send: self.send * factor, unit: self.unit * factor }
    }

    /// The same processor, `factor` times faster.
    #[must_use]
    pub fn faster(self, factor: u32) -> Cost {
        let factor = factor.max(1);
        Cost { turn: self.turn / factor, receive: self.receive / factor, send: self.send / factor, unit: self.unit / factor }
    }

    pub(crate) fn of(&self, received: usize, sent: usize, work: u64) -> Duration {
        let times = |each: Duration, count: u64| {
            let nanos = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
            Duration::from_nanos(nanos.saturating_mul(count))
        };
        // At least a nanosecond, so that time always passes.
        let turn = self.turn.max(Duration::from_nanos(1));
        turn + times(self.receive, received as u64) + times(self.send, sent as u64) + times(self.unit, work)
    }
}

/// A socket's receive buffer.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: VecDeque<Datagram>,
    bytes: usize,
    pub(crate) bytes_max: usize,
    pub(crate) dropped: u64,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox { queue: VecDeque::new(), bytes: 0, bytes_max: 4 << 20, dropped: 0 }
    }

    /// Keeps a datagram, or drops it when the buffer is full. Each costs at least 256 bytes, as in Linux.
    pub(crate) fn push(&mut self, datagram: Datagram) {
        let cost = datagram.payload.len().max(256);
        if self.bytes + cost > self.bytes_max {
            self.dropped += 1;
            return;
        }
        self.bytes += cost;
        self.queue.push_back(datagram);
    }

    pub(crate) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.queue.pop_front()?;
        self.bytes -= datagram.payload.len().max(256);
        Some(datagram)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }
}

/// What a host can reach during its turn.
pub struct Turn<'a> {
    pub(crate) start: Instant,
    pub(crate) now: Duration,
    pub(crate) address: SocketAddr,
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) exec: &'a mut Exec,
    pub(crate) net: &'a mut Net,
    pub(crate) host: HostId,
    /// TCP sockets that were used, in the order in which what they have to say leaves.
    pub(crate) touched: Vec<TcpId>,
    /// Calls to them.
    pub(crate) calls: usize,
    pub(crate) outbox: Vec<Outgoing>,
    pub(crate) received: usize,
    pub(crate) polls: usize,
}

impl Turn<'_> {
    /// Virtual time as an `Instant`: the world's start plus how long it has run.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.start + self.now
    }

    /// Virtual time since the start of the world.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now
    }

    /// The address that the host is bound to. Behind a changed NAT, others see another one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next datagram in the receive buffer.
    pub fn receive(&mut self) -> Option<Datagram> {
        let datagram = self.inbox.pop()?;
        self.received += 1;
        Some(datagram)
    }

    /// Sends a datagram. It leaves when the turn's work is paid for.
    pub fn send(&mut self, to: SocketAddr, ecn: Option<u8>, payload: Bytes) {
        self.outbox.push(Outgoing { to, ecn, payload, source: None });
    }

    /// Sends a datagram that says it comes from `source`, as an attacker can. Whoever has that address gets the answers.
    pub fn send_from(&mut self, source: SocketAddr, to: SocketAddr, payload: Bytes) {
        self.outbox.push(Outgoing { to, ecn: None, payload, source: Some(source) });
    }

    /// The host's TCP. What is written leaves when the turn's work is paid for.
    pub fn tcp(&mut self) -> Tcp<'_> {
        Tcp { net: self.net, host: self.host, now: self.now, touched: &mut self.touched, calls: &mut self.calls }
    }

    /// Polls the app tasks that are ready, until none is.
    ///
    /// # Panics
    /// If they never come to rest.
    pub fn run_apps(&mut self) {
        match self.exec.run(POLLS_MAX) {
            Ok(polls) => self.polls += polls,
            Err(livelock) => panic!("{livelock}"),
        }
    }
}
