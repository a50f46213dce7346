//! Topics that this node publishes, and who is to be told when one changes.
//!
//! A publication costs the same however many subscribers there are: it marks the topic. The turns that follow wake those who had been told
//! everything, a bounded number each; who is not through with what it is being told, or may not be told yet, is not among them
//! and costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Node;
use super::role::Role;
use super::state::StreamRef;
use crate::error::ConfigError;
use crate::proto::{Entry, Priority, Served, topic};
use crate::topic::{Feed, Feeds, TopicId};

/// Subscribers that are woken in one turn at most: about a tenth of a turn's work.
const WAKES_PER_TURN: usize = 128;

/// The topics of a node.
#[derive(Default)]
pub(super) struct Topics {
    pub(super) feeds: Feeds,
    published: BTreeMap<TopicId, Published>,
    /// Topics that have somebody to be woken.
    changed: BTreeSet<TopicId>,
}

/// One of them.
struct Published {
    priority: Priority,
    subscribers: usize,
    /// Subscribers that had been told everything.
    idle: BTreeSet<StreamRef>,
    /// Those of them that are still to be woken for a change.
    waking: BTreeSet<StreamRef>,
    /// It has changed since those in `waking` were taken from `idle`.
    again: bool,
}

impl Published {
    fn next(&mut self) -> Option<StreamRef> {
        if self.waking.is_empty() && std::mem::take(&mut self.again) {
            self.waking = std::mem::take(&mut self.idle);
        }
        self.waking.pop_first()
    }

    fn has_work(&self) -> bool {
        !self.waking.is_empty() || (self.again && !self.idle.is_empty())
    }
}

impl Topics {
    /// Whether somebody is to be woken.
    pub(super) fn has_work(&self) -> bool {
        !self.changed.is_empty()
    }

    /// How many places are taken by subscribers that wait for a change.
    pub(super) fn watchers(&self) -> usize {
        self.published.values().fold(0, |sum, topic| sum.saturating_add(topic.idle.len()).saturating_add(topic.waking.len()))
    }

    pub(super) fn is_published(&self, id: TopicId) -> bool {
        self.published.contains_key(&id)
    }

    /// Subscriptions to all topics.
    pub(super) fn subscribers(&self) -> usize {
        self.published.values().fold(0, |sum, topic| sum.saturating_add(topic.subscribers))
    }

    pub(super) fn priority(&self, id: TopicId) -> Priority {
        self.published.get(&id).map_or_else(Priority::default, |topic| topic.priority)
    }

    /// A subscriber has been told everything. One that was still to be woken needs that no more: it has just looked.
    pub(super) fn watch(&mut self, id: TopicId, stream: StreamRef) {
        if let Some(topic) = self.published.get_mut(&id) {
            topic.waking.remove(&stream);
            topic.idle.insert(stream);
        }
    }

    /// A subscriber is gone.
    pub(super) fn forget(&mut self, id: TopicId, stream: StreamRef) {
        if let Some(topic) = self.published.get_mut(&id) {
            topic.subscribers = topic.subscribers.saturating_sub(1);
            topic.idle.remove(&stream);
            topic.waking.remove(&stream);
        }
    }

    fn mark(&mut self, id: TopicId) {
        if let Some(topic) = self.published.get_mut(&id) {
            // Who is still to be woken will see this change too.
            topic.again |= !topic.idle.is_empty();
            if topic.has_work() {
                self.changed.insert(id);
            }
        }
    }
}

