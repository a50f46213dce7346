//! What goes out: frames of streams in the order of their priorities, short, and never more than was asked for.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use strait_wire::yamux::{ACK, FIN, HEADER_BYTES, Header, Kind, SYN};

use super::stream::{DELIVERED, Send, Stream, WRITABLE};
use super::{FLOOR_BYTES, FLOOR_SHARE, FRAME_BYTES_MAX, FRAME_BYTES_MIN, SEND_ENTRY_BYTES, Session, WAKE_ROOM_BYTES};
use crate::proto::Priority;

/// Streams with data, by priority: urgent, normal, bulk.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: [VecDeque<u32>; 3],
    /// Bytes of more urgent lanes that have left while each lane waited.
    passed: [usize; 3],
}

fn lane_of(priority: Priority) -> usize {
    match priority {
        Priority::Urgent => 0,
        Priority::Normal => 1,
        Priority::Bulk => 2,
    }
}

impl Lanes {
    fn push(&mut self, priority: Priority, id: u32) {
        if let Some(queue) = self.queues.get_mut(lane_of(priority)) {
            queue.push_back(id);
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.queues.iter_mut().for_each(|queue| queue.retain(|queued| *queued != id));
    }

    pub(super) fn entries(&self) -> usize {
        self.queues.iter().map(VecDeque::capacity).sum()
    }

    /// Gives back room that nothing needs now.
    pub(super) fn rest(&mut self) {
        self.queues.iter_mut().for_each(VecDeque::shrink_to_fit);
    }

    /// The lane whose turn it is: the most urgent, unless one has waited while a good deal passed it.
    fn turn(&self) -> Option<usize> {
        let waits = |lane: &usize| self.queues.get(*lane).is_some_and(|queue| !queue.is_empty());
        let owed = |lane: &usize| self.passed.get(*lane).is_some_and(|passed| *passed >= FLOOR_BYTES);
        (0..3).find(|lane| waits(lane) && owed(lane)).or_else(|| (0..3).find(waits))
    }

    fn pop(&mut self, lane: usize) -> Option<u32> {
        self.queues.get_mut(lane)?.pop_front()
    }

    /// A frame of `lane` has left. What it was owed it has had, sixteenth by sixteenth; those that it passed are owed more.
    fn left(&mut self, lane: usize, bytes: usize) {
        for (number, (passed, queue)) in self.passed.iter_mut().zip(&self.queues).enumerate() {
            *passed = match number.cmp(&lane) {
                Ordering::Less => *passed,
                Ordering::Equal => passed.saturating_sub(bytes.saturating_mul(FLOOR_SHARE)),
                Ordering::Greater if queue.is_empty() => 0,
                Ordering::Greater => passed.saturating_add(bytes).min(FLOOR_BYTES.saturating_mul(2)),
            };
        }
    }
}

/// Appends the header of a data frame. Returns how many bytes it has.
fn data_header(flags: u16, stream: u32, body: usize, out: &mut Vec<Bytes>) -> usize {
    let length = u32::try_from(body).unwrap_or(u32::MAX);
    let header = Header { kind: Kind::Data, flags, stream, length }.encode();
    out.push(BytesMut::from(&header[..]).freeze());
    header.len()
}

impl Session {
    /// Appends whole frames to `out`, about `max` bytes of them: control frames first, then data. Returns how many bytes; 0 when there is
    /// nothing to send now. Data is not copied: a header is a chunk of its own before it. What was appended counts as sent: it must reach the
    /// pipe in this order or the connection is to be given up.
    pub(crate) fn poll_output(&mut self, now: Instant, max: usize, out: &mut Vec<Bytes>) -> usize {
        self.begin(now);
        if self.is_closing() {
            return self.write_last(out);
        }
        let mut bytes = self.write_control(now, max, out);
        let before = bytes;
        while let Some(lane) = self.lanes.turn() {
            let room = max.saturating_sub(bytes).saturating_sub(HEADER_BYTES);
            // At least one frame a call, however small `max` is.
            if room < FRAME_BYTES_MIN && bytes > 0 {
                break;
            }
            let Some(id) = self.lanes.pop(lane) else {
                break;
            };
            let frame = self.write_data(lane, id, room.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX), out);
            if frame > 0 {
                self.lanes.left(lane, frame);
            }
            bytes = bytes.saturating_add(frame);
        }
        if bytes > before {
            self.wake_writers();
        }
        bytes
    }

