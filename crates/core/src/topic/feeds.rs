//! What a node publishes, by name.

use std::any::Any;
use std::collections::BTreeMap;

use bytes::Bytes;
use strait_wire::topic::{Mode, NAME_BYTES_MAX, Resume};

use super::{Bounds, Cursor, Log, Reader, State, Step, Value};
use crate::error::ConfigError;

/// A node publishes so many topics at most: each may have a set of subscribers that is looked through when it changes.
const TOPICS_MAX: usize = 1024;

/// Names a topic that this node publishes. Names are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(u64);

/// How far one subscriber of a [`Feed`] is.
#[derive(Debug, Clone)]
pub enum Position {
    /// Of a [`State`].
    Keyed(Cursor),
    /// Of a [`Log`].
    Log(Reader),
}

impl Position {
    /// Where it begins, as the Hello frame says it.
    pub fn start(&self) -> u64 {
        match self {
            Position::Keyed(cursor) => cursor.start(),
            Position::Log(reader) => reader.next(),
        }
    }
}

/// What subscribers are told from: a [`State`] or a [`Log`] of any value.
pub trait Feed: Any + Send {
    /// Which of the two.
    fn mode(&self) -> Mode;
    /// Its numbers.
    fn bounds(&self) -> Bounds;
    /// What names it among those that the publisher had before.
    fn epoch(&self) -> u64;
    /// Where a new subscriber to the keys that begin with `prefix` stands, or one that comes back.
    fn subscribe(&self, prefix: Bytes, resume: Option<Resume>) -> Position;
    /// The next that a subscriber is to be told, and moves it on. `looks` is how many keys or lines may still be looked at.
    fn next(&mut self, position: &mut Position, looks: &mut u32) -> Step;
}

impl<V: Value + Send + 'static> Feed for State<V> {
    fn mode(&self) -> Mode {
        Mode::Keyed
    }

    fn bounds(&self) -> Bounds {
        State::bounds(self)
    }

    fn epoch(&self) -> u64 {
        State::epoch(self)
    }

    fn subscribe(&self, prefix: Bytes, resume: Option<Resume>) -> Position {
        Position::Keyed(match resume {
            Some(at) => self.resume(prefix, at),
            None => Cursor::new(prefix),
        })
    }

    fn next(&mut self, position: &mut Position, looks: &mut u32) -> Step {
        match position {
            Position::Keyed(cursor) => State::next(self, cursor, looks),
            Position::Log(_) => Step::UpToDate,
        }
    }
}

impl<V: Value + Send + 'static> Feed for Log<V> {
    fn mode(&self) -> Mode {
        Mode::Log
    }

    fn bounds(&self) -> Bounds {
        Log::bounds(self)
    }

    fn epoch(&self) -> u64 {
        Log::epoch(self)
    }

    fn subscribe(&self, prefix: Bytes, resume: Option<Resume>) -> Position {
        Position::Log(match resume {
            Some(at) => self.resume(prefix, at),
            None => Log::subscribe(self, prefix),
        })
    }

    fn next(&mut self, position: &mut Position, looks: &mut u32) -> Step {
        match position {
            Position::Log(reader) => Log::next(self, reader, looks),
            Position::Keyed(_) => Step::UpToDate,
        }
    }
}

/// All topics of a node.
#[derive(Default)]
pub struct Feeds {
    names: BTreeMap<String, TopicId>,
    feeds: BTreeMap<TopicId, Box<dyn Feed>>,
    given: u64,
}

impl Feeds {
    /// Adds a topic.
    ///
    /// # Errors
    /// [`ConfigError::Topic`] when the name is taken or not 1 to [`NAME_BYTES_MAX`] bytes, or when there are 1,024.
    pub fn add(&mut self, name: &str, feed: Box<dyn Feed>) -> Result<TopicId, ConfigError> {
        let refuse = |why: String| Err(ConfigError::Topic { name: name.to_owned(), why });
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return refuse(format!("a topic's name has 1 to {NAME_BYTES_MAX} bytes, and this one {}", name.len()));
        }
        if self.names.contains_key(name) {
            return refuse("it is published already".to_owned());
        }
        if self.feeds.len() >= TOPICS_MAX {
            return refuse(format!("a node publishes at most {TOPICS_MAX} topics"));
        }
        let id = TopicId(self.given);
        self.given = self.given.saturating_add(1);
        self.names.insert(name.to_owned(), id);
        self.feeds.insert(id, feed);
        Ok(id)
    }

    /// Takes a topic away.
    pub fn remove(&mut self, id: TopicId) -> Option<Box<dyn Feed>> {
        self.names.retain(|_, named| *named != id);
        self.feeds.remove(&id)
    }

    /// The topic of that name.
    pub fn find(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    /// What its subscribers are told from.
    pub fn get(&mut self, id: TopicId) -> Option<&mut dyn Feed> {
        self.feeds.get_mut(&id).map(|feed| &mut **feed)
    }

    /// The same as the type that was added, to look at.
    pub(crate) fn peek<F: Feed>(&self, id: TopicId) -> Option<&F> {
        let feed: &dyn Any = &**self.feeds.get(&id)?;
        feed.downcast_ref()
    }

    /// The same as the type that was added.
    pub fn typed<F: Feed>(&mut self, id: TopicId) -> Option<&mut F> {
        let feed: &mut dyn Any = self.get(id)?;
        feed.downcast_mut()
    }
}
