//! Everything that was said, as far back as the ring goes.

use std::collections::VecDeque;

use bytes::Bytes;
use strait_wire::topic::{Resume, Tell, said_frame};

use super::{Bounds, PublishError, Step, Told, Value};

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

impl Reader {
    /// The number of the next line.
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

    /// Has a subscriber go on at a line: there if that can be, with a gap if it is gone. A line of another epoch
    /// means nothing here: it begins anew, as it learns from the epoch in the publisher's Hello.
    pub fn resume(&self, prefix: Bytes, at: Resume) -> Reader {
        let known = at.epoch == self.epoch && at.position <= self.end();
        Reader { prefix, next: if known { at.position } else { self.first } }
    }

    /// Its numbers.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// What names it among those that the publisher had before.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The next that a subscriber is to be told, and moves it on (TP-23, TP-24). `looks` is how many lines may still be looked at: those that it has not
    /// asked for cost, too.
    pub fn next(&mut self, reader: &mut Reader, looks: &mut u32) -> Step {
        loop {
            let lost = self.first.saturating_sub(reader.next);
            if lost > 0 {
                reader.next = self.first;
                return Step::Frame(Tell::Gap { lost, next: self.first }.frame());
            }
            let number = reader.next;
            let index = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
            let Some((key, told)) = self.lines.get_mut(index) else {
                return Step::UpToDate;
            };
            let Some(left) = looks.checked_sub(1) else {
                return Step::Later;
            };
            *looks = left;
            reader.next = number.saturating_add(1);
            if key.starts_with(&reader.prefix) {
                return Step::Frame(told.frame(&mut self.encoded, |len, value| said_frame(number, key, len, value)));
            }
        }
    }
}
