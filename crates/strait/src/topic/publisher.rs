//! The publishing side.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use strait_core::Priority;
use strait_core::topic::{PublishError, State, TopicId};

use super::codec::Codec;
use super::definition::{Held, Kind, Lines, Topic};
use crate::error::ServeError;
use crate::node::Node;
use crate::shared::Shared;

/// Publishes a topic for as long as it, or a clone of it, lives; then its subscribers are told that it is over.
pub struct Publisher<K, V, M> {
    topic: Topic<K, V, M>,
    place: Arc<Place>,
}

/// The topic's place at its node.
struct Place {
    shared: Arc<Shared>,
    id: TopicId,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The values go without the lock: they are the application's.
        drop(self.shared.ask(|state, _| state.core.withdraw_topic(self.id)));
    }
}

impl<K, V, M: Clone> Clone for Publisher<K, V, M> {
    fn clone(&self) -> Self {
        let Topic { name, bounds, mode, .. } = &self.topic;
        let topic = Topic::with(name.clone(), *bounds, mode.clone());
        Publisher { topic, place: self.place.clone() }
    }
}

impl<K, V, M> std::fmt::Debug for Publisher<K, V, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic.name).finish_non_exhaustive()
    }
}

fn encoded<T: Codec>(value: &T) -> Bytes {
    let mut out = BytesMut::with_capacity(value.encoded_len());
    value.encode(&mut out);
    out.freeze()
}

impl Node {
    /// Publishes a topic, empty at first. `priority` is that of what subscribers are told, among the streams of their connections.
    ///
    /// # Errors
    /// [`ServeError`]: the name is taken or too long, or the definition cannot be kept under this node's limits.
    pub fn publisher<K: Codec, V: Codec, M: Kind<K, V>>(
        &self,
        topic: &Topic<K, V, M>,
        priority: Priority,
    ) -> Result<Publisher<K, V, M>, ServeError> {
        let topic = Topic::with(topic.name.clone(), topic.bounds, topic.mode.clone());
        let id = self.shared().ask(|state, _| {
            if state.draining {
                return Err(ServeError::Closing);
            }
            Ok(state.core.publish_topic(&topic.name, priority, |epoch| M::feed(topic.bounds, epoch))?)
        })?;
        Ok(Publisher { topic, place: Arc::new(Place { shared: self.shared().clone(), id }) })
    }
}

impl<K: Codec, V: Codec, M: Kind<K, V>> Publisher<K, V, M> {
    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.place.shared.lock().core.topic_subscribers(self.place.id).0
    }

    /// How many of them have not been told everything yet: all that was told is with the transport.
    pub fn behind(&self) -> usize {
        self.place.shared.lock().core.topic_subscribers(self.place.id).1
    }

    /// Publishes: sets the value of a key, [joins](super::Merged) the value to it, or appends a line, as the topic's mode has it. Waits
    /// for nobody, and costs the same however many subscribers there are. The topic's `join`, and the dropping of a value that is replaced, happen under the
    /// node's lock: they should be quick, and must not call the node.
    ///
    /// # Errors
    /// [`PublishError`], and nothing has changed.
    pub fn publish(&self, key: K, value: V) -> Result<(), PublishError> {
        let key = encoded(&key);
        self.place.with(|feed: &mut M::Feed| self.topic.mode.publish(feed, key, value)).unwrap_or(Err(PublishError::Withdrawn))
    }
}

impl<K: Codec, V: Codec, M: Kind<K, V, Feed = State<Held<V>>>> Publisher<K, V, M> {
    /// Deletes a key, which subscribers are told. False when there is none.
    pub fn delete(&self, key: &K) -> bool {
        let key = encoded(key);
        self.place.with(|state: &mut State<Held<V>>| state.delete(&key).is_some()).unwrap_or(false)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        let key = encoded(key);
        self.place.with(|state: &mut State<Held<V>>| state.get(&key).map(|held| held.0.clone())).flatten()
    }
}

impl<K: Codec, V: Codec> Publisher<K, V, Lines> {
    /// How many lines were said in all.
    pub fn said(&self) -> u64 {
        self.place.with(|log: &mut strait_core::topic::Log<Held<V>>| log.end()).unwrap_or(0)
    }
}

impl Place {
    fn with<F: strait_core::topic::Feed, T>(&self, act: impl FnOnce(&mut F) -> T) -> Option<T> {
        let mut state = self.shared.lock();
        let result = state.core.with_topic(self.id, act);
        // While nobody waits for a change there is nothing for the driver to do.
        let waker = if state.core.has_watchers_to_wake() { state.ask() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }
}
