//! Everything that was said, as far back as the ring goes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Bounds, PublishError, Told, Value};

/// The lines of a topic, at its publisher.
#[derive(Debug)]
pub struct Log<V> {
    bounds: Bounds,
    epoch: u64,
    /// The number of the first line that is held.
    first: u64,
    lines: VecDeque<(Bytes, Told<V>)>,
    encoded: u64,
}

/// How far one subscriber is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    prefix: Bytes,
    /// The number of the next line.
    next: u64,
}

/// What a subscriber is to be told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// One line.
    Said {
        /// Its number. Each line has one more than the one before.
        number: u64,
        /// Its key.
        key: Bytes,
        /// The encoded value.
        value: Bytes,
    },
    /// So many lines were said, of any key, that it will not be told: it was too slow for them.
    Gap {
        /// How many.
        lost: u64,
    },
    /// Everything is told.
    UpToDate,
    /// There may be more, but enough was looked at for now.
    Later,
}

impl Reader {
    /// The number of the next line: where to go on after the connection was lost.
    pub fn next(&self) -> u64 {
        self.next
    }
}

impl<V: Value> Log<V> {
    /// An empty one. `epoch` is to be random.
    pub fn new(bounds: Bounds, epoch: u64) -> Log<V> {
        Log { bounds, epoch, first: 0, lines: VecDeque::new(), encoded: 0 }
    }

    /// Says something. Returns its number. What was said [`Bounds::keys_max`] lines before is forgotten.
    ///
    /// # Errors
    /// [`PublishError`], and nothing has changed.
    pub fn say(&mut self, key: Bytes, value: V) -> Result<u64, PublishError> {
        self.bounds.check(&key, &value)?;
        if self.bounds.keys_max == 0 {
            return Err(PublishError::Full { max: 0 });
        }
        while self.lines.len() >= self.bounds.keys_max {
            self.lines.pop_front();
            self.first = self.first.saturating_add(1);
        }
        self.lines.push_back((key, Told::new(value)));
        Ok(self.end().saturating_sub(1))
    }

    /// The number that the next line will have.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.lines.len() as u64)
    }

    /// How many lines are held.
    pub fn held(&self) -> usize {
        self.lines.len()
    }

    /// How often a value was encoded.
    pub fn encoded(&self) -> u64 {
        self.encoded
    }

    /// A subscriber to the keys that begin with `prefix`, from the first line that is held.
    pub fn subscribe(&self, prefix: Bytes) -> Reader {
        Reader { prefix, next: self.first }
    }

    /// Has a subscriber go on whose next line is `next` of `epoch`: there if that can be, with a gap if it is gone. A line of another epoch
    /// means nothing here: it begins anew, and has to be told so.
    pub fn resume(&self, prefix: Bytes, epoch: u64, next: u64) -> Reader {
        let known = epoch == self.epoch && next <= self.end();
        Reader { prefix, next: if known { next } else { self.first } }
    }

    /// The next that a subscriber is to be told, and moves it on. `looks` is how many lines may still be looked at: those that it has not
    /// asked for cost, too.
    pub fn next(&mut self, reader: &mut Reader, looks: &mut u32) -> Line {
        loop {
            let lost = self.first.saturating_sub(reader.next);
            if lost > 0 {
                reader.next = self.first;
                return Line::Gap { lost };
            }
            let number = reader.next;
            let index = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
            let Some((key, told)) = self.lines.get_mut(index) else {
                return Line::UpToDate;
            };
            let Some(left) = looks.checked_sub(1) else {
                return Line::Later;
            };
            *looks = left;
            reader.next = number.saturating_add(1);
            if key.starts_with(&reader.prefix) {
                let value = told.bytes(&mut self.encoded);
                return Line::Said { number, key: key.clone(), value };
            }
        }
    }
}
