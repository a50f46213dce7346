//! Streams that are kept for the next request (`docs/specs/reuse.md`): which is taken, and which have to make room.

use super::Node;
use super::machine::Machine;
use super::role::Role;
use super::state::{ConnState, Stream, StreamRef};
use crate::message::Message;
use crate::proto::{Priority, Request, Served, reuse};
use crate::stream::{Input, StreamPort as _};

impl ConnState {
    /// Whether its peer takes streams for several requests of this definition.
    pub(super) fn may_reuse(&self, def: &Request) -> bool {
        let told = |name| self.identity.as_ref().is_some_and(|identity| reuse::is_among(&identity.protocols, name));
        reuse::allows(def) && told(def.name)
    }

    /// The exchange on a stream is over, and the stream stays. It gets another name: whoever still has the old one means what is over.
    pub(super) fn rests(&mut self, index: usize) {
        let serial = self.next_serial();
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        stream.serial = serial;
        stream.kept_back = false;
        match stream.role {
            Role::Client { def } => {
                stream.role = Role::Resting { def };
                stream.since = None;
                self.resting.push(index);
                if let Some(count) = self.opened.get_mut(def.name) {
                    *count = count.saturating_sub(1);
                }
            }
            Role::Server { protocol, def, .. } => stream.role = Role::Server { protocol, def, told: false },
            _ => {}
        }
    }

    /// Something has come for a stream that the peer keeps: it begins again, or waits as any other while the peer has as many of its protocol as it
    /// may (RE-06). False when it waits, or is none.
    pub(super) fn resume(&mut self, index: usize) -> bool {
        let Some(stream) = self.streams.get_mut(index) else {
            return false;
        };
        let Role::Kept { protocol, def } = stream.role else {
            return true;
        };
        let active = self.active.entry(protocol).or_default();
        if *active >= def.per_peer_max {
            stream.role = Role::Queued;
            self.waiting.entry(protocol).or_default().push_back((index, stream.serial));
            return false;
        }
        *active = active.saturating_add(1);
        stream.role = Role::Server { protocol, def, told: false };
        true
    }

    /// A stream that the peer keeps has waited for its turn, and has it: it goes on as what it was. False if it is another one.
    pub(super) fn begin_again(&mut self, index: usize, protocol: usize, served: Served) -> bool {
        let (Some(stream), Served::Request(def)) = (self.streams.get_mut(index), served) else {
            return false;
        };
        // Who has not begun yet has a negotiation behind it, and nothing else.
        if !matches!(stream.machine, Machine::Protocol(_)) {
            return false;
        }
        stream.role = Role::Kept { protocol, def };
        self.resume(index);
        self.queue(index);
        true
    }

    /// Nothing is under way on a stream of the peer: it does not count until the next request comes. The protocol in which it did.
    fn keep(&mut self, index: usize) -> Option<usize> {
        let stream = self.streams.get_mut(index).filter(|stream| stream.waits.open_ended)?;
        let Role::Server { protocol, def, told: false } = stream.role else {
            return None;
        };
        stream.role = Role::Kept { protocol, def };
        Some(protocol)
    }

    /// Has a stream that rests ask this. It is the one that was used last: those that are not needed come to their end.
    ///
    /// # Errors
    /// The request comes back when there is none, or no memory for it: nothing has changed.
    fn ask_again(&mut self, def: &'static Request, priority: Priority, request: Message) -> Result<StreamRef, Message> {
        let streams = &self.streams;
        let fits = |index: &usize| {
            // One for which something has come is about to end.
            let stream = streams.get(*index).filter(|stream| !stream.queued);
            matches!(stream.map(|stream| stream.role), Some(Role::Resting { def: known }) if std::ptr::eq(known, def) || *known == *def)
        };
        let Some(at) = self.resting.iter().rposition(fits) else {
            return Err(request);
        };
        let Some((index, stream)) = self.resting.get(at).and_then(|index| Some((*index, self.streams.get_mut(*index)?))) else {
            return Err(request);
        };
        if !stream.io.grant.resize(stream.io.base.saturating_add(request.len() as u64)) {
            return Err(request);
        }
        stream.role = Role::Client { def };
        stream.io.input = Some(Input::Request(request));
        self.resting.remove(at);
        let count = self.opened.entry(def.name).or_default();
        *count = count.saturating_add(1);
        self.set_priority(index, priority);
        self.queue(index);
        self.stream_ref(index).ok_or_else(Message::new)
    }
}

impl Node {
    /// Asks on a stream that an earlier request has left.
    ///
    /// # Errors
    /// The request comes back: a stream has to be opened for it.
    pub(super) fn ask_again(
        &mut self,
        slot: usize,
        def: &'static Request,
        priority: Priority,
        request: Message,
    ) -> Result<StreamRef, Message> {
        let Some(conn) = self.conn_mut(slot).filter(|conn| !conn.resting.is_empty()) else {
            return Err(request);
        };
        let stream = conn.ask_again(def, priority, request)?;
        let totals = &mut self.counters.totals;
        totals.streams_reused = totals.streams_reused.saturating_add(1);
        self.activate(slot);
        Ok(stream)
    }

    /// A stream was driven: if it is one of the peer that rests now, another one has its turn.
    pub(super) fn keep(&mut self, slot: usize, index: usize) {
        let counted = self.conn_mut(slot).and_then(|conn| conn.keep(index));
        if counted.is_some() {
            self.release_turn(slot, counted);
        }
    }

    /// Ends all streams that peers keep: nothing more is expected of them.
    pub(super) fn end_kept(&mut self) {
        for slot in 0..self.conns.len() {
            let kept =
                |(index, stream): (usize, &Stream)| (matches!(stream.role, Role::Kept { .. }) && stream.rests()).then_some(index);
            let kept: Vec<usize> = self.conn(slot).into_iter().flat_map(|conn| conn.streams.iter().filter_map(kept)).collect();
            for index in kept {
                self.end_in_order(slot, index);
            }
        }
    }

    /// Ends up to `count` streams that are kept for later, those first that were not used for the longest: their places or their memory are needed now.
    pub(super) fn end_resting(&mut self, slot: usize, count: usize) {
        for _ in 0..count {
            let Some(index) = self.conn(slot).and_then(|conn| conn.resting.first().copied()) else {
                return;
            };
            self.end_in_order(slot, index);
        }
    }

    /// Ends a stream on which nothing is under way.
    fn end_in_order(&mut self, slot: usize, index: usize) {
        if let Some(conn) = self.conn_mut(slot)
            && let Some(number) = conn.streams.get(index).and_then(|stream| stream.number)
        {
            let mut port = conn.quic.port(number);
            port.finish();
            port.stop(0);
        }
        self.remove_stream(slot, index);
        self.send_later(slot);
    }
}
