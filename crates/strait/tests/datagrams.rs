//! Within one machine datagrams are larger than Ethernet carries.

mod common;

use std::time::Duration;

use strait::{Incoming, Priority, Request};

const ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(60), 8);

#[tokio::test]
async fn bulk_on_loopback_goes_in_large_datagrams() {
    let (client, server) = common::pair(false).await;
    server.serve(&ECHO, Priority::Normal, async |request: Incoming| request.body).unwrap();
    // The path is searched in some round trips; then all of them are large.
    for _ in 0..4 {
        client.request(server.peer_id(), &ECHO, vec![7; 1 << 20]).await.unwrap();
    }
    let before = client.counters().totals;
    client.request(server.peer_id(), &ECHO, vec![7; 1 << 20]).await.unwrap();
    let after = client.counters().totals;
    let bytes = after.stream_bytes_out - before.stream_bytes_out;
    let datagrams = after.datagrams_out - before.datagrams_out;
    // Acknowledgements of the reply are among them.
    assert!(bytes / datagrams > 3_000, "{bytes} bytes in {datagrams} datagrams");
    client.close().await;
    server.close().await;
}
