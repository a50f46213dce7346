//! What a connection that rests does not keep: the room in its tables that its handshake and its last streams have needed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use slab::Slab;

use super::state::ConnState;

/// Streams of a connection that has done no more than tell who it is.
const INTRODUCTIONS: u32 = 4;
/// A connection rests when it has had no stream for so long.
const REST_AFTER: Duration = Duration::from_secs(1);

impl ConnState {
    /// Gives room back when nothing is under way. Not after each request of a busy connection, which would need it again at once: only when it has had no
    /// stream for a while, as it is found when it is kept alive, or when all that it has done is to say who it is.
    pub(super) fn rest(&mut self, now: Instant) {
        if !self.streams.is_empty() {
            self.busy = now;
            return;
        }
        let rests = now.saturating_duration_since(self.busy) >= REST_AFTER || self.serial() <= INTRODUCTIONS;
        if !rests || !self.inbox.is_empty() {
            return;
        }
        self.streams = Slab::new();
        self.active.retain(|_, count| *count > 0);
        self.opened.retain(|_, count| *count > 0);
        self.waiting.retain(|_, queue| !queue.is_empty());
        // A map that was emptied keeps a node.
        give_back(&mut self.numbers);
        give_back(&mut self.active);
        give_back(&mut self.waiting);
        give_back(&mut self.opened);
        self.ready.shrink_to_fit();
        self.opening.shrink_to_fit();
        self.resting.shrink_to_fit();
        self.inbox.rest();
        self.quic.rest();
    }
}

fn give_back<K, V>(map: &mut BTreeMap<K, V>) {
    if map.is_empty() {
        *map = BTreeMap::new();
    }
}
