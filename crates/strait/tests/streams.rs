//! Raw streams over real sockets: two directions, each with its own end.

mod common;

use std::time::Duration;

use strait::{Idle, Node, Priority, RecvHalf, SendHalf, Stream, StreamError, StreamProtocol};

const CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 4, Idle::After(Duration::from_secs(60)));
const UNREAD: StreamProtocol = StreamProtocol::new("/test/unread/1", 4, Idle::Never);
const UNKNOWN: StreamProtocol = StreamProtocol::new("/test/unknown/1", 4, Idle::Never);

/// Over QUIC here; `over_tcp.rs` runs the same tests over TCP.
#[allow(dead_code, reason = "that file has its own")]
const TCP: bool = false;

async fn pair() -> (Node, Node) {
    common::pair(crate::TCP).await
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on() {
    let (client, server) = pair().await;
    server
        .serve_streams(&CHAT, Priority::Normal, async |stream: Stream| {
            let (mut send, mut recv) = stream.split();
            let question = recv.read_to_end(100).await.expect("the client has finished its direction");
            assert_eq!(&question[..], b"how are you?");
            // The client's direction has ended; ours still carries a megabyte.
            send.write_all(vec![9; 1 << 20]).await.expect("the other direction goes on");
            send.finish().expect("finishes");
        })
        .expect("serves");
    let (mut send, mut recv) = client.open(server.peer_id(), &CHAT).await.expect("opens").split();
    send.write_all(&b"how are you?"[..]).await.expect("writes");
    send.finish().expect("finishes");
    let answer = recv.read_to_end(2 << 20).await.expect("reads all");
    assert_eq!(answer.len(), 1 << 20);
    assert!(answer.iter().all(|byte| *byte == 9));
}

#[tokio::test]
async fn a_reset_is_not_an_end() {
    let (client, server) = pair().await;
    server
        .serve_streams(&CHAT, Priority::Normal, async |stream: Stream| {
            let (mut send, mut recv): (SendHalf, RecvHalf) = stream.split();
            send.write_all(&b"part"[..]).await.expect("writes");
            send.reset(42);
            // Nothing of the other direction can be read any more, and that is no end in order.
            assert!(recv.read(100).await.is_err());
        })
        .expect("serves");
    let (mut send, mut recv) = client.open(server.peer_id(), &CHAT).await.expect("opens").split();
    let error = loop {
        match recv.read(100).await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(error, Err(StreamError::Reset(42)));
    // It ends both directions, over every transport.
    let error = loop {
        if let Err(error) = send.write_all(vec![0; 1 << 16]).await {
            break error;
        }
    };
    assert!(matches!(error, StreamError::Stopped(42) | StreamError::Reset(42)), "{error:?}");
}

#[tokio::test]
async fn stop_reaches_the_writer() {
    let (client, server) = pair().await;
    server
        .serve_streams(&CHAT, Priority::Normal, async |stream: Stream| {
            let (mut send, mut recv) = stream.split();
            recv.stop(7);
            if crate::TCP {
                // Yamux has no word for this: the writer is told when the other direction has ended too.
                send.finish().expect("finishes");
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
        .expect("serves");
    let (mut send, _recv) = client.open(server.peer_id(), &CHAT).await.expect("opens").split();
    let error = loop {
        if let Err(error) = send.write_all(vec![0; 1 << 16]).await {
            break error;
        }
    };
    assert_eq!(error, StreamError::Stopped(7));
}

/// Who has nothing to write learns all the same that the stream is over, and how.
#[tokio::test]
async fn the_end_is_told_to_who_does_not_write() {
    let (client, server) = pair().await;
    server
        .serve_streams(&CHAT, Priority::Normal, async |stream: Stream| {
            let (mut send, mut recv) = stream.split();
            send.finish().expect("finishes");
            match recv.read(1).await.expect("reads").as_deref() {
                Some(b"s") => recv.stop(7),
                Some(b"e") => assert_eq!(recv.read(1).await, Ok(None)),
                _ => tokio::time::sleep(Duration::from_secs(60)).await,
            }
        })
        .expect("serves");
    let begin = async |word: &'static [u8]| {
        let (mut send, mut recv) = client.open(server.peer_id(), &CHAT).await.expect("opens").split();
        assert_eq!(recv.read(1).await, Ok(None), "its direction has ended");
        let early = tokio::time::timeout(Duration::from_millis(50), send.ended()).await;
        assert!(early.is_err(), "ours has not: {early:?}");
        send.write_all(word).await.expect("writes");
        send
    };
    assert_eq!(begin(b"s").await.ended().await, Some(StreamError::Stopped(7)));
    let mut send = begin(b"e").await;
    send.finish().expect("finishes");
    assert_eq!(send.ended().await, None, "an end in order");
    // Also while there are bytes that nobody reads.
    server
        .serve_streams(&UNREAD, Priority::Normal, async |stream: Stream| {
            let (mut send, mut recv) = stream.split();
            send.write_all(vec![9; 10_000]).await.expect("writes");
            recv.read(1).await.expect("reads");
            send.reset(5);
        })
        .expect("serves");
    let (mut send, mut recv) = client.open(server.peer_id(), &UNREAD).await.expect("opens").split();
    assert_eq!(recv.read(1).await.expect("reads").as_deref(), Some(&[9][..]));
    send.write_all(&b"x"[..]).await.expect("writes");
    assert_eq!(send.ended().await, Some(StreamError::Stopped(5)));
    let mut send = begin(b"wait").await;
    let (ended, ()) = tokio::join!(send.ended(), server.close());
    assert!(matches!(ended, Some(StreamError::Lost(_) | StreamError::Stopped(_))), "{ended:?}");
}

#[tokio::test]
async fn an_unknown_protocol_is_named() {
    let (client, server) = pair().await;
    let (_send, mut recv) = client.open(server.peer_id(), &UNKNOWN).await.expect("opens lazily").split();
    assert_eq!(recv.read(10).await, Err(StreamError::Unsupported("/test/unknown/1")));
}

#[tokio::test]
async fn streams_beyond_the_window_wait_and_come_in_turn() {
    let (client, server) = pair().await;
    server
        .serve_streams(&CHAT, Priority::Normal, async |stream: Stream| {
            let (mut send, mut recv) = stream.split();
            let bytes = recv.read_to_end(100).await.expect("reads");
            send.write_all(bytes).await.expect("writes");
            send.finish().expect("finishes");
        })
        .expect("serves");
    let mut tasks = Vec::new();
    for number in 0..50u8 {
        let (client, peer) = (client.clone(), server.peer_id());
        tasks.push(tokio::spawn(async move {
            let (mut send, mut recv) = client.open(peer, &CHAT).await.expect("opens").split();
            send.write_all(vec![number]).await.expect("writes");
            send.finish().expect("finishes");
            assert_eq!(&recv.read_to_end(100).await.expect("reads")[..], [number]);
        }));
    }
    for task in tasks {
        task.await.expect("each comes to its turn");
    }
}

#[tokio::test]
async fn the_io_traits_carry_bytes_and_ends() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
    let (client, server) = pair().await;
    server
        .serve_streams(&CHAT, Priority::Normal, async |stream: Stream| {
            let (mut send, mut recv) = stream.split();
            copy(&mut recv, &mut send).await.expect("copies");
            send.shutdown().await.expect("ends");
        })
        .expect("serves");
    let stream = client.open(server.peer_id(), &CHAT).await.expect("opens");
    let sent: Vec<u8> = (0..300_000u32).map(|at| at as u8).collect();
    let (mut recv, mut send) = tokio::io::split(stream);
    let mut got = Vec::new();
    let write = async {
        send.write_all(&sent).await.expect("writes");
        send.shutdown().await.expect("ends");
    };
    let read = async { recv.read_to_end(&mut got).await.expect("reads to the end") };
    tokio::join!(write, read);
    assert_eq!(got, sent);
}

/// A peer that says its last word and refuses the rest of ours has ended in order, whichever of the two is noticed first.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_word_is_read_to_its_end_though_nothing_more_is_taken() {
    let (client, server) = pair().await;
    server
        .serve_streams(&UNREAD, Priority::Normal, async move |stream: Stream| {
            let (mut send, recv) = stream.split();
            let _ = send.write_all("no").await;
            let _ = send.finish();
            drop(recv);
        })
        .expect("serves");
    for round in 0..200 {
        let (mut send, mut recv) = client.open(server.peer_id(), &UNREAD).await.expect("opens").split();
        let _ = send.write_all(vec![7; 100]).await;
        let all = recv.read_to_end(100).await;
        assert_eq!(all.as_deref(), Ok(&b"no"[..]), "round {round}");
    }
}
