//! One driver turn, the same in production and in the simulator.
//!
//! First half: take a bounded batch of datagrams, timers, one bounded turn of the core, and hand out what it found. Then the
//! application's tasks that this made ready run (the executor's business). Second half: their wishes are driven too, and only then is everything
//! drained: that is what puts a negotiation, the request behind it and other requests into one packet.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use strait_core::{Event, Meta, PipeAction, PipeEvent, Transmit};

use crate::shared::Shared;

/// A turn takes no further batch from the sockets when it has so many bytes.
const RECEIVE_BYTES_MAX: usize = 2 << 20;

/// So often a turn's second half drives before it sends.
const DRIVES_MAX: usize = 2;

/// The sockets of a driver, or what stands for them.
pub trait Ports {
    /// Takes what has arrived, a bounded batch at most, and hands each datagram on. True when there may be more.
    fn receive(&mut self, take: &mut dyn FnMut(Meta, BytesMut)) -> bool;
    /// Sends. False when the socket has no room: the turn keeps the transmit and stops.
    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool;
    /// Does what the core asks for to a pipe. False when a write was not taken whole: the ports keep the rest, and tell the core when it
    /// has left.
    fn pipe(&mut self, action: &PipeAction, bytes: &[u8]) -> bool {
        let _ = (action, bytes);
        true
    }
    /// How many datagrams of equal size one send may carry.
    fn segments_max(&self) -> NonZeroUsize;
}

/// What the driver has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverCounters {
    /// System calls that received.
    pub receive_calls: u64,
    /// System calls that sent.
    pub send_calls: u64,
    /// Sends that found the socket full.
    pub send_blocked: u64,
    /// Sends that failed; the datagrams are loss.
    pub send_errors: u64,
    /// Times the driver woke up.
    pub wakeups: u64,
    /// Times that no TCP connection could be accepted, for want of descriptors or memory, and a listener rested.
    pub accept_rests: u64,
    /// Bytes copied from the socket's buffer into datagrams.
    pub bytes_copied: u64,
}

/// How many tasks the first half of a turn may have made ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readied {
    /// Those that waited for a reply.
    pub replies: usize,
    /// All others.
    pub others: usize,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    /// Work is left: do not wait.
    pub work_left: bool,
    /// A socket is full: go on when it can be written.
    pub blocked: bool,
    /// When to run again at the latest.
    pub wake: Option<Instant>,
}

/// A driver's state between turns.
pub struct Turn {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    /// What is written to a pipe.
    written: Vec<u8>,
    /// What a full socket did not take.
    kept: Option<Transmit>,
    batch: Vec<(Meta, BytesMut)>,
    work_left: bool,
}

impl Turn {
    /// For the node behind `shared`.
    pub fn new(shared: Arc<Shared>) -> Turn {
        Turn { shared, buffer: Vec::new(), written: Vec::new(), kept: None, batch: Vec::new(), work_left: false }
    }

    /// The first half. Afterwards let the tasks that are ready run, then call [`second`](Self::second). Returns whom this may have made ready.
    pub fn first(&mut self, ports: &mut dyn Ports) -> Readied {
        let batch = &mut self.batch;
        let mut bytes = 0usize;
        // As much as can be, bounded: while datagrams wait in the kernel it is their order that decides who is served.
        let more = loop {
            let more = ports.receive(&mut |meta, data| {
                bytes = bytes.saturating_add(data.len());
                batch.push((meta, data));
            });
            if !more || bytes >= RECEIVE_BYTES_MAX {
                break more;
            }
        };
        let shared = self.shared.clone();
        let now = shared.runtime.now();
        let mut starts = Vec::new();
        let mut state = shared.lock();
        for (meta, data) in self.batch.drain(..) {
            state.core.handle_datagram(now, meta, data);
        }
        state.core.handle_timeout(now);
        self.work_left = state.core.drive(now) || more;
        let mut readied = Readied::default();
        while let Some(event) = state.core.poll_event() {
            match event {
                // Most are answered at once.
                Event::Request { .. } => {}
                Event::Reply { .. } => readied.replies = readied.replies.saturating_add(1),
                _ => readied.others = readied.others.saturating_add(1),
            }
            state.dispatch(&shared, event, &mut starts);
        }
        drop(state);
        readied.others = readied.others.saturating_add(shared.start(starts));
        readied
    }

    /// The second half: drives what the application has asked for meanwhile, and sends.
    pub fn second(&mut self, ports: &mut dyn Ports) -> Rest {
        let shared = self.shared.clone();
        let now = shared.runtime.now();
        for _ in 0..DRIVES_MAX {
            let mut starts = Vec::new();
            let mut state = shared.lock();
            state.take_asked();
            let left = state.core.drive(now);
            while let Some(event) = state.core.poll_event() {
                state.dispatch(&shared, event, &mut starts);
            }
            drop(state);
            self.work_left |= left || !starts.is_empty();
            let done = starts.is_empty();
            shared.start(starts);
            // What is answered at once leaves with what agreed on it; unless others wait for their turn, who would wait for that too.
            if done || left {
                break;
            }
        }
        let blocked = self.drain(ports, now);
        self.drain_pipes(ports, now);
        let mut starts = Vec::new();
        let mut state = shared.lock();
        // A connection may have ended with its last packet.
        while let Some(event) = state.core.poll_event() {
            state.dispatch(&shared, event, &mut starts);
        }
        // Writing has given streams room.
        self.work_left |= state.core.has_work();
        let draining = state.draining;
        let wake = state.core.poll_wake().map(|(at, _)| at);
        drop(state);
        self.work_left |= !starts.is_empty();
        shared.start(starts);
        if draining {
            shared.closing.notify_waiters();
        }
        Rest { work_left: self.work_left, blocked, wake }
    }

    /// Writes to pipes until nothing is left or all are full.
    fn drain_pipes(&mut self, ports: &mut dyn Ports, now: Instant) {
        let mut full = None;
        loop {
            let mut state = self.shared.lock();
            if let Some(conn) = full.take() {
                state.core.handle_pipe(now, conn, PipeEvent::Full);
            }
            let Some(action) = state.core.poll_pipe(now, &mut self.written) else {
                return;
            };
            drop(state);
            if let (false, PipeAction::Write { conn }) = (ports.pipe(&action, &self.written), &action) {
                full = Some(*conn);
            }
        }
    }

    /// Sends until nothing is left or the socket is full.
    fn drain(&mut self, ports: &mut dyn Ports, now: Instant) -> bool {
        loop {
            let transmit = match self.kept.take() {
                Some(kept) => kept,
                None => {
                    let mut state = self.shared.lock();
                    match state.core.poll_transmit(now, ports.segments_max(), &mut self.buffer) {
                        Some(transmit) => transmit,
                        None => return false,
                    }
                }
            };
            let bytes = self.buffer.get(..transmit.size).unwrap_or(&self.buffer);
            if !ports.send(&transmit, bytes) {
                self.kept = Some(transmit);
                return true;
            }
        }
    }
}
