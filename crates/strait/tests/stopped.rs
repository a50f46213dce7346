//! A node whose driver is gone says so to all who wait for it, and to all who ask later. Nobody waits for ever.

mod common;

use std::sync::Arc;
use std::time::Duration;

use strait::{Idle, Node, Priority, Request, RequestError, Stop, StreamProtocol};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const NEVER: Request = Request::new("/test/never/1", 100, 100, Duration::from_secs(60), 8);
const CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 4, Idle::Never);
/// Nothing here takes as long; what does, waits for ever.
const FOR_EVER: Duration = Duration::from_secs(20);

async fn ends<T>(waiting: JoinHandle<T>) -> T {
    tokio::time::timeout(FOR_EVER, waiting).await.expect("it waits for ever").expect("no panic")
}

/// A client on a runtime of its own, and a server that answers nothing.
async fn client_and_server(begun: Arc<Notify>) -> (tokio::runtime::Runtime, Node, Node) {
    let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let (client, server) = own.spawn(common::pair(false)).await.expect("no panic");
    let never = async move |_| {
        begun.notify_one();
        std::future::pending::<()>().await;
    };
    server.serve(&NEVER, Priority::Normal, never).expect("serves");
    server.serve_streams(&CHAT, Priority::Normal, async |_| std::future::pending().await).expect("serves");
    (own, client, server)
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_driver_is_gone() {
    let begun = Arc::new(Notify::new());
    let (own, client, server) = client_and_server(begun.clone()).await;
    let (peer, nobody) = (server.peer_id(), strait::PeerId::random());
    client.add_addresses(nobody, &["/ip4/127.0.0.1/udp/9/quic-v1".parse().expect("an address")]);
    let mut stream = client.open(peer, &CHAT).await.expect("opens");
    stream.send.write_all("hello").await.expect("written");
    let request = tokio::spawn({
        let client = client.clone();
        async move { client.request(peer, &NEVER, "").await }
    });
    let read = tokio::spawn(async move { stream.recv.read(10).await });
    let stopped = tokio::spawn({
        let client = client.clone();
        async move { client.stopped().await }
    });
    let connect = tokio::spawn({
        let client = client.clone();
        async move { client.connect(nobody, &[]).await }
    });
    begun.notified().await;
    own.shutdown_background();
    assert_eq!(ends(stopped).await, Stop::Failed);
    assert_eq!(ends(request).await.map(|_| ()), Err(RequestError::Closing));
    assert!(ends(read).await.is_err());
    assert!(ends(connect).await.is_err());
    // And whoever asks later.
    let later = tokio::spawn(async move {
        client.stopped().await;
        assert_eq!(client.request(peer, &NEVER, "").await.map(|_| ()), Err(RequestError::Closing));
        assert!(client.open(peer, &CHAT).await.is_err());
        assert!(client.ping(peer).await.is_err());
        assert!(client.connect(nobody, &[]).await.is_err());
        client.close().await;
    });
    ends(later).await;
}

#[tokio::test]
async fn closing_is_no_failure() {
    let (client, server) = common::pair(false).await;
    let stopped = tokio::spawn({
        let client = client.clone();
        async move { client.stopped().await }
    });
    client.close().await;
    assert_eq!(ends(stopped).await, Stop::Closed);
    server.close().await;
}
