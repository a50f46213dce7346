//! What is told of connections that are traced. All others pay one look at an empty list for it.

use std::time::{Duration, Instant};

use libp2p_identity::PeerId;

use super::Node;
use super::state::ConnState;
use super::view;
use crate::conn::quic::FRAME_NAMES;
use crate::json::Object;
use crate::trace::{Beginning, FRAMES, Trace, TraceSink, lengths};

impl Node {
    /// Traces the connection to a peer that is in use, from now on until it ends: what is sent, received, lost and waited for, as qlog in at most
    /// `bytes_max` bytes. The last record says why it is over. False, and nothing is traced: the peer is not connected.
    pub fn trace(&mut self, now: Instant, peer: &PeerId, bytes_max: u64, sink: Box<dyn TraceSink>) -> bool {
        let Some(slot) = self.slot_of(peer) else {
            return false;
        };
        self.add_trace(now, slot, *peer, bytes_max, sink);
        true
    }

    /// A connection begins: traces it if all are to be.
    pub(super) fn trace_from_the_beginning(&mut self, now: Instant, slot: usize, peer: PeerId, dialled: bool) {
        if let Some((sink, bytes_max)) = self.traces.as_ref().and_then(|traces| traces.begin(&peer, dialled)) {
            self.add_trace(now, slot, peer, bytes_max, sink);
        }
    }

    fn add_trace(&mut self, now: Instant, slot: usize, peer: PeerId, bytes_max: u64, sink: Box<dyn TraceSink>) {
        let date = self.wall.unix_time();
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        let beginning = Beginning {
            peer,
            dialled: conn.dialled,
            carrier: conn.carrier().name(),
            remote: conn.address().to_string(),
            age: now.saturating_duration_since(conn.since),
            date,
            vitals: conn.quic.vitals(),
        };
        conn.traces.push(Trace::new(now, sink, bytes_max, beginning));
        conn.trace_state(now);
        self.counters.totals.traces = self.counters.totals.traces.saturating_add(1);
        self.reap_traces(slot);
    }

    /// A connection's turn is over.
    pub(super) fn trace_turn(&mut self, now: Instant, slot: usize) {
        if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut).filter(|conn| !conn.traces.is_empty()) {
            conn.trace_state(now);
            self.reap_traces(slot);
        }
    }

    /// Lets go of traces that are over.
    pub(super) fn reap_traces(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut).filter(|conn| !conn.traces.is_empty()) else {
            return;
        };
        let cut = conn.traces.iter().filter(|trace| trace.is_over() && trace.is_cut()).count() as u64;
        conn.traces.retain(|trace| !trace.is_over());
        self.counters.totals.traces_cut = self.counters.totals.traces_cut.saturating_add(cut);
    }

    /// A connection is over.
    pub(super) fn end_traces(&mut self, now: Instant, slot: usize, why: &dyn std::fmt::Display) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        for trace in &mut conn.traces {
            trace.record(now, "connectivity:connection_closed", |data| {
                data.text("reason", &why.to_string());
            });
            trace.end(now, "the connection has ended");
        }
        self.reap_traces(slot);
    }
}

impl ConnState {
    /// Something was received and opened, after it had waited for its turn.
    #[inline]
    pub(super) fn trace_received(&mut self, now: Instant, bytes: usize, waited: Duration) {
        if self.traces.is_empty() {
            return;
        }
        let name = if self.quic.is_quic() { "transport:datagrams_received" } else { "strait:pipe_read" };
        self.trace_change(now, name, |data, frames, _| {
            data.number("count", 1).millis("waited", waited);
            lengths(data, bytes, bytes);
            tell_frames(data, frames);
        });
    }

    /// Something was received that is not looked at.
    #[inline]
    pub(super) fn trace_dropped(&mut self, now: Instant, bytes: usize, why: &'static str) {
        for trace in &mut self.traces {
            trace.record(now, "transport:packet_dropped", |data| {
                data.text("trigger", why);
                lengths(data, bytes, bytes);
            });
        }
    }

    /// Something was handed to the driver: `size` bytes, as one datagram or in several of `segment`; or over a pipe.
    #[inline]
    pub(super) fn trace_sent(&mut self, now: Instant, size: usize, segment: usize) {
        if self.traces.is_empty() {
            return;
        }
        let name = if self.quic.is_quic() { "transport:datagrams_sent" } else { "strait:pipe_written" };
        self.trace_change(now, name, |data, _, frames| {
            data.number("count", size.div_ceil(segment.max(1)) as u64);
            lengths(data, size, segment);
            tell_frames(data, frames);
        });
    }

    fn trace_change(&mut self, now: Instant, name: &str, tell: impl Fn(&mut Object<'_>, &Frames, &Frames)) {
        let vitals = self.quic.vitals();
        for trace in &mut self.traces {
            let before = std::mem::replace(&mut trace.vitals, vitals);
            let frames_in = since(&vitals.frames_in, &before.frames_in);
            let frames_out = since(&vitals.frames_out, &before.frames_out);
            trace.record(now, name, |data| tell(data, &frames_in, &frames_out));
            trace.metrics(now, &before);
        }
    }

    /// Its turn is over: what its timers found, and what its streams wait for.
    #[inline]
    pub(super) fn trace_state(&mut self, now: Instant) {
        if self.traces.is_empty() {
            return;
        }
        let (vitals, streams) = (self.quic.vitals(), view::streams(self));
        let (granted, starved) = (self.account.granted(), self.starved);
        for trace in &mut self.traces {
            let before = std::mem::replace(&mut trace.vitals, vitals);
            trace.metrics(now, &before);
            if (trace.streams, trace.granted, trace.starved) == (streams, granted, starved) {
                continue;
            }
            (trace.streams, trace.granted, trace.starved) = (streams, granted, starved);
            trace.record(now, "strait:state", |data| {
                data.number("streams", streams.all);
                let waits = [
                    ("to_open", streams.to_open),
                    ("queued", streams.queued),
                    ("resting", streams.resting),
                    ("for_peer", streams.for_peer),
                    ("for_room", streams.for_room),
                    ("for_memory", streams.for_memory),
                    ("for_app", streams.for_app),
                ];
                for (name, count) in waits.into_iter().filter(|(_, count)| *count > 0) {
                    data.number(name, count);
                }
                data.number("granted_bytes", granted).number("waits_for_memory", starved.into());
            });
        }
    }
}

type Frames = [u64; FRAMES];

fn since(is: &Frames, was: &Frames) -> Frames {
    let mut all = *is;
    for (count, before) in all.iter_mut().zip(was) {
        *count = count.saturating_sub(*before);
    }
    all
}

fn tell_frames(data: &mut Object<'_>, frames: &Frames) {
    if frames.iter().all(|count| *count == 0) {
        return;
    }
    data.object("frames", |data| {
        for (name, count) in FRAME_NAMES.iter().zip(frames).filter(|(_, count)| **count > 0) {
            data.number(name, *count);
        }
    });
}
