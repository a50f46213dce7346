//! The admin port over real sockets: what it answers, and what becomes of those who do not ask properly.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use strait::{Incoming, Keypair, Node, Priority, Request};
use strait_admin::{Admin, CONNECTIONS_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

static ECHO: Request = Request::new("/test/echo/1", 1 << 16, 1 << 16, Duration::from_secs(10), 8);

async fn node() -> Node {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let node = Node::builder().identity(Keypair::generate_ed25519()).listen(listen).start().await.expect("it starts");
    node.serve(&ECHO, Priority::Normal, async |request: Incoming| request.body).expect("a good definition");
    node
}

async fn serve(node: &Node) -> (SocketAddr, JoinHandle<()>) {
    let listener = Admin::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    (address, tokio::spawn(Admin::new(node.clone()).serve(listener)))
}

async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // Who was turned away may have been so before all was written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

async fn get(address: SocketAddr, path: &str) -> String {
    raw(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn it_tells_of_the_node_its_peers_and_its_protocols() {
    let (a, b) = (node().await, node().await);
    a.connect(b.peer_id(), &b.listen_addrs()).await.expect("it is there");
    for _ in 0..3 {
        a.request(b.peer_id(), &ECHO, vec![7; 100]).await.expect("an answer");
    }
    let (address, _serving) = serve(&b).await;
    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.contains("application/openmetrics-text"), "{metrics}");
    for line in [
        "strait_protocol_served_total{protocol=\"/test/echo/1\"} 3",
        "strait_connections{transport=\"quic\"} 1",
        "strait_ready 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in:\n{metrics}");
    }
    let now = get(address, "/now.json").await;
    assert!(now.contains(&a.peer_id().to_string()) && now.contains("\"state\":\"ready\""), "{now}");
    let page = get(address, "/").await;
    assert!(page.contains("text/html") && page.contains("default-src 'none'"), "{page}");
    let peer = get(address, &format!("/explain.json?peer={}", a.peer_id())).await;
    assert!(peer.contains("It is connected over QUIC"), "{peer}");
    let protocol = get(address, "/explain.json?protocol=%2Ftest%2Fecho%2F1").await;
    assert!(protocol.contains("Peers used it 3 times; 3 answered whole"), "{protocol}");
    assert!(get(address, "/explain.json?peer=nobody").await.starts_with("HTTP/1.1 400"));
    assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn it_says_whether_the_node_is_well_and_ready() {
    let node = node().await;
    let (address, _serving) = serve(&node).await;
    assert!(get(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(get(address, "/readyz").await.ends_with("\r\n\r\nready\n"));
    node.close().await;
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 503"));
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn nothing_can_be_changed_and_no_other_host_asks_for_it() {
    let (address, _serving) = serve(&node().await).await;
    let end = "Connection: close\r\n\r\n";
    let post = raw(address, &format!("POST /metrics HTTP/1.1\r\nHost: localhost\r\n{end}")).await;
    assert!(post.starts_with("HTTP/1.1 405") && post.to_lowercase().contains("allow: get, head"), "{post}");
    let rebound = raw(address, &format!("GET /now.json HTTP/1.1\r\nHost: evil.example\r\n{end}")).await;
    assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
    let long = raw(address, &format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n{end}", "a".repeat(1 << 20))).await;
    assert!(!long.starts_with("HTTP/1.1 200"), "{long}");
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"), "it goes on");
}

#[tokio::test]
async fn who_asks_too_slowly_makes_room_for_others() {
    let (address, _serving) = serve(&node().await).await;
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /metr").await.expect("it is open");
        slow.push(stream);
    }
    // All places are taken now, at the latest when the last of them was accepted: whoever comes is turned away.
    let full = async {
        while get(address, "/healthz").await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), full).await.expect("slow ones take all the places that there are");
    // But not for ever.
    let free = async {
        while !get(address, "/healthz").await.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), free).await.expect("they have to give their places up");
}
