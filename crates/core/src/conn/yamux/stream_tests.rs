//! Streams as their owners see them: how they end, who goes first, how windows grow, what time brings.

use std::time::Duration;

use bytes::Bytes;
use strait_wire::yamux::{ACK, FIN, Header, Kind, RST, SYN};

use super::testing::{self, Pair, drain, frames, hand, headers, now, read_all};
use super::*;
use crate::error::Closed;
use crate::proto::Priority;
use crate::stream::{Read, StreamPort as _};

fn write(session: &mut Session, id: u64, bytes: &'static [u8]) -> usize {
    session.port(id).write(&mut Bytes::from_static(bytes)).expect("not refused")
}

#[test]
fn the_directions_of_a_stream_end_one_at_a_time() {
    let mut pair = Pair::new();
    let id = pair.client.open().expect("room");
    assert_eq!(write(&mut pair.client, id, b"request"), 7);
    pair.client.port(id).finish();
    pair.shuttle();
    assert!(matches!(pair.server.poll(), Some(ConnEvent::Opened)));
    assert_eq!(pair.server.accept(), Some(id));
    assert_eq!(read_all(&mut pair.server, id), (b"request".to_vec(), Some(Ok(()))));
    assert_eq!(write(&mut pair.server, id, b"late answer"), 11, "their end is not ours");
    pair.server.port(id).finish();
    pair.shuttle();
    assert_eq!(read_all(&mut pair.client, id), (b"late answer".to_vec(), Some(Ok(()))));
    let told = pair.events();
    assert!(told.iter().any(|event| event == "client Delivered(1)") && told.iter().any(|event| event == "server Delivered(1)"));
    assert_eq!((pair.client.streams.len(), pair.server.streams.len()), (0, 0), "nothing is remembered");
    assert_eq!((pair.client.unacknowledged(), pair.server.peer_streams()), (0, 0));
}

#[test]
fn the_first_frame_opens_and_an_empty_one_closes() {
    let mut session = Session::new(Side::Client, &Limits::default());
    drain(&mut session);
    let id = session.open().expect("room");
    assert_eq!(drain(&mut session), [], "a stream without bytes is not told of");
    write(&mut session, id, b"all");
    session.port(id).finish();
    // In frames of their own: js-libp2p reads the flags of a frame before its body.
    let told = [(SYN, 3), (FIN, 0)].map(|(flags, length)| Header { kind: Kind::Data, flags, stream: 1, length });
    assert_eq!(drain(&mut session), told);
    assert!(matches!(session.poll(), Some(ConnEvent::Delivered(1))));
}

#[test]
fn a_reset_ends_both_directions_with_its_code() {
    let mut pair = Pair::new();
    let id = pair.open(b"some");
    pair.server.port(id).write(&mut Bytes::from_static(b"lost")).expect("open");
    pair.server.port(id).reset(77);
    pair.shuttle();
    assert!(pair.events().contains(&"client Stopped(1, 77)".to_owned()));
    assert_eq!(pair.client.port(id).write(&mut Bytes::from_static(b"x")), Err(77));
    assert_eq!(pair.client.port(id).read(10).map(drop), Err(77));
    assert!(matches!(pair.client.port(id).read(10), Ok(Read::Finished)), "told once");
    assert_eq!(pair.client.streams.len(), 0);
    assert_eq!(read_all(&mut pair.server, id), (b"some".to_vec(), Some(Err(77))), "what had come can be read");
    assert_eq!(pair.server.streams.len(), 0);
}

#[test]
fn a_reset_after_the_end_cuts_nothing() {
    let mut pair = Pair::new();
    let id = pair.open(b"some");
    hand(&mut pair.server, &[(Kind::WindowUpdate, FIN, 1, 0, b""), (Kind::WindowUpdate, RST, 1, 5, b"")]).expect("in order");
    assert_eq!(read_all(&mut pair.server, id), (b"some".to_vec(), Some(Ok(()))));
    assert_eq!(pair.server.port(id).write(&mut Bytes::from_static(b"x")), Err(5));
}

#[test]
fn stopping_drops_what_comes_and_says_so_at_the_end() {
    let mut pair = Pair::new();
    let id = pair.open(b"unwanted");
    pair.server.port(id).stop(9);
    assert_eq!(pair.server.unread(), 0, "what was there is dropped");
    assert_eq!(write(&mut pair.client, id, &[1; 1000]), 1000);
    write(&mut pair.server, id, b"our direction goes on");
    pair.server.port(id).finish();
    pair.shuttle();
    assert_eq!(pair.server.chunks.cost, 0);
    assert_eq!(read_all(&mut pair.client, id).0, b"our direction goes on");
    assert_eq!(pair.server.streams.len(), 1, "the peer has time to end");
    let by = pair.server.poll_timeout().expect("a time");
    assert!(by <= now() + Limits::default().drain_deadline);
    pair.now = by;
    pair.server.handle_timeout(by);
    pair.shuttle();
    assert!(pair.events().contains(&"client Stopped(1, 9)".to_owned()));
    assert_eq!((pair.server.streams.len(), pair.server.lingering.len()), (0, 0));
}

