//! What a topic is: its limits and its mode, in its type.

use std::borrow::Cow;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use strait_core::topic::{Bounds, Log, Mode, PublishError, State, Update, Value};

use super::codec::Codec;
use super::subscription::{Change, Interruption, Line};

/// The definition of a topic. Make it a `const`; both sides use the same.
#[derive(Debug, Clone)]
pub struct Topic<K, V, M = Latest> {
    pub(super) name: Cow<'static, str>,
    pub(super) bounds: Bounds,
    pub(super) mode: M,
    types: PhantomData<fn(K) -> V>,
}

/// The newest value of each key counts: who reads slowly sees 5, not 3, 4, 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest;

/// What is published is joined to what is there: counters add, sets join. Subscribers see the joined values.
#[derive(Debug)]
pub struct Merged<V>(pub(super) fn(&V, V) -> V);

impl<V> Clone for Merged<V> {
    fn clone(&self) -> Merged<V> {
        Merged(self.0)
    }
}

/// Each line counts. The publisher keeps a bounded number of them; who falls further behind is told how many were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines;

impl<K, V> Topic<K, V, Latest> {
    /// A value for each key.
    ///
    /// `name` has 1 to 140 bytes. At most `keys_max` keys at once, those deleted lately among them; a key has at most `key_bytes_max`
    /// bytes and a value `value_bytes_max`, as they are [written](Codec).
    pub const fn latest(
        name: &'static str,
        keys_max: usize,
        key_bytes_max: usize,
        value_bytes_max: usize,
    ) -> Topic<K, V, Latest> {
        Topic::with(Cow::Borrowed(name), Bounds { keys_max, key_bytes_max, value_bytes_max }, Latest)
    }
}

impl<K, V> Topic<K, V, Merged<V>> {
    /// A value for each key, to which `join` adds what is published. Limits as in [`latest`](Topic::latest); they hold for the joined value.
    pub const fn merged(
        name: &'static str,
        keys_max: usize,
        key_bytes_max: usize,
        value_bytes_max: usize,
        join: fn(&V, V) -> V,
    ) -> Topic<K, V, Merged<V>> {
        Topic::with(Cow::Borrowed(name), Bounds { keys_max, key_bytes_max, value_bytes_max }, Merged(join))
    }
}

impl<K, V> Topic<K, V, Lines> {
    /// Lines, each with a key to choose by. At most `lines_max` are kept for those who read slowly.
    pub const fn log(name: &'static str, lines_max: usize, key_bytes_max: usize, value_bytes_max: usize) -> Topic<K, V, Lines> {
        Topic::with(Cow::Borrowed(name), Bounds { keys_max: lines_max, key_bytes_max, value_bytes_max }, Lines)
    }
}

impl<K, V, M> Topic<K, V, M> {
    pub(super) const fn with(name: Cow<'static, str>, bounds: Bounds, mode: M) -> Topic<K, V, M> {
        Topic { name, bounds, mode, types: PhantomData }
    }

    /// The same with another name, for names that are known only when the program runs.
    #[must_use]
    pub fn named(self, name: String) -> Topic<K, V, M> {
        Topic { name: Cow::Owned(name), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A value as the core takes it.
#[derive(Debug)]
pub struct Held<V>(pub(super) V);

impl<V: Codec> Value for Held<V> {
    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn encode(&self, out: &mut BytesMut) {
        self.0.encode(out);
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Latest {}
    impl<V> Sealed for super::Merged<V> {}
    impl Sealed for super::Lines {}
}

/// The modes: [`Latest`], [`Merged`], [`Lines`].
pub trait Kind<K: Codec, V: Codec>: sealed::Sealed + Clone + Send + Sync + 'static {
    /// What a subscriber sees.
    type Update: Shown;
    #[doc(hidden)]
    type Feed: strait_core::topic::Feed;
    #[doc(hidden)]
    fn feed(bounds: Bounds, epoch: u64) -> Self::Feed;
    #[doc(hidden)]
    fn publish(&self, feed: &mut Self::Feed, key: Bytes, value: V) -> Result<(), PublishError>;
}

/// What a subscriber sees: [`Change`] or [`Line`].
pub trait Shown: Sized + Send {
    #[doc(hidden)]
    const MODE: Mode;
    /// `None`: what was told cannot be read as these types.
    #[doc(hidden)]
    fn read(update: Update) -> Option<Self>;
    #[doc(hidden)]
    fn interrupted(why: Interruption) -> Self;
}

impl<K: Codec, V: Codec> Shown for Change<K, V> {
    const MODE: Mode = Mode::Keyed;

    fn read(update: Update) -> Option<Change<K, V>> {
        Some(match update {
            Update::Begin => Change::Begin,
            Update::Put { key, value } => Change::Put(K::decode(key)?, V::decode(value)?),
            Update::Delete { key } => Change::Delete(K::decode(key)?),
            Update::Whole => Change::Whole,
            Update::Resumed => Change::Resumed,
            _ => return None,
        })
    }

    fn interrupted(why: Interruption) -> Change<K, V> {
        Change::Interrupted(why)
    }
}

impl<K: Codec, V: Codec> Shown for Line<K, V> {
    const MODE: Mode = Mode::Log;

    fn read(update: Update) -> Option<Line<K, V>> {
        Some(match update {
            Update::Said { key, value } => Line::Said(K::decode(key)?, V::decode(value)?),
            Update::Gap { lost } => Line::Gap { lost },
            Update::Anew => Line::Anew,
            Update::Resumed => Line::Resumed,
            _ => return None,
        })
    }

    fn interrupted(why: Interruption) -> Line<K, V> {
        Line::Interrupted(why)
    }
}

impl<K: Codec, V: Codec> Kind<K, V> for Latest {
    type Update = Change<K, V>;
    type Feed = State<Held<V>>;

    fn feed(bounds: Bounds, epoch: u64) -> State<Held<V>> {
        State::new(bounds, epoch)
    }

    fn publish(&self, feed: &mut State<Held<V>>, key: Bytes, value: V) -> Result<(), PublishError> {
        feed.put(key, Held(value)).map(drop)
    }
}

impl<K: Codec, V: Codec> Kind<K, V> for Merged<V> {
    type Update = Change<K, V>;
    type Feed = State<Held<V>>;

    fn feed(bounds: Bounds, epoch: u64) -> State<Held<V>> {
        State::new(bounds, epoch)
    }

    fn publish(&self, feed: &mut State<Held<V>>, key: Bytes, value: V) -> Result<(), PublishError> {
        feed.merge(key, Held(value), |old, new| Held((self.0)(&old.0, new.0))).map(drop)
    }
}

impl<K: Codec, V: Codec> Kind<K, V> for Lines {
    type Update = Line<K, V>;
    type Feed = Log<Held<V>>;

    fn feed(bounds: Bounds, epoch: u64) -> Log<Held<V>> {
        Log::new(bounds, epoch)
    }

    fn publish(&self, feed: &mut Log<Held<V>>, key: Bytes, value: V) -> Result<(), PublishError> {
        feed.say(key, Held(value)).map(drop)
    }
}
