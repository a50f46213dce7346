//! Other ways for the two to meet than one Ed25519 node dialling the other.

use libp2p::identity::Keypair;
use strait::Node;
use strait_interop::{
    libp2p_node::{Libp2pNode, Options, Which},
    service,
    strait_node::{PREFIXED, connect, dialled_by, listen_addr, start},
    transport::Transport,
    wait,
};

strait_interop::over_each_transport!(identities_of_other_key_types, both_dial_at_once,);

async fn ask_both_ways(strait: &Node, libp2p: &Libp2pNode) {
    let body = service::body(1_000, 9);
    let request = strait.request(libp2p.peer_id(), &PREFIXED, body.clone());
    let reply = wait::within("rust-libp2p's reply to strait", request).await;
    assert_eq!(reply.expect("strait asks").into_bytes(), service::answer(&body));
    let reply = libp2p.request(Which::Prefixed, strait.peer_id(), body.clone()).await;
    assert_eq!(reply.expect("rust-libp2p asks"), service::answer(&body));
}

/// The identity's key signs the certificate's extension; strait must be able to verify each kind.
async fn identities_of_other_key_types(transport: Transport) {
    for keypair in [Keypair::generate_secp256k1(), Keypair::generate_ecdsa()] {
        let options = Options { keypair, ..Options::over(transport) };
        let libp2p = Libp2pNode::start(options.clone()).await;
        let strait = start().await;
        connect(&strait, libp2p.peer_id(), libp2p.listen_addr()).await;
        ask_both_ways(&strait, &libp2p).await;

        let libp2p = Libp2pNode::start(options).await;
        let strait = start().await;
        dialled_by(&strait, &libp2p).await;
        ask_both_ways(&strait, &libp2p).await;
    }
}

/// Both dial at the same time, from and to the same pair of sockets: one connection or two, but always one that
/// works in both directions.
async fn both_dial_at_once(transport: Transport) {
    for _ in 0..5 {
        let strait = start().await;
        let libp2p = Libp2pNode::start(Options::over(transport)).await;
        let (_, dialled) = tokio::join!(
            connect(&strait, libp2p.peer_id(), libp2p.listen_addr()),
            libp2p.dial(Some(strait.peer_id()), listen_addr(&strait, transport)),
        );
        dialled.expect("rust-libp2p's dial");
        for _ in 0..3 {
            ask_both_ways(&strait, &libp2p).await;
        }
    }
}
