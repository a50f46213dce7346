//! What lower priorities get on QUIC beside higher ones at full rate.
//!
//! The QUIC crate always sends of the stream with the highest priority, so one that never runs dry would starve all below it. Here, once so much was
//! handed over that went ahead of a lower priority's last bytes, all streams count alike for a while, and take turns packet by packet. Streams are made
//! alike by lowering, never by raising: the crate looks at a stream's priority again only after it has sent of it, and it is the low ones that do not send.
//! Yamux has a floor of its own (`conn/yamux/send.rs`).

use super::state::ConnState;
use crate::proto::Priority;

/// After so many bytes ahead of a lower priority it gets its turn. Sporadic urgent bytes never come to that: bulk gets on beside them.
const AHEAD_BYTES: u64 = 11 * PART_BYTES;
/// So many bytes are handed over while all count alike.
const ALIKE_BYTES: u64 = PART_BYTES;
const PART_BYTES: u64 = 16 << 10;

/// How a connection's priorities stand to each other.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Bytes handed over since the last ones of [`Priority::Bulk`] and of [`Priority::Normal`]; `None` before the first.
    ahead: [Option<u64>; 2],
    /// Bytes still to be handed over while all count alike.
    alike: u64,
}

impl Shares {
    /// As what a stream of `priority` counts now.
    pub(super) fn level(&self, priority: Priority) -> Priority {
        if self.alike > 0 { Priority::Bulk } else { priority }
    }

    /// Takes note of bytes that were handed over. True when streams count as something else from now on.
    fn note(&mut self, priority: Priority, bytes: u64) -> bool {
        let [bulk, normal] = &mut self.ahead;
        let lower = match priority {
            Priority::Bulk => [None, None],
            Priority::Normal => [bulk.as_mut(), None],
            Priority::Urgent => [bulk.as_mut(), normal.as_mut()],
        };
        let mut waited = 0;
        for ahead in lower.into_iter().flatten() {
            *ahead = ahead.saturating_add(bytes);
            waited = waited.max(*ahead);
        }
        match priority {
            Priority::Bulk => *bulk = Some(0),
            Priority::Normal => *normal = Some(0),
            Priority::Urgent => {}
        }
        if self.alike > 0 {
            self.alike = self.alike.saturating_sub(bytes);
            return self.alike == 0;
        }
        if waited < AHEAD_BYTES {
            return false;
        }
        self.alike = ALIKE_BYTES;
        for ahead in self.ahead.iter_mut().flatten() {
            *ahead = 0;
        }
        true
    }
}

impl ConnState {
    /// Takes note of bytes of a stream that were handed to the transport.
    pub(super) fn share(&mut self, priority: Priority, bytes: u64) {
        if bytes == 0 || !self.quic.is_quic() || !self.shares.note(priority, bytes) {
            return;
        }
        for (_, stream) in &self.streams {
            if let Some(number) = stream.number.filter(|_| stream.priority != Priority::Bulk) {
                self.quic.port(number).set_priority(self.shares.level(stream.priority));
            }
        }
    }

    /// Gives a stream its priority among the others of its connection.
    pub(super) fn set_priority(&mut self, index: usize, priority: Priority) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let before = std::mem::replace(&mut stream.priority, priority);
        let level = self.shares.level(priority);
        // What it begins with need not be told: nearly all streams stay at that.
        if let Some(number) = stream.number.filter(|_| (before, level) != (Priority::Normal, Priority::Normal)) {
            self.quic.port(number).set_priority(level);
        }
    }
}
