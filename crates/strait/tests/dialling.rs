//! Dialling over real sockets: what the system tells of closed ports, and names.

mod common;

use std::net::UdpSocket;
use std::path::Path;

use strait::{DialError, Node};

async fn node() -> Node {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    Node::builder().listen(loopback).listen_tcp(loopback).start().await.expect("it starts")
}

/// Without the system's word this would be silence until the handshake's deadline.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_closed_udp_port_is_told_from_silence() {
    let (client, other) = (node().await, node().await);
    let closed = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let error = client.connect(other.peer_id(), &[strait::quic_address(closed)]).await.expect_err("nobody is there");
    assert_eq!(error.first_cause(), DialError::NothingListens, "{error}");
    // The socket goes on working for others.
    client.connect(other.peer_id(), &other.listen_addrs()).await.expect("it is there");
}

#[tokio::test]
async fn a_name_of_this_machine_is_followed() {
    if !Path::new("/etc/resolv.conf").exists() {
        eprintln!("SKIPPED: this system has no resolver configuration");
        return;
    }
    let (client, other) = (node().await, node().await);
    for listened in other.listen_addrs() {
        let named = listened.to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/");
        let connected = client.connect(other.peer_id(), &[named.parse().expect("a multiaddr")]).await;
        assert!(connected.is_ok(), "{named}: {connected:?}");
    }
}
