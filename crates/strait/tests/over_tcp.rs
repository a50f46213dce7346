//! All that is tested of requests, streams and cancelling, over TCP; and what only TCP has.

#![allow(clippy::duplicate_mod, reason = "each of the files is a test of its own too")]

const TCP: bool = true;

#[path = "cancel.rs"]
mod cancel;
#[path = "request.rs"]
mod request;
#[path = "streams.rs"]
mod streams;

use strait::{DialError, Node, TcpSecurity};

#[tokio::test]
async fn nobody_listens() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let any = "127.0.0.1:0".parse().expect("an address");
    let (client, other) =
        (Node::builder().listen(any).start().await.expect("starts"), Node::builder().listen(any).start().await.expect("starts"));
    let error = client.connect(other.peer_id(), &[strait::tcp_address(gone)]).await.expect_err("nobody is there");
    assert!(matches!(error.first_cause(), DialError::NothingListens), "{error}");
}

#[tokio::test]
async fn both_sides_must_share_a_way_to_secure_it() {
    use TcpSecurity::{Either, Noise, Tls};
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    for (dials, listens, meet) in [
        (Noise, Either, true),
        (Either, Noise, true),
        (Tls, Either, true),
        (Either, Tls, true),
        (Tls, Noise, false),
        (Noise, Tls, false),
    ] {
        let client = Node::builder().listen(any).tcp_security(dials).start().await.expect("starts");
        let server = Node::builder().listen(any).listen_tcp(any).tcp_security(listens).start().await.expect("starts");
        let tcp = server.listen_addrs().into_iter().find(|address| address.to_string().contains("/tcp/")).expect("it listens");
        match client.connect(server.peer_id(), std::slice::from_ref(&tcp)).await {
            Ok(()) => {
                assert!(meet, "{dials:?} with {listens:?}");
                assert_eq!(client.path(server.peer_id()).map(|(address, _)| address), Some(tcp), "it says how it is connected");
            }
            Err(error) => {
                assert!(!meet, "{dials:?} with {listens:?}: {error}");
                assert!(matches!(error.first_cause(), DialError::Incompatible(_)), "{error}");
            }
        }
    }
}
