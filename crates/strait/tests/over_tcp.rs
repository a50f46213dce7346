//! All that is tested of requests, streams and cancelling, over TCP; and what only TCP has.

#![allow(clippy::duplicate_mod, reason = "each of the files is a test of its own too")]

const TCP: bool = true;

#[path = "cancel.rs"]
mod cancel;
#[path = "request.rs"]
mod request;
#[path = "streams.rs"]
mod streams;

use strait::{DialError, Node};

#[tokio::test]
async fn nobody_listens() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let any = "127.0.0.1:0".parse().expect("an address");
    let (client, other) =
        (Node::builder().listen(any).start().await.expect("starts"), Node::builder().listen(any).start().await.expect("starts"));
    let error = client.connect(other.peer_id(), &[strait::tcp_address(gone)]).await.expect_err("nobody is there");
    assert!(matches!(error.first_cause(), DialError::NothingListens), "{error}");
}
