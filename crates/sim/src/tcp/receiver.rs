//! The receiving half: puts in order what comes, and keeps what the app has not read, up to a bound.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::sender::SEGMENT_BYTES;

/// Ranges that one acknowledgement lists.
const RANGES_MAX: usize = 64;

/// The receiving half of a connection.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// The next sequence number.
    next: u64,
    ready: VecDeque<Bytes>,
    ready_bytes: usize,
    /// What came before its time.
    ahead: BTreeMap<u64, Bytes>,
    /// Where the other side ended.
    end: Option<u64>,
    ended: bool,
    pub(crate) bytes_max: usize,
    /// Up to where the other side may send. It never moves back.
    edge: u64,
}

impl Receiver {
    pub(crate) fn new(bytes_max: usize) -> Receiver {
        let edge = 1 + bytes_max as u64;
        Receiver {
            next: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            ahead: BTreeMap::new(),
            end: None,
            ended: false,
            bytes_max,
            edge,
        }
    }

    /// The other side's SYN.
    pub(crate) fn begin(&mut self) {
        self.next = self.next.max(1);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.next > 0
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes a piece. What is behind the window is dropped, as what has come before.
    pub(crate) fn take(&mut self, seq: u64, payload: Bytes, fin: bool) {
        let end = seq + payload.len() as u64;
        if end > self.edge {
            return;
        }
        if fin {
            self.end = Some(end);
        }
        if end > self.next {
            let kept = self.ahead.entry(seq).or_default();
            if kept.len() < payload.len() {
                *kept = payload;
            }
        }
        while let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.next
        {
            let (seq, mut payload) = first.remove_entry();
            let known = usize::try_from(self.next - seq).unwrap_or(usize::MAX);
            if known < payload.len() {
                let fresh = payload.split_off(known);
                self.next += fresh.len() as u64;
                self.ready_bytes += fresh.len();
                self.ready.push_back(fresh);
            }
        }
        if self.end == Some(self.next) && !self.ended {
            self.ended = true;
            self.next += 1;
        }
    }

    /// At most `max` bytes that are in order.
    pub(crate) fn read(&mut self, max: usize) -> Option<Bytes> {
        let mut bytes = BytesMut::with_capacity(max.min(self.ready_bytes));
        while bytes.len() < max
            && let Some(first) = self.ready.front_mut()
        {
            bytes.extend_from_slice(&first.split_to(first.len().min(max - bytes.len())));
            if first.is_empty() {
                self.ready.pop_front();
            }
        }
        self.ready_bytes -= bytes.len();
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    pub(crate) fn unread(&self) -> usize {
        self.ready_bytes
    }

    /// Whether the other side has ended and all before that was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether reading has opened the window by so much that it is worth telling.
    pub(crate) fn has_room_to_tell(&self) -> bool {
        let opened = self.open_edge().saturating_sub(self.edge);
        !self.ended && opened >= (2 * SEGMENT_BYTES).min(self.bytes_max / 2) as u64
    }

    fn open_edge(&self) -> u64 {
        self.edge.max(self.next + self.bytes_max.saturating_sub(self.ready_bytes) as u64)
    }

    /// The window to be told now.
    pub(crate) fn window(&mut self) -> u64 {
        self.edge = self.open_edge();
        self.edge - self.next.min(self.edge)
    }

    /// What came before its time.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (seq, payload) in &self.ahead {
            let (end, full) = (seq + payload.len() as u64, ranges.len() == RANGES_MAX);
            match ranges.last_mut() {
                Some(last) if *seq <= last.1 => last.1 = last.1.max(end),
                _ if full => break,
                _ => ranges.push((*seq, end)),
            }
        }
        ranges
    }
}
