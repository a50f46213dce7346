//! A slow link and a peer that stalls on purpose are told apart.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{ECHO, over_each, pair, serve_echo};
use strait::{Idle, Priority, RequestError, Stream, StreamProtocol};
use strait_sim::{Link, Over};

/// The same name as [`ECHO`], to answer it byte by byte.
const RAW_ECHO: StreamProtocol = StreamProtocol::new(ECHO.name, 8, Idle::Never);

#[test]
fn a_request_over_a_slow_link_finishes() {
    over_each("a_request_over_a_slow_link_finishes", 2, |world, over| {
        // A 19,200 baud line: 2,400 bytes a second. Over a pipe four times that: what the kernel has taken counts as sent, and a frame of Noise is read
        // when all of it has come, so there a request or a reply on its way looks like none.
        let rate = if over == Over::Quic { 2_400 } else { 9_600 };
        let mut link = Link::new(Duration::from_millis(100)).rate(rate);
        // Room for all of it: what a full queue drops is repaired after seconds, over and over.
        link.queue_bytes = 64 << 10;
        link.queue_delay = Duration::from_secs(10);
        world.net().set_default(link);
        let (a, b) = pair(world, over);
        serve_echo(&b);
        let begin = world.now();
        let reply = world.block_on(a.request(b.peer_id(), &ECHO, common::body(1, 30_000)));
        let took = world.now() - begin;
        let reply = reply.unwrap_or_else(|error| panic!("after {took:?}: {error}"));
        assert_eq!(reply.len(), 30_000);
        assert!(took > Duration::from_secs(48_000 / rate), "the link was slow: {took:?}");
    });
}

#[test]
fn a_responder_of_one_byte_a_second_is_found_out() {
    over_each("a_responder_of_one_byte_a_second_is_found_out", 2, |world, over| {
        let (a, b) = pair(world, over);
        let clock = world.clock();
        b.serve_streams(&RAW_ECHO, Priority::Normal, async move |stream: Stream| {
            let (mut send, mut receive) = stream.split();
            let _ = receive.read(64 << 10).await;
            // The reply's length is 1,000 (as a varint), and then it drips.
            let mut head = Bytes::from_static(&[0xe8, 0x07]);
            let _ = send.write(&mut head).await;
            for _ in 0..1_000 {
                clock.sleep(Duration::from_secs(1)).await;
                if send.write(&mut Bytes::from_static(&[7])).await.is_err() {
                    break;
                }
            }
        })
        .expect("a fresh protocol");
        let begin = world.now();
        let reply = world.block_on(a.request(b.peer_id(), &ECHO, common::body(1, 100)));
        let took = world.now() - begin;
        assert!(matches!(reply, Err(RequestError::Stalled { .. })), "{reply:?}");
        assert!(took < Duration::from_secs(10), "found out after {took:?}");
    });
}

#[test]
fn a_responder_that_never_begins_is_found_out_at_the_deadline() {
    over_each("a_responder_that_never_begins_is_found_out_at_the_deadline", 2, |world, over| {
        let (a, b) = pair(world, over);
        b.serve_streams(&RAW_ECHO, Priority::Normal, async move |stream: Stream| {
            let _kept = stream;
            std::future::pending::<()>().await;
        })
        .expect("a fresh protocol");
        let begin = world.now();
        let reply = world.block_on(a.request(b.peer_id(), &ECHO, common::body(1, 100)));
        let took = world.now() - begin;
        assert!(matches!(reply, Err(RequestError::NoAnswer(_))), "{reply:?}");
        let slack = Duration::from_secs(1);
        assert!(took >= ECHO.deadline && took < ECHO.deadline + slack, "after {took:?}");
    });
}
