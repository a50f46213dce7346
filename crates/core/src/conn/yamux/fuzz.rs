//! What a session promises whatever a peer sends and whatever its own side does, as one function: the fuzz target, the replay of its corpus
//! and the property tests call it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use strait_wire::yamux::{HEADER_BYTES, Header, Kind};

use super::{RECORD_BYTES, Session, Side};
use crate::conn::event::ConnEvent;
use crate::limits::Limits;
use crate::proto::Priority;
use crate::stream::{Read, StreamPort as _};

/// The largest chunk of a script.
const CHUNK: usize = 255;
/// A stream's buffer for small pieces, empty, with its bookkeeping.
const TAIL: u64 = 160;

/// The most that a session may hold when it is given chunks of at most `chunk` bytes and only when it wants input. What small buffers have
/// free is at most what is stored, and at most 1 KiB for each stream.
pub(super) fn held_max(receive_window: u64, send_window: u64, streams: u64, chunk: u64) -> u64 {
    let free = receive_window.min(streams.saturating_mul(super::TAIL_BYTES_MAX as u64));
    let records = streams.saturating_mul(RECORD_BYTES.saturating_add(TAIL));
    let all = [receive_window, free, chunk.saturating_mul(2), send_window, records, 16 << 10];
    all.iter().fold(0, |sum, part| sum.saturating_add(*part))
}

impl Session {
    /// Holds `held` against what it may be.
    pub(super) fn assert_bounded(&self, chunk: u64) {
        let max = held_max(self.receive_window, self.send_window, self.streams.len() as u64, chunk);
        assert!(self.held() <= max, "{} bytes are held, at most {max} may be", self.held());
        let stored: u64 = self.chunks.stored;
        assert!(stored <= self.chunks.cost, "{stored} bytes are stored for {}", self.chunks.cost);
        assert!(self.streams.is_empty() || !self.is_closing(), "streams outlive the connection");
        if self.streams.is_empty() {
            let left = (self.chunks.cost, stored, self.send_cost, self.grown, self.accepted, self.unacknowledged_opens);
            assert!(self.is_closing() || left == (0, 0, 0, 0, 0, 0), "without streams this is left: {left:?}");
        }
    }
}

/// Panics unless these are whole frames that we would send.
pub(super) fn assert_frames(chunks: &[Bytes]) {
    let all: Vec<u8> = chunks.concat();
    let mut rest = &all[..];
    while let Some((head, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(head);
        assert!(header.is_ok(), "a frame that nobody can read: {header:?}");
        let Ok(header) = header else {
            return;
        };
        assert!(header.kind != Kind::Data || header.length as usize <= super::FRAME_BYTES_MAX, "a long frame");
        let body = behind.get(header.body() as usize..);
        assert!(body.is_some(), "half a frame");
        rest = body.unwrap_or_default();
    }
    assert!(rest.is_empty(), "half a header");
}

/// Runs a script on one session: what the peer sends and what is done here, byte by byte. `now` is any time to begin with.
///
/// # Panics
/// When the session breaks its word, and never otherwise. For tests.
#[doc(hidden)]
pub fn session(now: Instant, script: &[u8]) {
    let mut limits = Limits::default();
    (limits.receive_window_min, limits.send_window_min, limits.streams_min) = (4096, 4096, 2);
    let mut bytes = script.iter().copied();
    let side = if bytes.next().unwrap_or(0) % 2 == 0 { Side::Client } else { Side::Server };
    let mut run = Run { session: Session::new(side, &limits), now, ids: Vec::new(), out: Vec::new(), paid: 0 };
    while let Some(operation) = bytes.next() {
        run.step(operation, &mut bytes);
        run.session.assert_bounded(CHUNK as u64);
    }
    // However it went, closing needs nobody's consent.
    run.session.close(0);
    run.out.clear();
    run.session.poll_output(run.now, 0, &mut run.out);
    assert!(run.session.is_closed() && run.session.poll_timeout().is_none());
}

struct Run {
    session: Session,
    now: Instant,
    ids: Vec<u64>,
    out: Vec<Bytes>,
    /// All work that was taken so far, as what it is held against counts from the beginning.
    paid: u64,
}

impl Run {
    fn step(&mut self, operation: u8, bytes: &mut impl Iterator<Item = u8>) {
        let id = self.ids.get(usize::from(operation >> 4)).copied().unwrap_or(u64::from(operation >> 4));
        match operation & 15 {
            0..=3 => {
                let len = bytes.next().unwrap_or(0);
                let chunk: Vec<u8> = bytes.take(usize::from(len)).collect();
                if self.session.wants_input() {
                    let _ = self.session.handle(self.now, chunk.into());
                }
            }
            4 => self.ids.extend(self.session.open()),
            5 => self.ids.extend(self.session.accept()),
            6 => {
                let read = self.session.port(id).read(usize::from(operation));
                assert!(!matches!(read, Ok(Read::Chunk(chunk)) if chunk.is_empty()), "an empty chunk");
            }
            7 => {
                let mut chunk = Bytes::from_static(&[7; 3000]);
                let _ = self.session.port(id).write(&mut chunk);
            }
            8 => self.session.port(id).finish(),
            9 => self.session.port(id).reset(operation.into()),
            10 => self.session.port(id).stop(operation.into()),
            11 => {
                let steps = [Priority::Bulk, Priority::Normal, Priority::Urgent];
                self.session
                    .port(id)
                    .set_priority(steps.get(usize::from(bytes.next().unwrap_or(0) % 3)).copied().unwrap_or_default());
            }
            12 => {
                self.out.clear();
                let max = usize::from(bytes.next().unwrap_or(0)).saturating_mul(64);
                let said = self.session.poll_output(self.now, max, &mut self.out);
                assert_eq!(said, self.out.iter().map(Bytes::len).sum::<usize>());
                assert_frames(&self.out);
            }
            13 => {
                self.now =
                    self.now.checked_add(Duration::from_millis(u64::from(operation).saturating_mul(100))).unwrap_or(self.now);
                if self.session.poll_timeout().is_some_and(|at| self.now >= at) {
                    self.session.handle_timeout(self.now);
                }
            }
            14 => while !matches!(self.session.poll(), None | Some(ConnEvent::Lost(_))) {},
            _ => self.knob(bytes.next().unwrap_or(0)),
        }
    }

    /// What the node may change from outside. Windows only grow, as there.
    fn knob(&mut self, which: u8) {
        let more = u64::from(which).saturating_mul(100);
        match which % 5 {
            0 => drop(self.session.refuse_newest()),
            1 => self.session.set_stream_credit(which.into()),
            2 => self.session.set_receive_window(self.session.receive_window.saturating_add(more)),
            3 => self.session.set_send_window(self.session.send_window.saturating_add(more)),
            _ => {
                assert!(self.session.unread() <= self.session.held());
                assert!(self.session.unacknowledged() <= self.session.streams.len());
                assert!(self.session.peer_streams() <= self.session.streams.len() as u64);
                self.paid = self.paid.saturating_add(self.session.take_work());
                assert!(self.paid > 0 || self.session.data_blocked().saturating_add(self.session.refused()) == 0, "unpaid work");
                self.session.close(which.into());
            }
        }
    }
}
