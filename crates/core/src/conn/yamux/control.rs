//! What the connection itself says: answers to pings, refusals, resets, acknowledgements, credit, and the end.
//!
//! None of it waits for a window or for what is unread here, and all of it is bounded: credit, acknowledgements and resets live in the
//! records of streams, one each; pings that wait for their answer and refused streams have queues of their own, and a peer that
//! fills one does not read what it asks for, and is closed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use strait_wire::yamux::{ACK, AWAY_NORMAL, CONNECTION, HEADER_BYTES, Header, Kind, RST, SYN};

use super::stream::Receive;
use super::{Broken, PONGS_MAX, REFUSALS_MAX, RTT_MIN, Session};
use crate::conn::event::{Blame, Lost};
use crate::error::{Closed, DialError};

/// What waits to be said, and what is known from what was answered.
#[derive(Debug)]
pub(super) struct Control {
    pongs: VecDeque<u32>,
    refusals: VecDeque<u32>,
    /// Streams that have something to say beside data.
    pub(super) streams: VecDeque<u32>,
    /// Our question: it has to be sent, or was.
    ask: bool,
    asked: Option<Instant>,
    nonce: u32,
    next_ask: Option<Instant>,
    rtt: Option<Duration>,
}

impl Control {
    pub(super) fn new() -> Control {
        Control {
            pongs: VecDeque::new(),
            refusals: VecDeque::new(),
            streams: VecDeque::new(),
            // The first at once: windows are sized by what it measures.
            ask: true,
            asked: None,
            nonce: 0,
            next_ask: None,
            rtt: None,
        }
    }

    #[cfg(test)]
    pub(super) fn rtt_for_tests(&mut self, rtt: Duration) {
        self.rtt = Some(rtt);
    }

    /// Gives back room that nothing needs now.
    pub(super) fn rest(&mut self) {
        [&mut self.pongs, &mut self.refusals, &mut self.streams].into_iter().for_each(VecDeque::shrink_to_fit);
    }

    pub(super) fn entries(&self) -> usize {
        self.pongs.capacity().saturating_add(self.refusals.capacity()).saturating_add(self.streams.capacity())
    }
}

fn put(out: &mut BytesMut, kind: Kind, flags: u16, stream: u32, length: u32) {
    out.put_slice(&Header { kind, flags, stream, length }.encode());
}

impl Session {
    /// The round-trip time, from pings: the smallest, but for a slow drift towards later ones, since pings queue behind data. 100 ms before
    /// the first answer.
    pub(crate) fn rtt(&self) -> Duration {
        self.control.rtt.unwrap_or(Duration::from_millis(100))
    }

    pub(super) fn ping_frame(&mut self, now: Instant, header: Header) -> Result<(), Broken> {
        let control = &mut self.control;
        if header.has(ACK) {
            if let Some(asked) = control.asked.filter(|_| header.length == control.nonce) {
                control.asked = None;
                let sample = now.saturating_duration_since(asked);
                control.rtt = Some(match control.rtt {
                    Some(known) if sample > known => {
                        known.saturating_add(sample.saturating_sub(known).checked_div(8).unwrap_or_default())
                    }
                    _ => sample,
                });
            }
        } else if header.has(SYN) && !control.pongs.contains(&header.length) {
            if control.pongs.len() >= PONGS_MAX {
                return Err(Broken::Pings);
            }
            control.pongs.push_back(header.length);
        }
        Ok(())
    }

    /// A new stream for which there is no room.
    pub(super) fn refuse(&mut self, id: u32) -> Result<(), Broken> {
        if self.control.refusals.len() >= REFUSALS_MAX {
            return Err(Broken::Opens);
        }
        self.refused = self.refused.saturating_add(1);
        self.control.refusals.push_back(id);
        Ok(())
    }

    pub(super) fn away_frame(&mut self, now: Instant, code: u32) {
        if code == AWAY_NORMAL && !self.streams.is_empty() {
            // It takes no new streams; those that are open may go on for a while.
            self.away_by.get_or_insert(now.checked_add(self.drain_deadline).unwrap_or(now));
            return;
        }
        self.gone_away(code);
    }

    pub(super) fn gone_away(&mut self, code: u32) {
        let words = match code {
            0 => String::new(),
            1 => ": it says that we broke the rules of yamux".to_owned(),
            2 => ": it says that it has an internal error".to_owned(),
            _ => String::new(),
        };
        let dial = DialError::Refused(format!("yamux go away, code {code}{words}"));
        self.lose(Lost { closed: Closed::There { code: code.into(), reason: words }, dial, breach: Blame::Nobody }, AWAY_NORMAL);
    }

