//! Packets that have come and wait for the application.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use strait_core::{PacketError, PacketProtocol, PeerId};

use crate::error::ServeError;
use crate::handler::Handler;
use crate::node::Node;

/// A packet that a peer has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it: the identity that the connection was authenticated with.
    pub peer: PeerId,
    /// What it says.
    pub body: Bytes,
}

/// Packets of one protocol, as they come. While the application is slow, each peer's oldest are dropped first, and those of the peer that has most
/// waiting: so none can push out another's.
#[derive(Debug)]
pub struct Packets {
    waiting: Arc<Waiting>,
}

/// What waits, shared with the node.
#[derive(Debug)]
pub(crate) struct Waiting {
    state: Mutex<State>,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    queues: BTreeMap<PeerId, VecDeque<Bytes>>,
    /// Whose turn it is: those who have some.
    turns: VecDeque<PeerId>,
    count: usize,
    dropped: u64,
    waker: Option<Waker>,
    over: bool,
}

impl Waiting {
    pub(crate) fn new(max: usize) -> Arc<Waiting> {
        Arc::new(Waiting { state: Mutex::default(), max })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A packet has come. One is dropped for it if there is no room.
    pub(crate) fn push(&self, peer: PeerId, body: Bytes) {
        let mut state = self.lock();
        if state.over {
            return;
        }
        if state.count >= self.max {
            state.drop_one();
        }
        let queue = state.queues.entry(peer).or_default();
        let first = queue.is_empty();
        queue.push_back(body);
        state.count += 1;
        if first {
            state.turns.push_back(peer);
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nothing comes any more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.over = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn drop_one(&mut self) {
        let Some((peer, queue)) = self.queues.iter_mut().max_by_key(|(_, queue)| queue.len()) else {
            return;
        };
        let peer = *peer;
        queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&peer);
            self.turns.retain(|other| *other != peer);
        }
        self.count = self.count.saturating_sub(1);
        self.dropped += 1;
    }

    fn pop(&mut self) -> Option<Packet> {
        let peer = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&peer)?;
        let body = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&peer);
        } else {
            self.turns.push_back(peer);
        }
        self.count = self.count.saturating_sub(1);
        Some(Packet { peer, body })
    }
}

impl Packets {
    /// Waits for the next packet; peers have turns. `None`: the node has stopped. Safe to cancel.
    pub async fn next(&mut self) -> Option<Packet> {
        poll_fn(|context| {
            let mut state = self.waiting.lock();
            if let Some(packet) = state.pop() {
                return Poll::Ready(Some(packet));
            }
            if state.over {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// How many were dropped because they came faster than they were taken.
    pub fn dropped(&self) -> u64 {
        self.waiting.lock().dropped
    }
}

impl Node {
    /// Takes packets of `def` from now on; peers learn of it by identify. Dropping what this returns does not end that: they come, and are dropped.
    ///
    /// # Errors
    /// [`ServeError`]: the name is taken or malformed, or a limit of the definition cannot be kept.
    pub fn serve_packets(&self, def: &'static PacketProtocol) -> Result<Packets, ServeError> {
        let waiting = Waiting::new(def.waiting_max);
        self.shared().ask(|state, _| {
            let number = state.core.serve_packets(def)?;
            state.add_handler(number, Handler::Packets(waiting.clone()));
            Ok(Packets { waiting: waiting.clone() })
        })
    }

    /// Sends a packet to a connected peer. It may be lost; nothing waits for it. What this node could not send in time is dropped, the oldest first, and
    /// counted (`packets_out_dropped`).
    ///
    /// # Errors
    /// [`PacketError`]: no packet can be sent to this peer, or not one of this size.
    pub fn send_packet(&self, peer: PeerId, def: &'static PacketProtocol, body: &[u8]) -> Result<(), PacketError> {
        self.shared().ask(|state, _| state.core.send_packet(&peer, def, body))
    }

    /// The largest packet that can be sent to a peer now, in bytes: the definition's limit, unless the path or the peer allows less.
    ///
    /// # Errors
    /// [`PacketError`], when none can be sent at all.
    pub fn packet_bytes_max(&self, peer: PeerId, def: &'static PacketProtocol) -> Result<usize, PacketError> {
        self.shared().lock().core.packet_bytes_max(&peer, def)
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.waiting.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(seed: u8) -> PeerId {
        strait_core::Keypair::ed25519_from_bytes([seed; 32]).expect("a key").public().to_peer_id()
    }

    #[test]
    fn whoever_sends_most_loses_first_and_peers_have_turns() {
        let waiting = Waiting::new(4);
        waiting.push(peer(1), Bytes::from_static(b"modest"));
        (0..100u8).for_each(|number| waiting.push(peer(2), Bytes::from(vec![number])));
        let mut state = waiting.lock();
        assert_eq!((state.count, state.dropped), (4, 97));
        let all: Vec<Packet> = std::iter::from_fn(|| state.pop()).collect();
        assert_eq!(all[0], Packet { peer: peer(1), body: Bytes::from_static(b"modest") });
        assert_eq!(all[1..].iter().map(|packet| packet.body[0]).collect::<Vec<_>>(), [97, 98, 99], "the newest are kept");
        assert!(state.queues.is_empty() && state.turns.is_empty());
    }
}
