//! Request/response between strait and rust-libp2p's `request_response`, in both framings, both ways, whoever dials.

use std::sync::Arc;

use libp2p::PeerId;
use strait::{Breach, Node, Request, RequestError};
use strait_interop::{
    libp2p_node::{Libp2pNode, Options, Which},
    service,
    strait_node::{PER_PEER_MAX, PREFIXED, UNKNOWN, UNTIL_END, connect, dialled_by, start, start_gated},
    transport::Transport,
    wait,
};
use tokio::{sync::Semaphore, task::JoinSet};

strait_interop::over_each_transport!(
    all_sizes_when_strait_dialled,
    all_sizes_when_rust_libp2p_dialled,
    an_oversized_request_is_not_sent_by_strait,
    an_oversized_request_of_rust_libp2p_is_refused_by_strait,
    an_oversized_reply_is_the_peers_error_and_ends_one_stream_only,
    strait_makes_100_requests_at_once,
    rust_libp2p_makes_100_requests_at_once,
    rust_libp2p_makes_100_large_requests_at_once,
    requests_that_wait_hold_up_nobody_else,
    an_unknown_protocol_costs_one_stream_only,
);

const FRAMINGS: [(Which, &Request); 2] = [(Which::Prefixed, &PREFIXED), (Which::UntilEnd, &UNTIL_END)];

/// Sizes around the steps of a varint and of a packet, and the largest that is allowed.
const LENGTHS: [usize; 9] = [0, 1, 127, 128, 1_200, 16_383, 16_384, 65_536, service::REQUEST_BYTES_MAX];

/// The most requests that a test has open at once.
const PARALLEL: usize = 100;

struct Pair {
    strait: Arc<Node>,
    libp2p: Arc<Libp2pNode>,
}

impl Pair {
    async fn strait_dials(transport: Transport) -> Pair {
        let pair = Pair::unconnected(Options::over(transport)).await;
        connect(&pair.strait, pair.libp2p.peer_id(), pair.libp2p.listen_addr()).await;
        pair
    }

    async fn libp2p_dials(transport: Transport) -> Pair {
        let pair = Pair::unconnected(Options::over(transport)).await;
        dialled_by(&pair.strait, &pair.libp2p).await;
        pair
    }

    async fn unconnected(options: Options) -> Pair {
        Pair { strait: Arc::new(start().await), libp2p: Arc::new(Libp2pNode::start(options).await) }
    }

    fn libp2p_id(&self) -> PeerId {
        self.libp2p.peer_id()
    }

    /// strait asks rust-libp2p.
    async fn strait_asks(&self, protocol: &'static Request, body: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        let request = self.strait.request(self.libp2p_id(), protocol, body);
        wait::within("rust-libp2p's reply to strait", request).await.map(|reply| reply.into_bytes().to_vec())
    }

    /// rust-libp2p asks strait.
    async fn libp2p_asks(&self, which: Which, body: Vec<u8>) -> Result<Vec<u8>, String> {
        self.libp2p.request(which, self.strait.peer_id(), body).await
    }

    /// The connection that was made first is still there, the only one, and still of use both ways.
    async fn still_sound(&self) {
        for (which, protocol) in FRAMINGS {
            let body = service::body(10, 1);
            let reply = self.strait_asks(protocol, body.clone()).await;
            assert_eq!(reply.expect("strait asks"), service::answer(&body));
            let reply = self.libp2p_asks(which, body.clone()).await;
            assert_eq!(reply.expect("rust-libp2p asks"), service::answer(&body));
        }
        let seen = self.libp2p.seen();
        assert_eq!(seen.opened.get(&self.strait.peer_id()), Some(&1), "{:?}", seen.opened);
        assert!(seen.closed.is_empty(), "{:?}", seen.closed);
    }
}

async fn all_sizes(pair: &Pair) {
    for (which, protocol) in FRAMINGS {
        for length in LENGTHS {
            let body = service::body(length, 5);
            let reply = pair.strait_asks(protocol, body.clone()).await;
            let reply = reply.unwrap_or_else(|e| panic!("strait asks, {length} bytes: {e}"));
            assert!(reply == service::answer(&body), "strait asks, {length} bytes");
            let reply = pair.libp2p_asks(which, body.clone()).await;
            let reply = reply.unwrap_or_else(|e| panic!("rust-libp2p asks, {length} bytes: {e}"));
            assert!(reply == service::answer(&body), "rust-libp2p asks, {length} bytes");
        }
        let want = service::request_for(service::REPLY_BYTES_MAX);
        let reply = pair.strait_asks(protocol, want.clone()).await;
        assert!(reply.expect("the largest reply, to strait") == service::answer(&want));
        let reply = pair.libp2p_asks(which, want.clone()).await;
        assert!(reply.expect("the largest reply, to rust-libp2p") == service::answer(&want));
    }
    pair.still_sound().await;
}

async fn all_sizes_when_strait_dialled(transport: Transport) {
    all_sizes(&Pair::strait_dials(transport).await).await;
}

async fn all_sizes_when_rust_libp2p_dialled(transport: Transport) {
    all_sizes(&Pair::libp2p_dials(transport).await).await;
}

async fn an_oversized_request_is_not_sent_by_strait(transport: Transport) {
    let pair = Pair::strait_dials(transport).await;
    for (_, protocol) in FRAMINGS {
        let before = pair.libp2p.seen().answered;
        let body = service::body(service::REQUEST_BYTES_MAX + 1, 0);
        let error = pair.strait_asks(protocol, body).await.expect_err("too large");
        assert!(matches!(error, RequestError::TooLarge { .. }), "{error}");
        assert_eq!(pair.libp2p.seen().answered, before);
    }
    pair.still_sound().await;
}

