//! A copy of a keyed topic that keeps itself up to date.

use std::collections::{BTreeMap, BTreeSet};

use super::codec::Codec;
use super::definition::{Kind, Latest};
use super::subscription::{Change, Interruption, SubscribeError, Subscription};

/// What a subscriber knows of a keyed topic: takes one [`Change`] after the other.
#[derive(Debug)]
pub struct Known<K, V> {
    keys_max: usize,
    values: BTreeMap<K, V>,
    /// Those told since a snapshot began.
    fresh: Option<BTreeSet<K>>,
    interrupted: Option<Interruption>,
}

impl<K: Ord + Clone, V> Known<K, V> {
    /// Nothing yet; at most `keys_max` keys later, and as many of before while a snapshot comes.
    pub fn new(keys_max: usize) -> Known<K, V> {
        Known { keys_max, values: BTreeMap::new(), fresh: None, interrupted: None }
    }

    /// The values.
    pub fn values(&self) -> &BTreeMap<K, V> {
        &self.values
    }

    /// Whether a snapshot has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        self.fresh.is_some()
    }

    /// Why nothing comes now, if that is so.
    pub fn interruption(&self) -> Option<&Interruption> {
        self.interrupted.as_ref()
    }

    /// Takes a change over. Returns the key that has changed, if it was one.
    ///
    /// # Errors
    /// [`SubscribeError::TooManyKeys`]: go no further.
    pub fn apply(&mut self, change: Change<K, V>) -> Result<Option<K>, SubscribeError> {
        if !matches!(change, Change::Interrupted(_)) {
            self.interrupted = None;
        }
        match change {
            Change::Begin => self.fresh = Some(BTreeSet::new()),
            Change::Put(key, value) => {
                if let Some(fresh) = &mut self.fresh {
                    fresh.insert(key.clone());
                }
                self.values.insert(key.clone(), value);
                // What was known before a snapshot is there beside it until it is whole.
                let count = self.fresh.as_ref().map_or(self.values.len(), BTreeSet::len);
                if count > self.keys_max {
                    return Err(SubscribeError::TooManyKeys { max: self.keys_max });
                }
                return Ok(Some(key));
            }
            Change::Delete(key) => {
                if let Some(fresh) = &mut self.fresh {
                    fresh.remove(&key);
                }
                self.values.remove(&key);
                return Ok(Some(key));
            }
            Change::Whole => {
                if let Some(fresh) = self.fresh.take() {
                    self.values.retain(|key, _| fresh.contains(key));
                }
            }
            Change::Resumed => {}
            Change::Interrupted(why) => {
                self.fresh = None;
                self.interrupted = Some(why);
            }
        }
        Ok(None)
    }
}

/// A subscription and what it has told so far: at most the definition's `keys_max` keys.
#[derive(Debug)]
pub struct Mirror<K, V, M = Latest>
where
    K: Codec + Ord + Clone,
    V: Codec,
    M: Kind<K, V, Update = Change<K, V>>,
{
    subscription: Subscription<K, V, M>,
    known: Known<K, V>,
}

impl<K, V, M> Mirror<K, V, M>
where
    K: Codec + Ord + Clone,
    V: Codec,
    M: Kind<K, V, Update = Change<K, V>>,
{
    /// Of a new subscription.
    pub fn new(subscription: Subscription<K, V, M>) -> Mirror<K, V, M> {
        let known = Known::new(subscription.keys_max());
        Mirror { subscription, known }
    }

    /// The values that are known.
    pub fn values(&self) -> &BTreeMap<K, V> {
        self.known.values()
    }

    /// Whether all of it is known as it was at some moment, and it is not interrupted.
    pub fn is_live(&self) -> bool {
        !self.known.is_partial() && self.interruption().is_none() && self.subscription.is_live()
    }

    /// Why nothing comes now, if that is so.
    pub fn interruption(&self) -> Option<&Interruption> {
        self.known.interruption()
    }

    /// Waits for the next change and takes it over. Returns the key that has changed, if it was one. Safe to cancel.
    ///
    /// # Errors
    /// As [`Subscription::next`]; what was known stays.
    pub async fn changed(&mut self) -> Result<Option<K>, SubscribeError> {
        let change = self.subscription.next().await?;
        self.known.apply(change)
    }
}
