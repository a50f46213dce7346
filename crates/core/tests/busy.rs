//! A connection whose packets never all get opened still has its streams driven, in each of its turns.

mod harness;

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use harness::{Net, address};
use strait_core::{Event, Idle, Limits, Priority, RawRead, Request, StreamProtocol};

static ASK: Request = Request::new("/test/ask/1", 1 << 10, 1 << 10, Duration::from_secs(10), 8);
static BULK: StreamProtocol = StreamProtocol::new("/test/bulk/1", 4, Idle::After(Duration::from_secs(60)));

/// Takes everything that node 0 has to send now, and hands it to node 1 without giving it a turn.
fn hand_over(net: &mut Net) -> usize {
    let (mut buffer, mut count) = (Vec::new(), 0);
    let max = NonZeroUsize::new(10).expect("not zero");
    while let Some(transmit) = net.nodes[0].poll_transmit(net.now, max, &mut buffer) {
        assert_eq!(transmit.destination, address(1));
        for datagram in buffer.chunks(transmit.segment_size.unwrap_or(transmit.size)) {
            net.deliver(0, 1, datagram);
            count += 1;
        }
    }
    count
}

#[test]
fn a_request_is_seen_in_the_first_turn_although_most_packets_wait() {
    // A turn is one visit to the connection, which opens a few packets.
    let few = Limits { quantum: 16 << 10, turn_work: 16 << 10, ..Limits::default() };
    let mut net = Net::new(vec![Limits::default(), few]);
    net.nodes[1].serve_request(&ASK, Priority::Urgent).expect("a good definition");
    net.nodes[1].serve_stream(&BULK, Priority::Bulk).expect("a good definition");
    net.connect(0, 1);
    let peer = net.peer(1);
    let bulk = net.nodes[0].open(&peer, &BULK, Priority::Bulk).expect("room");
    let there = net.next(1, |event| match event {
        Event::Stream { stream, .. } => Some(*stream),
        _ => None,
    });
    // Until the path is known to carry more than a first flight.
    for _ in 0..40 {
        net.nodes[0].write(net.now, bulk, &mut Bytes::from(vec![7; 32 << 10])).expect("open");
        net.run(Duration::from_millis(20));
        while matches!(net.nodes[1].read(net.now, there, 1 << 20), Ok(RawRead::Chunk(_))) {}
        net.run(Duration::from_millis(20));
    }
    net.nodes[0].request(&peer, &ASK, Priority::Urgent, Bytes::from_static(b"?").into()).expect("room");
    net.nodes[0].write(net.now, bulk, &mut Bytes::from(vec![7; 64 << 10])).expect("open");
    while net.nodes[0].drive(net.now) {}
    let packets = hand_over(&mut net);
    assert!(packets >= 16, "more than one turn opens: {packets}");
    let left = net.nodes[1].drive(net.now);
    assert!(left, "most packets wait");
    let asked = std::iter::from_fn(|| net.nodes[1].poll_event()).any(|event| matches!(event, Event::Request { .. }));
    assert!(asked, "the request came first, and its stream was not driven");
}
