//! ping between strait and rust-libp2p, both ways, whoever dials.

use strait::Node;
use strait_interop::{
    libp2p_node::{Libp2pNode, Options},
    strait_node::{connect, dialled_by, start},
    wait,
};

/// Several in a row: rust-libp2p keeps one stream for all of its pings, so the second one is the harder.
const ROUNDS: usize = 4;

async fn both_ping(strait: &Node, libp2p: &Libp2pNode) {
    for _ in 0..ROUNDS {
        wait::within("strait's ping of rust-libp2p", strait.ping(libp2p.peer_id())).await.expect("a pong from rust-libp2p");
    }
    libp2p
        .until("rust-libp2p's pings of strait", |seen| {
            let failed = (!seen.ping_failures.is_empty()).then_some(());
            let enough = (seen.pings.get(&strait.peer_id())? >= &ROUNDS).then_some(());
            failed.or(enough)
        })
        .await;
    let seen = libp2p.seen();
    assert!(seen.ping_failures.is_empty(), "{:?}", seen.ping_failures);
    assert!(seen.closed.is_empty(), "{:?}", seen.closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_libp2p_dials_strait() {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options::default()).await;
    dialled_by(&strait, &libp2p).await;
    both_ping(&strait, &libp2p).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strait_dials_rust_libp2p() {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options::default()).await;
    connect(&strait, libp2p.peer_id(), libp2p.listen_addr()).await;
    both_ping(&strait, &libp2p).await;
}