async fn an_oversized_request_of_rust_libp2p_is_refused_by_strait(transport: Transport) {
    let pair = Pair::libp2p_dials(transport).await;
    for (which, _) in FRAMINGS {
        let body = service::body(service::REQUEST_BYTES_MAX + 1, 0);
        let refused = pair.libp2p_asks(which, body).await;
        // Its Yamux reads a reset as an end, and an end is a reply of nothing where the end of the stream frames it.
        if transport != Transport::Quic && which == Which::UntilEnd && refused.as_ref().is_ok_and(Vec::is_empty) {
            continue;
        }
        let text = refused.expect_err("strait takes no larger request");
        // The stream ended, nothing else: no timeout, no lost connection, no missing protocol.
        assert!(!text.contains("imeout") && !text.contains("onnection was closed"), "{text}");
    }
    pair.still_sound().await;
}

async fn an_oversized_reply_is_the_peers_error_and_ends_one_stream_only(transport: Transport) {
    let pair = Pair::strait_dials(transport).await;
    for (_, protocol) in FRAMINGS {
        for beyond in [1, service::REPLY_BYTES_MAX] {
            let want = service::request_for(service::REPLY_BYTES_MAX + beyond);
            let error = pair.strait_asks(protocol, want).await.expect_err("too large");
            assert!(matches!(error, RequestError::Broken(Breach::TooLarge { .. })), "{error}");
        }
    }
    pair.still_sound().await;
}

async fn strait_makes_100_requests_at_once(transport: Transport) {
    let pair = Arc::new(Pair::strait_dials(transport).await);
    let mut open = JoinSet::new();
    for index in 0..PARALLEL {
        let pair = Arc::clone(&pair);
        let (_, protocol) = FRAMINGS[index % FRAMINGS.len()];
        open.spawn(async move {
            let body = service::body(100 + index * 40, index);
            let reply = pair.strait_asks(protocol, body.clone()).await;
            assert!(reply.expect("a reply") == service::answer(&body), "request {index}");
        });
    }
    open.join_all().await;
    pair.still_sound().await;
}

async fn rust_libp2p_makes_100_requests_at_once(transport: Transport) {
    libp2p_asks_at_once(transport, |index| 100 + index * 40).await;
}

/// rust-libp2p knows of no window of eight: the bodies of those that wait are more than strait's receive window, and must not
/// keep those that were begun from being read.
async fn rust_libp2p_makes_100_large_requests_at_once(transport: Transport) {
    libp2p_asks_at_once(transport, |_| service::REQUEST_BYTES_MAX).await;
}

async fn libp2p_asks_at_once(transport: Transport, length: impl Fn(usize) -> usize) {
    let pair = Arc::new(Pair::libp2p_dials(transport).await);
    let mut open = JoinSet::new();
    for index in 0..PARALLEL {
        let pair = Arc::clone(&pair);
        let (which, _) = FRAMINGS[index % FRAMINGS.len()];
        let body = service::body(length(index), index);
        open.spawn(async move {
            let reply = pair.libp2p_asks(which, body.clone()).await;
            let reply = reply.unwrap_or_else(|e| panic!("{index}: slowed, not refused: {e}; {:?}", pair.strait.counters()));
            assert!(reply == service::answer(&body), "request {index}");
        });
    }
    open.join_all().await;
    pair.still_sound().await;
}

/// Eight large requests are with strait's application, many more wait for their turn: another protocol of the same connection works
/// on meanwhile, and those that waited are answered in the end.
async fn requests_that_wait_hold_up_nobody_else(transport: Transport) {
    let gate = Arc::new(Semaphore::new(0));
    let strait = start_gated(Some(Arc::clone(&gate))).await;
    let libp2p = Libp2pNode::start(Options::over(transport)).await;
    let pair = Arc::new(Pair { strait: Arc::new(strait), libp2p: Arc::new(libp2p) });
    dialled_by(&pair.strait, &pair.libp2p).await;
    let mut open = JoinSet::new();
    for index in 0..40 {
        let pair = Arc::clone(&pair);
        open.spawn(async move {
            let body = service::body(service::REQUEST_BYTES_MAX, index);
            let reply = pair.libp2p_asks(Which::Prefixed, body.clone()).await;
            let reply = reply.unwrap_or_else(|e| panic!("{index}: slowed, not refused: {e}; {:?}", pair.strait.counters()));
            assert!(reply == service::answer(&body), "request {index}");
        });
    }
    wait::poll("the window to be full of requests", || {
        let received = pair.strait.counters().protocols.get(service::PREFIXED).map(|counters| counters.received);
        (received == Some(u64::from(PER_PEER_MAX))).then_some(())
    })
    .await;
    for round in 0..20 {
        let body = service::body(10_000, round);
        let reply = pair.libp2p_asks(Which::UntilEnd, body.clone()).await;
        let reply = reply.unwrap_or_else(|e| panic!("round {round}: held up: {e}; {:?}", pair.strait.counters()));
        assert!(reply == service::answer(&body));
    }
    gate.add_permits(1000);
    open.join_all().await;
}

async fn an_unknown_protocol_costs_one_stream_only(transport: Transport) {
    for pair in [Pair::strait_dials(transport).await, Pair::libp2p_dials(transport).await] {
        for _ in 0..3 {
            let error = pair.strait_asks(&UNKNOWN, vec![1, 2, 3]).await.expect_err("rust-libp2p does not serve it");
            assert!(matches!(error, RequestError::Unsupported(_)), "{error}");
            let text = pair.libp2p_asks(Which::Unknown, vec![1, 2, 3]).await.expect_err("strait does not serve it");
            assert!(text.contains("protocol"), "{text}");
        }
        pair.still_sound().await;
    }
}
