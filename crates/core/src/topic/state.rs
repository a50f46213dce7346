//! A value for each key, and who has seen which.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use strait_wire::topic::{Resume, Tell, put_frame};

use super::{Bounds, PublishError, Step, Told, Value};

/// The keyed state of a topic, at its publisher.
#[derive(Debug)]
pub struct State<V> {
    bounds: Bounds,
    /// Names this state among those that the publisher had before, so that nobody goes on at a version of another one.
    epoch: u64,
    version: u64,
    entries: BTreeMap<Bytes, Entry<V>>,
    /// Every entry by the version of its last change.
    order: BTreeMap<u64, Bytes>,
    /// The versions of deletions.
    deleted: BTreeSet<u64>,
    /// Deletions up to this version may be forgotten.
    forgotten: u64,
    encoded: u64,
}

#[derive(Debug)]
struct Entry<V> {
    version: u64,
    /// The version at which the key came to be.
    born: u64,
    /// None: deleted.
    told: Option<Told<V>>,
}

/// How far one subscriber is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    prefix: Bytes,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// Nothing is told yet.
    Start,
    /// The snapshot, key by key, without those that came to be after `since`. So it ends, however fast keys come and change meanwhile.
    Snapshot { since: u64, last: Option<Bytes> },
    /// All changes up to this version are told.
    Changes { seen: u64 },
}

impl Cursor {
    /// A subscriber to the keys that begin with `prefix`, from the beginning.
    pub fn new(prefix: Bytes) -> Cursor {
        Cursor { prefix, at: At::Start }
    }

    /// The version after which it is told changes; 0 when it is told a snapshot first.
    pub fn start(&self) -> u64 {
        match self.at {
            At::Changes { seen } => seen,
            At::Start | At::Snapshot { .. } => 0,
        }
    }
}

impl<V: Value> State<V> {
    /// An empty one. `epoch` is to be random.
    pub fn new(bounds: Bounds, epoch: u64) -> State<V> {
        State {
            bounds,
            epoch,
            version: 0,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            deleted: BTreeSet::new(),
            forgotten: 0,
            encoded: 0,
        }
    }

    /// Sets a key's value. Returns the version of that. Costs O(log keys), however many subscribers there are.
    ///
    /// # Errors
    /// [`PublishError`], and nothing has changed.
    pub fn put(&mut self, key: Bytes, value: V) -> Result<u64, PublishError> {
        self.bounds.check(&key, &value)?;
        self.make_room(&key)?;
        Ok(self.change(key, Some(Told::new(value))))
    }

    /// Joins `value` to that of a key: a counter adds, a set grows. The first one stands for itself.
    ///
    /// # Errors
    /// [`PublishError`], and nothing has changed.
    pub fn merge(&mut self, key: Bytes, value: V, join: impl FnOnce(&V, V) -> V) -> Result<u64, PublishError> {
        let old = self.entries.get(&key).and_then(|entry| entry.told.as_ref());
        let joined = match old {
            Some(told) => join(&told.value, value),
            None => value,
        };
        self.put(key, joined)
    }

    /// Deletes a key, which subscribers are told. Returns the version of that; none when there was none.
    pub fn delete(&mut self, key: &Bytes) -> Option<u64> {
        let there = self.entries.get(key).is_some_and(|entry| entry.told.is_some());
        there.then(|| self.change(key.clone(), None))
    }

