//! `strait forward` against nodes that do not keep to its protocol, made of the library in this process.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::command::*;
use common::tcp::*;
use strait::{Idle, Node, Priority, RecvHalf, SendHalf, Stream, StreamError, StreamProtocol};
use strait_cli::forward::{Deadlines, Exposed, PROTOCOL, TARGET_BYTES_MAX};
use strait_cli::net;
use strait_cli::ticket::Contact;

/// The same name, with no thought of the other side's number.
const GREEDY: StreamProtocol = StreamProtocol::new(PROTOCOL.name, 250, Idle::Never);

async fn node() -> Node {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    net::Nodes::default().start(strait_cli::keyfile::fresh().unwrap(), Some(listen)).await.unwrap()
}

/// An exposing node, and an attacker that is connected to it.
async fn pair(target: SocketAddr, opening: Duration) -> (Node, Node) {
    let (exposing, attacker) = (node().await, node().await);
    let deadlines = Deadlines { opening, ..Deadlines::default() };
    let exposed = Exposed::new(vec![target.to_string().parse().unwrap()], vec![], deadlines, |_| ());
    // As long as the test's process.
    std::mem::forget(exposed.serve(&exposing).unwrap());
    attacker.connect(exposing.peer_id(), &exposing.listen_addrs()).await.unwrap();
    (exposing, attacker)
}

async fn open_to(attacker: &Node, exposing: &Node) -> (SendHalf, RecvHalf) {
    attacker.open(exposing.peer_id(), &GREEDY).await.unwrap().split()
}

/// All that comes, until its end.
async fn rest(recv: &mut RecvHalf) -> Result<Vec<u8>, StreamError> {
    tokio::time::timeout(Duration::from_secs(60), recv.read_to_end(1 << 20)).await.expect("an end").map(|all| all.to_vec())
}

/// FW-02, FW-04, FW-11: wrong frames cost their stream and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_frames() {
    let (exposing, attacker) = pair(server(echo), Duration::from_secs(60)).await;
    let too_long = [u16::try_from(TARGET_BYTES_MAX + 1).unwrap().to_be_bytes().as_slice(), &[b'a'; 500]].concat();
    for (frame, finish) in [(&[0xff, 0xff][..], false), (&too_long, false), (&[0], true), (&[], true), (&[0, 9, b'x'], true)] {
        let (mut send, mut recv) = open_to(&attacker, &exposing).await;
        let _ = send.write_all(frame.to_vec()).await;
        if finish {
            send.finish().unwrap();
        }
        assert_eq!(rest(&mut recv).await, Err(StreamError::Reset(2)), "{frame:?}");
    }
    for target in [&b"127.0.0.1:1"[..], b"\0\xff\xfe", b"localhost:80\n", b"[::1]:22", &[b'a'; TARGET_BYTES_MAX]] {
        let (mut send, mut recv) = open_to(&attacker, &exposing).await;
        let head = u16::try_from(target.len()).unwrap().to_be_bytes();
        let _ = send.write_all([&head, target].concat()).await;
        assert_eq!(rest(&mut recv).await, Ok(vec![2]), "{target:?}");
    }
    let (mut send, mut recv) = open_to(&attacker, &exposing).await;
    send.write_all(b"\0\0hello".to_vec()).await.unwrap();
    send.finish().unwrap();
    assert_eq!(rest(&mut recv).await.unwrap(), b"\0hello", "a right one is still carried");
}

