//! Another identity than the expected one answers: refused, and the error names both.

use libp2p::identity::Keypair;
use strait_interop::{
    libp2p_node::{Libp2pNode, Options},
    strait_node::{connect, listen_addr, start},
    transport::Transport,
    wait,
};

strait_interop::over_each_transport!(
    strait_refuses_a_rust_libp2p_that_is_not_the_expected_one,
    rust_libp2p_refuses_a_strait_that_is_not_the_expected_one,
);

async fn strait_refuses_a_rust_libp2p_that_is_not_the_expected_one(transport: Transport) {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options::over(transport)).await;
    let wanted = Keypair::generate_ed25519().public().to_peer_id();
    let address = [libp2p.listen_addr()];
    let error = wait::within("strait's refusal", strait.connect(wanted, &address)).await.expect_err("somebody else answered");
    let text = error.to_string();
    assert!(text.contains(&wanted.to_string()), "{text}");
    assert!(text.contains(&libp2p.peer_id().to_string()), "{text}");
    // Nothing of the attempt is in the way of the right one.
    connect(&strait, libp2p.peer_id(), libp2p.listen_addr()).await;
    wait::within("a ping afterwards", strait.ping(libp2p.peer_id())).await.expect("the right identity is welcome");
}

async fn rust_libp2p_refuses_a_strait_that_is_not_the_expected_one(transport: Transport) {
    let strait = start().await;
    let libp2p = Libp2pNode::start(Options::over(transport)).await;
    let wanted = Keypair::generate_ed25519().public().to_peer_id();
    let text = libp2p.dial(Some(wanted), listen_addr(&strait, transport)).await.expect_err("somebody else answered");
    assert!(text.contains(&strait.peer_id().to_string()), "{text}");
    libp2p.dial(Some(strait.peer_id()), listen_addr(&strait, transport)).await.expect("strait still takes the right one");
}
