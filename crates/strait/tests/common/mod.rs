//! Two nodes on loopback.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use strait::Node;

/// A client and a server, connected over TCP or QUIC.
pub async fn pair(tcp: bool) -> (Node, Node) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = Node::builder().listen(any).listen_tcp(any).start().await.expect("starts");
    let client = Node::builder().listen(any).start().await.expect("starts");
    let mut addresses = server.listen_addrs();
    addresses.retain(|address| address.to_string().contains("/tcp/") == tcp);
    assert_eq!(addresses.len(), 1);
    client.connect(server.peer_id(), &addresses).await.expect("connects");
    (client, server)
}
