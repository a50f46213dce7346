//! Many peers behind one address, over real sockets: all are on the loopback interface. A thousand of them are in `sim/tests/slots.rs`.

use std::time::Duration;

use strait::{Incoming, Node, Priority, Request};

const ECHO: Request = Request::new("/test/echo/1", 1 << 10, 1 << 10, Duration::from_secs(30), 8);

async fn node() -> Node {
    Node::builder().listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap()
}

#[tokio::test]
async fn a_hundred_peers_of_one_address_are_served() {
    let server = node().await;
    server.serve(&ECHO, Priority::Normal, async move |request: Incoming| request.body).unwrap();
    let (to, addresses) = (server.peer_id(), server.listen_addrs());
    let mut tasks = Vec::new();
    for number in 0..100u8 {
        let addresses = addresses.clone();
        tasks.push(tokio::spawn(async move {
            let peer = node().await;
            peer.connect(to, &addresses).await.unwrap();
            let reply = peer.request(to, &ECHO, vec![number; 100]).await.unwrap();
            assert_eq!(&reply.into_bytes()[..], [number; 100]);
            peer
        }));
    }
    // Nobody leaves before all are in.
    let mut peers = Vec::new();
    for task in tasks {
        peers.push(task.await.unwrap());
    }
    assert_eq!(server.peers().len(), 100);
    assert_eq!(server.abuse_rest(), [], "a crowd is no attack");
}
