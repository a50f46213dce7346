//! Signed peer records (libp2p RFC 0002 and 0003) between strait and rust-libp2p.
//!
//! rust-libp2p sends, and takes from identify, records as the text of the RFC has them; it reads those of go-libp2p and js-libp2p, which strait sends, by a call of
//! their own, and takes the unsigned list in their place when they come in identify.

use libp2p::Multiaddr;
use libp2p::core::{PeerRecord, SignedEnvelope};
use strait::Scope;
use strait_interop::{
    libp2p_node::{Libp2pNode, Options},
    strait_node::{connect, dialled_by, listen_addr, start},
    transport::Transport,
    wait,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strait_verifies_the_record_of_rust_libp2p() {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options { signed_record: true, ..Options::default() }).await;
    connect(&strait, libp2p.peer_id(), libp2p.listen_addr()).await;
    let identity = wait::poll("strait to learn of rust-libp2p by identify", || strait.identified(libp2p.peer_id())).await;
    assert!(identity.signed.is_some(), "{identity:?}");
    let totals = strait.counters().totals;
    assert_eq!((totals.records_refused, totals.identify_refused), (0, 0));
    assert!(totals.records > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_libp2p_accepts_identify_with_our_record() {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options { signed_record: true, ..Options::default() }).await;
    dialled_by(&strait, &libp2p).await;
    let info =
        libp2p.until("rust-libp2p to learn of strait by identify", |seen| seen.identified.get(&strait.peer_id()).cloned()).await;
    assert_eq!(info.listen_addrs, [Transport::Quic, Transport::TcpTls].map(|transport| listen_addr(&strait, transport)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_code_of_rust_libp2p_verifies_our_record() {
    let strait = start().await;
    let bytes = strait.peer_record(Scope::Loopback).expect("it listens on loopback");
    let envelope = SignedEnvelope::from_protobuf_encoding(&bytes).expect("an envelope");
    let record = PeerRecord::from_signed_envelope_interop(envelope).expect("a good record");
    let addresses: [Multiaddr; 2] = [Transport::Quic, Transport::TcpTls].map(|transport| listen_addr(&strait, transport));
    assert_eq!((record.peer_id(), record.addresses()), (strait.peer_id(), &addresses[..]));
    let mut forged = bytes.to_vec();
    *forged.last_mut().expect("a signature") ^= 1;
    let envelope = SignedEnvelope::from_protobuf_encoding(&forged).expect("an envelope");
    PeerRecord::from_signed_envelope_interop(envelope).expect_err("a forged one");
}
