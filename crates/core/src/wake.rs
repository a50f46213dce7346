//! Deadlines, and why each was set.
//!
//! One entry an owner, so the list is as long as there are owners with a deadline and no longer: an owner keeps its own
//! [`Armed`] and hands it in to move or clear it. All operations are O(log n).

use std::collections::BTreeMap;
use std::time::Instant;

/// Why a node wants to be woken: for people and for the simulator, which checks that nothing waits without a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The QUIC connection's own timers: loss detection, ACK delay, pacing, idle, key discard.
    Transport,
    /// A handshake has to be complete by then.
    Handshake,
    /// A protocol has to be agreed on by then.
    Negotiation,
    /// The first byte of an answer has to be there by then.
    Answer,
    /// Enough of a message has to have come (or gone) since the last look.
    Progress,
    /// The whole exchange has to be complete by then.
    Total,
    /// A raw stream that declared an idle limit has to show life by then.
    Idle,
    /// Credits, windows and queues are looked at again then.
    Housekeeping,
    /// A drain has to be complete by then.
    Drain,
    /// The next address of a peer is tried then, or a look-up has to be answered by then.
    Dial,
    /// A peer has to answer at this machine's new address by then.
    Move,
    /// A subscriber wants to be told again then at the earliest.
    Rate,
}

/// Who is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The transport timers of the connection in this slot.
    Transport(usize),
    /// The node's own deadline for the connection in this slot.
    Conn(usize),
    /// A stream: connection slot, stream slot.
    Stream(usize, usize),
    /// A peer that is wanted.
    Wish(usize),
    /// The connection in this slot, of two to one peer, is closed when it is not used.
    Retired(usize),
    /// The connection in this slot has another local address, and its peer has to answer there.
    Moved(usize),
    /// Peers that were lost a while ago are forgotten.
    Lost,
}

/// An owner's place in the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Armed(Option<Instant>);

impl Armed {
    pub(crate) fn at(self) -> Option<Instant> {
        self.0
    }
}

/// The list itself.
#[derive(Debug, Default)]
pub(crate) struct WakeList {
    entries: BTreeMap<(Instant, Key), Why>,
}

impl WakeList {
    /// Moves, sets or clears `key`'s deadline.
    pub(crate) fn set(&mut self, armed: &mut Armed, key: Key, deadline: Option<(Instant, Why)>) {
        let at = deadline.map(|(at, _)| at);
        if armed.0 != at
            && let Some(old) = armed.0
        {
            self.entries.remove(&(old, key));
        }
        if let Some((at, why)) = deadline
            && armed.0 != Some(at)
        {
            self.entries.insert((at, key), why);
        }
        armed.0 = at;
    }

    /// The earliest deadline.
    pub(crate) fn first(&self) -> Option<(Instant, Why)> {
        self.entries.first_key_value().map(|((at, _), why)| (*at, *why))
    }

    /// Takes the earliest deadline that is not after `now`. The owner's [`Armed`] must be cleared by the caller.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Key, Why)> {
        let entry = self.entries.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let ((_, key), why) = entry.remove_entry();
        Some((key, why))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Armed {
    /// Notes that the list has popped this owner's entry.
    pub(crate) fn fired(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn an_owner_has_one_entry_however_often_it_moves() {
        let start = Instant::now();
        let mut list = WakeList::default();
        let mut armed = Armed::default();
        for ms in [5, 3, 9] {
            let at = start + Duration::from_millis(ms);
            list.set(&mut armed, Key::Conn(1), Some((at, Why::Handshake)));
        }
        assert_eq!(list.len(), 1);
        assert_eq!(list.pop_due(start + Duration::from_millis(8)), None);
        assert_eq!(list.pop_due(start + Duration::from_millis(9)), Some((Key::Conn(1), Why::Handshake)));
        armed.fired();
        list.set(&mut armed, Key::Conn(1), None);
        assert_eq!(list.first(), None);
    }
}
