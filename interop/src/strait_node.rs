//! The strait node of these tests, with the same services as [`crate::libp2p_node`].

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use strait::{Framing, Idle, Incoming, Keypair, Limits, Node, Priority, Request, Stream, StreamProtocol};

use tokio::sync::Semaphore;

use crate::libp2p_node::Libp2pNode;
use crate::peer::Peer;
use crate::roles::{self, Duplex, Opener, Responder};
use crate::transport::Transport;
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

/// More than the tests have open at once.
const STREAMS_MAX: u16 = 128;
const IDLE: Idle = Idle::After(Duration::from_secs(60));

/// [`roles::PROTOCOLS`].
pub static STREAMS: [StreamProtocol; 5] = [
    StreamProtocol::new(roles::HALF_CLOSED, STREAMS_MAX, IDLE),
    StreamProtocol::new(roles::LAST_WORD, STREAMS_MAX, IDLE),
    StreamProtocol::new(roles::HEARD, STREAMS_MAX, IDLE),
    StreamProtocol::new(roles::TRANSFER, STREAMS_MAX, IDLE),
    StreamProtocol::new(roles::ECHO, STREAMS_MAX, IDLE),
];

/// Room for 100 of the largest requests of a peer to wait at once beyond [`PER_PEER_MAX`], of which it knows nothing. With the default
/// there is room for about 25, and which of them come first is up to the peer: those that come last may be given up.
fn limits() -> Limits {
    Limits { connection_bytes_max: 192 << 20, ..Limits::default() }
}

/// A node with a fresh identity on free ports of 127.0.0.1, QUIC and TCP, that answers [`PREFIXED`], [`UNTIL_END`] and [`STREAMS`].
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
        .listen(([127, 0, 0, 1], 0).into())
        .listen_tcp(([127, 0, 0, 1], 0).into())
        .limits(limits())
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
    let responder = Responder::default();
    for def in &STREAMS {
        let responder = responder.clone();
        let serve = async move |stream: Stream| responder.serve(def.name.to_owned(), Box::new(stream)).await;
        node.serve_streams(def, Priority::Normal, serve).expect("a protocol is served once");
    }
    node
}

/// Opens streams from a strait node to a peer.
#[derive(Debug)]
pub struct ToPeer<'a>(pub &'a Node, pub PeerId);

impl Opener for ToPeer<'_> {
    fn open(&self, protocol: &'static str) -> BoxFuture<'_, Result<Duplex, String>> {
        async move {
            let def = STREAMS.iter().find(|def| def.name == protocol).ok_or("no such protocol")?;
            let stream = self.0.open(self.1, def).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Duplex)
        }
        .boxed()
    }
}

/// The addresses that `node` listens on with `transport`.
pub fn listen_addrs(node: &Node, transport: Transport) -> Vec<Multiaddr> {
    let is_it = |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Tcp(_))) == transport.is_tcp();
    node.listen_addrs().into_iter().filter(is_it).collect()
}

/// The first of them.
///
/// # Panics
/// If there is none.
pub fn listen_addr(node: &Node, transport: Transport) -> Multiaddr {
    listen_addrs(node, transport).into_iter().next().expect("a bound node has an address")
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
    let address = listen_addr(node, libp2p.transport());
    libp2p.dial(Some(node.peer_id()), address).await.expect("rust-libp2p's dial");
    wait::poll("strait to know of rust-libp2p's connection", || node.is_connected(libp2p.id()).then_some(())).await;
}
