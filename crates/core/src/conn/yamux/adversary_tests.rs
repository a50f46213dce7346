//! Peers that lie, flood and stall, with frames made by hand. Each test names its attack.

use bytes::Bytes;
use proptest::prelude::*;
use strait_wire::yamux::{ACK, FIN, Kind, RST, SYN};

use super::testing::{Frame, drain, frames, hand, now, read_all};
use super::*;
use crate::error::Closed;
use crate::stream::StreamPort as _;

fn server() -> Session {
    let mut session = Session::new(Side::Server, &Limits::default());
    drain(&mut session);
    session
}

/// Hands the frames to a fresh server with one open stream, 1: it must end the connection for this reason, and hold nothing afterwards.
fn refuses(what: &[Frame<'_>], why: Broken) {
    let mut session = server();
    hand(&mut session, &[(Kind::Data, SYN, 1, 3, b"abc")]).expect("in order");
    session.accept();
    let before = session.streams[&1].credit_in;
    let last = what.len() - 1;
    hand(&mut session, &what[..last]).expect("the last one is the bad one");
    assert_eq!(hand(&mut session, &what[last..]), Err(why));
    assert!(before <= INITIAL_WINDOW && session.streams.is_empty() && session.chunks.cost == 0);
    assert_eq!(hand(&mut session, &[(Kind::Ping, SYN, 0, 1, b"")]), Err(why), "and stays at it");
    let said = drain(&mut session);
    assert_eq!(said.iter().map(|frame| (frame.kind, frame.length)).collect::<Vec<_>>(), [(Kind::GoAway, AWAY_PROTOCOL)]);
    let Some(ConnEvent::Lost(lost)) = session.poll() else { panic!("nothing was told") };
    assert_eq!(lost.closed, Closed::Broken(format!("yamux: {why}")));
}

#[test]
fn broken_rules_end_the_connection_and_are_named() {
    let window = INITIAL_WINDOW;
    refuses(&[(Kind::Data, 0, 0, 1, b"x")], Broken::NoStream);
    refuses(&[(Kind::Data, SYN, 2, 0, b"")], Broken::WrongSide);
    refuses(&[(Kind::WindowUpdate, SYN, 1, 0, b"")], Broken::OpenedTwice);
    refuses(&[(Kind::Data, 0, 2, 1, b"x")], Broken::NeverOpened);
    refuses(&[(Kind::Data, FIN, 1, 0, b""), (Kind::Data, 0, 1, 1, b"x")], Broken::AfterEnd);
    refuses(&[(Kind::Data, 0, 1, window - 2, b"")], Broken::BeyondWindow);
    refuses(&[(Kind::Data, SYN, 3, window + 1, b"")], Broken::BeyondWindow);
}

/// 12: credit beyond what a number can hold.
#[test]
fn window_overflow_is_refused() {
    let most = u32::MAX - INITIAL_WINDOW;
    refuses(&[(Kind::WindowUpdate, 0, 1, most, b""), (Kind::WindowUpdate, 0, 1, 1, b"")], Broken::CreditOverflow);
    refuses(&[(Kind::WindowUpdate, SYN, 3, u32::MAX, b"")], Broken::CreditOverflow);
    // What is queued and not sent counts: the peer does not know that it was taken from its credit.
    let mut session = server();
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b"")]).expect("in order");
    session.accept();
    session.port(1).write(&mut Bytes::from_static(&[0; 9])).expect("open");
    assert_eq!(hand(&mut session, &[(Kind::WindowUpdate, 0, 1, most + 1, b"")]), Err(Broken::CreditOverflow));
}

/// 8, 32: a length that nothing stands behind, also with the first frame of a stream: refused by the header, before anything is made.
#[test]
fn an_oversized_first_frame_leaves_nothing() {
    let mut session = server();
    let giant = hand(&mut session, &[(Kind::Data, SYN, 1, u32::MAX, &[0; 100])]);
    assert_eq!((giant, session.streams.len(), session.peer_streams()), (Err(Broken::BeyondWindow), 0, 0));
    refuses(&[(Kind::Data, 0, 99, 200 << 20, b"")], Broken::BeyondWindow);
    refuses(&[(Kind::Data, RST, 1, 200 << 20, b"")], Broken::BeyondWindow);
}

