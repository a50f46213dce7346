//! A bare UDP socket at an address of its own: for attackers and for peers that speak no strait.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::exec::lock;
use crate::host::{Host, Turn, Turned};
use crate::net::{Datagram, HostId};
use crate::world::World;

/// Datagrams that wait for the app; what comes on top is dropped.
const RECEIVED_MAX: usize = 4096;

#[derive(Debug, Default)]
struct State {
    outgoing: VecDeque<(SocketAddr, Bytes)>,
    received: VecDeque<Datagram>,
    waker: Option<Waker>,
}

/// The app's end of a raw socket. Clones are the same socket.
#[derive(Debug, Clone)]
pub struct RawSocket {
    id: HostId,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl World {
    /// Adds a host that is only a UDP socket.
    pub fn raw_socket(&mut self) -> RawSocket {
        let state = Arc::<Mutex<State>>::default();
        let address = self.next_address();
        let id = self.add(RawHost(state.clone()));
        RawSocket { id, address, state }
    }
}

impl RawSocket {
    /// Its number in the world.
    #[must_use]
    pub fn id(&self) -> HostId {
        self.id
    }

    /// The address that it is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a datagram in this host's next turn.
    pub fn send(&self, to: SocketAddr, payload: impl Into<Bytes>) {
        lock(&self.state).outgoing.push_back((to, payload.into()));
    }

    /// Waits for the next datagram.
    pub async fn receive(&self) -> Datagram {
        poll_fn(|context| {
            let mut state = lock(&self.state);
            match state.received.pop_front() {
                Some(datagram) => Poll::Ready(datagram),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next datagram, if one is there.
    #[must_use]
    pub fn try_receive(&self) -> Option<Datagram> {
        lock(&self.state).received.pop_front()
    }
}

struct RawHost(Arc<Mutex<State>>);

impl Host for RawHost {
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned {
        while let Some(datagram) = turn.receive() {
            let mut state = lock(&self.0);
            if state.received.len() < RECEIVED_MAX {
                state.received.push_back(datagram);
            }
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
        turn.run_apps();
        let outgoing = std::mem::take(&mut lock(&self.0).outgoing);
        for (to, payload) in outgoing {
            turn.send(to, None, payload);
        }
        Turned::default()
    }

    fn wake(&self) -> Option<Duration> {
        None
    }

    fn is_asked(&self) -> bool {
        !lock(&self.0).outgoing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_raw_sockets_talk() {
        let mut world = World::new(1);
        let (a, b) = (world.raw_socket(), world.raw_socket());
        a.send(b.address(), &b"hello"[..]);
        let got = world.block_on(b.receive());
        assert_eq!((got.source, &got.payload[..]), (a.address(), &b"hello"[..]));
    }
}