    /// Has the stream looked at when control frames are written.
    pub(super) fn control_of(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.in_control, true)
        {
            self.control.streams.push_back(id);
        }
    }

    /// Writes control frames, at most `max` bytes of them but for one.
    pub(super) fn write_control(&mut self, now: Instant, max: usize, out: &mut Vec<Bytes>) -> usize {
        let mut frames = BytesMut::new();
        let full = |frames: &BytesMut| !frames.is_empty() && frames.len().saturating_add(HEADER_BYTES) > max;
        while !full(&frames)
            && let Some(value) = self.control.pongs.pop_front()
        {
            put(&mut frames, Kind::Ping, ACK, CONNECTION, value);
        }
        if !full(&frames) && std::mem::take(&mut self.control.ask) {
            self.control.nonce = self.control.nonce.wrapping_add(1);
            self.control.asked = Some(now);
            put(&mut frames, Kind::Ping, SYN, CONNECTION, self.control.nonce);
        }
        while !full(&frames)
            && let Some(id) = self.control.refusals.pop_front()
        {
            put(&mut frames, Kind::WindowUpdate, RST, id, 0);
        }
        while !full(&frames)
            && let Some(id) = self.control.streams.pop_front()
        {
            self.write_stream_control(now, id, &mut frames);
        }
        let bytes = frames.len();
        if bytes > 0 {
            out.push(frames.freeze());
        }
        bytes
    }

    fn write_stream_control(&mut self, now: Instant, id: u32, frames: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.in_control = false;
        if let Some(code) = stream.reset.take() {
            // A stream that the peer has never heard of needs no end.
            if !stream.syn {
                let flags = if std::mem::take(&mut stream.ack) { ACK | RST } else { RST };
                put(frames, Kind::WindowUpdate, flags, id, code);
            }
            return self.forget_if_over(id);
        }
        let credit = if stream.wants_update() { self.renew_credit(now, id) } else { 0 };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // An acknowledgement rides on the first data frame when there is one.
        if credit > 0 || (stream.ack && !stream.has_data()) {
            let flags = if std::mem::take(&mut stream.ack) { ACK } else { 0 };
            put(frames, Kind::WindowUpdate, flags, id, credit);
        }
    }

    /// Gives a stream its credit back, and more than it had when its reader is fast enough to need it. See the module's documentation.
    fn renew_credit(&mut self, now: Instant, id: u32) -> u32 {
        let (round, delay) = (self.rtt().max(RTT_MIN), self.delay_max.max(self.rtt().saturating_mul(2)));
        let room = self.growth_room();
        let half = u32::try_from(self.receive_window / 2).unwrap_or(u32::MAX);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.receive == Receive::Open) else {
            return 0;
        };
        let since = *stream.pace.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since).max(Duration::from_micros(1));
        let wider = stream.window.saturating_mul(2).min(half);
        let more = u64::from(wider.saturating_sub(stream.window));
        // Half of the window in a round trip, and a rate that fills the wider one within the delay that is acceptable.
        let used = stream.pace.read.saturating_mul(2) >= u64::from(stream.window) && passed <= round.saturating_mul(2);
        let needed = u128::from(stream.pace.read).saturating_mul(delay.as_micros())
            >= u128::from(wider).saturating_mul(passed.as_micros());
        let grows = more > 0 && more <= room && used && needed;
        if grows {
            stream.window = wider;
            self.grown = self.grown.saturating_add(more);
            self.window_ever = self.window_ever.max(wider);
        }
        if passed >= round || grows {
            stream.pace.since = Some(now);
            stream.pace.read = 0;
        }
        let credit = stream.missing_credit();
        stream.credit_in = stream.credit_in.saturating_add(credit);
        credit
    }

    /// By how much windows may still grow beyond the protocol's own, in all.
    fn growth_room(&self) -> u64 {
        let implied = (self.streams.len() as u64).saturating_mul(strait_wire::yamux::INITIAL_WINDOW.into());
        self.receive_window.saturating_sub(implied).saturating_sub(self.grown)
    }

    /// Remembers the time; the first call starts the clocks.
    pub(super) fn begin(&mut self, now: Instant) {
        self.now = Some(now);
        self.heard.get_or_insert(now);
        if self.control.next_ask.is_none() {
            self.control.next_ask = now.checked_add(self.keep_alive);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called, at the latest. `None` before the first call with a time, and after the end.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closing() {
            return None;
        }
        let silent = self.heard.and_then(|heard| heard.checked_add(self.idle_timeout));
        let linger = self.lingering.front().map(|(by, _)| *by);
        let ask = self.control.next_ask.filter(|_| self.control.asked.is_none() && !self.control.ask);
        [silent, linger, ask, self.away_by].into_iter().flatten().min()
    }

    /// Lets time pass: asks for a sign of life, ends what lingers, notices that the peer is gone.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.begin(now);
        if self.is_closing() {
            return;
        }
        if self.away_by.is_some_and(|by| now >= by) {
            return self.gone_away(AWAY_NORMAL);
        }
        let deaf = !self.wants_input();
        if std::mem::replace(&mut self.deaf, deaf) || deaf {
            // Nothing was heard because nobody listened.
            self.heard = Some(now);
        }
        let heard = self.heard.unwrap_or(now);
        if now.saturating_duration_since(heard) >= self.idle_timeout {
            let dial = DialError::NoAnswer { waited: self.idle_timeout };
            return self.lose(Lost { closed: Closed::Silent(self.idle_timeout), dial, breach: Blame::Nobody }, AWAY_NORMAL);
        }
        if self.control.next_ask.is_some_and(|at| now >= at) && self.control.asked.is_none() {
            self.control.ask = true;
            self.control.next_ask = now.checked_add(self.keep_alive);
        }
        while let Some((by, id)) = self.lingering.front().copied()
            && now >= by
        {
            self.end_lingering(id);
        }
    }
}