impl Node {
    /// Publishes a topic from now on. `make` gets a random epoch for the [`State`](crate::topic::State) or
    /// [`Log`](crate::topic::Log) that it makes. Peers subscribe by its name; `priority` is that of what they are told among the streams of their
    /// connections.
    ///
    /// # Errors
    /// [`ConfigError::Topic`] when the name is taken or too long, when there are too many topics, or when a value could never be granted memory.
    pub fn publish_topic<F: Feed>(
        &mut self,
        name: &str,
        priority: Priority,
        make: impl FnOnce(u64) -> F,
    ) -> Result<TopicId, ConfigError> {
        let mut epoch = [0; 8];
        self.random.fill(&mut epoch);
        let feed = make(u64::from_be_bytes(epoch));
        topic::check_topic(name, &feed.bounds(), self.limits())?;
        if self.registry.find(topic::NAME).is_none() {
            let served = Served::Topics;
            self.register(Entry { name: topic::NAME, served, priority: Priority::Normal, per_peer_max: topic::PER_PEER_MAX })?;
        }
        let id = self.topics.feeds.add(name, Box::new(feed))?;
        let published = Published { priority, subscribers: 0, idle: BTreeSet::new(), waking: BTreeSet::new(), again: false };
        self.topics.published.insert(id, published);
        Ok(id)
    }

    /// Ends a topic: its subscribers' streams are finished, each when it moves next. Returns what it was.
    pub fn withdraw_topic(&mut self, id: TopicId) -> Option<Box<dyn Feed>> {
        let removed = self.topics.feeds.remove(id);
        let topic = self.topics.published.remove(&id);
        self.topics.changed.remove(&id);
        for stream in topic.into_iter().flat_map(|topic| topic.idle.into_iter().chain(topic.waking)) {
            self.wake_stream(stream);
        }
        removed
    }

    /// Looks at, and changes, what a topic's subscribers are told from. `None` when there is no such topic of this type. Costs nothing for each
    /// subscriber: they are told in the turns that follow.
    pub fn with_topic<F: Feed, T>(&mut self, id: TopicId, act: impl FnOnce(&mut F) -> T) -> Option<T> {
        let result = act(self.topics.feeds.typed(id)?);
        self.topics.mark(id);
        Some(result)
    }

    /// How many subscribers a topic has, and how many of them have not been told everything yet.
    pub fn topic_subscribers(&self, id: TopicId) -> (usize, usize) {
        let Some(topic) = self.topics.published.get(&id) else {
            return (0, 0);
        };
        let told = if topic.again { 0 } else { topic.idle.len() };
        (topic.subscribers, topic.subscribers.saturating_sub(told))
    }

    /// Whether somebody who had been told everything is to be told more: then [`drive`](Self::drive).
    pub fn has_watchers_to_wake(&self) -> bool {
        self.topics.has_work()
    }

    /// `base`, stretched or shortened at random by up to a quarter: for what many would otherwise do in the same instant.
    pub fn jitter(&mut self, base: Duration) -> Duration {
        self.random.jitter(base)
    }

    /// Wakes some of those whose topic has changed.
    pub(super) fn wake_watchers(&mut self) {
        let mut left = WAKES_PER_TURN;
        while let Some(id) = self.topics.changed.first().copied() {
            while left > 0
                && let Some(stream) = self.topics.published.get_mut(&id).and_then(Published::next)
            {
                left = left.saturating_sub(1);
                self.wake_stream(stream);
            }
            if self.topics.published.get(&id).is_some_and(Published::has_work) {
                return;
            }
            self.topics.changed.remove(&id);
        }
    }

    fn wake_stream(&mut self, stream: StreamRef) {
        let found = self.find_stream(stream).map(|(slot, _)| slot);
        if let Some(slot) = found {
            self.counters.totals.topic_wakes = self.counters.totals.topic_wakes.saturating_add(1);
            self.stir(slot, stream);
        }
    }

    /// A peer's subscription is taken.
    pub(super) fn subscribed(&mut self, slot: usize, index: usize, topic: TopicId) {
        let priority = self.topics.priority(topic);
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let Some(stream) = conn.streams.get_mut(index) else {
            return;
        };
        let Role::Subscriber { protocol, .. } = stream.role else {
            return;
        };
        stream.role = Role::Subscriber { protocol, topic: Some(topic) };
        conn.set_priority(index, priority);
        if let Some(published) = self.topics.published.get_mut(&topic) {
            published.subscribers = published.subscribers.saturating_add(1);
        }
        self.counters.totals.subscriptions = self.counters.totals.subscriptions.saturating_add(1);
    }
}