#[test]
fn a_peer_that_ends_what_nobody_reads_is_not_reset() {
    let mut pair = Pair::new();
    let id = pair.open(b"unwanted");
    pair.server.port(id).stop(9);
    pair.server.port(id).finish();
    pair.shuttle();
    pair.client.port(id).finish();
    pair.shuttle();
    let _ = pair.events();
    assert_eq!((pair.server.streams.len(), pair.server.lingering.len()), (0, 0));
    assert_eq!(read_all(&mut pair.client, id), (vec![], Some(Ok(()))));
}

#[test]
fn a_peer_without_credit_is_told_at_once_that_nobody_reads() {
    let mut session = Session::new(Side::Server, &Limits::default());
    hand(&mut session, &[(Kind::Data, SYN, 1, INITIAL_WINDOW, &vec![0; INITIAL_WINDOW as usize])]).expect("in order");
    assert_eq!(session.accept(), Some(1));
    session.port(1).stop(4);
    drain(&mut session);
    session.port(1).finish();
    let said = drain(&mut session);
    assert!(said.contains(&Header { kind: Kind::Data, flags: FIN, stream: 1, length: 0 }), "{said:?}");
    let said = [said, drain(&mut session)].concat();
    assert!(said.contains(&Header { kind: Kind::WindowUpdate, flags: RST, stream: 1, length: 4 }), "{said:?}");
}

#[test]
fn what_lingers_makes_room_for_new_streams() {
    let limits = Limits { streams_min: 1, ..Limits::default() };
    let mut session = Session::new(Side::Server, &limits);
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b""), (Kind::Data, SYN, 3, 0, b"")]).expect("in order");
    assert_eq!((session.accept(), session.accept()), (Some(1), None), "one at a time");
    session.port(1).stop(0);
    session.port(1).finish();
    drain(&mut session);
    while session.poll().is_some() {}
    drain(&mut session);
    assert!(std::iter::from_fn(|| session.poll()).any(|event| matches!(event, ConnEvent::Opened)));
    assert_eq!(session.accept(), Some(3));
}

#[test]
fn acknowledgements_ride_on_data_or_go_alone() {
    let mut session = Session::new(Side::Server, &Limits::default());
    drain(&mut session);
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b""), (Kind::Data, SYN, 3, 0, b"")]).expect("in order");
    assert_eq!((session.accept(), session.accept()), (Some(1), Some(3)));
    write(&mut session, 3, b"x");
    let said = drain(&mut session);
    let alone = Header { kind: Kind::WindowUpdate, flags: ACK, stream: 1, length: 0 };
    assert_eq!(said, [alone, Header { kind: Kind::Data, flags: ACK, stream: 3, length: 1 }]);
}

#[test]
fn urgent_bytes_are_in_the_next_frame() {
    let mut session = Session::new(Side::Client, &Limits { send_window_min: 128 << 10, ..Limits::default() });
    let (bulk, urgent) = (session.open().expect("room"), session.open().expect("room"));
    session.port(bulk).set_priority(Priority::Bulk);
    session.port(urgent).set_priority(Priority::Urgent);
    assert_eq!(write(&mut session, bulk, &[0; 256 << 10]), (96 << 10) - SEND_ENTRY_BYTES as usize, "bulk leaves room");
    let mut out = Vec::new();
    session.poll_output(now(), 20 << 10, &mut out);
    assert!(write(&mut session, urgent, b"now") == 3, "there is room for what is urgent");
    out.clear();
    session.poll_output(now(), 1, &mut out);
    assert_eq!(headers(&out), [Header { kind: Kind::Data, flags: SYN, stream: 3, length: 3 }]);
    out.clear();
    session.poll_output(now(), 1 << 20, &mut out);
    assert!(headers(&out).iter().all(|frame| frame.length as usize <= FRAME_BYTES_MAX), "so nobody waits for more");
}

