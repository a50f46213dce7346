//! What peers learn of a node's addresses, over real sockets on loopback.

use std::time::Duration;

use strait::{Multiaddr, Node, Scope, StartError, Undeclarable};

fn parse(text: &str) -> Multiaddr {
    text.parse().expect("a multiaddr")
}

async fn node(announce: &[&str]) -> Node {
    let builder = Node::builder().listen("127.0.0.1:0".parse().expect("an address"));
    announce.iter().fold(builder, |builder, text| builder.announce(parse(text))).start().await.expect("it starts")
}

/// What `client` has learnt of `server`. Identify follows the connection at once.
async fn learnt(client: &Node, server: &Node) -> (Vec<Multiaddr>, bool) {
    client.connect(server.peer_id(), &server.listen_addrs()).await.expect("it connects");
    loop {
        if let Some(identity) = client.identified(server.peer_id()) {
            return (identity.addresses.clone(), identity.signed.is_some());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_announced_is_what_peers_learn() {
    let told = ["/ip4/9.9.9.9/udp/30001/quic-v1", "/dns4/node.example.org/udp/30001/quic-v1"];
    let (client, server) = (node(&[]).await, node(&told).await);
    let want = told.map(parse);
    assert_eq!(learnt(&client, &server).await, (want.to_vec(), true));
    assert_eq!(server.told_addrs(), want);
    assert!(!server.listen_addrs().iter().any(|address| want.contains(address)), "where it listens is another thing");
    assert!(server.peer_record(Scope::Global).is_some());
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn without_it_peers_learn_where_it_listens_as_far_as_that_holds() {
    let (client, server) = (node(&[]).await, node(&[]).await);
    assert_eq!(learnt(&client, &server).await, (server.listen_addrs(), true));
    assert_eq!(server.peer_record(Scope::Global), None, "loopback is told to nobody who is elsewhere");
    client.close().await;
    server.close().await;
}

/// Addresses of all interfaces in place of a wildcard, no link-local one and none that is no host's.
#[tokio::test]
async fn a_wildcard_is_told_as_addresses() {
    let server = Node::builder().listen("0.0.0.0:0".parse().expect("an address")).start().await.expect("it starts");
    let client = node(&[]).await;
    let told = server.told_addrs();
    assert!(told.iter().any(|address| address.to_string().starts_with("/ip4/127.0.0.1/")), "{told:?}");
    for address in &told {
        let scope = strait_core::peers::scope::of_address(address).expect("an IP address");
        assert!(scope.is_host() && scope != Scope::Link, "{address} is {scope}");
    }
    let (learnt, _) = learnt(&client, &server).await;
    assert!(learnt.iter().all(|address| told.contains(address)), "{learnt:?}");
    client.close().await;
    server.close().await;
}

#[tokio::test]
async fn what_cannot_be_announced_is_refused_at_the_start() {
    for (text, want) in [
        ("/ip4/0.0.0.0/udp/1/quic-v1", Undeclarable::Scope(Scope::Reserved)),
        ("/ip4/9.9.9.9/udp/0/quic-v1", Undeclarable::NoPort),
        ("/memory/1", Undeclarable::NoHost),
    ] {
        let error = Node::builder().announce(parse(text)).start().await.expect_err(text);
        assert!(matches!(&error, StartError::Announce { address, why } if *address == parse(text) && *why == want), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}
