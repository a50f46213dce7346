//! Deadlines, and why each was set.
//!
//! One entry an owner, so the list is as long as there are owners with a deadline and no longer: an owner keeps its own
//! [`Armed`] and hands it in to move or clear it. All operations are O(log n).

use std::time::Instant;

use slab::Slab;

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
pub(crate) struct Armed(Option<(Instant, usize)>);

impl Armed {
    pub(crate) fn at(self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    /// Notes that the list has popped this owner's entry.
    pub(crate) fn fired(&mut self) {
        self.0 = None;
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Instant,
    key: Key,
    why: Why,
    /// Where in `places` it says where it is.
    place: usize,
}

impl Entry {
    fn is_before(&self, other: &Entry) -> bool {
        self.at < other.at || (self.at == other.at && self.key < other.key)
    }
}

/// The list itself: a binary heap whose entries know where they are. Deadlines are set and cleared with every request and nearly never come: what is
/// set is nearly always later than the others, and stays at the end.
#[derive(Debug, Default)]
pub(crate) struct WakeList {
    heap: Vec<Entry>,
    /// By an owner's [`Armed`], the index of its entry.
    places: Slab<usize>,
}

impl WakeList {
    /// Moves, sets or clears `key`'s deadline.
    pub(crate) fn set(&mut self, armed: &mut Armed, key: Key, deadline: Option<(Instant, Why)>) {
        let Some((at, why)) = deadline else {
            if let Some((_, place)) = armed.0.take()
                && let Some(index) = self.find(place, key)
            {
                self.remove(index);
            }
            return;
        };
        let before = armed.0;
        if before.is_some_and(|(earlier, _)| earlier == at) {
            return;
        }
        let place = match before.and_then(|(_, place)| Some((place, self.find(place, key)?))) {
            Some((place, index)) => {
                if let Some(entry) = self.heap.get_mut(index) {
                    (entry.at, entry.why) = (at, why);
                }
                self.settle(index);
                place
            }
            None => {
                let index = self.heap.len();
                let place = self.places.insert(index);
                self.heap.push(Entry { at, key, why, place });
                self.rise(index);
                place
            }
        };
        armed.0 = Some((at, place));
    }

    /// The earliest deadline.
    pub(crate) fn first(&self) -> Option<(Instant, Why)> {
        self.heap.first().map(|entry| (entry.at, entry.why))
    }

    /// Takes the earliest deadline that is not after `now`. The owner's [`Armed`] must be cleared by the caller.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Key, Why)> {
        let Entry { key, why, .. } = *self.heap.first().filter(|entry| entry.at <= now)?;
        self.remove(0);
        Some((key, why))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Allocated bytes.
    pub(crate) fn held(&self) -> u64 {
        let places = self.places.capacity().saturating_mul(size_of::<usize>().saturating_mul(2));
        self.heap.capacity().saturating_mul(size_of::<Entry>()).saturating_add(places) as u64
    }

    /// Where `key`'s entry is, if that place is still its own.
    fn find(&self, place: usize, key: Key) -> Option<usize> {
        let index = *self.places.get(place)?;
        self.heap.get(index).filter(|entry| entry.key == key && entry.place == place).map(|_| index)
    }

    fn remove(&mut self, index: usize) {
        if index >= self.heap.len() {
            return;
        }
        let gone = self.heap.swap_remove(index);
        self.places.try_remove(gone.place);
        self.settle(index);
        // What many connections once needed is not kept for ever.
        if self.heap.capacity() > self.heap.len().saturating_mul(4).max(SPARE_MIN) {
            self.heap.shrink_to(self.heap.len().saturating_mul(2));
            self.places.shrink_to_fit();
        }
    }

    /// Finds the place of an entry that has changed, or come to `index` from elsewhere.
    fn settle(&mut self, index: usize) {
        let index = self.rise(index);
        self.sink(index);
    }

    fn rise(&mut self, mut index: usize) -> usize {
        while let Some(above) = index.checked_sub(1).map(|left| left / 2)
            && self.is_before(index, above)
        {
            self.swap(index, above);
            index = above;
        }
        self.note(index);
        index
    }

    fn sink(&mut self, mut index: usize) {
        loop {
            let left = index.saturating_mul(2).saturating_add(1);
            let right = left.saturating_add(1);
            let next = if self.is_before(right, left) { right } else { left };
            if !self.is_before(next, index) {
                return;
            }
            self.swap(index, next);
            index = next;
        }
    }

    /// Whether there is an entry at `one` that is due before that at `other`.
    fn is_before(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.heap.get(one), self.heap.get(other));
        one.zip(other).is_some_and(|(one, other)| one.is_before(other))
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.note(one);
        self.note(other);
    }

    fn note(&mut self, index: usize) {
        if let Some(entry) = self.heap.get(index)
            && let Some(place) = self.places.get_mut(entry.place)
        {
            *place = index;
        }
    }
}

/// So many entries are not worth giving back.
const SPARE_MIN: usize = 64;

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

    /// An owner that was popped and did not note it has no hold on who has its place now.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_stale_place_is_nobody_elses() {
        let now = Instant::now();
        let mut list = WakeList::default();
        let (mut stale, mut other) = (Armed::default(), Armed::default());
        list.set(&mut stale, Key::Conn(1), Some((now, Why::Handshake)));
        assert_eq!(list.pop_due(now), Some((Key::Conn(1), Why::Handshake)));
        list.set(&mut other, Key::Conn(2), Some((now, Why::Idle)));
        list.set(&mut stale, Key::Conn(1), None);
        assert_eq!(list.first(), Some((now, Why::Idle)));
    }

    proptest::proptest! {
        /// Whatever is set, moved, cleared and popped: as a sorted map has it.
        #[test]
        #[allow(clippy::disallowed_methods)]
        fn it_is_a_sorted_map(steps in proptest::collection::vec((0usize..12, proptest::option::of(0u64..40), 0u64..20), 0..200)) {
            let start = Instant::now();
            let mut list = WakeList::default();
            let mut armed = [Armed::default(); 12];
            let mut model = std::collections::BTreeMap::new();
            for (owner, deadline, clock) in steps {
                let deadline = deadline.map(|ms| start + Duration::from_millis(ms));
                model.retain(|(_, key), ()| *key != owner);
                model.extend(deadline.map(|at| ((at, owner), ())));
                list.set(&mut armed[owner], Key::Wish(owner), deadline.map(|at| (at, Why::Dial)));
                proptest::prop_assert_eq!(list.first().map(|(at, _)| at), model.keys().next().map(|(at, _)| *at));
                proptest::prop_assert_eq!(armed[owner].at(), deadline);
                let now = start + Duration::from_millis(clock);
                if let Some((Key::Wish(popped), _)) = list.pop_due(now) {
                    armed[popped].fired();
                    let ((at, owner), ()) = model.pop_first().expect("the model has it too");
                    proptest::prop_assert!(at <= now && owner == popped);
                }
                proptest::prop_assert_eq!(list.len(), model.len());
            }
        }
    }
}