#[test]
fn bulk_never_starves() {
    let mut session = Session::new(Side::Client, &Limits { send_window_min: 256 << 10, ..Limits::default() });
    let (bulk, urgent) = (session.open().expect("room"), session.open().expect("room"));
    session.port(bulk).set_priority(Priority::Bulk);
    session.port(urgent).set_priority(Priority::Urgent);
    write(&mut session, bulk, &[0; 64 << 10]);
    let (mut urgent_bytes, mut bulk_bytes) = (0u64, 0u64);
    while bulk_bytes < 48 << 10 {
        hand(&mut session, &[(Kind::WindowUpdate, 0, urgent as u32, 1 << 14, b"")]).expect("in order");
        write(&mut session, urgent, &[0; 64 << 10]);
        let mut out = Vec::new();
        session.poll_output(now(), 1, &mut out);
        for frame in headers(&out).iter().filter(|frame| frame.kind == Kind::Data) {
            let of = if frame.stream == bulk as u32 { &mut bulk_bytes } else { &mut urgent_bytes };
            *of += u64::from(frame.length);
        }
        assert!(urgent_bytes < 10 << 20, "bulk got {bulk_bytes} beside {urgent_bytes}");
    }
    assert!(urgent_bytes >= 15 * bulk_bytes, "and urgent has the rest: {urgent_bytes} to {bulk_bytes}");
}

#[test]
fn streams_of_one_priority_go_round() {
    let mut session = Session::new(Side::Client, &Limits { send_window_min: 1 << 20, ..Limits::default() });
    drain(&mut session);
    let ids = [1u64, 3, 5];
    for id in ids {
        assert_eq!(session.open(), Some(id));
        write(&mut session, id, &[0; 40 << 10]);
    }
    let order: Vec<u32> = drain(&mut session).iter().map(|frame| frame.stream).collect();
    assert_eq!(order, [1, 3, 5, 1, 3, 5, 1, 3, 5]);
}

#[test]
fn a_slow_reader_holds_up_no_other_stream() {
    let mut session = Session::new(Side::Client, &Limits { send_window_min: 4 << 20, ..Limits::default() });
    let (slow, other) = (session.open().expect("room"), session.open().expect("room"));
    let window = INITIAL_WINDOW as usize;
    assert_eq!(write(&mut session, slow, &[0; 1 << 20]), window, "only what the peer allows");
    assert_eq!(write(&mut session, slow, &[0; 1]), 0);
    while !drain(&mut session).is_empty() {}
    assert_eq!((session.send_cost, write(&mut session, other, &[0; 1 << 20])), (0, window));
    while session.poll().is_some() {}
    hand(&mut session, &[(Kind::WindowUpdate, 0, slow as u32, 10, b"")]).expect("in order");
    assert!(matches!(session.poll(), Some(ConnEvent::Writable(id)) if id == slow));
}

#[test]
fn opening_waits_while_256_streams_are_unacknowledged() {
    let mut session = Session::new(Side::Client, &Limits::default());
    for number in 0..256 {
        assert_eq!(session.open(), Some(2 * number + 1));
    }
    assert_eq!(session.open(), None);
    session.port(1).write(&mut Bytes::from_static(b"x")).expect("open");
    drain(&mut session);
    hand(&mut session, &[(Kind::WindowUpdate, ACK, 1, 0, b"")]).expect("in order");
    assert!(matches!(session.poll(), Some(ConnEvent::Available)));
    assert_eq!((session.open(), session.open()), (Some(513), None));
    hand(&mut session, &[(Kind::WindowUpdate, RST, 3, 0, b"")]).expect("in order");
    assert!(std::iter::from_fn(|| session.poll()).any(|event| matches!(event, ConnEvent::Available)));
}

/// Moves `rounds` times half a window, each in `millis`, and returns the window.
fn pump(session: &mut Session, rounds: u32, millis: u64) -> u32 {
    let mut at = session.now.expect("begun");
    for _ in 0..rounds {
        let window = session.streams[&1].window;
        at += Duration::from_millis(millis);
        let bytes = vec![0; window as usize / 2];
        session.handle(at, frames(&[(Kind::Data, 0, 1, window / 2, &bytes)])).expect("in order");
        while let Ok(Read::Chunk(_)) = session.port(1).read(usize::MAX) {}
        let mut out = Vec::new();
        session.poll_output(at, 1 << 20, &mut out);
    }
    session.streams[&1].window
}

fn one_stream(receive_window: u64) -> Session {
    let mut session = Session::new(Side::Server, &Limits::default());
    session.set_receive_window(receive_window);
    drain(&mut session);
    hand(&mut session, &[(Kind::Data, SYN, 1, 0, b""), (Kind::Ping, ACK, 0, 1, b"")]).expect("in order");
    session.accept();
    session
}

