//! One stream's drive, and what comes of it.

use std::time::{Duration, Instant};

use super::machine::Machine;
use super::role::Role;
use super::state::Phase;
use super::{Event, Node};
use crate::abuse::Offence;
use crate::error::{Breach, Closed, RequestError, StreamError};
use crate::limits::{LOOK_WORK, STREAM_WORK};
use crate::proto::pace::{Direction, Pace, deadline};
use crate::proto::{Served, identify, ping, raw, request, topic};
use crate::stream::{Next, Output, StreamIo, StreamMachine, Waits};
use crate::wake::{Key, Why};

/// Stays until what was written has room in the transport and, where the transport keeps memory for it, was acknowledged; or until the
/// peer takes too long. The stream's grant stays with it.
struct Linger {
    pace: Pace,
    until: Option<Instant>,
}

impl StreamMachine for Linger {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        if io.peer_stopped().is_some() {
            return Next::Done;
        }
        if io.flushed() {
            if !io.undelivered() {
                return Next::Done;
            }
            let until = *self.until.get_or_insert(deadline(io.now(), io.limits().idle_timeout));
            if io.now() >= until {
                // What is not acknowledged by now is given up, and its memory with it.
                io.reset(request::CODE_SLOW);
                return Next::Done;
            }
            io.wake_at(until, Why::Progress);
            return Next::PEER;
        }
        if !self.pace.check(io) {
            io.reset(request::CODE_SLOW);
            return Next::Done;
        }
        Next::ROOM
    }
}

impl Node {
    /// Drives ready streams up to `may` work units. Returns how many.
    pub(super) fn serve_streams(&mut self, now: Instant, slot: usize, may: u64, cost: &mut u64) -> usize {
        let (mut drives, mut spent) = (0usize, 0u64);
        while spent < may {
            let Some(index) = self.conn_mut(slot).and_then(|conn| conn.ready.pop_front()) else {
                break;
            };
            drives = drives.saturating_add(1);
            spent = spent.saturating_add(STREAM_WORK).saturating_add(self.drive_stream(now, slot, index));
        }
        *cost = cost.saturating_add(spent);
        drives
    }

    /// A stream's turn has come. Its number in the transport, if it is to be driven.
    fn call(&mut self, now: Instant, slot: usize, index: usize) -> Option<u64> {
        let conn = self.conns.get_mut(slot).and_then(Option::as_deref_mut)?;
        let stream = conn.streams.get_mut(index)?;
        stream.queued = false;
        if stream.number.is_none() && stream.open_by.is_some_and(|(by, _)| now >= by) {
            self.never_opened(slot, index);
            return None;
        }
        let number = stream.number?;
        match stream.role {
            // Only the answer to its proposal may still have to leave.
            Role::Queued => {
                conn.flush_stream(now, &self.config.limits, index);
                None
            }
            Role::Kept { .. } => conn.resume(index).then_some(number),
            Role::Client { .. } => {
                stream.since.get_or_insert(now);
                Some(number)
            }
            _ => Some(number),
        }
    }

    /// Drives one stream. Returns the work of it: the bytes that it moved, and what came of it beside them.
    fn drive_stream(&mut self, now: Instant, slot: usize, index: usize) -> u64 {
        let number = self.call(now, slot, index);
        let Some((number, conn)) = number.zip(self.conns.get_mut(slot).and_then(Option::as_deref_mut)) else {
            return 0;
        };
        let around = conn.around(now, &self.config.limits);
        let Some(stream) = conn.streams.get_mut(index) else {
            return 0;
        };
        let first = !std::mem::replace(&mut stream.begun, true);
        let before = stream.io.moved;
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut port = conn.quic.port(number);
        let mut io = StreamIo::new(around, &mut port, &mut stream.io, &mut outputs).with_feeds(&mut self.topics.feeds);
        let next = stream.machine.drive(&mut io);
        // An answer may come in this very turn, and leave in one piece with the agreement that it stands behind.
        let later = stream.role.answers() && (next == Next::APP || next == Next::Done) && io.may_wait();
        let flushed = !later && (io.flush() || io.peer_stopped().is_some());
        let totals = &mut self.counters.totals;
        totals.drives = totals.drives.saturating_add(1);
        let moved = conn.count_moved(now, index, before, &mut self.counters);
        if later {
            self.kept_back.extend(conn.keep_back(index));
        }
        let mut work = moved.bytes_in.saturating_add(moved.bytes_out).saturating_add(moved.looks.saturating_mul(LOOK_WORK));
        let Some(stream) = conn.streams.get_mut(index) else {
            return work;
        };
        let opened = first && matches!(stream.role, Role::RawOut { .. });
        let starved = match next {
            Next::Wait(waits) => {
                stream.waits = waits;
                self.wakes.set(&mut stream.armed, Key::Stream(slot, index), stream.io.deadline);
                waits.memory
            }
            Next::Done => {
                stream.waits = Waits::default();
                false
            }
        };
        if starved {
            self.note_starved(slot);
            self.end_resting(slot, usize::MAX);
        }
        if opened && let Some(stream) = self.conn(slot).and_then(|conn| conn.stream_ref(index)) {
            // What the application wanted to write while the stream was not open may go now.
            self.events.push_back(Event::Ready { stream });
        }
        for output in outputs.drain(..) {
            work = work.saturating_add(self.output(now, slot, index, output));
        }
        self.outputs = outputs;
        match next {
            Next::Done => self.machine_done(slot, index, flushed),
            Next::Wait(_) => self.keep(slot, index),
        }
        work
    }