/// A reset's length is a code, whatever the peer means by it.
#[test]
fn the_code_of_a_reset_is_never_credit() {
    let mut session = server();
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b"")]).expect("in order");
    session.accept();
    hand(&mut session, &[(Kind::WindowUpdate, RST, 1, u32::MAX, b"")]).expect("in order");
    assert_eq!(session.port(1).write(&mut Bytes::from_static(b"x")), Err(u64::from(u32::MAX)));
    hand(&mut session, &[(Kind::WindowUpdate, RST, 1, u32::MAX, b""), (Kind::WindowUpdate, RST, 77, u32::MAX, b"")])
        .expect("late or early, it is nothing");
}

/// 9: streams opened and reset at once. Nothing is kept of them, nothing is told, and each is paid for.
#[test]
fn rapid_resets_leave_nothing_and_cost_work() {
    let mut session = server();
    session.take_work();
    let held = session.held();
    for round in 0..10_000u32 {
        let id = 2 * round + 1;
        hand(&mut session, &[(Kind::Data, SYN, id, 1, b"x"), (Kind::WindowUpdate, RST, id, 0, b"")]).expect("in order");
        assert!(session.held() <= held + 4096, "round {round}: {} bytes", session.held());
    }
    assert!(session.poll().is_none() && session.accept().is_none() && drain(&mut session).is_empty());
    assert_eq!(session.take_work(), 10_000 * (25 + 2 * FRAME_WORK));
}

/// 9: the same with streams that were accepted, whose owner has not looked yet.
#[test]
fn accepted_streams_that_are_reset_count_until_their_owner_has_seen_it() {
    let mut session = server();
    for id in [1, 3, 5, 7, 9, 11, 13, 15, 17] {
        hand(&mut session, &[(Kind::Data, SYN, id, 0, b"")]).expect("in order");
        session.accept();
        hand(&mut session, &[(Kind::WindowUpdate, RST, id, 0, b"")]).expect("in order");
    }
    assert_eq!(session.accepted, 8, "as many as it has credit for");
    for id in 1..16 {
        session.port(id).stop(0);
    }
    while session.poll().is_some() {}
    assert_eq!((session.accepted, session.streams.len()), (0, 0), "the ninth was reset before anybody saw it");
}

/// 10: our resets forced while nobody takes them. Those of accepted streams count against the credit until they have left, and those of
/// refused ones have a queue that ends the connection.
#[test]
fn resets_that_nobody_takes_are_bounded() {
    let mut session = server();
    let mut id = 1;
    for _ in 0..BACKLOG_MAX + 8 {
        hand(&mut session, &[(Kind::Data, SYN, id, 0, b"")]).expect("they wait");
        if let Some(accepted) = session.accept() {
            session.port(accepted).reset(1);
            session.port(accepted).stop(1);
        }
        id += 2;
    }
    assert_eq!((session.accepted, session.backlog.len()), (8, BACKLOG_MAX));
    for _ in 0..REFUSALS_MAX {
        hand(&mut session, &[(Kind::Data, SYN, id, 0, b"")]).expect("refused");
        id += 2;
    }
    assert_eq!(session.refused(), REFUSALS_MAX as u64);
    session.assert_bounded(64);
    assert_eq!(hand(&mut session, &[(Kind::Data, SYN, id, 0, b"")]), Err(Broken::Opens));
    assert!(session.held() < 4096);
}