/// FW-11: a frame that grows by a byte now and then is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_comes_byte_by_byte() {
    let (exposing, attacker) = pair(server(echo), Duration::from_millis(400)).await;
    let (mut send, mut recv) = open_to(&attacker, &exposing).await;
    let drip = async {
        for byte in [1, 6].into_iter().chain(std::iter::repeat_n(b'a', TARGET_BYTES_MAX)) {
            if send.write_all(vec![byte]).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    let (refused, read) = tokio::join!(drip, rest(&mut recv));
    assert_eq!((refused, read), (true, Err(StreamError::Reset(2))));
}

/// FW-01, FW-13: a peer that opens as many streams as it can gets its number of connections to the target, and others theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_opens_all_it_can() {
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (open.clone(), most.clone());
    let target = server(move |tcp| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        echo(tcp);
        now.fetch_sub(1, Ordering::SeqCst);
    });
    let (exposing, attacker) = pair(target, Duration::from_secs(60)).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut streams = Vec::new();
    for _ in 0..200 {
        let (mut send, mut recv) = open_to(&attacker, &exposing).await;
        send.write_all(vec![0, 0]).await.unwrap();
        let answered = answered.clone();
        streams.push(tokio::spawn(async move {
            let status = recv.read(1).await;
            answered.fetch_add(1, Ordering::SeqCst);
            // Held open until all that may be open are.
            while answered.load(Ordering::SeqCst) < usize::from(PROTOCOL.per_peer_max) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(send);
            status.unwrap().map(|status| status.to_vec())
        }));
    }
    while answered.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Somebody else, meanwhile.
    let honest = node().await;
    honest.connect(exposing.peer_id(), &exposing.listen_addrs()).await.unwrap();
    let (mut send, mut recv) = open_to(&honest, &exposing).await;
    send.write_all(b"\0\0hello".to_vec()).await.unwrap();
    send.finish().unwrap();
    assert_eq!(rest(&mut recv).await.unwrap(), b"\0hello");
    for stream in streams {
        assert_eq!(stream.await.unwrap(), Some(vec![0]), "each comes to its turn");
    }
    // As the target saw it: its threads begin and end a little later than the connections that are counted.
    let most = most.load(Ordering::SeqCst);
    assert!((100..200).contains(&most), "{most} at once");
}

/// A node that answers in its own way, and a real opener with one local port that leads there.
async fn answering<F: Future<Output = ()> + Send + 'static>(
    how: impl FnOnce(SendHalf, RecvHalf) -> F + Clone + Send + Sync + 'static,
) -> (Node, Running, String) {
    let node = node().await;
    node.serve_streams(&PROTOCOL, Priority::Normal, async move |stream: Stream| {
        let (send, recv) = stream.split();
        how(send, recv).await;
    })
    .unwrap();
    let ticket = Contact { peer: node.peer_id(), addrs: node.listen_addrs() }.to_string();
    let (running, at) = tokio::task::spawn_blocking(move || open(&ticket, &["0"])).await.unwrap();
    (node, running, at[0].clone())
}

/// FW-04, FW-08: answers that are none are a reset for the client, and words for its user.
#[tokio::test(flavor = "multi_thread")]
async fn an_exposer_that_lies() {
    use std::io::Read;
    for (bytes, reset) in [(&[99][..], false), (&[], false), (&[], true), (&[7; 1000], false)] {
        let (_node, running, at) = answering(async move |mut send: SendHalf, _recv: RecvHalf| {
            let _ = send.write_all(bytes.to_vec()).await;
            match reset {
                true => send.reset(5),
                false => _ = send.finish(),
            }
        })
        .await;
        let work = move || {
            assert_eq!(connect(&at).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            running.says("the other side does not keep to the protocol");
        };
        tokio::task::spawn_blocking(work).await.unwrap();
    }
}

/// FW-20: nothing of the client's leaves before the exposer has agreed.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_the_answer() {
    use std::io::{Read, Write};
    let (_node, _running, at) = answering(async |mut send: SendHalf, mut recv: RecvHalf| {
        let mut frame = Vec::new();
        while frame.len() < 2 {
            frame.extend_from_slice(&recv.read(100).await.unwrap().unwrap());
        }
        // All that comes in a while is the frame.
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(300), recv.read(100)).await {
            frame.extend_from_slice(&more.unwrap().unwrap());
        }
        assert_eq!(frame, [0, 0]);
        send.write_all(vec![0]).await.unwrap();
        let secret = recv.read_to_end(100).await.unwrap();
        send.write_all(secret).await.unwrap();
        send.finish().unwrap();
    })
    .await;
    let work = move || {
        let mut tcp = connect(&at);
        tcp.write_all(b"secret").unwrap();
        tcp.shutdown(std::net::Shutdown::Write).unwrap();
        let mut got = Vec::new();
        tcp.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"secret");
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}
