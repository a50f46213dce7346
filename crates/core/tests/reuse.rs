//! Requests that share streams (`docs/specs/reuse.md`), between two nodes.

mod harness;

use std::time::Duration;

use harness::Net;
use strait_core::{Closed, Event, Idle, Limits, Message, Priority, Refused, Request, RequestError, StreamProtocol, StreamRef};

static ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(10), 8);
static STRICT: Request = Request::new("/test/echo/1", 1 << 20, 100, Duration::from_secs(10), 8);
static CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 64, Idle::Never);
const SECOND: Duration = Duration::from_secs(1);

fn over(pipes: bool, limits: [Limits; 2]) -> Net {
    let limits = limits.to_vec();
    let mut net = if pipes { Net::over_pipes(limits, &["/noise"]) } else { Net::new(limits) };
    net.nodes[1].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    net.nodes[1].serve_stream(&CHAT, Priority::Normal).expect("a good definition");
    net.echo[1] = true;
    net.connect(0, 1);
    net.run(Duration::from_millis(100));
    net
}

fn echoing() -> Net {
    over(false, [Limits::default(), Limits::default()])
}

fn ask(net: &mut Net, len: usize) -> StreamRef {
    let peer = net.peer(1);
    net.nodes[0].request(&peer, &ECHO, Priority::Normal, Message::from(vec![7; len])).expect("taken")
}

fn reply(net: &mut Net, wanted: StreamRef) -> Result<usize, RequestError> {
    net.next(0, |event| match event {
        Event::Reply { stream, result } if *stream == wanted => Some(result.clone().map(|message| message.len())),
        _ => None,
    })
}

fn exchange(net: &mut Net, len: usize) {
    let name = ask(net, len);
    assert_eq!(reply(net, name), Ok(len));
}

/// So many requests at the same time, each answered.
fn exchanges(net: &mut Net, count: usize) {
    let names: Vec<_> = (0..count).map(|_| ask(net, 64)).collect();
    for name in names {
        assert_eq!(reply(net, name), Ok(64));
    }
}

fn arrived(net: &mut Net) -> StreamRef {
    net.next(1, |event| match event {
        Event::Request { stream, .. } => Some(*stream),
        _ => None,
    })
}

fn opened(net: &Net) -> u64 {
    net.nodes[0].counters().totals.streams_out
}

fn reused(net: &Net) -> [u64; 2] {
    [0, 1].map(|node| net.nodes[node].counters().totals.streams_reused)
}

/// RE-03.
#[test]
fn requests_one_after_the_other_take_one_stream_and_at_once_as_many_as_they_are() {
    for pipes in [false, true] {
        let mut net = over(pipes, [Limits::default(), Limits::default()]);
        let before = opened(&net);
        for _ in 0..100 {
            exchange(&mut net, 64);
        }
        assert_eq!((opened(&net) - before, reused(&net)), (1, [99, 99]), "over pipes: {pipes}");
        for _ in 0..10 {
            exchanges(&mut net, 8);
        }
        assert_eq!((opened(&net) - before, reused(&net)), (8, [172, 172]), "over pipes: {pipes}");
        net.run(2 * SECOND);
        for node in 0..2 {
            assert_eq!(net.nodes[node].audit().streams, 0, "RE-05");
        }
        let counters = &net.nodes[0].counters().protocols[ECHO.name];
        assert_eq!((counters.sent, counters.replied, counters.failed), (180, 180, 0));
        assert_eq!(net.nodes[1].counters().protocols[ECHO.name].served, 180);
        net.close();
    }
}

/// RE-02.
#[test]
fn a_peer_that_has_not_told_that_it_takes_them_is_asked_on_a_stream_each() {
    // What is served since: its names are told in a push, and until that has come nothing is known.
    static LATE: Request = Request::new("/test/late/1", 100, 100, Duration::from_secs(10), 8);
    let mut net = echoing();
    net.nodes[1].serve_request(&LATE, Priority::Normal).expect("a good definition");
    let (peer, before) = (net.peer(1), opened(&net));
    let ask = |net: &mut Net| {
        let name = net.nodes[0].request(&peer, &LATE, Priority::Normal, Message::from("x")).expect("taken");
        assert_eq!(reply(net, name), Ok(1));
    };
    ask(&mut net);
    assert_eq!(opened(&net) - before, 1);
    net.run(SECOND);
    ask(&mut net);
    ask(&mut net);
    assert_eq!((opened(&net) - before, reused(&net)), (2, [1, 1]));
    net.close();
}