/// A peer that keeps to the specification's ACK backlog is never refused, however little credit it has.
#[test]
fn streams_beyond_the_credit_wait_and_are_accepted_in_turn() {
    let mut session = server();
    for round in 0..256u32 {
        hand(&mut session, &[(Kind::Data, SYN, 2 * round + 1, 2, b"hi")]).expect("it waits");
    }
    let mut served = Vec::new();
    while served.len() < 256 {
        assert!(std::iter::from_fn(|| session.poll()).any(|event| matches!(event, ConnEvent::Opened)), "{}", served.len());
        while let Some(id) = session.accept() {
            session.port(id).reset(0);
            assert_eq!(read_all(&mut session, id).0, b"hi");
            served.push(id);
        }
        assert!(session.accepted <= 8);
        drain(&mut session);
    }
    while session.poll().is_some() {}
    assert!(served.is_sorted() && session.refused() == 0 && session.streams.is_empty());
}

/// 11, 13: a window that never opens, and one that opens by the byte. Neither pins more than the peer's own credit.
#[test]
fn a_zero_window_pins_nothing_here() {
    let mut session = server();
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b"")]).expect("in order");
    session.accept();
    session.set_send_window(1 << 20);
    let mut all = Bytes::from(vec![0; 1 << 20]);
    while session.port(1).write(&mut all).expect("open") > 0 {
        drain(&mut session);
    }
    assert_eq!((all.len(), session.send_cost), ((1 << 20) - INITIAL_WINDOW as usize, 0));
    for _ in 0..100 {
        hand(&mut session, &[(Kind::WindowUpdate, 0, 1, 1, b"")]).expect("in order");
        assert_eq!(session.port(1).write(&mut all), Ok(1));
        assert_eq!(drain(&mut session).len(), 1);
    }
    assert_eq!(session.send_cost, 0);
}

/// 13: frames without bytes, and with one.
#[test]
fn empty_and_tiny_frames_are_paid_for() {
    let mut session = server();
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b"")]).expect("in order");
    session.accept();
    session.take_work();
    for what in [(Kind::Data, 0, 1, 0, &b""[..]), (Kind::Data, 0, 1, 1, b"x"), (Kind::WindowUpdate, 0, 1, 0, b"")] {
        let flood = frames(&vec![what; 1000]);
        let bytes = flood.len() as u64;
        session.handle(now(), flood).expect("in order");
        let work = session.take_work();
        assert!(work >= 64 * 1000 && work <= bytes + 64 * 1000, "{work} for {bytes} bytes");
    }
    assert!(session.chunks.cost < 8 << 10, "a thousand single bytes cost {}", session.chunks.cost);
    assert!(drain(&mut session).len() <= 2, "and nothing is answered beside the acknowledgement");
}

/// 14: all windows of all streams filled and left unread: reading stops at the connection's window.
#[test]
fn windows_that_nobody_reads_stop_the_reading() {
    let mut session = server();
    session.set_receive_window(1 << 20);
    let body = vec![0; 16 << 10];
    let mut sent = 0u64;
    'all: for round in 0..16u32 {
        for id in (1..60).step_by(2) {
            if !session.wants_input() {
                break 'all;
            }
            let flags = if round == 0 { SYN } else { 0 };
            hand(&mut session, &[(Kind::Data, flags, id, 16 << 10, &body)]).expect("in order");
            session.assert_bounded(CHUNK_BYTES_MAX);
            sent += 16 << 10;
        }
    }
    assert!(sent <= (1 << 20) + (16 << 10), "{sent} bytes were read");
    assert_eq!(session.data_blocked(), 1);
    while let Some(id) = session.accept() {
        session.port(id).stop(0);
    }
    assert!(session.wants_input(), "and goes on when there is room");
    assert!(session.refuse_newest(), "what nobody has accepted can be given up");
    assert!(drain(&mut session).iter().any(|frame| frame.flags & RST == RST && frame.stream == 59));
}