#[test]
fn windows_grow_with_a_fast_reader_up_to_half_of_the_connections() {
    assert_eq!(pump(&mut one_stream(8 << 20), 20, 1), 4 << 20);
    assert_eq!(pump(&mut one_stream(64 << 10), 20, 1), INITIAL_WINDOW, "there is no room to grow in");
}

#[test]
fn windows_stop_at_rate_times_acceptable_delay() {
    // 128 KiB in 100 ms: within half a second that is 640 KiB. A round trip is said to be 100 ms.
    let mut session = one_stream(8 << 20);
    session.control.rtt_for_tests(Duration::from_millis(100));
    assert_eq!(pump(&mut session, 2, 100), 512 << 10);
    // Twice the window, at the same rate: 256 KiB in 200 ms.
    assert_eq!(pump(&mut session, 20, 200), 512 << 10);
}

#[test]
fn a_stalled_stream_is_given_nothing_and_keeps_others_from_nothing() {
    let mut session = one_stream(2 << 20);
    hand(&mut session, &[(Kind::Data, SYN, 3, INITIAL_WINDOW, &vec![0; INITIAL_WINDOW as usize])]).expect("in order");
    session.accept();
    assert_eq!(pump(&mut session, 20, 1), 1 << 20, "the other one grows, though not beyond half");
    assert_eq!((session.streams[&3].window, session.streams[&3].credit_in), (INITIAL_WINDOW, 0));
    assert!(session.wants_input(), "and reading goes on");
    assert_eq!(session.grown, 768 << 10);
    hand(&mut session, &[(Kind::WindowUpdate, FIN, 1, 0, b"")]).expect("in order");
    assert_eq!(session.grown, 0, "what it had goes to others when it ends");
}

