//! Topics: keyed state that others keep up to date with, at their own pace.
//!
//! What a publisher holds depends on the number of keys and, by a few words each, on the number of subscribers; never on how often
//! something changes or how slowly somebody reads. Nothing is queued for a subscriber. All changed keys stand in one order, by the version
//! of their last change, and a subscriber is a [`Cursor`] in it: a number. A key that changes again moves to the end of the order, so who is
//! slow finds it once, with its newest value, and the keys that have waited longest come first.
//!
//! * [`State`]: a value for each key, *latest* or merged ([`State::merge`]). Deletion is a change too.
//! * [`Log`]: a bounded ring of everything that was said; who falls behind is told how much was lost.
//!
//! Both are pure: they are asked for the next frame (`docs/specs/topics.md`) when a subscriber's stream has room, and encode a value only
//! then, once for all who are told of the same version. [`Feeds`] has those that a node publishes; the machine that tells a subscriber is
//! [`crate::proto::topic`]. [`Follower`] is the subscriber's side.

mod feeds;
mod follower;
#[doc(hidden)]
pub mod fuzz;
mod log;
mod session;
mod state;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
pub use feeds::{Feed, Feeds, Position, TopicId};
pub use follower::{FollowError, Follower, Update};
pub use log::{Log, Reader};
pub use session::{Session, Wish};
pub use state::{Cursor, State};
pub use strait_wire::topic::{Mode, NAME_BYTES_MAX, PREFIX_BYTES_MAX, Refusal, Resume};

/// What a subscriber is to be told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This frame.
    Frame(Bytes),
    /// Everything is told.
    UpToDate,
    /// There may be more, but enough was looked at for now.
    Later,
}

/// The numbers of a topic's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Keys at once, those of a [`State`] that were deleted lately among them, or lines of a [`Log`].
    pub keys_max: usize,
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of an encoded value.
    pub value_bytes_max: usize,
}

/// A value of a topic.
pub trait Value {
    /// How many bytes [`encode`](Self::encode) will write. Asked at each publication, so it should cost little.
    fn encoded_len(&self) -> usize;
    /// Appends the encoded value.
    fn encode(&self, out: &mut BytesMut);
}

impl Value for Bytes {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(self);
    }
}

/// Why something was not published. All of it is the caller's, and nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The key is longer than the topic's definition allows.
    #[error("the key has {found} bytes, and this topic allows {max}; shorten it, or raise key_bytes_max in its definition")]
    KeyTooLong {
        /// Its bytes.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The value, as it would be sent, is longer than the topic's definition allows.
    #[error("the value has {found} bytes, and this topic allows {max}; shorten it, or raise value_bytes_max in its definition")]
    ValueTooLong {
        /// Its bytes.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The topic is not published any more.
    #[error("this topic is not published any more")]
    Withdrawn,
    /// There are as many keys as there may be, and this one is new.
    #[error("there are {max} keys, as many as this topic allows; delete some, or raise keys_max in its definition")]
    Full {
        /// The limit.
        max: usize,
    },
}

impl Bounds {
    fn check<V: Value>(&self, key: &[u8], value: &V) -> Result<(), PublishError> {
        if key.len() > self.key_bytes_max {
            return Err(PublishError::KeyTooLong { found: key.len(), max: self.key_bytes_max });
        }
        let found = value.encoded_len();
        if found > self.value_bytes_max {
            return Err(PublishError::ValueTooLong { found, max: self.value_bytes_max });
        }
        Ok(())
    }
}

/// A value and, since somebody was told of it, its frame.
#[derive(Debug)]
struct Told<V> {
    value: V,
    frame: Option<Bytes>,
}

impl<V: Value> Told<V> {
    fn new(value: V) -> Told<V> {
        Told { value, frame: None }
    }

    /// The frame, which `make` builds of the value's length and of what writes it. Counts in `encoded` if it had to be built.
    fn frame(&mut self, encoded: &mut u64, make: impl FnOnce(usize, &mut dyn FnMut(&mut BytesMut)) -> Bytes) -> Bytes {
        let Told { value, frame } = self;
        let build = || {
            *encoded = encoded.saturating_add(1);
            make(value.encoded_len(), &mut |out| value.encode(out))
        };
        frame.get_or_insert_with(build).clone()
    }
}
