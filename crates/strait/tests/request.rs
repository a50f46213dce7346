//! Requests over real sockets on loopback.
use std::time::Duration;
use strait::{Incoming, Node, Priority, Request};

const ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(10), 8);

#[tokio::test]
async fn a_request_gets_its_reply() {
    let server = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    server.serve(&ECHO, Priority::Normal, async |request: Incoming| request.body).unwrap();
    let client = Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
    client.connect(server.peer_id(), &server.listen_addrs()).await.unwrap();
    for len in [0, 1, 64, 5000, 1 << 20] {
        let reply = client.request(server.peer_id(), &ECHO, vec![7; len]).await.unwrap();
        assert_eq!(reply.len(), len);
    }
    client.ping(server.peer_id()).await.unwrap();
    client.close().await;
    server.close().await;
}