    /// A key's value.
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        Some(&self.entries.get(key)?.told.as_ref()?.value)
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &V)> {
        self.entries.iter().filter_map(|(key, entry)| Some((key, &entry.told.as_ref()?.value)))
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How often a value was encoded.
    pub fn encoded(&self) -> u64 {
        self.encoded
    }

    /// How many keys are held, those that were deleted and are not forgotten yet among them. At most [`Bounds::keys_max`].
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    /// Has a subscriber go on where it was: from there if that can be, else from the beginning.
    pub fn resume(&self, prefix: Bytes, at: Resume) -> Cursor {
        let known = at.epoch == self.epoch && at.position >= self.forgotten && at.position <= self.version;
        Cursor { prefix, at: if known { At::Changes { seen: at.position } } else { At::Start } }
    }

    /// Its numbers.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What names it among those that the publisher had before.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next that a subscriber is to be told, and moves it on. `looks` is how many keys may still be looked at: those that it has not
    /// asked for cost, too.
    pub fn next(&mut self, cursor: &mut Cursor, looks: &mut u32) -> Step {
        match &cursor.at {
            At::Snapshot { since, last } => {
                let (since, last) = (*since, last.clone());
                self.next_of_snapshot(cursor, since, last, looks)
            }
            At::Start => self.begin(cursor),
            // A deletion that it did not see is forgotten. That is not looked at during a snapshot, or one might never end.
            At::Changes { seen } if *seen < self.forgotten => self.begin(cursor),
            At::Changes { seen } => {
                let seen = *seen;
                self.next_change(cursor, seen, looks)
            }
        }
    }

    fn begin(&mut self, cursor: &mut Cursor) -> Step {
        cursor.at = At::Snapshot { since: self.version, last: None };
        Step::Frame(Tell::Begin.frame())
    }

    /// TP-20, TP-24
    fn next_of_snapshot(&mut self, cursor: &mut Cursor, since: u64, mut last: Option<Bytes>, looks: &mut u32) -> Step {
        loop {
            let from = match &last {
                Some(last) => Bound::Excluded(last.clone()),
                None => Bound::Included(cursor.prefix.clone()),
            };
            let next = self.entries.range_mut((from, Bound::Unbounded)).next();
            let Some((key, entry)) = next.filter(|(key, _)| key.starts_with(&cursor.prefix)) else {
                cursor.at = At::Changes { seen: since };
                return Step::Frame(Tell::Whole { version: since }.frame());
            };
            let Some(left) = looks.checked_sub(1) else {
                cursor.at = At::Snapshot { since, last };
                return Step::Later;
            };
            *looks = left;
            let (key, version, is_of_it) = (key.clone(), entry.version, entry.born <= since);
            last = Some(key.clone());
            if let Some(told) = entry.told.as_mut().filter(|_| is_of_it) {
                cursor.at = At::Snapshot { since, last };
                return Step::Frame(told.frame(&mut self.encoded, |len, value| put_frame(version, &key, len, value)));
            }
        }
    }

    /// TP-21, TP-24
    fn next_change(&mut self, cursor: &mut Cursor, mut seen: u64, looks: &mut u32) -> Step {
        loop {
            let Some((version, key)) = self.order.range((Bound::Excluded(seen), Bound::Unbounded)).next() else {
                // What it has not asked for needs no second look either.
                cursor.at = At::Changes { seen: self.version };
                return Step::UpToDate;
            };
            let Some(left) = looks.checked_sub(1) else {
                cursor.at = At::Changes { seen };
                return Step::Later;
            };
            *looks = left;
            let (version, key) = (*version, key.clone());
            seen = version;
            if !key.starts_with(&cursor.prefix) {
                continue;
            }
            cursor.at = At::Changes { seen };
            let Some(told) = self.entries.get_mut(&key).and_then(|entry| entry.told.as_mut()) else {
                return Step::Frame(Tell::Delete { version, key: &key }.frame());
            };
            return Step::Frame(told.frame(&mut self.encoded, |len, value| put_frame(version, &key, len, value)));
        }
    }

    /// Sees to it that there is room for this key: what was deleted first is forgotten.
    fn make_room(&mut self, key: &Bytes) -> Result<(), PublishError> {
        let max = self.bounds.keys_max;
        if self.entries.len() < max || self.entries.contains_key(key) {
            return Ok(());
        }
        let oldest = self.deleted.pop_first().ok_or(PublishError::Full { max })?;
        self.forgotten = oldest;
        if let Some(key) = self.order.remove(&oldest) {
            self.entries.remove(&key);
        }
        Ok(())
    }

    fn change(&mut self, key: Bytes, told: Option<Told<V>>) -> u64 {
        self.version = self.version.saturating_add(1);
        let version = self.version;
        if told.is_none() {
            self.deleted.insert(version);
        }
        let old = self.entries.remove(&key);
        if let Some(old) = &old {
            self.order.remove(&old.version);
            self.deleted.remove(&old.version);
        }
        let born = old.filter(|old| old.told.is_some()).map_or(version, |old| old.born);
        self.entries.insert(key.clone(), Entry { version, born, told });
        self.order.insert(version, key);
        version
    }
}
