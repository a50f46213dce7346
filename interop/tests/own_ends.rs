//! rust-libp2p against rust-libp2p: shows that the half of the tests that is not strait is sound, so
//! that a failure elsewhere points at strait or at the wire between them.

use strait_interop::{
    libp2p_node::{AGENT, Libp2pNode, Options, Which},
    service,
    transport::Transport,
};

strait_interop::over_each_transport!(identify_and_ping_both_ways, requests_in_both_framings, a_wrong_identity_is_refused,);

async fn two(transport: Transport) -> (Libp2pNode, Libp2pNode) {
    let a = Libp2pNode::start(Options::over(transport)).await;
    let b = Libp2pNode::start(Options::over(transport)).await;
    a.dial(Some(b.peer_id()), b.listen_addr()).await.expect("the dial");
    (a, b)
}

async fn identify_and_ping_both_ways(transport: Transport) {
    let (a, b) = two(transport).await;
    for (here, there) in [(&a, &b), (&b, &a)] {
        let info = here.until("identify", |seen| seen.identified.get(&there.peer_id()).cloned()).await;
        assert_eq!(info.agent_version, AGENT);
        assert!(info.listen_addrs.contains(&there.listen_addr()));
        here.until("three pings on one stream", |seen| (seen.pings.get(&there.peer_id())? >= &3).then_some(())).await;
    }
}

async fn requests_in_both_framings(transport: Transport) {
    let (a, b) = two(transport).await;
    for which in [Which::Prefixed, Which::UntilEnd] {
        for length in [0, 1, 300, service::REQUEST_BYTES_MAX] {
            let request = service::body(length, 3);
            let reply = a.request(which, b.peer_id(), request.clone()).await;
            assert_eq!(reply.expect("a reply"), service::answer(&request));
        }
        let want = service::request_for(service::REPLY_BYTES_MAX);
        let reply = a.request(which, b.peer_id(), want.clone()).await;
        assert_eq!(reply.expect("a reply"), service::answer(&want));
        let want = service::request_for(service::REPLY_BYTES_MAX + 1);
        let refused = a.request(which, b.peer_id(), want).await;
        assert!(refused.expect_err("over the limit").contains("above the limit"));
    }
    let unknown = a.request(Which::Unknown, b.peer_id(), vec![1]).await;
    assert!(unknown.expect_err("nobody serves it").contains("protocol"));
    assert!(a.seen().closed.is_empty(), "the connection stays");
}

async fn a_wrong_identity_is_refused(transport: Transport) {
    let a = Libp2pNode::start(Options::over(transport)).await;
    let b = Libp2pNode::start(Options::over(transport)).await;
    let c = Libp2pNode::start(Options::over(transport)).await;
    let error = a.dial(Some(c.peer_id()), b.listen_addr()).await.expect_err("b is not c");
    assert!(error.contains(&b.peer_id().to_string()), "{error}");
}
