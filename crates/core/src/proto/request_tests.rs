use std::time::Duration;

use super::*;
use crate::error::RequestError;
use crate::stream::testing::Bench;
use crate::stream::{Input, Output, StreamMachine};
use crate::wake::Why;

const MAX: usize = 5000;
const REPLY_MAX: usize = 3000;
const DEADLINE: Duration = Duration::from_secs(2);
static DEF: Request = Request::new("/app/get/1", MAX, REPLY_MAX, DEADLINE, 4);
/// With a deadline that does not matter beside the others.
static PATIENT: Request = Request::new("/app/get/1", MAX, REPLY_MAX, Duration::from_secs(600), 4);
static UNTIL_END: Request = DEF.framing(Framing::EndOfStream);

const NANO: Duration = Duration::from_nanos(1);

fn agreement() -> Vec<u8> {
    let mut lines = Vec::new();
    strait_wire::multistream::header(&mut lines);
    strait_wire::multistream::protocol(DEF.name, &mut lines).expect("a name");
    lines
}

fn refusal() -> Vec<u8> {
    let mut lines = Vec::new();
    strait_wire::multistream::header(&mut lines);
    strait_wire::multistream::na(&mut lines);
    lines
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

fn framed(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    framing::put_header(len, &mut out);
    out.extend(bytes(len));
    out
}

fn asking(def: &'static Request, len: usize) -> Bench<Client> {
    Bench::new(Client::new(def, Message::from(bytes(len))))
}

/// A client whose request is sent and agreed on.
fn agreed(def: &'static Request) -> Bench<Client> {
    let mut bench = asking(def, 10);
    assert_eq!(bench.receive(agreement()), Next::PEER);
    bench
}

fn reply<M: StreamMachine>(bench: &mut Bench<M>) -> Result<Vec<u8>, RequestError> {
    match bench.only_output() {
        Output::Reply(result) => result.map(|message| message.into_bytes().to_vec()),
        other => panic!("{other:?}"),
    }
}

fn arrived(bench: &mut Bench<Server>) -> Vec<u8> {
    match bench.only_output() {
        Output::Arrived(message) => message.into_bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn served(bench: &mut Bench<Server>) -> Result<usize, Breach> {
    match bench.only_output() {
        Output::Served(result) => result,
        other => panic!("{other:?}"),
    }
}

fn serving(def: &'static Request) -> Bench<Server> {
    Bench::new(Server::new(def))
}

/// A server whose request is with the application.
fn working(def: &'static Request) -> Bench<Server> {
    let mut bench = serving(def);
    match def.framing {
        Framing::LengthPrefixed => bench.receive(framed(10)),
        Framing::EndOfStream => {
            bench.receive(bytes(10));
            bench.finish()
        }
    };
    assert_eq!(arrived(&mut bench), bytes(10));
    bench
}

#[test]
fn negotiation_and_request_leave_in_one_write() {
    let mut bench = asking(&DEF, 100);
    assert_eq!(bench.drive(), Next::PEER);
    assert_eq!(bench.pipe.outgoing, [agreement(), framed(100)].concat());
    assert_eq!(bench.pipe.writes, 1);
    assert!(bench.pipe.finished, "the request is whole: our direction ends");
}

#[test]
fn a_reply_comes_whole_or_byte_by_byte() {
    for len in [0, 1, 127, 128, 1000, REPLY_MAX] {
        let answer = [agreement(), framed(len)].concat();
        let mut whole = asking(&DEF, 10);
        assert_eq!(whole.receive(answer.clone()), Next::Done);
        assert_eq!(reply(&mut whole), Ok(bytes(len)));
        let mut pieces = asking(&DEF, 10);
        assert_eq!(pieces.trickle(&answer), Next::Done);
        assert_eq!(reply(&mut pieces), Ok(bytes(len)));
        assert!(
            pieces.state.moved.copied <= 2 * answer.len() as u64 + 100,
            "{} copied of {}",
            pieces.state.moved.copied,
            answer.len()
        );
    }
}

#[test]
fn a_reply_before_the_request_is_sent_ends_both_directions() {
    let mut bench = asking(&DEF, 4000);
    bench.pipe.room = 1000;
    assert!(matches!(bench.drive(), Next::Wait(Waits { peer: true, room: true, .. })));
    assert_eq!(bench.receive([agreement(), framed(5)].concat()), Next::Done);
    assert_eq!(reply(&mut bench), Ok(bytes(5)));
    assert!(bench.pipe.reset.is_some(), "what is left of the request is given up: the stream must not stay half open");
}

#[test]
fn the_wait_for_memory_is_not_forgotten_while_the_request_is_being_sent() {
    let mut bench = asking(&DEF, 4000);
    bench.pipe.room = 1000;
    let taken = bench.ledger_all_but(100);
    let next = bench.receive([agreement(), framed(200)].concat());
    assert!(matches!(next, Next::Wait(Waits { memory: true, room: true, .. })), "{next:?}");
    drop(taken);
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(reply(&mut bench), Ok(bytes(200)));
}

#[test]
fn an_oversized_reply_is_refused_by_its_header_with_nothing_reserved() {
    let mut bench = agreed(&DEF);
    let mut header = Vec::new();
    framing::put_header(REPLY_MAX + 1, &mut header);
    assert_eq!(bench.receive(header), Next::Done);
    let breach = Breach::TooLarge { len: REPLY_MAX as u64 + 1, max: REPLY_MAX as u64 };
    assert_eq!(reply(&mut bench), Err(RequestError::Broken(breach)));
    assert_eq!(bench.ledger.committed(), 0);
    assert_eq!(bench.pipe.stopped, Some(0));
}

#[test]
fn a_length_that_is_no_varint_is_malformed() {
    let mut bench = agreed(&DEF);
    assert_eq!(bench.receive(vec![0xff; 12]), Next::Done);
    assert!(matches!(reply(&mut bench), Err(RequestError::Broken(_))));
}

#[test]
fn unsupported_is_told_apart_from_rejected() {
    let mut bench = asking(&DEF, 10);
    assert_eq!(bench.receive(refusal()), Next::Done);
    assert_eq!(reply(&mut bench), Err(RequestError::Unsupported(DEF.name)));

    for before in [Vec::new(), agreement(), [agreement(), framed(100)[..50].to_vec()].concat()] {
        let mut bench = asking(&DEF, 10);
        bench.receive_some(&before);
        bench.pipe.incoming_reset = Some(99);
        assert_eq!(bench.drive(), Next::Done);
        assert_eq!(reply(&mut bench), Err(RequestError::Rejected(99)));
    }
}

#[test]
fn a_peer_that_refuses_the_request_may_still_answer() {
    let mut bench = asking(&DEF, 4000);
    bench.pipe.room = 100;
    bench.drive();
    bench.pipe.refused = Some(4);
    assert!(matches!(bench.drive(), Next::Wait(_)));
    assert!(bench.pipe.reset.is_some());
    assert_eq!(bench.receive([agreement(), framed(5)].concat()), Next::Done);
    assert_eq!(reply(&mut bench), Ok(bytes(5)));
}

#[test]
fn an_end_inside_the_reply_is_a_breach() {
    for part in [0, 1, 50, 101] {
        let mut bench = agreed(&DEF);
        let whole = framed(101);
        bench.receive_some(&whole[..part.min(whole.len() - 1)]);
        assert_eq!(bench.finish(), Next::Done, "after {part}");
        assert_eq!(reply(&mut bench), Err(RequestError::Broken(Breach::Cut)));
    }
}

#[test]
fn no_answer_is_told_at_its_deadline_and_not_before() {
    let mut bench = agreed(&DEF);
    assert_eq!(bench.state.deadline, Some((bench.now + DEADLINE, Why::Answer)));
    assert_eq!(bench.wait(DEADLINE - NANO), Next::PEER);
    assert_eq!(bench.wait(NANO), Next::Done);
    assert_eq!(reply(&mut bench), Err(RequestError::NoAnswer(DEADLINE)));
    assert!(bench.pipe.stopped.is_some());
}

#[test]
fn one_byte_in_the_last_moment_is_an_answer_that_has_begun() {
    let mut bench = agreed(&DEF);
    bench.wait(DEADLINE - NANO);
    bench.receive(framed(1000)[..3].to_vec());
    let interval = bench.limits.progress_interval;
    assert_eq!(bench.state.deadline.map(|(_, why)| why), Some(Why::Progress));
    assert_eq!(bench.wait(interval - NANO), Next::PEER);
    assert_eq!(bench.wait(NANO), Next::Done);
    assert!(matches!(reply(&mut bench), Err(RequestError::Stalled { got: 1, .. })));
}

#[test]
fn one_byte_a_second_is_found_out_within_two_intervals() {
    let mut bench = agreed(&DEF);
    let begun = bench.now;
    let answer = framed(REPLY_MAX);
    for byte in &answer {
        bench.now += Duration::from_secs(1);
        if bench.receive(vec![*byte]) == Next::Done {
            break;
        }
    }
    assert!(matches!(reply(&mut bench), Err(RequestError::Stalled { .. })));
    assert!(bench.now - begun <= 2 * bench.limits.progress_interval + Duration::from_secs(2));
}

#[test]
fn a_slow_link_is_not_a_stall() {
    // 600 bytes a second, by itself.
    let mut bench = agreed(&DEF);
    let answer = framed(REPLY_MAX);
    for piece in answer.chunks(300) {
        assert!(bench.outputs.is_empty(), "after {:?}", bench.state.moved.bytes_in);
        bench.now += Duration::from_millis(500);
        bench.receive(piece.to_vec());
    }
    assert_eq!(reply(&mut bench), Ok(bytes(REPLY_MAX)));

    // 20 bytes a second on this stream, 600 more on the connection: it is busy with others.
    let mut bench = agreed(&PATIENT);
    for piece in answer[..80].chunks(10) {
        bench.now += Duration::from_millis(500);
        bench.connection_in += 300;
        bench.receive(piece.to_vec());
    }
    for _ in 0..3 {
        bench.connection_in += bench.limits.progress_bytes;
        assert_eq!(bench.wait(bench.limits.progress_interval), Next::PEER);
    }
    // And when they are done too, it is stuck.
    assert_eq!(bench.wait(bench.limits.progress_interval), Next::Done);
    assert!(matches!(reply(&mut bench), Err(RequestError::Stalled { .. })));
}

#[test]
fn the_whole_exchange_has_its_deadline_whatever_moves() {
    let mut bench = agreed(&DEF);
    let total = DEF.total(&bench.limits);
    let last = bench.now + total;
    bench.receive(framed(REPLY_MAX)[..3].to_vec());
    while bench.now + Duration::from_secs(1) < last {
        bench.connection_in += 1 << 20;
        assert_eq!(bench.wait(Duration::from_secs(1)), Next::PEER);
    }
    bench.connection_in += 1 << 20;
    assert_eq!(bench.wait(last - bench.now - NANO), Next::PEER);
    assert_eq!(bench.wait(NANO), Next::Done);
    assert_eq!(reply(&mut bench), Err(RequestError::TooLong(total)));
}

#[test]
fn a_request_that_is_not_taken_stalls() {
    let mut bench = asking(&DEF, 4000);
    bench.pipe.room = 1000;
    bench.receive(agreement());
    assert_eq!(bench.wait(bench.limits.progress_interval), Next::Done);
    assert!(matches!(reply(&mut bench), Err(RequestError::Stalled { .. })));
    assert!(bench.pipe.reset.is_some());
}

#[test]
fn framing_by_the_end_of_the_stream() {
    for len in [0, 1, 1000, REPLY_MAX] {
        let mut bench = agreed(&UNTIL_END);
        assert_eq!(bench.pipe.outgoing, [agreement(), bytes(10)].concat(), "no length before the request");
        assert!(bench.pipe.finished);
        bench.receive_some(&bytes(len));
        assert!(bench.outputs.is_empty(), "not whole before the end");
        assert_eq!(bench.finish(), Next::Done);
        assert_eq!(reply(&mut bench), Ok(bytes(len)));
    }
    let mut bench = agreed(&UNTIL_END);
    assert_eq!(bench.receive(bytes(REPLY_MAX + 1)), Next::Done);
    let breach = Breach::TooLarge { len: REPLY_MAX as u64 + 1, max: REPLY_MAX as u64 };
    assert_eq!(reply(&mut bench), Err(RequestError::Broken(breach)));

    let mut server = serving(&UNTIL_END);
    server.receive(bytes(MAX));
    assert_eq!(server.finish(), Next::APP);
    assert_eq!(arrived(&mut server), bytes(MAX));
    let mut server = serving(&UNTIL_END);
    assert_eq!(server.receive(bytes(MAX + 1)), Next::Done);
    assert_eq!(served(&mut server), Err(Breach::TooLarge { len: MAX as u64 + 1, max: MAX as u64 }));
    assert_eq!(server.pipe.reset, Some(CODE_BREACH));
}

#[test]
fn a_server_takes_the_largest_request_and_not_one_byte_more() {
    let mut bench = serving(&DEF);
    assert_eq!(bench.trickle(&framed(MAX)), Next::APP);
    assert_eq!(arrived(&mut bench), bytes(MAX));

    let mut bench = serving(&DEF);
    let mut header = Vec::new();
    framing::put_header(MAX + 1, &mut header);
    assert_eq!(bench.receive(header), Next::Done);
    assert_eq!(served(&mut bench), Err(Breach::TooLarge { len: MAX as u64 + 1, max: MAX as u64 }));
    assert_eq!(bench.pipe.reset, Some(CODE_BREACH));
    assert_eq!(bench.ledger.committed(), 0);
}

#[test]
fn the_reply_is_granted_before_the_application_is_asked() {
    let mut bench = serving(&DEF);
    bench.receive(framed(100)[..1].to_vec());
    assert_eq!(bench.ledger.committed(), 100 * Message::HELD_FACTOR + REPLY_MAX as u64);
    bench.receive(framed(100)[1..].to_vec());
    assert_eq!(arrived(&mut bench), bytes(100));
    bench.state.input = Some(Input::Reply(Message::from(bytes(50))));
    bench.pipe.room = 10;
    bench.drive();
    assert_eq!(bench.ledger.committed(), 50, "what the reply does not need goes back");
}

#[test]
fn without_memory_it_waits_and_goes_on_when_there_is_some() {
    let mut bench = serving(&DEF);
    let taken = bench.ledger_all_but(100 * Message::HELD_FACTOR + REPLY_MAX as u64 - 1);
    assert_eq!(bench.receive(framed(100)), Next::MEMORY);
    assert_eq!(bench.pipe.incoming.iter().map(|chunk| chunk.len()).sum::<usize>() + bench.state.held() as usize, 100);
    // The wait is not the peer's fault and no stall of its.
    assert_eq!(bench.wait(bench.limits.progress_interval), Next::MEMORY);
    assert_eq!(bench.state.deadline.map(|(_, why)| why), Some(Why::Total));
    drop(taken);
    assert_eq!(bench.drive(), Next::APP);
    assert_eq!(arrived(&mut bench), bytes(100));
}

#[test]
fn a_slow_request_is_cut_off() {
    let mut silent = serving(&DEF);
    silent.drive();
    assert_eq!(silent.wait(silent.limits.progress_interval), Next::Done);
    assert_eq!(served(&mut silent), Err(Breach::Slow));

    let mut bench = serving(&DEF);
    let begun = bench.now;
    for byte in &framed(1000) {
        bench.now += Duration::from_secs(1);
        if bench.receive(vec![*byte]) == Next::Done {
            break;
        }
    }
    assert_eq!(served(&mut bench), Err(Breach::Slow));
    assert_eq!(bench.pipe.reset, Some(CODE_SLOW));
    assert!(bench.now - begun <= 2 * bench.limits.progress_interval + Duration::from_secs(2));
}

#[test]
fn a_request_has_its_deadline_whatever_else_moves() {
    let mut bench = serving(&DEF);
    bench.receive(framed(1000)[..5].to_vec());
    let last = bench.now + DEF.total(&bench.limits);
    while bench.now + Duration::from_secs(1) < last {
        bench.connection_in += 1 << 20;
        assert_eq!(bench.wait(Duration::from_secs(1)), Next::PEER);
    }
    bench.connection_in += 1 << 20;
    assert_eq!(bench.wait(last - bench.now), Next::Done);
    assert_eq!(served(&mut bench), Err(Breach::Slow));
}

#[test]
fn the_application_has_all_the_time_it_wants() {
    let mut bench = working(&DEF);
    assert_eq!(bench.drive(), Next::APP);
    assert_eq!(bench.state.deadline, None);
    assert_eq!(bench.wait(Duration::from_secs(100_000)), Next::APP);
    bench.state.input = Some(Input::Reply(Message::from(bytes(50))));
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(served(&mut bench), Ok(50));
    assert_eq!(bench.pipe.outgoing, framed(50));
    assert!(bench.pipe.finished);
}

#[test]
fn a_server_ends_its_replies_with_the_stream_where_the_framing_says_so() {
    let mut bench = working(&UNTIL_END);
    bench.state.input = Some(Input::Reply(Message::from(bytes(50))));
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(bench.pipe.outgoing, bytes(50));
    assert!(bench.pipe.finished);
}

#[test]
fn a_declined_request_is_reset_with_its_code_and_is_no_breach_of_the_peer() {
    let mut bench = working(&DEF);
    bench.state.input = Some(Input::Reject(CODE_DECLINED));
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(bench.pipe.reset, Some(CODE_DECLINED));
    assert!(matches!(bench.only_output(), Output::Quiet));
}

#[test]
fn a_client_that_is_gone_is_noticed_while_the_application_works() {
    let mut bench = working(&DEF);
    bench.pipe.incoming_reset = Some(6);
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(served(&mut bench), Err(Breach::Reset(6)));

    let mut bench = working(&DEF);
    bench.state.peer_stopped = Some(8);
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(served(&mut bench), Err(Breach::Reset(8)));

    let mut bench = working(&DEF);
    assert_eq!(bench.finish(), Next::APP, "the end of the request is not the end of the client");
}

#[test]
fn a_reader_that_takes_nothing_of_the_reply_is_found_out() {
    let mut bench = working(&DEF);
    bench.state.input = Some(Input::Reply(Message::from(bytes(REPLY_MAX))));
    bench.pipe.room = 100;
    assert_eq!(bench.drive(), Next::ROOM);
    bench.pipe.room = 1;
    assert_eq!(bench.wait(bench.limits.progress_interval - NANO), Next::ROOM);
    bench.pipe.room = 1;
    assert_eq!(bench.wait(NANO), Next::Done);
    assert_eq!(served(&mut bench), Err(Breach::Slow));
    assert_eq!(bench.pipe.reset, Some(CODE_SLOW));
}

#[test]
fn a_reply_that_is_left_unread_has_its_deadline_though_other_streams_move() {
    let mut bench = working(&DEF);
    bench.state.input = Some(Input::Reply(Message::from(bytes(REPLY_MAX))));
    bench.pipe.room = 100;
    bench.drive();
    let last = bench.now + DEF.total(&bench.limits);
    while bench.now < last {
        assert!(bench.outputs.is_empty());
        bench.connection_out += 1 << 20;
        bench.wait(Duration::from_millis(500));
    }
    assert_eq!(served(&mut bench), Err(Breach::Slow));
}

#[test]
fn a_reply_goes_on_when_there_is_room_again() {
    let mut bench = working(&DEF);
    bench.state.input = Some(Input::Reply(Message::from(bytes(1000))));
    bench.pipe.room = 0;
    assert_eq!(bench.drive(), Next::ROOM);
    for _ in 0..20 {
        bench.pipe.room = 100;
        if bench.drive() == Next::Done {
            break;
        }
    }
    assert_eq!(served(&mut bench), Ok(1000));
    assert_eq!(bench.pipe.outgoing, framed(1000));
}
