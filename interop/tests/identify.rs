//! identify between strait and rust-libp2p: both sides learn the same things, whoever dials.

use libp2p::Multiaddr;
use strait::Node;
use strait_interop::{
    libp2p_node::{self, Libp2pNode, Options},
    service,
    strait_node::{connect, dialled_by, listen_addr, start},
    wait,
};

/// What both sides must have learnt of each other. Both nodes dial from the socket they listen on, so the
/// address that is observed is the one that is listened on.
async fn both_learn(strait: &Node, libp2p: &Libp2pNode) {
    let ours = listen_addr(strait);
    let theirs = libp2p.listen_addr();

    let info =
        libp2p.until("rust-libp2p to learn of strait by identify", |seen| seen.identified.get(&strait.peer_id()).cloned()).await;
    assert!(info.agent_version.starts_with("strait"), "{info:?}");
    assert_eq!(info.public_key.to_peer_id(), strait.peer_id());
    assert!(info.listen_addrs.contains(&ours), "{info:?} without {ours}");
    assert_eq!(bare(&info.observed_addr), theirs);
    for protocol in [service::PREFIXED, service::UNTIL_END, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"] {
        assert!(info.protocols.iter().any(|p| p.as_ref() == protocol), "{info:?} without {protocol}");
    }

    let identity = wait::poll("strait to learn of rust-libp2p by identify", || strait.identified(libp2p.peer_id())).await;
    assert_eq!(identity.agent, libp2p_node::AGENT);
    let listen: Vec<Multiaddr> = identity.addresses.iter().map(bare).collect();
    assert!(listen.contains(&theirs), "{identity:?} without {theirs}");
    assert_eq!(identity.observed.as_ref().map(bare), Some(ours));
    for protocol in [service::PREFIXED, service::UNTIL_END, "/ipfs/ping/1.0.0"] {
        assert!(identity.protocols.iter().any(|p| p == protocol), "{identity:?} without {protocol}");
    }
}

/// `address` without `/p2p/…`.
fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, libp2p::multiaddr::Protocol::P2p(_))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rust_libp2p_dials_strait() {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options::default()).await;
    dialled_by(&strait, &libp2p).await;
    both_learn(&strait, &libp2p).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strait_dials_rust_libp2p() {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options::default()).await;
    connect(&strait, libp2p.peer_id(), libp2p.listen_addr()).await;
    both_learn(&strait, &libp2p).await;
}