    /// A machine is through. Its stream goes, unless it was given another machine or has bytes left to say.
    fn machine_done(&mut self, slot: usize, index: usize, flushed: bool) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let Some(stream) = conn.streams.get_mut(index) else {
            return;
        };
        if stream.queued || matches!(stream.role, Role::Queued) {
            return;
        }
        let pinned = stream.io.undelivered() && matches!(stream.role, Role::Server { .. } | Role::Client { .. });
        if let Some(number) = stream.number.filter(|_| flushed) {
            // Whatever a machine has forgotten: what stays half open is never given back.
            stream.io.seal(&mut conn.quic.port(number));
        }
        if flushed && !pinned {
            return self.remove_stream(slot, index);
        }
        let counted = stream.role.counted();
        let watched = stream.role.topic();
        conn.resting.retain(|resting| *resting != index);
        if let Some(count) = stream.role.opened().and_then(|name| conn.opened.get_mut(name)) {
            *count = count.saturating_sub(1);
        }
        stream.role = Role::Linger;
        stream.machine = Machine::Protocol(Box::new(Linger { pace: Pace::new(Direction::Out), until: None }));
        conn.queue(index);
        if let Some((topic, name)) = watched.zip(conn.stream_ref(index)) {
            self.topics.forget(topic, name);
        }
        self.release_turn(slot, counted);
    }

    /// The peer, or our memory, had no room for a stream in all the time that it could wait.
    fn never_opened(&mut self, slot: usize, index: usize) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let Some(((role, Some((_, waited))), stream)) =
            conn.streams.get(index).map(|stream| (stream.role, stream.open_by)).zip(conn.stream_ref(index))
        else {
            return;
        };
        match role {
            Role::Client { def } => {
                let result = Err(RequestError::NoAnswer(waited));
                self.count_reply(def.name, &result, Duration::ZERO);
                self.events.push_back(Event::Reply { stream, result });
            }
            Role::Pinger => self.events.push_back(Event::Pong { stream, result: Err(RequestError::NoAnswer(waited)) }),
            Role::RawOut { .. } => {
                self.events.push_back(Event::Ended { stream, error: Some(StreamError::Idle(waited)) });
            }
            _ => {}
        }
        self.remove_stream(slot, index);
    }

    /// Forgets a stream and lets the next one of its protocol have its place.
    pub(super) fn remove_stream(&mut self, slot: usize, index: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        let name = conn.stream_ref(index);
        let Some(mut stream) = conn.streams.try_remove(index) else {
            return;
        };
        if let Some((topic, name)) = stream.role.topic().zip(name) {
            self.topics.forget(topic, name);
        }
        self.wakes.set(&mut stream.armed, Key::Stream(slot, index), None);
        match stream.number {
            Some(number) => drop(conn.numbers.remove(&number)),
            None => conn.opening.retain(|(queued, _)| *queued != index),
        }
        if stream.queued {
            conn.ready.retain(|queued| *queued != index);
        }
        if matches!(stream.role, Role::Resting { .. }) {
            conn.resting.retain(|resting| *resting != index);
        }
        if let Some(name) = stream.role.opened()
            && let Some(count) = conn.opened.get_mut(name)
        {
            *count = count.saturating_sub(1);
        }
        let counted = stream.role.counted();
        drop(stream);
        self.release_turn(slot, counted);
    }

    /// One fewer of protocol `counted` is worked on: the next that waits may begin.
    pub(super) fn release_turn(&mut self, slot: usize, counted: Option<usize>) {
        let Some((protocol, conn)) = counted.zip(self.conn_mut(slot)) else {
            return;
        };
        if let Some(active) = conn.active.get_mut(&protocol) {
            *active = active.saturating_sub(1);
        }
        loop {
            let next = conn.waiting.get_mut(&protocol).and_then(|queue| queue.pop_front());
            let Some((index, serial)) = next else {
                return;
            };
            let waits =
                conn.streams.get(index).is_some_and(|stream| stream.serial == serial && matches!(stream.role, Role::Queued));
            if waits {
                return self.begin(slot, index, protocol);
            }
        }
    }

    /// A listener has agreed on a protocol: it begins, or waits while the peer has as many as it may.
    fn agreed(&mut self, slot: usize, index: usize, protocol: usize, reused: bool) {
        let Some(entry) = self.registry.get(protocol) else {
            return;
        };
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        if let Some(stream) = conn.streams.get_mut(index) {
            stream.reused = reused;
        }
        if conn.active.get(&protocol).copied().unwrap_or(0) >= entry.per_peer_max {
            let Some(stream) = conn.streams.get_mut(index) else {
                return;
            };
            // Those that it would wait for may never end.
            if entry.served == Served::Topics {
                stream.role = Role::Own;
                stream.machine = Machine::Protocol(Box::new(topic::Teller::full()));
                conn.queue(index);
                self.counters.totals.count_refused_subscription();
                return;
            }
            stream.role = Role::Queued;
            let name = (index, stream.serial);
            conn.waiting.entry(protocol).or_default().push_back(name);
            return;
        }
        self.begin(slot, index, protocol);
    }

    fn begin(&mut self, slot: usize, index: usize, protocol: usize) {
        let Some(entry) = self.registry.get(protocol) else {
            return;
        };
        if self.conn_mut(slot).is_some_and(|conn| conn.begin_again(index, protocol, entry.served)) {
            return self.activate(slot);
        }
        let told = match entry.served {
            Served::Identify => self.own_identity(slot),
            _ => bytes::Bytes::new(),
        };
        let mut stretch = [0];
        if entry.served == Served::Topics {
            self.random.fill(&mut stretch);
        }
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let (role, machine): (Role, Box<dyn StreamMachine>) = match entry.served {
            Served::Request(def) => {
                let reused = conn.streams.get(index).is_some_and(|stream| stream.reused);
                let machine = if reused { request::Server::reusing(def) } else { request::Server::new(def) };
                (Role::Server { protocol, def, told: false }, Box::new(machine))
            }
            Served::Stream(def) => (Role::RawIn { protocol }, Box::new(raw::Raw::accept(def))),
            Served::Identify => (Role::Answer(protocol), Box::new(identify::Tell::answer(told))),
            Served::IdentifyPush => (Role::Answer(protocol), Box::new(identify::Hear::pushed())),
            Served::Ping => (Role::Answer(protocol), Box::new(ping::Echo::new())),
            // No stream is agreed on for it.
            Served::Packets(..) => return,
            Served::Topics => (Role::Subscriber { protocol, topic: None }, Box::new(topic::Teller::new(stretch[0]))),
        };
        let Some(stream) = conn.streams.get_mut(index) else {
            return;
        };
        stream.role = role;
        stream.machine = Machine::Protocol(machine);
        conn.set_priority(index, entry.priority);
        let active = conn.active.entry(protocol).or_default();
        *active = active.saturating_add(1);
        conn.queue(index);
        if let (Phase::Open(peer), Some(stream), true) = (&conn.phase, conn.stream_ref(index), role.is_raw()) {
            let event = Event::Stream { stream, peer: *peer, protocol };
            self.events.push_back(event);
            let counters = self.counters.protocol(entry.name);
            counters.received = counters.received.saturating_add(1);
        }
        // It may have been begun from another stream's end, outside its own turn.
        self.activate(slot);
    }

    /// Takes over what a machine has found. Returns the work that this was, if it was any to speak of.
    fn output(&mut self, now: Instant, slot: usize, index: usize, output: Output) -> u64 {
        let Some(conn) = self.conn_mut(slot) else {
            return 0;
        };
        let (peer, name) = (conn.peer(), conn.stream_ref(index));
        let Some(((role, since), stream)) = conn.streams.get(index).map(|stream| (stream.role, stream.since)).zip(name) else {
            return 0;
        };
        let took = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        match (output, role) {
            (Output::Agreed { protocol, reused }, Role::Listener) => self.agreed(slot, index, protocol, reused),
            (Output::Arrived(body), Role::Server { protocol, def, .. }) => {
                if let Some(entry) = conn.streams.get_mut(index) {
                    entry.role = Role::Server { protocol, def, told: true };
                    let again = entry.since.replace(now).is_some();
                    self.count_arrived(def.name, again, body.len());
                }
                if let Some(peer) = peer {
                    self.events.push_back(Event::Request { stream, peer, protocol, body });
                }
            }
            (Output::Served(result), Role::Server { def, told, .. }) => {
                self.count_served(def.name, &result, took);
                if let Err(breach) = result {
                    self.count_breach(now, slot, breach);
                    if told {
                        self.events.push_back(Event::Withdrawn { stream });
                    }
                }
            }
            (Output::Reply(result), Role::Client { def }) => {
                self.count_reply(def.name, &result, took);
                if let Err(error) = &result {
                    self.accuse_reply(now, slot, error);
                }
                self.events.push_back(Event::Reply { stream, result });
            }
            (Output::Rests, _) => conn.rests(index),
            (Output::Pong(result), Role::Pinger) => {
                self.counters.totals.pings = self.counters.totals.pings.saturating_add(u64::from(result.is_ok()));
                if let Ok(took) = result {
                    self.counters.pings.note(took);
                }
                self.events.push_back(Event::Pong { stream, result });
            }
            (Output::Subscribed(topic), _) => self.subscribed(slot, index, topic),
            (Output::Refused, _) => self.counters.totals.count_refused_subscription(),
            (Output::Watching(topic), _) => self.topics.watch(topic, stream),
            (Output::More, _) => conn.queue(index),
            (Output::Identity(result), _) => return self.heard_identity(now, slot, result),
            (Output::Confirmed, Role::RawOut { .. }) => self.events.push_back(Event::Ready { stream }),
            (Output::Failed(error), role) => {
                match (&error, role) {
                    (StreamError::Broken(breach), _) => self.count_breach(now, slot, *breach),
                    (StreamError::Idle(_), Role::Listener) => self.accuse(now, slot, Offence::Stalled, 0),
                    _ => {}
                }
                if role.is_raw() {
                    self.events.push_back(Event::Ended { stream, error: Some(error) });
                }
            }
            (Output::Quiet, role) if role.is_raw() => self.events.push_back(Event::Ended { stream, error: None }),
            _ => {}
        }
        0
    }

    fn count_breach(&mut self, now: Instant, slot: usize, breach: Breach) {
        self.accuse_breach(now, slot, breach);
        if !matches!(breach, Breach::Reset(_)) {
            self.counters.totals.breaches = self.counters.totals.breaches.saturating_add(1);
        }
    }

    fn count_arrived(&mut self, name: &'static str, again: bool, len: usize) {
        let totals = &mut self.counters.totals;
        totals.streams_reused = totals.streams_reused.saturating_add(again.into());
        let counters = self.counters.protocol(name);
        counters.received = counters.received.saturating_add(1);
        counters.request_bytes_in = counters.request_bytes_in.saturating_add(len as u64);
    }

    fn count_served(&mut self, name: &'static str, result: &Result<usize, Breach>, took: Duration) {
        let counters = self.counters.protocol(name);
        match result {
            Ok(len) => {
                counters.served = counters.served.saturating_add(1);
                counters.reply_bytes_out = counters.reply_bytes_out.saturating_add(*len as u64);
                self.counters.latency(name).served.note(took);
            }
            Err(_) => counters.broken = counters.broken.saturating_add(1),
        }
    }

    pub(super) fn count_reply(&mut self, name: &'static str, result: &Result<crate::Message, RequestError>, took: Duration) {
        let counters = self.counters.protocol(name);
        match result {
            Ok(reply) => {
                counters.replied = counters.replied.saturating_add(1);
                counters.reply_bytes_in = counters.reply_bytes_in.saturating_add(reply.len() as u64);
                self.counters.latency(name).asked.note(took);
            }
            Err(error) => {
                counters.failed = counters.failed.saturating_add(1);
                let late = matches!(error, RequestError::NoAnswer(_) | RequestError::Stalled { .. } | RequestError::TooLong(_));
                counters.timeouts = counters.timeouts.saturating_add(u64::from(late));
                self.counters.totals.timeouts = self.counters.totals.timeouts.saturating_add(u64::from(late));
            }
        }
    }

    /// The connection is over: every stream that the application knows of gets its one outcome.
    pub(super) fn end_streams(&mut self, slot: usize, closed: &Closed) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let indices: Vec<usize> = conn.streams.iter().map(|(index, _)| index).collect();
        conn.opening.clear();
        conn.waiting.clear();
        for index in indices {
            let Some(conn) = self.conn_mut(slot) else {
                return;
            };
            let Some((role, stream)) = conn.streams.get(index).map(|stream| stream.role).zip(conn.stream_ref(index)) else {
                continue;
            };
            let lost = || RequestError::Lost(closed.clone());
            match role {
                Role::Client { def } => {
                    let result = Err(lost());
                    self.count_reply(def.name, &result, Duration::ZERO);
                    self.events.push_back(Event::Reply { stream, result });
                }
                Role::Pinger => self.events.push_back(Event::Pong { stream, result: Err(lost()) }),
                Role::Server { told: true, .. } => self.events.push_back(Event::Withdrawn { stream }),
                Role::RawIn { .. } | Role::RawOut { .. } => {
                    let error = Some(StreamError::Lost(closed.clone()));
                    self.events.push_back(Event::Ended { stream, error });
                }
                _ => {}
            }
            self.remove_stream(slot, index);
        }
    }
}
