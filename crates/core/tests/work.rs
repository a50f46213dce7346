//! What a peer has this node do is charged to that peer's turns, also what leaves nothing behind.

mod harness;

use std::time::Duration;

use harness::Net;
use strait_core::limits::{HANDSHAKE_PACKET_WORK, STREAM_OPENED_WORK, STREAM_WORK};
use strait_core::{Event, Idle, Limits, Priority, RawRead, StreamProtocol};

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

/// What a packet full of small frames costs is not their bytes.
#[test]
fn small_frames_are_dearer_than_their_bytes() {
    const STREAMS: usize = 20;
    let mut net = pair();
    let peer = net.peer(1);
    let streams: Vec<_> = (0..STREAMS).map(|_| net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("room")).collect();
    let opening = bytes::Bytes::from_static(b"o");
    streams.iter().for_each(|stream| drop(net.nodes[0].write(net.now, *stream, &mut opening.clone())));
    net.run(Duration::from_secs(1));
    let paid = [200, 1].map(|length| {
        let before = work(&net);
        for stream in &streams {
            let written = net.nodes[0].write(net.now, *stream, &mut bytes::Bytes::from(vec![7; length]));
            assert_eq!(written, Ok(length));
        }
        net.run(Duration::from_secs(1));
        work(&net) - before
    });
    let [large, small] = paid;
    assert!(small > large, "{STREAMS} frames of 200 bytes each: {large}, of one: {small}");
    streams.into_iter().for_each(|stream| net.nodes[0].reset(net.now, stream, 0));
    net.run(Duration::from_secs(1));
    net.close();
}

/// First packets of many strangers arrive before node 0 has a turn. How many handshakes the turns then begin.
fn handshakes_of_a_turn(net: &mut Net, clients: usize) -> Vec<u64> {
    let begun = |net: &Net| net.nodes[0].counters().totals.handshakes_in;
    assert_eq!(begun(net), 0, "what has arrived waits for a turn");
    let turns = std::iter::from_fn(|| {
        let before = begun(net);
        (before < clients as u64).then(|| {
            net.nodes[0].drive(net.now);
            begun(net) - before
        })
    });
    turns.take(clients).collect()
}

/// A handshake is the dearest thing that a stranger can ask for: as many of them as have arrived would keep everybody else waiting.
#[test]
fn no_turn_begins_more_handshakes_than_its_work_allows() {
    const CLIENTS: usize = 12;
    for proved in [false, true] {
        let wary = Limits { retry_from: if proved { 0 } else { 32 }, ..Limits::default() };
        let mut net = Net::new([vec![wary], vec![Limits::default(); CLIENTS]].concat());
        for from in 1..=CLIENTS {
            net.dial(from, 0);
        }
        let end = net.now + Duration::from_secs(1);
        // Those that have to prove their address come twice.
        let arrivals = if proved { 2 * CLIENTS } else { CLIENTS } as u64;
        while net.nodes[0].counters().totals.datagrams_in < arrivals {
            assert!(net.step(end));
        }
        let turns = handshakes_of_a_turn(&mut net, CLIENTS);
        let most = net.nodes[0].limits().turn_work.div_ceil(HANDSHAKE_PACKET_WORK);
        assert!(turns.iter().all(|begun| *begun <= most), "proved {proved}: {turns:?} with at most {most} a turn");
        assert_eq!(turns.iter().sum::<u64>(), CLIENTS as u64, "proved {proved}: all in the end");
        net.until(|net| net.nodes[0].peers().count() == CLIENTS);
        net.close();
    }
}
