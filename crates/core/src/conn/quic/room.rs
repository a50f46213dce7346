//! Who gets the room that a connection's send window has.
//!
//! The QUIC crate gives it to whoever asks first, so bulk would take from urgent bytes at full rate as much as it leaves them. Here, while a stream of a
//! higher priority waits for room, a lower one may only fill a part of the window; as more is always filled then, what becomes free is the higher one's.
//! And while something urgent may come, the others have a shorter window (`node/calm.rs`).

use std::collections::{BTreeMap, BTreeSet};

use super::quic::{self, StreamId};

/// A window is this many parts: one more of them is out of bounds for each higher priority that waits.
const PARTS: u64 = 4;
const LEVELS: usize = 3;
/// The rank of urgent streams.
const URGENT: usize = LEVELS - 1;

/// The level of a stream, from 0 up, as the QUIC crate counts them from -1.
fn rank(level: i32) -> usize {
    usize::try_from(level.saturating_add(1)).unwrap_or(0).min(URGENT)
}

/// Which streams of a connection wait for room.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The send window in bytes.
    window: u64,
    /// What of it is open to less urgent streams, if that is less.
    calm: Option<u64>,
    /// Bytes that streams of the highest level were given since that was asked last.
    urgent: u64,
    /// Those whose last bytes did not all find room, and their rank.
    waiting: BTreeMap<StreamId, usize>,
    /// How many of those there are of each rank.
    ranks: [usize; LEVELS],
    /// Those that were kept from room that was there.
    held: BTreeSet<StreamId>,
    /// Some of the held are to be told that they may try again.
    again: bool,
}

impl Room {
    pub(super) fn new(window: u64) -> Room {
        Room { window, ..Room::default() }
    }

    pub(super) fn set_window(&mut self, bytes: u64) {
        self.window = bytes;
    }

    /// The part of the window that a stream of `level` may fill, in bytes.
    pub(super) fn within(&self, level: i32) -> u64 {
        let rank = rank(level);
        let window = self.calm.filter(|_| rank < URGENT).map_or(self.window, |calm| calm.min(self.window));
        let higher = self.ranks.iter().skip(rank.saturating_add(1)).filter(|count| **count > 0).count();
        window.saturating_sub((window / PARTS).saturating_mul(higher as u64))
    }

    /// The window in bytes.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// A stream was given so many bytes: whether all of them found room.
    pub(super) fn wrote(&mut self, id: StreamId, level: i32, bytes: usize, all: bool) {
        if rank(level) == URGENT {
            self.urgent = self.urgent.saturating_add(bytes as u64);
        }
        if all {
            return self.forget(id);
        }
        let rank = rank(level);
        if self.within(level) < self.window {
            self.held.insert(id);
        }
        let before = self.waiting.insert(id, rank);
        self.count(before, Some(rank));
    }

    /// A stream counts as something else now.
    pub(super) fn leveled(&mut self, id: StreamId, level: i32) {
        let rank = rank(level);
        if let Some(waits) = self.waiting.get_mut(&id) {
            let before = std::mem::replace(waits, rank);
            self.count(Some(before), Some(rank));
        }
    }

    /// A stream does not wait any more.
    pub(super) fn forget(&mut self, id: StreamId) {
        let before = self.waiting.remove(&id);
        self.held.remove(&id);
        self.count(before, None);
    }

    fn count(&mut self, before: Option<usize>, now: Option<usize>) {
        if before == now {
            return;
        }
        if let Some(count) = before.and_then(|rank| self.ranks.get_mut(rank)) {
            *count = count.saturating_sub(1);
            // It may have been the one that others waited for.
            self.again |= *count == 0;
        }
        if let Some(count) = now.and_then(|rank| self.ranks.get_mut(rank)) {
            *count = count.saturating_add(1);
        }
    }

    /// Something has come that may have made room.
    pub(super) fn look_again(&mut self) {
        self.again = true;
    }

    /// Whether the QUIC crate's word that a stream has room is to be passed on: not to one that was kept from just that room.
    pub(super) fn may_try(&self, id: StreamId) -> bool {
        !self.held.contains(&id)
    }

    /// The next that was held and may try again. The window may have grown for it, or not.
    pub(super) fn next(&mut self) -> Option<StreamId> {
        let next = if self.again { self.held.pop_first() } else { None };
        self.again = next.is_some();
        next
    }
}

impl super::Conn {
    /// Gives back room that nothing needs now.
    pub(crate) fn rest(&mut self) {
        // A map or set that was emptied keeps a node.
        if self.room.waiting.is_empty() && self.room.held.is_empty() {
            (self.room.waiting, self.room.held) = (BTreeMap::new(), BTreeSet::new());
        }
    }

    /// Whether streams wait for room in the send window.
    pub(crate) fn is_hungry(&self) -> bool {
        !self.room.waiting.is_empty()
    }

    /// How many urgent bytes were written since this was asked last.
    pub(crate) fn take_urgent(&mut self) -> u64 {
        std::mem::take(&mut self.room.urgent)
    }

    /// Leaves less urgent streams so many bytes of the send window. Returns whether they had all of it before.
    pub(crate) fn set_calm(&mut self, bytes: Option<u64>) -> bool {
        let before = std::mem::replace(&mut self.room.calm, bytes);
        if before != bytes {
            self.room.look_again();
        }
        before.is_none() && bytes.is_some()
    }

    pub(crate) fn set_send_window(&mut self, bytes: u64) {
        self.room.set_window(bytes);
        self.room.look_again();
        self.inner.set_send_window(bytes);
    }
}

/// Has a stream write into the part of the window that is open to it.
pub(super) fn write<T>(inner: &mut quic::Connection, room: &Room, level: i32, act: impl FnOnce(&mut quic::Connection) -> T) -> T {
    let within = room.within(level);
    if within == room.window() {
        return act(inner);
    }
    inner.set_send_window(within);
    let done = act(inner);
    inner.set_send_window(room.window());
    done
}
