//! What a peer has this node do is charged to that peer's turns, also what leaves nothing behind.

mod harness;

use std::time::Duration;

use harness::Net;
use strait_core::limits::{STREAM_OPENED_WORK, STREAM_WORK};
use strait_core::{Event, Idle, Priority, RawRead, StreamProtocol};

static CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 64, Idle::After(Duration::from_secs(60)));

fn pair() -> Net {
    let mut net = Net::pair();
    net.nodes[1].serve_stream(&CHAT, Priority::Normal).expect("a good definition");
    net.connect(0, 1);
    net.run(Duration::from_secs(1));
    net
}

fn work(net: &Net) -> u64 {
    net.nodes[1].counters().totals.work
}

#[test]
fn streams_that_are_reset_at_once_are_paid_for() {
    let mut net = pair();
    let (peer, before) = (net.peer(1), work(&net));
    for _ in 0..20 {
        let stream = net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("room");
        net.settle(0);
        net.nodes[0].reset(net.now, stream, 0);
        net.run(Duration::from_millis(100));
    }
    let paid = work(&net) - before;
    assert!(paid >= 20 * STREAM_OPENED_WORK, "{paid}");
    net.close();
}

/// The application reads outside of turns: that is charged in the next one.
#[test]
fn reading_is_paid_for() {
    let mut net = pair();
    let peer = net.peer(1);
    let stream = net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("room");
    let here = net.next(1, |event| match event {
        Event::Stream { stream, .. } => Some(*stream),
        _ => None,
    });
    net.run(Duration::from_secs(1));
    let mut paid = [0; 2];
    for (reads, paid) in [1, 101].into_iter().zip(&mut paid) {
        let before = work(&net);
        net.nodes[0].write(net.now, stream, &mut bytes::Bytes::from_static(b"hello")).expect("open");
        net.run(Duration::from_millis(100));
        for _ in 1..reads {
            assert!(matches!(net.nodes[1].read(net.now, here, 0), Ok(RawRead::Chunk(_) | RawRead::Blocked)));
        }
        net.run(Duration::from_millis(100));
        while matches!(net.nodes[1].read(net.now, here, 100), Ok(RawRead::Chunk(_))) {}
        net.run(Duration::from_millis(100));
        *paid = work(&net) - before;
    }
    assert!(paid[1] >= paid[0] + 90 * STREAM_WORK, "{paid:?}");
    net.nodes[0].finish(net.now, stream).expect("open");
    net.nodes[1].finish(net.now, here).expect("open");
    net.run(Duration::from_secs(1));
    assert!(matches!(net.nodes[0].read(net.now, stream, 1), Ok(RawRead::Finished)));
    assert!(matches!(net.nodes[1].read(net.now, here, 1), Ok(RawRead::Finished)));
    net.close();
}