/// 15, 51: not a word of credit, and the pipe takes nothing: closing is one frame.
#[test]
fn closing_waits_for_nobody() {
    let mut session = server();
    hand(&mut session, &[(Kind::Data, SYN, 1, INITIAL_WINDOW, &vec![0; INITIAL_WINDOW as usize])]).expect("in order");
    session.accept();
    while session.port(1).write(&mut Bytes::from_static(&[0; 4096])).expect("open") > 0 {}
    assert!(!session.wants_input());
    session.close(0);
    let mut out = Vec::new();
    assert_eq!((session.poll_output(now(), 0, &mut out), session.is_closed()), (12, true));
}

/// 16: pings without end. Equal ones share an answer; too many that wait end the connection.
#[test]
fn pings_are_bounded() {
    let mut session = server();
    for _ in 0..1000 {
        hand(&mut session, &[(Kind::Ping, SYN, 0, 7, b""), (Kind::Ping, ACK, 0, 7, b"")]).expect("in order");
    }
    assert_eq!(drain(&mut session).len(), 1);
    for value in 0..1000 {
        hand(&mut session, &[(Kind::Ping, SYN, 0, value, b"")]).expect("who takes the answers may ask");
        assert_eq!(drain(&mut session).len(), 1);
    }
    for value in 0..PONGS_MAX as u32 {
        hand(&mut session, &[(Kind::Ping, SYN, 0, value, b"")]).expect("so many may wait");
    }
    assert_eq!(hand(&mut session, &[(Kind::Ping, SYN, 0, 99, b"")]), Err(Broken::Pings));
    // An answer is never answered.
    let mut session = server();
    hand(&mut session, &[(Kind::Ping, SYN | ACK, 0, 3, b""), (Kind::Ping, 0, 0, 4, b"")]).expect("ignored");
    assert!(drain(&mut session).is_empty());
}

/// 7: frames that come byte by byte are the same frames.
#[test]
fn one_byte_at_a_time_is_the_same() {
    let mut session = server();
    let all = frames(&[(Kind::Data, SYN, 1, 5, b"hello"), (Kind::Data, FIN, 1, 6, b" world")]);
    for at in 0..all.len() {
        session.handle(now(), all.slice(at..at + 1)).expect("in order");
        session.assert_bounded(1);
    }
    assert_eq!(session.accept(), Some(1));
    assert_eq!(read_all(&mut session, 1), (b"hello world".to_vec(), Some(Ok(()))));
}

/// Frames for streams that are over are dropped, and nothing is remembered of those streams.
#[test]
fn late_frames_are_dropped() {
    let mut session = server();
    let own = session.open().expect("room") as u32;
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b"")]).expect("in order");
    session.accept();
    session.port(1).reset(0);
    session.port(1).stop(0);
    session.port(own.into()).reset(0);
    session.port(own.into()).stop(0);
    drain(&mut session);
    while session.poll().is_some() {}
    let held = session.held();
    assert_eq!(session.streams.len(), 0);
    for id in [1, own] {
        let body = [0; 9];
        let late =
            [(Kind::Data, 0, id, 9, &body[..]), (Kind::WindowUpdate, FIN, id, 9, b""), (Kind::WindowUpdate, RST, id, 9, b"")];
        hand(&mut session, &late).expect("they were on their way");
    }
    assert_eq!((session.streams.len(), session.held()), (0, held));
    assert!(drain(&mut session).is_empty());
}

/// Replays the fuzz corpus: scripts for a session of either side.
#[test]
fn fuzz_corpus() {
    for target in ["yamux_session", "yamux"] {
        for bytes in crate::seeds::seeds(target) {
            for end in 0..=bytes.len() {
                fuzz::session(now(), &bytes[..end]);
            }
            // As the peer's bytes alone, in one piece.
            for side in [Side::Client, Side::Server] {
                let mut session = Session::new(side, &Limits::default());
                let _ = session.handle(now(), Bytes::copy_from_slice(&bytes));
                session.assert_bounded(CHUNK_BYTES_MAX);
            }
        }
    }
}

proptest! {
    /// Any bytes, and anything done at the same time.
    #[test]
    fn total(script in proptest::collection::vec(any::<u8>(), 0..2000)) {
        fuzz::session(now(), &script);
    }
}
