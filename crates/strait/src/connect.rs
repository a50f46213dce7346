//! Connecting, for handles: who waits for which peer. What is dialled when is the core's business.

use std::sync::Arc;

use strait_core::PeerId;
use tokio::sync::oneshot;

use crate::error::ConnectError;
use crate::shared::{Shared, State};

/// Where the outcome is told.
pub(crate) type Waiter = oneshot::Sender<Result<(), ConnectError>>;

/// One of those who wait for a peer. When the last of them is gone, the peer is not dialled any more.
struct Wanted<'a> {
    shared: &'a Shared,
    peer: PeerId,
    number: u64,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(waiters) = state.wanted.get_mut(&self.peer) else {
            return;
        };
        waiters.remove(&self.number);
        if !waiters.is_empty() {
            return;
        }
        state.wanted.remove(&self.peer);
        drop(state);
        self.shared.ask(|state, now| {
            // Somebody may have come between the two looks.
            if !state.wanted.contains_key(&self.peer) {
                state.core.stop_connecting(now, &self.peer);
            }
        });
    }
}

/// Waits for a connection to `peer`. All who wait for the same peer share one attempt and its outcome.
pub(crate) async fn connect(shared: &Arc<Shared>, peer: PeerId) -> Result<(), ConnectError> {
    let asked = shared.ask(|state, now| {
        if state.stopped.is_some() {
            return Err(ConnectError::whole(peer, strait_core::DialError::Closing));
        }
        if state.core.is_connected(&peer) {
            return Ok(None);
        }
        state.core.connect(now, peer).map_err(|error| ConnectError::whole(peer, error))?;
        let (sender, receiver) = oneshot::channel();
        state.waits = state.waits.wrapping_add(1);
        let number = state.waits;
        state.wanted.entry(peer).or_default().insert(number, sender);
        Ok(Some((number, receiver)))
    })?;
    let Some((number, outcome)) = asked else {
        return Ok(());
    };
    let _wanted = Wanted { shared, peer, number };
    outcome.await.unwrap_or_else(|_| Err(ConnectError::whole(peer, strait_core::DialError::Closing)))
}

impl State {
    /// Tells all who wait for a peer.
    pub(crate) fn tell_wanted(&mut self, peer: &PeerId, outcome: &Result<(), ConnectError>) {
        for waiter in self.wanted.remove(peer).into_iter().flat_map(std::collections::BTreeMap::into_values) {
            let _ = waiter.send(outcome.clone());
        }
    }
}
