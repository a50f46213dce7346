//! Each limit met from outside: a test fails when its limit is taken away.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use harness::{Net, address};
use strait_core::{
    Closed, DialError, Event, Idle, Limits, Message, Priority, RawRead, Request, RequestError, SocketId, StreamError,
    StreamProtocol, StreamRef,
};

static ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(60), 8);
/// The same protocol, as a greedy client defines it.
static GREEDY: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(60), 400);
static CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 400, Idle::Never);

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

/// A greedy client (0) and a server (1) with these limits.
fn siege(limits: Limits) -> Net {
    let mut net = Net::new(vec![Limits::default(), limits]);
    net.nodes[1].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    net.nodes[1].serve_stream(&CHAT, Priority::Normal).expect("a good definition");
    net
}

fn ask(net: &mut Net, body: Vec<u8>) -> StreamRef {
    let peer = net.peer(1);
    net.nodes[0].request(&peer, &GREEDY, Priority::Normal, Message::from(body)).expect("taken")
}

fn requests(net: &mut Net) -> Vec<(StreamRef, Message)> {
    let mut found = Vec::new();
    while let Some(one) = net.take(
        1,
        |event| matches!(event, Event::Request { .. }),
        |event| match event {
            Event::Request { stream, body, .. } => (stream, body),
            _ => unreachable!(),
        },
    ) {
        found.push(one);
    }
    found
}

fn good_replies(net: &Net) -> usize {
    net.count(0, |event| matches!(event, Event::Reply { result: Ok(_), .. }))
}

#[test]
fn a_peer_has_so_many_streams_as_it_has_credit_for_and_the_rest_do_not_wait_for_ever() {
    let limits = Limits { streams_min: 4, streams_max: 4, ..Limits::default() };
    let mut net = siege(limits);
    net.connect(0, 1);
    let peer = net.peer(1);
    for _ in 0..300 {
        net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("its own window is wide");
    }
    net.run(Duration::from_secs(9));
    assert_eq!(net.count(1, |event| matches!(event, Event::Stream { .. })), 4);
    assert_eq!(net.nodes[1].audit().streams, 4);
    net.run(Duration::from_secs(2));
    let ended = net.count(0, |event| matches!(event, Event::Ended { error: Some(StreamError::Idle(_)), .. }));
    assert_eq!(ended, 296, "told after the negotiation's deadline");
    assert_eq!(net.nodes[0].audit().streams, 4);
    net.close();
}

#[test]
fn a_request_that_the_peer_gives_no_stream_for_ends_in_its_time() {
    let limits = Limits { streams_min: 1, streams_max: 1, ..Limits::default() };
    let mut net = siege(limits);
    net.connect(0, 1);
    let peer = net.peer(1);
    net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("connected");
    net.run(Duration::from_secs(1));
    ask(&mut net, bytes(10));
    let ping = net.nodes[0].ping(&peer).expect("connected");
    net.run(GREEDY.total(&Limits::default()) + Duration::from_secs(1));
    assert_eq!(net.count(0, |event| matches!(event, Event::Reply { result: Err(RequestError::NoAnswer(_)), .. })), 1);
    assert_eq!(net.count(0, |event| matches!(event, Event::Pong { stream, result: Err(_) } if *stream == ping)), 1);
    net.close();
}

