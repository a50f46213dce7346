//! Two nodes on one wire.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use harness::{Faults, Net};
use strait_core::{
    Breach, DialError, Event, Idle, Limits, Message, Priority, RawRead, Refused, Request, RequestError, StreamError,
    StreamProtocol, StreamRef,
};

static ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(10), 8);
static SMALL: Request = Request::new("/test/echo/1", 1 << 20, 100, Duration::from_secs(10), 8);
static OTHER: Request = Request::new("/test/other/1", 100, 100, Duration::from_secs(10), 8);
static CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 4, Idle::After(Duration::from_secs(60)));

/// How the nodes are joined: here by datagrams, and in `pair_over_tls.rs` and `pair_over_noise.rs`, which run the same tests, by pipes.
#[allow(dead_code, reason = "those have their own")]
const OVER: Option<&[&str]> = None;

fn join(nodes: usize) -> Net {
    let limits = vec![Limits::default(); nodes];
    match crate::OVER {
        None => Net::new(limits),
        Some(security) => Net::over_pipes(limits, security),
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

fn echoing() -> Net {
    let mut net = join(2);
    net.nodes[1].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    net.nodes[1].serve_stream(&CHAT, Priority::Normal).expect("a good definition");
    net.echo[1] = true;
    net
}

fn ask(net: &mut Net, def: &'static Request, body: Vec<u8>) -> StreamRef {
    let peer = net.peer(1);
    net.nodes[0].request(&peer, def, Priority::Normal, Message::from(body)).expect("taken")
}

fn reply(net: &mut Net, wanted: StreamRef) -> Result<Vec<u8>, RequestError> {
    net.next(0, |event| match event {
        Event::Reply { stream, result } if *stream == wanted => Some(result.clone().map(|message| message.into_bytes().to_vec())),
        _ => None,
    })
}

#[test]
fn both_sides_know_each_other() {
    let mut net = echoing();
    net.connect(0, 1);
    let (a, b) = (net.peer(0), net.peer(1));
    assert!(net.nodes[0].is_connected(&b) && net.nodes[1].is_connected(&a));
    let about_b = net.nodes[0].identity(&b).expect("identified");
    assert_eq!(about_b.agent, "test/1");
    assert!(about_b.protocols.iter().any(|name| name == ECHO.name));
    assert_eq!(net.nodes[1].identity(&a).expect("identified").agent, "test/0");
    for node in 0..2 {
        assert_eq!(net.count(node, |event| matches!(event, Event::Connected { .. })), 1);
    }
    net.close();
}

#[test]
fn a_ping_takes_a_round_trip() {
    let mut net = echoing();
    net.connect(0, 1);
    let peer = net.peer(1);
    let name = net.nodes[0].ping(&peer).expect("connected");
    let time = net.next(0, |event| match event {
        Event::Pong { stream, result } if *stream == name => Some(result.clone()),
        _ => None,
    });
    assert_eq!(time, Ok(2 * net.latency));
    net.close();
}

#[test]
fn requests_of_all_sizes_are_answered() {
    let mut net = echoing();
    net.connect(0, 1);
    for len in [0, 64, 5000, 1 << 20] {
        let name = ask(&mut net, &ECHO, bytes(len));
        assert!(reply(&mut net, name) == Ok(bytes(len)), "{len} bytes");
    }
    assert_eq!(net.nodes[1].counters().protocols[ECHO.name].served, 4);
    net.close();
}

#[test]
fn beyond_the_window_requests_are_refused_here_and_nothing_is_lost() {
    let mut net = echoing();
    net.connect(0, 1);
    let peer = net.peer(1);
    let (mut open, mut refused, mut done) = (Vec::new(), 0, 0);
    while done < 100 {
        match net.nodes[0].request(&peer, &ECHO, Priority::Normal, Message::from(bytes(done + 1))) {
            Ok(name) => open.push((name, done + 1)),
            Err((Refused::Window, body)) => {
                assert_eq!(body.len(), done + 1, "the request comes back");
                refused += 1;
                assert_eq!(open.len(), usize::from(ECHO.per_peer_max));
                for (name, _) in std::mem::take(&mut open) {
                    assert!(reply(&mut net, name).is_ok());
                    done += 1;
                }
            }
            Err((other, _)) => panic!("{other}"),
        }
    }
    assert!(refused >= 12, "{refused}");
    net.close();
}

#[test]
fn negotiation_and_first_request_leave_in_one_datagram() {
    let mut net = echoing();
    net.connect(0, 1);
    net.run(Duration::from_secs(1));
    let before = net.sent[0].len();
    let name = ask(&mut net, &ECHO, bytes(200));
    net.settle(0);
    assert_eq!(net.sent[0].len() - before, 1);
    assert!(net.sent[0][before] > 200);
    let back = net.sent[1].len();
    assert_eq!(reply(&mut net, name), Ok(bytes(200)));
    assert_eq!(net.sent[1].len() - back, 1, "and agreement and reply too");
    net.close();
}

#[test]
fn many_requests_of_one_turn_share_datagrams() {
    let mut net = echoing();
    net.connect(0, 1);
    net.run(Duration::from_secs(1));
    let before = net.sent[0].len();
    let names: Vec<_> = (0..8).map(|_| ask(&mut net, &ECHO, bytes(50))).collect();
    net.settle(0);
    assert_eq!(net.sent[0].len() - before, 1);
    for name in names {
        assert_eq!(reply(&mut net, name), Ok(bytes(50)));
    }
    net.close();
}

#[test]
fn what_is_too_large_or_unknown_is_told() {
    let mut net = echoing();
    net.connect(0, 1);
    let name = ask(&mut net, &SMALL, bytes(101));
    assert_eq!(reply(&mut net, name), Err(RequestError::Broken(Breach::TooLarge { len: 101, max: 100 })));
    let name = ask(&mut net, &OTHER, bytes(10));
    assert_eq!(reply(&mut net, name), Err(RequestError::Unsupported(OTHER.name)));
    let peer = net.peer(1);
    let refused = net.nodes[0].request(&peer, &OTHER, Priority::Normal, Message::from(bytes(101)));
    assert!(matches!(refused, Err((Refused::TooLarge { len: 101, max: 100 }, _))));
    let name = ask(&mut net, &ECHO, bytes(10));
    assert_eq!(reply(&mut net, name), Ok(bytes(10)), "the connection is as good as before");
    net.run(Duration::from_secs(2));
    let streams: usize = net.nodes.iter().map(|node| node.audit().streams).sum();
    assert_eq!(streams, 0, "nothing is left of any of them");
    net.close();
}

fn pump(net: &mut Net, node: usize, stream: StreamRef, data: &mut Bytes) {
    net.until(|net| {
        while !data.is_empty() && net.nodes[node].write(net.now, stream, data).expect("can be written") > 0 {}
        net.settle(node);
        data.is_empty()
    });
}

fn read_to_end(net: &mut Net, node: usize, stream: StreamRef) -> Vec<u8> {
    let mut all = Vec::new();
    net.until(|net| {
        loop {
            match net.nodes[node].read(net.now, stream, 1 << 16).expect("not reset") {
                RawRead::Chunk(chunk) => all.extend_from_slice(&chunk),
                RawRead::Blocked => {
                    net.settle(node);
                    return false;
                }
                RawRead::Finished => return true,
            }
        }
    });
    all
}

fn ended(net: &mut Net, node: usize, wanted: StreamRef) -> Option<StreamError> {
    net.next(node, |event| match event {
        Event::Ended { stream, error } if *stream == wanted => Some(error.clone()),
        _ => None,
    })
}

fn opened(net: &mut Net) -> (StreamRef, StreamRef) {
    let peer = net.peer(1);
    let ours = net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("connected");
    let theirs = net.next(1, |event| match event {
        Event::Stream { stream, .. } => Some(*stream),
        _ => None,
    });
    (ours, theirs)
}

#[test]
fn the_directions_of_a_raw_stream_end_one_at_a_time() {
    let mut net = echoing();
    net.connect(0, 1);
    let (ours, theirs) = opened(&mut net);
    pump(&mut net, 0, ours, &mut Bytes::from_static(b"up"));
    net.nodes[0].finish(net.now, ours).expect("open");
    assert_eq!(read_to_end(&mut net, 1, theirs), b"up");
    assert!(net.nodes[0].write(net.now, ours, &mut Bytes::from_static(b"x")).unwrap_or(0) == 0, "our direction has ended");
    net.run(Duration::from_secs(5));
    assert_eq!(net.count(0, |event| matches!(event, Event::Ended { .. })), 0, "the other goes on");
    let (mut data, mut all) = (Bytes::from(bytes(300_000)), Vec::new());
    net.until(|net| {
        while !data.is_empty() && net.nodes[1].write(net.now, theirs, &mut data).expect("can be written") > 0 {}
        net.settle(1);
        while let RawRead::Chunk(chunk) = net.nodes[0].read(net.now, ours, 1 << 16).expect("not reset") {
            all.extend_from_slice(&chunk);
        }
        net.settle(0);
        data.is_empty()
    });
    net.nodes[1].finish(net.now, theirs).expect("open");
    all.extend(read_to_end(&mut net, 0, ours));
    assert!(all == bytes(300_000));
    assert_eq!(ended(&mut net, 0, ours), None);
    assert_eq!(ended(&mut net, 1, theirs), None);
    net.close();
}

#[test]
fn an_upload_may_refuse_the_other_direction_at_once() {
    let mut net = echoing();
    net.connect(0, 1);
    let peer = net.peer(1);
    let ours = net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("connected");
    net.nodes[0].stop(net.now, ours, 3);
    pump(&mut net, 0, ours, &mut Bytes::from(bytes(1000)));
    net.nodes[0].finish(net.now, ours).expect("open");
    let theirs = net.next(1, |event| match event {
        Event::Stream { stream, .. } => Some(*stream),
        _ => None,
    });
    assert_eq!(read_to_end(&mut net, 1, theirs), bytes(1000));
    assert_eq!(ended(&mut net, 0, ours), None);
    assert_eq!(ended(&mut net, 1, theirs), Some(StreamError::Stopped(3)), "refused, and finished by the peer");
    net.close();
}

#[test]
fn a_reset_is_not_an_end() {
    let mut net = echoing();
    net.connect(0, 1);
    let (ours, theirs) = opened(&mut net);
    net.nodes[0].reset(net.now, ours, 42);
    net.until(|net| !matches!(net.nodes[1].read(net.now, theirs, 100), Ok(RawRead::Blocked)));
    assert_eq!(net.nodes[1].read(net.now, theirs, 100), Err(StreamError::Reset(42)));
    // It ends both directions, whatever is below, and is told as what it is.
    assert_eq!(ended(&mut net, 1, theirs), Some(StreamError::Reset(42)));
    assert_eq!(ended(&mut net, 0, ours), Some(StreamError::Reset(42)));
    net.close();
}

#[test]
fn another_identity_is_named() {
    let mut net = join(3);
    let wanted = net.peer(2);
    net.dial_as(0, 1, wanted);
    let error = net.next(0, |event| match event {
        Event::DialFailed { error, .. } => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error, DialError::WrongPeer { wanted, found: net.peer(1) });
    net.run(Duration::from_secs(3));
    assert_eq!(net.count(1, |event| matches!(event, Event::Connected { .. })), 0);
    net.close();
}

#[test]
fn each_stream_has_one_outcome_when_the_connection_ends() {
    for side in 0..2 {
        let mut net = echoing();
        net.echo[1] = false;
        net.connect(0, 1);
        let (ours, theirs) = opened(&mut net);
        let name = ask(&mut net, &ECHO, bytes(10));
        let taken = net.next(1, |event| match event {
            Event::Request { stream, .. } => Some(*stream),
            _ => None,
        });
        // One that cannot be open yet: it was asked for in this very turn.
        let late = ask(&mut net, &ECHO, bytes(10));
        let peer = net.peer(1 - side);
        net.nodes[side].disconnect(net.now, &peer);
        net.run(Duration::from_secs(40));
        for (wanted, kind) in [(name, "asked"), (late, "asked late")] {
            let outcomes = net.count(
                0,
                |event| matches!(event, Event::Reply { stream, result: Err(RequestError::Lost(_)) } if *stream == wanted),
            );
            assert_eq!(outcomes, 1, "{kind}, closed by {side}");
        }
        assert_eq!(net.count(0, |event| matches!(event, Event::Ended { stream, .. } if *stream == ours)), 1);
        assert_eq!(net.count(1, |event| matches!(event, Event::Ended { stream, .. } if *stream == theirs)), 1);
        assert_eq!(net.count(1, |event| matches!(event, Event::Withdrawn { stream } if *stream == taken)), 1);
        for node in 0..2 {
            assert_eq!(net.count(node, |event| matches!(event, Event::Disconnected { .. })), 1);
            assert!(matches!(net.events[node].back(), Some(Event::Disconnected { .. })), "streams first: {:?}", net.events[node]);
        }
        assert!(matches!(net.nodes[1].reply(taken, Message::new()), Err(Refused::Gone)));
        net.close();
    }
}

#[test]
fn a_cancelled_request_is_withdrawn_and_says_nothing_more() {
    let mut net = echoing();
    net.echo[1] = false;
    net.connect(0, 1);
    let name = ask(&mut net, &ECHO, bytes(10));
    let taken = net.next(1, |event| match event {
        Event::Request { stream, .. } => Some(*stream),
        _ => None,
    });
    net.nodes[0].cancel(name);
    let withdrawn = net.next(1, |event| match event {
        Event::Withdrawn { stream } => Some(*stream),
        _ => None,
    });
    assert_eq!(withdrawn, taken);
    net.run(Duration::from_secs(15));
    assert_eq!(net.count(0, |event| matches!(event, Event::Reply { .. })), 0);
    net.close();
}

#[test]
fn a_declined_request_is_told_to_the_client_and_is_no_breach() {
    let mut net = echoing();
    net.echo[1] = false;
    net.connect(0, 1);
    let name = ask(&mut net, &ECHO, bytes(10));
    let taken = net.next(1, |event| match event {
        Event::Request { stream, .. } => Some(*stream),
        _ => None,
    });
    net.nodes[1].reject(taken).expect("there");
    assert!(matches!(reply(&mut net, name), Err(RequestError::Rejected(_))));
    assert_eq!(net.nodes[1].counters().totals.breaches, 0);
    assert_eq!(net.count(1, |event| matches!(event, Event::Withdrawn { .. })), 0);
    net.close();
}

#[test]
fn a_wire_that_loses_doubles_and_corrupts_delivers_all_the_same() {
    for seed in 1..=4 {
        let mut net = echoing();
        net.seed(seed);
        net.faults = Faults { drop: 5, duplicate: 5, corrupt: 5 };
        net.connect(0, 1);
        let names: Vec<_> = (0..8).map(|at| (ask(&mut net, &ECHO, bytes(at * 9000)), at * 9000)).collect();
        for (name, len) in names {
            assert!(reply(&mut net, name) == Ok(bytes(len)), "seed {seed}, {len} bytes");
        }
        net.close();
    }
}

#[test]
fn an_idle_pair_stays_connected_and_a_vanished_peer_is_noticed() {
    let mut net = echoing();
    net.connect(0, 1);
    net.run(Duration::from_secs(120));
    let peer = net.peer(1);
    assert!(net.nodes[0].is_connected(&peer));
    let name = ask(&mut net, &ECHO, bytes(10));
    assert_eq!(reply(&mut net, name), Ok(bytes(10)));
    net.faults.drop = 100;
    net.run(Duration::from_secs(60));
    for node in 0..2 {
        assert_eq!(net.count(node, |event| matches!(event, Event::Disconnected { .. })), 1);
    }
    net.close();
}

#[test]
fn a_peer_that_was_restarted_is_reached_over_its_new_connection() {
    let mut net = echoing();
    net.connect(1, 0);
    net.restart(0, Default::default());
    net.nodes[0].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    net.echo[0] = true;
    net.connect(0, 1);
    let peer = net.peer(0);
    let name = net.nodes[1].request(&peer, &ECHO, Priority::Normal, Message::from(bytes(10))).expect("connected");
    let result = net.next(1, |event| match event {
        Event::Reply { stream, result } if *stream == name => Some(result.clone().map(|message| message.into_bytes().to_vec())),
        _ => None,
    });
    assert_eq!(result, Ok(bytes(10)));
    net.close();
}

#[test]
fn a_node_is_busy_until_its_last_reply_has_arrived() {
    let mut net = echoing();
    net.echo[1] = false;
    net.connect(0, 1);
    net.run(Duration::from_secs(1));
    assert!(!net.nodes[1].is_busy());
    let name = ask(&mut net, &ECHO, bytes(10));
    let (stream, body) = net.next(1, |event| match event {
        Event::Request { stream, body, .. } => Some((*stream, body.clone())),
        _ => None,
    });
    net.faults.drop = 100;
    net.nodes[1].reply(stream, body).expect("there");
    net.run(Duration::from_millis(200));
    assert!(net.nodes[1].is_busy(), "the reply was lost and has to be sent again");
    net.faults.drop = 0;
    assert_eq!(reply(&mut net, name), Ok(bytes(10)));
    net.run(Duration::from_secs(1));
    assert!(!net.nodes[1].is_busy());
    net.close();
}

/// Has node 1 answer with 40,000 bytes, which fit its send window, so that all of it is in the transport's hands at once. Returns what
/// is granted while nothing is acknowledged; then lets the reply arrive.
fn unacknowledged_reply(net: &mut Net) -> u64 {
    let name = ask(net, &ECHO, bytes(10));
    let stream = net.next(1, |event| match event {
        Event::Request { stream, .. } => Some(*stream),
        _ => None,
    });
    net.faults.drop = 100;
    net.nodes[1].reply(stream, Message::from(bytes(40_000))).expect("there");
    net.run(Duration::from_millis(200));
    let granted = net.nodes[1].audit().granted;
    net.faults.drop = 0;
    assert_eq!(reply(net, name), Ok(bytes(40_000)));
    granted
}

#[test]
fn a_reply_is_granted_until_it_is_acknowledged() {
    let mut net = echoing();
    net.echo[1] = false;
    net.connect(0, 1);
    // Windows grow with the first exchange of this size, and not with the second.
    unacknowledged_reply(&mut net);
    net.run(Duration::from_secs(1));
    let idle = net.nodes[1].audit().granted;
    let held = unacknowledged_reply(&mut net) >= idle + 40_000;
    assert_eq!(held, !net.is_over_pipes(), "the transport holds it until the peer has it, or the pipe");
    net.run(Duration::from_secs(1));
    assert_eq!(net.nodes[1].audit().granted, idle);
    net.close();
}

#[test]
fn a_reply_that_is_never_acknowledged_is_given_up() {
    let mut net = echoing();
    net.echo[1] = false;
    net.connect(0, 1);
    net.run(Duration::from_secs(1));
    ask(&mut net, &ECHO, bytes(10));
    let stream = net.next(1, |event| match event {
        Event::Request { stream, .. } => Some(*stream),
        _ => None,
    });
    net.faults.drop = 100;
    net.nodes[1].reply(stream, Message::from(bytes(40_000))).expect("there");
    net.run(Duration::from_secs(40));
    assert_eq!(net.nodes[1].audit().streams, 0);
    net.faults.drop = 0;
    net.close();
}
