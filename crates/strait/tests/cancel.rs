//! Dropping a handle cancels what it stood for; closing lets what is under way finish.

mod common;

use std::sync::Arc;
use std::time::Duration;

use strait::{Incoming, Node, Priority, Request, RequestError};
use tokio::sync::{Notify, oneshot};

const SLOW: Request = Request::new("/test/slow/1", 100, 100, Duration::from_secs(60), 2);

/// Over QUIC here; `over_tcp.rs` runs the same tests over TCP.
#[allow(dead_code, reason = "that file has its own")]
const TCP: bool = false;

async fn pair() -> (Node, Node) {
    common::pair(crate::TCP).await
}

/// Tells when it is dropped.
struct Tell(Option<oneshot::Sender<()>>);

impl Drop for Tell {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(());
        }
    }
}

#[tokio::test]
async fn a_dropped_request_drops_its_handler_and_frees_the_window() {
    let (client, server) = pair().await;
    let (started, (told, dropped)) = (Arc::new(Notify::new()), oneshot::channel());
    let (begun, tell) = (started.clone(), Arc::new(std::sync::Mutex::new(Some(told))));
    server
        .serve(&SLOW, Priority::Normal, async move |request: Incoming| {
            if request.body.is_empty() {
                let _tell = Tell(tell.lock().expect("not poisoned").take());
                begun.notify_one();
                std::future::pending::<()>().await;
            }
            request.body
        })
        .expect("serves");
    let peer = server.peer_id();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.request(peer, &SLOW, "").await }
    });
    started.notified().await;
    waiting.abort();
    dropped.await.expect("the handler's future is dropped");
    for _ in 0..10 {
        client.request(peer, &SLOW, "more").await.expect("the window is free again");
    }
}

#[tokio::test]
async fn closing_finishes_what_is_under_way() {
    let (client, server) = pair().await;
    let started = Arc::new(Notify::new());
    let begun = started.clone();
    server
        .serve(&SLOW, Priority::Normal, async move |request: Incoming| {
            begun.notify_one();
            tokio::time::sleep(Duration::from_millis(300)).await;
            request.body
        })
        .expect("serves");
    let peer = server.peer_id();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.request(peer, &SLOW, "wait for me").await }
    });
    started.notified().await;
    server.close().await;
    assert_eq!(&waiting.await.expect("runs").expect("was served").into_bytes()[..], b"wait for me");
    let late = client.request(peer, &SLOW, "late").await;
    assert!(matches!(late, Err(RequestError::Dial(_) | RequestError::Lost(_))), "{late:?}");
    assert_eq!(server.audit().connections, 0);
}

#[tokio::test]
async fn a_panicking_handler_declines_one_request() {
    let (client, server) = pair().await;
    server
        .serve(&SLOW, Priority::Normal, async |request: Incoming| {
            assert!(!request.body.is_empty(), "an empty request is this test's bomb");
            request.body
        })
        .expect("serves");
    let peer = server.peer_id();
    assert!(matches!(client.request(peer, &SLOW, "").await, Err(RequestError::Rejected(_))));
    client.request(peer, &SLOW, "still there").await.expect("others are served");
}

const RAW: strait::StreamProtocol = strait::StreamProtocol::new("/test/raw/1", 4, strait::Idle::Never);

#[tokio::test]
async fn what_a_handler_does_before_its_future_begins_is_done_without_the_lock() {
    let (client, server) = pair().await;
    let asks = server.clone();
    // Not async closures: their bodies run when they are called, and call back into the node.
    server
        .serve_streams(&RAW, Priority::Normal, move |stream: strait::Stream| {
            let _ = asks.counters();
            drop(stream);
            async {}
        })
        .expect("serves");
    let panics = |request: Incoming| {
        assert!(!request.body.is_empty(), "an empty request is this test's bomb");
        std::future::ready(request.body)
    };
    server.serve(&SLOW, Priority::Normal, panics).expect("serves");
    let peer = server.peer_id();
    let (_send, mut recv) = client.open(peer, &RAW).await.expect("opens").split();
    let ended = recv.read(10).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(recv.read(10).await, ended, "an error does not turn into an end");
    assert!(matches!(client.request(peer, &SLOW, "").await, Err(RequestError::Rejected(_))));
    client.request(peer, &SLOW, "still there").await.expect("the node lives");
}