/// RE-04.
#[test]
fn large_messages_take_a_stream_each_and_all_memory_comes_back() {
    let mut net = echoing();
    let before = opened(&net);
    for _ in 0..3 {
        exchange(&mut net, 20 << 10);
    }
    assert_eq!(opened(&net) - before, 3);
    exchange(&mut net, 64);
    exchange(&mut net, 20 << 10);
    assert_eq!(opened(&net) - before, 4, "also behind small ones");
    net.run(2 * SECOND);
    let granted = |net: &Net| [0, 1].map(|node| net.nodes[node].audit().granted);
    let rest = granted(&net);
    exchange(&mut net, 20 << 10);
    exchange(&mut net, 64);
    net.run(2 * SECOND);
    assert_eq!(granted(&net), rest);
    net.close();
}

/// RE-05.
#[test]
fn what_is_kept_makes_room_for_what_is_needed() {
    // The peer allows eight streams: all of them are kept, and four of another kind are wanted.
    let narrow = Limits { streams_min: 8, streams_max: 8, ..Limits::default() };
    let mut net = over(false, [Limits::default(), narrow]);
    exchanges(&mut net, 8);
    let peer = net.peer(1);
    for _ in 0..4 {
        net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("its own window is wide");
    }
    net.run(SECOND / 5);
    let taken = net.count(1, |event| matches!(event, Event::Stream { .. }));
    assert_eq!(taken, 4, "long before they would have ended");
    exchange(&mut net, 64);
    net.close();
}

#[test]
fn what_is_kept_gives_its_memory_to_what_needs_it() {
    static LARGE: Request = Request::new("/test/large/1", 1 << 20, 1 << 10, Duration::from_secs(10), 64);
    let limits = Limits { connection_bytes_max: 12 << 20, ..Limits::default() };
    let mut net = over(false, [limits, Limits::default()]);
    exchanges(&mut net, 8);
    // Nothing gets through, so what is asked now keeps its memory: all that there is, but for half a stream.
    net.faults.drop = 1;
    let peer = net.peer(1);
    loop {
        let before = opened(&net);
        let now = &net.nodes[0].peer_now(net.now, &peer).expect("connected").connections[0];
        let free = usize::try_from(now.granted_max - now.granted).expect("some megabytes");
        assert_eq!(now.streams.resting, 8);
        let len = if free > 2 << 20 { 1 << 20 } else { free - (20 << 10) };
        net.nodes[0].request(&peer, &LARGE, Priority::Normal, Message::from(vec![1; len.min(1 << 20)])).expect("taken");
        net.settle(0);
        assert_eq!(opened(&net) - before, 1, "of {free} bytes {len}");
        if len < 1 << 20 {
            break;
        }
    }
    let now = &net.nodes[0].peer_now(net.now, &peer).expect("connected").connections[0];
    assert!((1..8).contains(&now.streams.resting), "and no more than it needs: {:?}", now.streams);
}

/// RE-07.
#[test]
fn giving_up_or_declining_one_request_costs_no_other_one_anything() {
    let mut net = echoing();
    net.echo[1] = false;
    let names: Vec<_> = (0..4).map(|_| ask(&mut net, 64)).collect();
    let asked: Vec<_> = (0..4).map(|_| arrived(&mut net)).collect();
    net.nodes[0].cancel(names[0]);
    net.nodes[1].reject(asked[1]).expect("it is open");
    for stream in &asked[2..] {
        net.nodes[1].reply(*stream, Message::from(vec![7; 5])).expect("it is open");
    }
    assert!(matches!(reply(&mut net, names[1]), Err(RequestError::Rejected(3))));
    assert_eq!((reply(&mut net, names[2]), reply(&mut net, names[3])), (Ok(5), Ok(5)));
    net.echo[1] = true;
    let before = opened(&net);
    exchanges(&mut net, 4);
    assert_eq!(opened(&net) - before, 2, "two of four are still there");
    net.close();
}