#[test]
fn a_silent_peer_is_lost_after_the_idle_timeout_and_pings_keep_it() {
    let limits = Limits::default();
    let mut session = Session::new(Side::Client, &limits);
    let begin = now();
    let mut out = Vec::new();
    session.poll_output(begin, 100, &mut out);
    assert_eq!(headers(&out), [Header { kind: Kind::Ping, flags: SYN, stream: 0, length: 1 }], "the first ping is at once");
    session.handle(begin + Duration::from_millis(30), frames(&[(Kind::Ping, ACK, 0, 1, b"")])).expect("in order");
    assert_eq!(session.rtt(), Duration::from_millis(30));
    assert_eq!(session.poll_timeout(), Some(begin + limits.keep_alive));
    session.handle_timeout(begin + limits.keep_alive);
    assert_eq!(drain(&mut session).len(), 1, "the next one");
    let end = begin + Duration::from_millis(30) + limits.idle_timeout;
    assert_eq!(session.poll_timeout(), Some(end));
    session.handle_timeout(end - Duration::from_millis(1));
    assert!(session.poll().is_none());
    session.handle_timeout(end);
    let Some(ConnEvent::Lost(lost)) = session.poll() else { panic!("not lost") };
    assert_eq!(lost.closed, Closed::Silent(limits.idle_timeout));
    assert!(lost.closed.to_string().contains("nothing was heard"), "{}", lost.closed);
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn a_peer_is_not_silent_while_nobody_listens() {
    let mut session = one_stream(4096);
    let begin = now();
    hand(&mut session, &[(Kind::Data, 0, 1, 5000, &[0; 5000])]).expect("in order");
    assert!(!session.wants_input());
    let end = begin + Limits::default().idle_timeout;
    session.handle_timeout(end);
    assert!(read_all(&mut session, 1).0.len() == 5000 && session.wants_input());
    session.handle_timeout(end + Duration::from_secs(29));
    assert!(!session.is_closing(), "it had no time to speak");
    session.handle_timeout(end + Duration::from_secs(60));
    assert!(session.is_closing());
}

#[test]
fn going_away_in_order_ends_with_the_last_stream() {
    let mut pair = Pair::new();
    let id = pair.open(b"question");
    hand(&mut pair.client, &[(Kind::GoAway, 0, 0, 0, b"")]).expect("in order");
    assert_eq!(pair.client.open(), None, "it takes no new streams");
    pair.client.port(id).finish();
    write(&mut pair.server, id, b"answer");
    pair.server.port(id).finish();
    pair.shuttle();
    while pair.client.poll().is_some() {}
    assert_eq!(read_all(&mut pair.client, id).0, b"answer", "those that are open go on");
    let Some(ConnEvent::Lost(lost)) = pair.client.poll() else { panic!("not over") };
    assert_eq!(lost.closed, Closed::There { code: 0, reason: String::new() });
}

#[test]
fn going_away_in_order_has_a_deadline() {
    let mut session = one_stream(1 << 20);
    hand(&mut session, &[(Kind::GoAway, 0, 0, 0, b"")]).expect("in order");
    let by = session.poll_timeout().expect("a time");
    assert_eq!(by, now() + Limits::default().drain_deadline);
    session.handle_timeout(by);
    assert!(matches!(session.poll(), Some(ConnEvent::Lost(_))));
}

#[test]
fn an_error_code_ends_all_at_once() {
    let mut session = one_stream(1 << 20);
    hand(&mut session, &[(Kind::GoAway, 0, 0, 1, b"")]).expect("in order");
    let Some(ConnEvent::Lost(lost)) = session.poll() else { panic!("not over") };
    assert!(lost.closed.to_string().contains("broke the rules of yamux"), "{}", lost.closed);
}

#[test]
fn closing_needs_no_credit() {
    let mut session = one_stream(4096);
    hand(&mut session, &[(Kind::Data, 0, 1, 9000, &[0; 9000])]).expect("in order");
    let own = session.open().expect("room");
    write(&mut session, own, &[0; 1 << 20]);
    session.close(0);
    assert_eq!(drain(&mut session), [Header { kind: Kind::GoAway, flags: 0, stream: 0, length: 0 }]);
    assert!(session.is_closed() && drain(&mut session).is_empty() && session.poll().is_none());
    assert!(session.held() < 2048, "{}", session.held());
    session.handle(now(), Bytes::from_static(b"whatever")).expect("it is not looked at");
}

#[test]
fn small_pieces_are_copied_together_and_large_ones_are_not() {
    let mut session = one_stream(1 << 20);
    for byte in 0..100u8 {
        hand(&mut session, &[(Kind::Data, 0, 1, 1, &[byte])]).expect("in order");
    }
    assert!(session.chunks.cost < 1500, "100 bytes cost {}", session.chunks.cost);
    let large = frames(&[(Kind::Data, 0, 1, 8000, &[5; 8000])]);
    let place = large.as_ptr() as usize + 12;
    session.handle(now(), large).expect("in order");
    let mut chunks = Vec::new();
    while let Ok(Read::Chunk(chunk)) = session.port(1).read(usize::MAX) {
        chunks.push(chunk);
    }
    assert_eq!(chunks.concat(), [(0..100).collect::<Vec<u8>>(), vec![5; 8000]].concat(), "and the order is kept");
    assert_eq!(chunks.last().map(|chunk| chunk.as_ptr() as usize), Some(place), "a slice of what came");
    assert_eq!(session.chunks.cost, 0);
}

#[test]
fn a_few_bytes_do_not_keep_a_large_chunk() {
    let mut session = one_stream(100 << 10);
    let large = [frames(&[(Kind::Data, 0, 1, 2, b"ab")]), frames(&[(Kind::Data, 0, 99, 60_000, &[0; 60_000])])].concat();
    session.handle(now(), large.into()).expect("in order");
    assert!(session.chunks.cost < 1000, "two bytes cost {}", session.chunks.cost);
    // Slices whose chunk was mostly read are copied when room is short.
    for _ in 0..2 {
        let chunk = frames(&[(Kind::Data, 0, 1, 60_000, &[1; 60_000])]);
        while let Ok(Read::Chunk(_)) = session.port(1).read(usize::MAX) {}
        session.handle(now(), chunk).expect("in order");
        assert!(matches!(session.port(1).read(59_990), Ok(Read::Chunk(_))));
        assert!(matches!(session.port(1).read(9), Ok(Read::Chunk(_))));
    }
    let held = session.chunks.cost;
    session.set_receive_window(held);
    hand(&mut session, &[(Kind::Ping, SYN, 0, 1, b"")]).expect("in order");
    assert!(held < CHUNK_BYTES_MAX || session.chunks.cost < held / 10, "{held} before, {} behind", session.chunks.cost);
}

#[test]
fn the_bound_is_within_what_a_connection_is_granted() {
    let limits = Limits::default();
    let streams = u64::from(limits.streams_min) + BACKLOG_MAX as u64;
    let most = fuzz::held_max(limits.receive_window_min, limits.send_window_min, streams, CHUNK_BYTES_MAX);
    let granted = Limits::receive_window_cost(limits.receive_window_min)
        + Limits::send_window_cost(limits.send_window_min)
        + Limits::streams_cost(limits.streams_min.into())
        + crate::limits::CONNECTION_BYTES;
    assert!(most <= granted, "{most} bytes at most, {granted} granted");
    assert!(size_of::<Stream>() as u64 * 2 <= RECORD_BYTES, "a record has {}", size_of::<Stream>());
    let _ = testing::now();
}
