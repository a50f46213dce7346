//! Nodes on pipes: what is peculiar to them. What they have in common with datagrams is in `pair.rs`.

mod harness;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use harness::{Net, address};
use strait_core::{
    Closed, DialError, Event, Idle, Limits, Message, PipeAction, PipeEnd, PipeEvent, Priority, RawRead, Request, StreamProtocol,
};

const BOTH: &[&str] = &["/tls/1.0.0", "/noise"];

static ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(10), 8);
static CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 4, Idle::After(Duration::from_secs(600)));

fn net(limits: Limits) -> Net {
    let mut net = Net::over_pipes(vec![Limits::default(), limits], BOTH);
    net.nodes[1].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    net.nodes[1].serve_stream(&CHAT, Priority::Normal).expect("a good definition");
    net.echo[1] = true;
    net
}

#[test]
fn an_app_that_does_not_read_stops_the_pipe_and_nothing_is_lost() {
    let mut net = net(Limits::default());
    net.connect(0, 1);
    let peer = net.peer(1);
    let ours = net.nodes[0].open(&peer, &CHAT, Priority::Normal).expect("connected");
    let theirs = net.next(1, |event| if let Event::Stream { stream, .. } = event { Some(*stream) } else { None });
    let mut data = Bytes::from(vec![7; 40 << 20]);
    let whole = data.len();
    let mut sent = 0;
    loop {
        let taken = net.nodes[0].write(net.now, ours, &mut data).expect("open");
        sent += taken;
        net.run(Duration::from_millis(50));
        if taken == 0 {
            break;
        }
    }
    assert!(sent < whole / 2, "{sent} bytes were taken and nobody reads");
    // Everybody else on the same connection goes on.
    let ping = net.nodes[0].ping(&peer).expect("connected");
    net.run(Duration::from_secs(20));
    assert_eq!(net.count(0, |event| matches!(event, Event::Pong { stream, result: Ok(_) } if *stream == ping)), 1);
    let mut read = 0;
    net.until(|net| {
        while let RawRead::Chunk(chunk) = net.nodes[1].read(net.now, theirs, 1 << 20).expect("not reset") {
            read += chunk.len();
        }
        net.settle(1);
        while !data.is_empty() && net.nodes[0].write(net.now, ours, &mut data).expect("open") > 0 {}
        net.settle(0);
        read == whole
    });
    net.close();
}

#[test]
fn a_changed_byte_ends_the_connection_and_the_next_one_works() {
    let mut net = net(Limits::default());
    net.connect(0, 1);
    net.pipes.corrupt_every = Some(5_000);
    let peer = net.peer(1);
    net.nodes[0].request(&peer, &ECHO, Priority::Normal, Message::from(vec![1; 20_000])).expect("taken");
    let reason = net.next(1, |event| if let Event::Disconnected { reason, .. } = event { Some(reason.clone()) } else { None });
    assert!(matches!(reason, Closed::Broken(_)), "{reason:?}");
    net.pipes.corrupt_every = None;
    net.run(Duration::from_secs(1));
    net.connect(0, 1);
    net.close();
}

#[test]
fn silent_strangers_are_few_and_go_in_time() {
    let limits = Limits { handshakes_max: 4, retry_from: 4, ..Limits::default() };
    let mut net = net(limits.clone());
    let accepted: Vec<_> = (0..20).filter_map(|_| net.nodes[1].accept_pipe(net.now, address(9))).collect();
    assert_eq!(accepted.len(), 4);
    for conn in &accepted {
        net.nodes[1].handle_pipe(net.now, *conn, PipeEvent::Data(BytesMut::from(&b"\x13/multistream"[..])));
    }
    net.now += limits.handshake_deadline;
    net.nodes[1].handle_timeout(net.now);
    while net.nodes[1].drive(net.now) {}
    let mut buffer = Vec::new();
    let mut closed = Vec::new();
    while let Some(action) = net.nodes[1].poll_pipe(net.now, &mut buffer) {
        if let PipeAction::Close { conn, .. } = action {
            closed.push(conn);
        }
    }
    closed.sort();
    assert_eq!(closed, accepted);
    assert!(net.nodes[1].accept_pipe(net.now, address(9)).is_some(), "their places are free");
}

#[test]
fn garbage_is_closed_at_once() {
    let mut net = net(Limits::default());
    let conn = net.nodes[1].accept_pipe(net.now, address(9)).expect("room");
    net.nodes[1].handle_pipe(net.now, conn, PipeEvent::Data(BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..])));
    while net.nodes[1].drive(net.now) {}
    let action = net.nodes[1].poll_pipe(net.now, &mut Vec::new());
    assert!(matches!(action, Some(PipeAction::Close { conn: closed, .. }) if closed == conn), "{action:?}");
    assert!(net.nodes[1].is_empty());
    assert!(
        !net.nodes[1].handle_pipe(net.now, conn, PipeEvent::Data(BytesMut::from(&b"late"[..]))),
        "the name is not valid any more"
    );
}

#[test]
fn nobody_listens() {
    let mut net = net(Limits::default());
    let peer = net.peer(1);
    let conn = net.nodes[0].dial_pipe(net.now, address(1), peer).expect("room");
    let mut buffer = Vec::new();
    assert_eq!(net.nodes[0].poll_pipe(net.now, &mut buffer), Some(PipeAction::Connect { conn, remote: address(1) }));
    assert_eq!(net.nodes[0].poll_pipe(net.now, &mut buffer), None, "nothing is said before the pipe is there");
    net.nodes[0].handle_pipe(net.now, conn, PipeEvent::End(PipeEnd::Refused));
    while net.nodes[0].drive(net.now) {}
    let Some(Event::DialFailed { error: DialError::NothingListens, .. }) = net.nodes[0].poll_event() else {
        panic!("it has failed");
    };
    assert!(
        matches!(net.nodes[0].poll_pipe(net.now, &mut buffer), Some(PipeAction::Close { conn: closed, .. }) if closed == conn)
    );
    assert!(net.nodes[0].is_empty());
}

#[test]
fn a_pipe_that_never_comes_is_no_answer() {
    let mut net = net(Limits::default());
    let peer = net.peer(1);
    net.nodes[0].dial_pipe(net.now, address(77), peer).expect("room");
    let error = net.next(0, |event| if let Event::DialFailed { error, .. } = event { Some(error.clone()) } else { None });
    assert_eq!(error, DialError::NoAnswer { waited: Limits::default().handshake_deadline });
    net.run(Duration::from_secs(20));
    assert!(net.nodes[0].is_empty());
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let mut net = Net::over_pipes(vec![Limits::default(); 2], &["/noise"]);
        net.connect(0, 1);
        let stream = net.sent.clone();
        net.close();
        stream
    };
    assert_eq!(run(), run());
}