    /// Writes one data frame of a stream, with at most `max` bytes of body, and behind the last one its end. Returns how many bytes left.
    ///
    /// FIN has a frame of its own: the specification lets it stand on any frame, but js-libp2p reads the flags before the body, and takes a
    /// stream that it has ended itself for closed by then, and the body for nothing.
    fn write_data(&mut self, lane: usize, id: u32, max: usize, out: &mut Vec<Bytes>) -> usize {
        let Some(stream) = self.streams.get_mut(&id) else {
            return 0;
        };
        stream.in_lane = false;
        if !stream.has_data() {
            return 0;
        }
        if lane_of(stream.priority) != lane {
            // It was given another priority meanwhile.
            stream.in_lane = true;
            self.lanes.push(stream.priority, id);
            return 0;
        }
        let body = max.min(usize::try_from(stream.queued).unwrap_or(usize::MAX));
        let ends = stream.send == Send::Ending && body as u64 == stream.queued;
        let flags = [(std::mem::take(&mut stream.syn), SYN), (std::mem::take(&mut stream.ack), ACK), (ends && body == 0, FIN)];
        let flags = flags.iter().fold(0, |all, (set, flag)| if *set { all | flag } else { all });
        let mut bytes = data_header(flags, id, body, out);
        let mut left = body;
        while left > 0
            && let Some(chunk) = stream.outbox.front_mut()
        {
            let part = chunk.split_to(left.min(chunk.len()));
            left = left.saturating_sub(part.len());
            if chunk.is_empty() {
                stream.outbox.pop_front();
                self.send_cost = self.send_cost.saturating_sub(SEND_ENTRY_BYTES);
            }
            out.push(part);
        }
        stream.queued = stream.queued.saturating_sub(body as u64);
        self.send_cost = self.send_cost.saturating_sub(body as u64);
        if stream.outbox.is_empty() && stream.outbox.capacity() > 16 {
            stream.outbox = VecDeque::new();
        }
        bytes = bytes.saturating_add(body);
        if ends {
            if body > 0 {
                bytes = bytes.saturating_add(data_header(FIN, id, 0, out));
            }
            stream.send = Send::Ended;
            self.event(id, DELIVERED);
            self.linger_if_stopped(id);
            self.forget_if_over(id);
        } else {
            self.has_data(id);
        }
        bytes
    }

    /// Puts a stream that has data into its lane.
    pub(super) fn has_data(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.has_data()
            && !std::mem::replace(&mut stream.in_lane, true)
        {
            self.lanes.push(stream.priority, id);
        }
    }

    /// Room for a stream of this priority in what may be queued, in bytes. The last eighth is for urgent bytes, the last quarter is not for
    /// bulk: what is queued in front of a slow pipe keeps nobody more urgent from being queued too.
    pub(super) fn send_room(&self, priority: Priority) -> u64 {
        let window = self.send_window;
        let cap = match priority {
            Priority::Urgent => window,
            Priority::Normal => window.saturating_sub(window / 8),
            Priority::Bulk => window.saturating_sub(window / 4),
        };
        cap.saturating_sub(self.send_cost).saturating_sub(SEND_ENTRY_BYTES)
    }

    /// The stream has found no room: it is told when there is some.
    pub(super) fn wants_room(&mut self, id: u32) {
        self.wanting.insert(id);
    }

    /// The peer gave credit: if that is what the stream waits for, it goes on.
    pub(super) fn want_again(&mut self, id: u32) {
        if self.wanting.contains(&id)
            && let Some(stream) = self.streams.get(&id)
            && self.may_write(stream)
        {
            self.wanting.remove(&id);
            self.event(id, WRITABLE);
        }
    }

    /// Whether a writer that waits has something to do: there is credit, and so much room that a frame is worth it; or it has ended.
    fn may_write(&self, stream: &Stream) -> bool {
        let enough = WAKE_ROOM_BYTES.min(self.send_window / 4);
        stream.send != Send::Open || (stream.credit_out > 0 && self.send_room(stream.priority) >= enough)
    }

    /// Tells those that wait for room, when there is some.
    pub(super) fn wake_writers(&mut self) {
        // One look at the room that is there, instead of one for each of those that wait.
        if self.wanting.is_empty() || self.send_room(Priority::Urgent) < WAKE_ROOM_BYTES.min(self.send_window / 4) {
            return;
        }
        let awake = |id: &u32| self.streams.get(id).is_none_or(|stream| self.may_write(stream));
        let awake: Vec<u32> = self.wanting.iter().copied().filter(awake).collect();
        for id in awake {
            self.wanting.remove(&id);
            self.event(id, WRITABLE);
        }
    }

    /// Forgets what a stream still had to say.
    pub(super) fn drop_outbox(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let entries = (stream.outbox.len() as u64).saturating_mul(SEND_ENTRY_BYTES);
            self.send_cost = self.send_cost.saturating_sub(stream.queued).saturating_sub(entries);
            stream.outbox = VecDeque::new();
            stream.queued = 0;
        }
        self.wake_writers();
    }
}
