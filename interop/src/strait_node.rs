//! The strait node of these tests, with the same services as [`crate::libp2p_node`].

use std::sync::Arc;

use libp2p::{Multiaddr, PeerId};
use strait::{Framing, Incoming, Keypair, Node, Priority, Request};

use tokio::sync::Semaphore;

use crate::libp2p_node::Libp2pNode;
use crate::{service, wait};

/// How many requests a peer may have open at once: far fewer than the tests send, so that waiting for the window is
/// part of what they test.
pub const PER_PEER_MAX: u16 = 8;

/// [`service::PREFIXED`].
pub const PREFIXED: Request =
    Request::new(service::PREFIXED, service::REQUEST_BYTES_MAX, service::REPLY_BYTES_MAX, wait::BOUND, PER_PEER_MAX);

/// [`service::UNTIL_END`].
pub const UNTIL_END: Request =
    Request::new(service::UNTIL_END, service::REQUEST_BYTES_MAX, service::REPLY_BYTES_MAX, wait::BOUND, PER_PEER_MAX)
        .framing(Framing::EndOfStream);

/// [`service::UNKNOWN`], which nobody serves.
pub const UNKNOWN: Request =
    Request::new(service::UNKNOWN, service::REQUEST_BYTES_MAX, service::REPLY_BYTES_MAX, wait::BOUND, PER_PEER_MAX);

/// A node with a fresh identity on a free port of 127.0.0.1 that answers [`PREFIXED`] and [`UNTIL_END`].
///
/// # Panics
/// When it cannot start: without it no test has a meaning.
pub async fn start() -> Node {
    start_gated(None).await
}

/// The same, but [`PREFIXED`] answers only with a permit of `gate`, one for each request.
///
/// # Panics
/// As [`start`].
pub async fn start_gated(gate: Option<Arc<Semaphore>>) -> Node {
    let node = Node::builder()
        .identity(Keypair::generate_ed25519())
        .listen("127.0.0.1:0".parse().expect("a literal"))
        .start()
        .await
        .expect("a strait node on loopback");
    let prefixed = node.serve(&PREFIXED, Priority::Normal, async move |request: Incoming| {
        if let Some(gate) = gate {
            gate.acquire().await.expect("nobody closes the gate").forget();
        }
        service::answer(&request.body.into_bytes())
    });
    prefixed.expect("a protocol is served once");
    let until_end =
        node.serve(&UNTIL_END, Priority::Normal, async move |request: Incoming| service::answer(&request.body.into_bytes()));
    until_end.expect("a protocol is served once");
    node
}

/// The one address that `node` listens on.
///
/// # Panics
/// If it has none.
pub fn listen_addr(node: &Node) -> Multiaddr {
    node.listen_addrs().into_iter().next().expect("a bound node has an address")
}

/// Connects `node` to `peer` at `address`.
///
/// # Panics
/// When it cannot.
pub async fn connect(node: &Node, peer: PeerId, address: Multiaddr) {
    wait::within("strait's dial", node.connect(peer, &[address])).await.expect("strait's dial");
}

/// Has `libp2p` dial `node`, and waits until both know of the connection: a QUIC client is through with the handshake half a round
/// trip before the server has seen its certificate.
///
/// # Panics
/// When it cannot.
pub async fn dialled_by(node: &Node, libp2p: &Libp2pNode) {
    libp2p.dial(Some(node.peer_id()), listen_addr(node)).await.expect("rust-libp2p's dial");
    wait::poll("strait to know of rust-libp2p's connection", || node.is_connected(libp2p.peer_id()).then_some(())).await;
}