#[test]
fn connections_beyond_the_limit_are_refused_and_told_so() {
    let small = Limits { connections_max: 2, handshakes_max: 2, retry_from: 2, ..Limits::default() };
    let mut net = Net::new(vec![small, Limits::default(), Limits::default(), Limits::default(), Limits::default()]);
    for from in 1..=2 {
        net.connect(from, 0);
    }
    // The first that comes too many has to prove its identity to be weighed against the others. Nobody can be displaced so soon, so that
    // one is told, and the next is refused at its first packet.
    net.dial(3, 0);
    let reason = net.next(3, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(matches!(&reason, Closed::There { code: 0x1001, reason } if reason.contains("no room")), "{reason:?}");
    net.dial(4, 0);
    net.run(Duration::from_secs(2));
    assert_eq!(net.count(4, |event| matches!(event, Event::DialFailed { error: DialError::Refused(_), .. })), 1);
    let totals = &net.nodes[0].counters().totals;
    assert_eq!((totals.refused_full, totals.refused), (1, 1));
    assert_eq!(net.nodes[0].peers().count(), 2, "who was there is not touched");
    let peer = net.peer(1);
    assert!(
        matches!(net.nodes[0].dial(net.now, SocketId(0), address(3), peer), Err(DialError::Full(_))),
        "nor does it dial more"
    );
    net.close();
}

#[test]
fn one_identity_has_so_many_connections() {
    let mut net = siege(Limits::default());
    net.connect(0, 1);
    for _ in 0..4 {
        net.dial(0, 1);
        net.run(Duration::from_millis(200));
    }
    net.run(Duration::from_secs(5));
    let most = Limits::default().connections_per_peer_max as usize;
    assert_eq!(net.nodes[1].audit().connections, most);
    let surplus: u64 = net.nodes.iter().map(|node| node.counters().totals.connections_surplus).sum();
    assert!(surplus >= 2, "{surplus}");
    net.close();
}

#[test]
fn from_a_number_on_strangers_prove_their_address_and_still_connect() {
    let wary = Limits { retry_from: 0, ..Limits::default() };
    let mut net = Net::new(vec![Limits::default(), wary, Limits::default()]);
    net.connect(0, 1);
    net.connect(2, 1);
    assert_eq!(net.nodes[1].counters().totals.retries, 2);
    net.close();

    let mut net = Net::pair();
    net.connect(0, 1);
    assert_eq!(net.nodes[1].counters().totals.retries, 0);
    net.close();
}

#[test]
fn handshakes_beyond_the_limit_wait_and_connect_later() {
    let small = Limits { handshakes_max: 2, retry_from: 2, ..Limits::default() };
    let mut all = vec![small];
    all.resize(9, Limits::default());
    let mut net = Net::new(all);
    for from in 1..9 {
        net.dial(from, 0);
    }
    let mut most = 0;
    net.until(|net| {
        let totals = &net.nodes[0].counters().totals;
        most = most.max(totals.handshakes_in - totals.handshakes_in_failed - totals.connections_opened);
        totals.connections_opened == 8
    });
    assert_eq!(most, 2);
    assert!(net.nodes[0].counters().totals.strangers_dropped > 0);
    net.close();
}

#[test]
fn a_handshake_that_stands_still_is_given_up() {
    let mut net = Net::pair();
    net.dial(0, 1);
    net.settle(0);
    let first = net.last[0].clone();
    // Only the first flight arrives, from somebody who never answers.
    let mut net = Net::new(vec![Limits::default(), Limits::default()]);
    net.deliver(77, 1, &first);
    net.settle(1);
    assert_eq!(net.nodes[1].audit().connections, 1);
    net.run(Limits::default().handshake_deadline + Duration::from_secs(5));
    assert_eq!(net.nodes[1].counters().totals.handshakes_in_failed, 1);
    assert_eq!(net.nodes[1].audit().connections, 0);
    net.close();
}

#[test]
fn strangers_datagrams_have_a_bounded_queue_and_a_rate() {
    let mut net = Net::pair();
    net.dial(0, 1);
    net.settle(0);
    let mut first = net.last[0].clone();
    for at in 0..5000u32 {
        // Another destination id each time: nobody's.
        first[6..10].copy_from_slice(&at.to_be_bytes());
        net.deliver(0, 1, &first);
    }
    assert!(net.nodes[1].counters().totals.strangers_dropped > 4000);
    net.settle(1);
    net.run(Duration::from_secs(20));
    net.connect(0, 1);
    net.close();
}

#[test]
fn datagrams_that_waited_too_long_are_loss() {
    let mut net = siege(Limits::default());
    net.echo[1] = true;
    net.connect(0, 1);
    net.run(Duration::from_secs(1));
    let seen = net.nodes[1].counters().totals.datagrams_in;
    ask(&mut net, bytes(100));
    let end = net.now + Duration::from_secs(1);
    while net.nodes[1].counters().totals.datagrams_in == seen {
        assert!(net.step(end));
    }
    net.now += Limits::default().delay_max + Duration::from_millis(1);
    net.settle(1);
    assert_eq!(net.nodes[1].counters().totals.dropped_late, 1);
    net.until(|net| good_replies(net) == 1);

    // And just below the limit they are not.
    let seen = net.nodes[1].counters().totals.datagrams_in;
    ask(&mut net, bytes(100));
    let end = net.now + Duration::from_secs(1);
    while net.nodes[1].counters().totals.datagrams_in == seen {
        assert!(net.step(end));
    }
    net.now += Limits::default().delay_max;
    net.settle(1);
    assert_eq!(net.nodes[1].counters().totals.dropped_late, 1);
    net.until(|net| good_replies(net) == 2);
    net.close();
}

#[test]
fn a_connections_datagrams_have_a_bounded_queue() {
    let mut net = siege(Limits::default());
    net.echo[1] = true;
    net.connect(0, 1);
    ask(&mut net, bytes(100_000));
    net.settle(0);
    let datagram = net.last[0].clone();
    for _ in 0..10_000 {
        net.deliver(0, 1, &datagram);
    }
    let dropped = net.nodes[1].counters().totals.dropped_full;
    let room = Limits::default().inbox_bytes_max / (datagram.len() as u64 + 256);
    assert!(dropped >= 10_000 - room - 1 && dropped < 10_000, "{dropped} dropped, room for {room}");
    net.until(|net| good_replies(net) == 1);
    net.close();
}

#[test]
fn requests_beyond_a_silent_applications_number_wait_without_an_error() {
    let mut net = siege(Limits::default());
    net.connect(0, 1);
    for at in 0..30 {
        ask(&mut net, bytes(at));
    }
    net.run(Duration::from_secs(20));
    let mut open = requests(&mut net);
    assert_eq!(open.len(), usize::from(ECHO.per_peer_max));
    assert_eq!(net.count(0, |event| matches!(event, Event::Reply { .. })), 0, "nobody is refused");
    let mut served = 0;
    while served < 30 {
        let Some((stream, body)) = open.pop() else {
            panic!("{served} served and no more came");
        };
        net.nodes[1].reply(stream, body).expect("there");
        served += 1;
        net.run(Duration::from_millis(100));
        open.extend(requests(&mut net));
        assert!(open.len() <= usize::from(ECHO.per_peer_max));
    }
    assert_eq!(good_replies(&net), 30);
    net.close();
}

/// Limits under which a server has memory for one exchange of 1 MiB at a time, and not quite for two.
fn tight(connections: u32) -> Limits {
    let mut limits = Limits { receive_window_max: 64 << 10, send_window_max: 64 << 10, streams_max: 8, ..Limits::default() };
    limits.inbox_bytes_max = limits.inbox_bytes_min;
    limits.connections_max = connections;
    limits.handshakes_max = 1;
    limits.retry_from = 1;
    let floors = limits.connection_floor() * u64::from(connections) + limits.shared_floor();
    limits.memory_bytes = floors + (4 << 20);
    limits.connection_bytes_max = limits.connection_floor() + (8 << 20);
    limits
}

#[test]
fn requests_that_wait_for_memory_go_on_as_soon_as_there_is_some() {
    let mut net = Net::new(vec![Limits::default(), tight(3), Limits::default(), Limits::default()]);
    net.nodes[1].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    let clients = [0, 2, 3];
    for from in clients {
        net.connect(from, 1);
    }
    let (begun, peer) = (net.now, net.peer(1));
    for from in clients {
        let body = Message::from(bytes(1 << 20));
        net.nodes[from].request(&peer, &ECHO, Priority::Normal, body).expect("taken");
    }
    let mut most = 0;
    net.until(|net| {
        let open = requests(net);
        most = most.max(open.len());
        for (stream, body) in open {
            net.nodes[1].reply(stream, body).expect("there");
        }
        clients.iter().all(|from| net.count(*from, |event| matches!(event, Event::Reply { result: Ok(_), .. })) == 1)
    });
    assert_eq!(most, 1);
    assert!(net.nodes[1].counters().totals.grants_refused > 0, "the test has a point");
    assert!(net.now - begun < Duration::from_secs(5), "{:?}: nobody had to wait for a timer", net.now - begun);
    net.close();
}

#[test]
fn requests_of_one_peer_that_wait_for_memory_do_not_block_the_one_that_has_it() {
    let mut net = siege(tight(1));
    net.connect(0, 1);
    for _ in 0..4 {
        ask(&mut net, bytes(1 << 20));
    }
    net.until(|net| {
        for (stream, body) in requests(net) {
            net.nodes[1].reply(stream, body).expect("there");
        }
        net.count(0, |event| matches!(event, Event::Reply { .. })) == 4
    });
    // There is memory for one exchange, and none to widen the window for those that wait: some may be declined, none may stall.
    assert!(good_replies(&net) >= 1);
    let declined = net.count(0, |event| matches!(event, Event::Reply { result: Err(RequestError::Rejected(_)), .. }));
    assert_eq!(good_replies(&net) + declined, 4);
    assert_eq!(net.nodes[1].counters().totals.jams, declined as u64);
    net.close();
}

#[test]
fn requests_that_wait_for_their_turn_do_not_block_those_that_have_it() {
    let mut net = siege(Limits::default());
    net.echo[1] = true;
    net.connect(0, 1);
    for _ in 0..40 {
        ask(&mut net, bytes(100_000));
    }
    net.until(|net| net.count(0, |event| matches!(event, Event::Reply { .. })) == 40);
    assert_eq!(good_replies(&net), 40);
    assert_eq!(net.nodes[1].counters().totals.jams, 0);
    net.close();
}

#[test]
fn a_flood_does_not_keep_a_connections_timers_from_their_turn() {
    let slow = Limits { turn_work: 2 << 10, quantum: 2 << 10, ..Limits::default() };
    let mut net = siege(slow);
    net.connect(0, 1);
    ask(&mut net, bytes(100));
    net.settle(0);
    let (datagram, peer) = (net.last[0].clone(), net.peer(0));
    net.nodes[1].disconnect(net.now, &peer);
    // More in each instant than one turn opens, for as long as a closing connection stays in no case.
    for _ in 0..500 {
        net.now += Duration::from_millis(10);
        for _ in 0..20 {
            net.deliver(0, 1, &datagram);
        }
        let (now, node) = (net.now, &mut net.nodes[1]);
        node.handle_timeout(now);
        node.drive(now);
        let mut buffer = Vec::new();
        while node.poll_transmit(now, std::num::NonZeroUsize::MIN, &mut buffer).is_some() {}
        while node.poll_event().is_some() {}
    }
    assert_eq!(net.nodes[1].audit().connections, 0, "its slot is held for as long as the flood lasts");
}

#[test]
fn a_client_without_memory_for_all_its_replies_still_tells_of_each() {
    let mut net = Net::new(vec![tight(1), Limits::default()]);
    net.nodes[1].serve_request(&GREEDY, Priority::Normal).expect("a good definition");
    net.echo[1] = true;
    net.connect(0, 1);
    for _ in 0..6 {
        ask(&mut net, bytes(1 << 20));
    }
    net.run(Duration::from_secs(200));
    assert_eq!(net.count(0, |event| matches!(event, Event::Reply { .. })), 6, "each has its outcome");
    assert_eq!(net.nodes[0].audit().streams, 0);
    net.close();
}

#[test]
fn windows_leave_room_for_the_largest_message() {
    let mut limits = Limits { inbox_bytes_max: 64 << 10, ..Limits::default() };
    // Room for one exchange of 1 MiB both ways beside the windows, which would take all of it if they might.
    limits.connection_bytes_max = 2 * ((3 << 20) + Limits::streams_cost(1) + limits.inbox_bytes_max);
    let mut net = siege(limits);
    net.connect(0, 1);
    let (_, theirs) = {
        let peer = net.peer(1);
        let ours = net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("connected");
        let theirs = net.next(1, |event| match event {
            Event::Stream { stream, .. } => Some(*stream),
            _ => None,
        });
        // Both windows grow while bytes pass both ways.
        let mut left = [32usize << 20; 2];
        net.until(|net| {
            for (node, stream) in [(0, ours), (1, theirs)] {
                let mut chunk = Bytes::from(vec![1; left[node].min(1 << 20)]);
                left[node] -= net.nodes[node].write(net.now, stream, &mut chunk).expect("open");
                while let Ok(RawRead::Chunk(_)) = net.nodes[node].read(net.now, stream, 1 << 20) {}
            }
            left == [0, 0]
        });
        (ours, theirs)
    };
    assert!(net.nodes[1].counters().totals.windows_grown >= 4, "the test has a point: {:?}", net.nodes[1].counters().totals);
    net.nodes[1].cancel(theirs);
    net.echo[1] = true;
    ask(&mut net, bytes(1 << 20));
    net.until(|net| net.count(0, |event| matches!(event, Event::Reply { .. })) == 1);
    assert_eq!(good_replies(&net), 1);
    net.close();
}

#[test]
fn one_turn_does_so_much_and_says_that_work_is_left() {
    let limits = Limits { turn_work: 32 << 10, ..Limits::default() };
    let mut net = siege(limits);
    net.echo[1] = true;
    net.connect(0, 1);
    for _ in 0..8 {
        ask(&mut net, bytes(100_000));
    }
    net.until(|net| good_replies(net) == 8);
    assert!(net.nodes[1].counters().totals.turns_full > 0);
    net.close();
}