#[test]
fn the_name_of_an_exchange_that_is_over_means_nothing_to_the_next() {
    let mut net = echoing();
    net.echo[1] = false;
    let first = ask(&mut net, 64);
    let asked = arrived(&mut net);
    net.nodes[1].reply(asked, Message::from("first")).expect("it is open");
    assert_eq!(reply(&mut net, first), Ok(5));
    let second = ask(&mut net, 64);
    assert!(matches!(net.nodes[1].reply(asked, Message::from("late")), Err(Refused::Gone)));
    let next = arrived(&mut net);
    assert_ne!((first, asked), (second, next));
    assert!(matches!(net.nodes[1].reply(asked, Message::from("late")), Err(Refused::Gone)));
    net.nodes[0].cancel(first);
    net.nodes[1].reply(next, Message::from("second")).expect("it is open");
    assert_eq!(reply(&mut net, second), Ok(6));
    net.close();
}

#[test]
fn a_node_with_nothing_but_kept_streams_is_not_busy_and_they_are_told_apart() {
    let mut net = echoing();
    net.echo[1] = false;
    let name = ask(&mut net, 64);
    let asked = arrived(&mut net);
    net.run(SECOND / 10);
    assert!(net.nodes[0].is_busy() && net.nodes[1].is_busy());
    net.nodes[1].reply(asked, Message::from("done")).expect("it is open");
    assert_eq!(reply(&mut net, name), Ok(4));
    net.run(SECOND / 10);
    for node in 0..2 {
        let other = net.peer(1 - node);
        let streams = net.nodes[node].peer_now(net.now, &other).expect("connected").connections[0].streams;
        assert_eq!((streams.all, streams.resting, streams.for_peer), (1, 1, 0), "node {node}");
    }
    assert!(!net.nodes[0].is_busy());
    assert_eq!(net.nodes[0].audit().streams, 1, "it is its own, and stays");
    // Only by its end it is known that the reply has arrived.
    assert!(net.nodes[1].is_busy());
    net.run(SECOND / 10);
    assert!(!net.nodes[1].is_busy());
    assert_eq!(net.nodes[0].audit().streams, 0);
    net.close();
}

/// RE-05.
#[test]
fn a_request_that_crosses_with_the_end_of_its_stream_was_not_looked_at() {
    let mut net = echoing();
    exchange(&mut net, 64);
    net.run(SECOND / 10);
    let name = ask(&mut net, 64);
    net.settle(0);
    assert!(net.nodes[1].is_busy(), "and has ended what was kept");
    assert_eq!(reply(&mut net, name), Err(RequestError::Lost(Closed::Leaving)));
    exchange(&mut net, 64);
    assert_eq!(net.nodes[1].counters().protocols[ECHO.name].received, 2);
    net.close();
}

#[test]
fn another_definition_of_the_same_protocol_has_its_own_limits() {
    let mut net = echoing();
    exchange(&mut net, 200);
    let peer = net.peer(1);
    let name = net.nodes[0].request(&peer, &STRICT, Priority::Normal, Message::from(vec![7; 200])).expect("taken");
    assert!(matches!(reply(&mut net, name), Err(RequestError::Broken(_))), "101 bytes are too many");
    net.close();
}

/// RE-06.
#[test]
fn streams_on_which_nothing_is_under_way_keep_no_others_waiting() {
    // Eight are worked on at once, and twenty are kept.
    static GREEDY: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(10), 400);
    let mut net = echoing();
    let (peer, began) = (net.peer(1), net.now);
    let mut answered = 0;
    for _ in 0..3 {
        let names: Vec<_> = (0..20)
            .map(|_| net.nodes[0].request(&peer, &GREEDY, Priority::Normal, Message::from(vec![7; 9])).expect("taken"))
            .collect();
        for name in names {
            assert_eq!(reply(&mut net, name), Ok(9));
            answered += 1;
        }
    }
    assert_eq!(answered, 60);
    assert!(net.now - began < SECOND / 2, "none has waited until another stream ended: {:?}", net.now - began);
    net.close();
}
