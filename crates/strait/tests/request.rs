//! Requests over real sockets on loopback.

mod common;

use std::time::Duration;

use strait::{Incoming, Priority, Request};

const ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(10), 8);

/// Over QUIC here; `over_tcp.rs` runs the same tests over TCP.
#[allow(dead_code, reason = "that file has its own")]
const TCP: bool = false;

#[tokio::test]
async fn a_request_gets_its_reply() {
    let (client, server) = common::pair(crate::TCP).await;
    server.serve(&ECHO, Priority::Normal, async |request: Incoming| request.body).unwrap();
    for len in [0, 1, 64, 5000, 1 << 20] {
        let reply = client.request(server.peer_id(), &ECHO, vec![7; len]).await.unwrap();
        assert_eq!(reply.len(), len);
    }
    client.ping(server.peer_id()).await.unwrap();
    client.close().await;
    server.close().await;
}
