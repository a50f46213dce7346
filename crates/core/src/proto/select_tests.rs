use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::proto::{Entry, Priority, Served};
use crate::stream::testing::{Bench, Pipe};

const NAME: &str = "/app/one/1";
const DEADLINE: Duration = Duration::from_secs(10);

fn lines(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        match *part {
            "header" => multistream::header(&mut out),
            "na" => multistream::na(&mut out),
            "ls" => out.extend_from_slice(b"\x03ls\n"),
            name => multistream::protocol(name, &mut out).expect("a name"),
        }
    }
    out
}

fn registry() -> Arc<Registry> {
    let mut registry = Registry::new();
    for name in ["/app/zero/1", NAME] {
        let entry = Entry { name, served: Served::Ping, priority: Priority::Normal, per_peer_max: 1 };
        registry.add(entry).expect("a good name");
    }
    Arc::new(registry)
}

fn listening() -> Bench<Listener> {
    Bench::new(Listener::new(registry()))
}

/// The number under which the test's protocol was registered.
fn number() -> usize {
    registry().find(NAME).expect("registered").number
}

fn agreed(bench: &mut Bench<Listener>) -> bool {
    matches!(bench.only_output(), Output::Agreed { protocol, .. } if protocol == number())
}

fn broken(bench: &mut Bench<Listener>) -> Breach {
    match bench.only_output() {
        Output::Failed(StreamError::Broken(breach)) => breach,
        other => panic!("{other:?}"),
    }
}

/// The dialing part of a protocol, by itself.
struct Dialing {
    dialer: Dialer,
    answer: Option<Answer>,
}

impl StreamMachine for Dialing {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        if !self.dialer.propose(io) {
            return Next::ROOM;
        }
        let answer = self.dialer.answer(io);
        let next = if answer == Answer::Pending { Next::PEER } else { Next::Done };
        self.answer = Some(answer);
        next
    }
}

fn dialing() -> Bench<Dialing> {
    let mut bench = Bench::new(Dialing { dialer: Dialer::new(NAME), answer: None });
    assert_eq!(bench.drive(), Next::PEER);
    bench
}

fn answered(bytes: &[u8]) -> Option<Answer> {
    let mut whole = dialing();
    whole.receive(bytes.to_vec());
    let mut pieces = dialing();
    pieces.trickle(bytes);
    assert_eq!(whole.machine.answer, pieces.machine.answer, "whole and byte by byte");
    whole.machine.answer
}

#[test]
fn a_lazy_dialer_is_agreed_with_in_one_write_and_its_first_bytes_are_left() {
    let first = [lines(&["header", NAME]), b"request".to_vec()].concat();
    let mut bench = listening();
    assert_eq!(bench.receive(first), Next::Done);
    assert!(agreed(&mut bench));
    assert_eq!(bench.pipe.outgoing, lines(&["header", NAME]));
    assert_eq!(bench.pipe.writes, 1);
    assert_eq!(rest(&mut bench.pipe, &mut bench.state), b"request");
}

/// What a machine that takes over would read.
fn rest(pipe: &mut Pipe, state: &mut crate::stream::IoState) -> Vec<u8> {
    let limits = crate::limits::Limits::default();
    #[allow(clippy::disallowed_methods)]
    let now = std::time::Instant::now();
    let around = crate::stream::Around { now, limits: &limits, connection_in: 0, connection_out: 0 };
    let mut outputs = Vec::new();
    if pipe.is_readable() {
        state.stirred();
    }
    let mut io = StreamIo::new(around, pipe, state, &mut outputs);
    let mut all = Vec::new();
    while let Some(chunk) = io.take(1000) {
        all.extend_from_slice(&chunk);
    }
    all
}

#[test]
fn byte_by_byte_makes_no_difference() {
    let first = [lines(&["header", NAME]), b"request".to_vec()].concat();
    let (proposal, request) = first.split_at(first.len() - 7);
    let mut bench = listening();
    for byte in &proposal[..proposal.len() - 1] {
        assert_eq!(bench.receive(vec![*byte]), Next::PEER);
    }
    assert!(bench.outputs.is_empty());
    assert_eq!(bench.receive(proposal[proposal.len() - 1..].to_vec()), Next::Done);
    assert!(agreed(&mut bench));
    assert_eq!(bench.pipe.outgoing, lines(&["header", NAME]));
    bench.pipe.incoming.push_back(Bytes::copy_from_slice(request));
    assert_eq!(rest(&mut bench.pipe, &mut bench.state), b"request");
}

#[test]
fn an_unknown_protocol_is_answered_na_and_a_second_proposal_is_taken() {
    let mut bench = listening();
    assert_eq!(bench.receive(lines(&["header", "/app/unknown/1"])), Next::PEER);
    assert_eq!(bench.pipe.outgoing, lines(&["header", "na"]));
    assert!(bench.outputs.is_empty());
    assert_eq!(bench.receive(lines(&[NAME])), Next::Done);
    assert_eq!(bench.pipe.outgoing, lines(&["header", "na", NAME]));
    assert!(agreed(&mut bench));
}

#[test]
fn a_dialer_that_leaves_after_na_has_done_nothing_wrong() {
    for reset in [false, true] {
        let mut bench = listening();
        bench.receive(lines(&["header", "/app/unknown/1"]));
        bench.pipe.incoming_finished = !reset;
        bench.pipe.incoming_reset = reset.then_some(7);
        assert_eq!(bench.drive(), Next::Done);
        assert!(matches!(bench.only_output(), Output::Quiet));
        assert!(bench.pipe.finished);
    }
}

#[test]
fn a_lazy_dialer_reads_its_refusal_whatever_came_behind_the_proposal() {
    for first in [&b"\x05hello"[..], &[0xff; 20], b"\x00", b""] {
        let mut bench = listening();
        bench.pipe.incoming_finished = true;
        let next = bench.receive([&lines(&["header", "/app/unknown/1"]), first].concat());
        assert_eq!(next, Next::Done, "{first:?}");
        assert_eq!(bench.pipe.outgoing, lines(&["header", "na"]));
        assert_eq!((bench.pipe.finished, bench.pipe.reset), (true, None), "a reset would overtake the refusal");
        assert!(matches!(bench.only_output(), Output::Quiet));
    }
}

#[test]
fn a_list_is_not_given() {
    let mut bench = listening();
    assert_eq!(bench.receive(lines(&["header", "ls"])), Next::PEER);
    assert_eq!(bench.pipe.outgoing, lines(&["header", "na"]));
    assert_eq!(bench.receive(lines(&[NAME])), Next::Done);
    assert!(agreed(&mut bench));
}

#[test]
fn out_of_order_ends_it() {
    for wrong in [lines(&[NAME]), lines(&["ls"]), lines(&["header", "header"]), lines(&["na"]), lines(&["header", "na"])] {
        let mut bench = listening();
        assert_eq!(bench.receive(wrong.clone()), Next::Done, "{wrong:?}");
        assert_eq!(broken(&mut bench), Breach::Malformed("negotiation out of order"));
        assert_eq!((bench.pipe.reset, bench.pipe.stopped), (Some(0), Some(0)));
    }
}

#[test]
fn proposals_are_counted() {
    let unknown = vec!["/app/unknown/1"; PROPOSALS_MAX - 1];
    let mut bench = listening();
    bench.receive(lines(&["header"]));
    assert_eq!(bench.receive(lines(&unknown)), Next::PEER);
    assert_eq!(bench.receive(lines(&[NAME])), Next::Done, "the last that is allowed may be the right one");
    assert!(agreed(&mut bench));

    for one in ["/app/unknown/1", "ls"] {
        let mut bench = listening();
        bench.receive(lines(&["header"]));
        for _ in 1..PROPOSALS_MAX {
            assert_eq!(bench.receive(lines(&[one])), Next::PEER);
        }
        assert_eq!(bench.receive(lines(&[one])), Next::Done, "{one}");
        assert_eq!(broken(&mut bench), Breach::Malformed("too many proposals"));
    }
}

#[test]
fn a_line_above_the_limit_is_refused_by_its_length_alone() {
    let mut bench = listening();
    bench.receive(lines(&["header"]));
    // 1025 as a varint.
    assert_eq!(bench.receive(vec![0x81, 0x08]), Next::Done);
    assert_eq!(broken(&mut bench), Breach::Malformed("multistream-select"));

    let mut bench = listening();
    bench.receive(lines(&["header"]));
    let longest = format!("/{}", "x".repeat(MESSAGE_BYTES_MAX - 2));
    assert_eq!(bench.receive(lines(&[&longest])), Next::PEER, "the longest that is allowed is answered");
    assert_eq!(bench.pipe.outgoing, lines(&["header", "na"]));
}

#[test]
fn silence_ends_at_the_deadline_and_not_before() {
    let almost = DEADLINE - Duration::from_nanos(1);
    for sent in [Vec::new(), lines(&["header"]), lines(&["header", "/app/unknown/1"]), vec![0x13, b'/']] {
        let mut bench = listening();
        bench.receive_some(&sent);
        let at = bench.now + DEADLINE;
        assert_eq!(bench.state.deadline, Some((at, Why::Negotiation)), "{sent:?}");
        assert_eq!(bench.wait(almost), Next::PEER);
        assert_eq!(bench.state.deadline, Some((at, Why::Negotiation)), "not moved by being driven");
        assert_eq!(bench.wait(Duration::from_nanos(1)), Next::Done);
        assert!(matches!(bench.only_output(), Output::Failed(StreamError::Idle(DEADLINE))));
        assert!(bench.pipe.reset.is_some() && bench.pipe.stopped.is_some());
    }
}

#[test]
fn a_trickle_does_not_move_the_deadline() {
    let mut bench = listening();
    bench.drive();
    let first = lines(&["header", NAME]);
    let mut fed = 0;
    for byte in &first {
        bench.now += Duration::from_secs(1);
        fed += 1;
        if bench.receive(vec![*byte]) == Next::Done {
            break;
        }
    }
    assert_eq!(fed, 10, "one byte a second is cut off after ten");
}

#[test]
fn an_end_inside_a_line_is_told() {
    let mut bench = listening();
    bench.receive(lines(&["header"])[..9].to_vec());
    assert_eq!(bench.finish(), Next::Done);
    assert_eq!(broken(&mut bench), Breach::Cut);

    let mut bench = listening();
    bench.pipe.incoming_reset = Some(77);
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(broken(&mut bench), Breach::Reset(77));
}

#[test]
fn a_peer_that_does_not_read_its_answers_is_not_read_either() {
    let mut bench = listening();
    bench.pipe.room = 5;
    let next = bench.receive(lines(&["header", "/app/unknown/1"]));
    assert_eq!(next, Next::PEER);
    bench.pipe.incoming.push_back(Bytes::from(lines(&[NAME])));
    assert_eq!(bench.drive(), Next::ROOM);
    assert_eq!(bench.pipe.incoming.len(), 1, "the next proposal waits in the transport");
    assert!(bench.outputs.is_empty());
    assert!(bench.state.deadline.is_some(), "and not for ever");
    bench.pipe.room = usize::MAX;
    assert_eq!(bench.drive(), Next::Done, "the transport says once that there is room: one drive has to do");
    assert_eq!(bench.pipe.outgoing, lines(&["header", "na", NAME]));
    assert!(agreed(&mut bench));
}

#[test]
fn the_dialer_proposes_once_and_is_agreed_with() {
    let mut bench = dialing();
    assert_eq!(bench.pipe.outgoing, lines(&["header", NAME]));
    assert_eq!(bench.pipe.writes, 1);
    assert_eq!(bench.receive(lines(&["header"])), Next::PEER);
    assert_eq!(bench.receive(lines(&[NAME])), Next::Done);
    assert_eq!(bench.machine.answer, Some(Answer::Agreed));
    bench.drive();
    assert_eq!(bench.machine.answer, Some(Answer::Agreed), "and stays so");
    assert_eq!(bench.pipe.outgoing, lines(&["header", NAME]), "nothing is said twice");
}

#[test]
fn the_dialer_leaves_what_follows_the_agreement() {
    let mut bench = dialing();
    bench.receive([lines(&["header", NAME]), b"reply".to_vec()].concat());
    assert_eq!(bench.machine.answer, Some(Answer::Agreed));
    assert_eq!(rest(&mut bench.pipe, &mut bench.state), b"reply");
}

#[test]
fn all_other_answers_are_told_apart() {
    let out_of_order = Some(Answer::Broken(Breach::Malformed("negotiation out of order")));
    assert_eq!(answered(&lines(&["header", "na"])), Some(Answer::Unsupported));
    assert_eq!(answered(&lines(&["header", "/app/other/1"])), out_of_order);
    assert_eq!(answered(&lines(&["header", "header"])), out_of_order);
    assert_eq!(answered(&lines(&["header", "ls"])), out_of_order);
    assert_eq!(answered(&lines(&[NAME])), out_of_order);
    assert_eq!(answered(&lines(&["na"])), out_of_order);
    assert_eq!(answered(b"\x05GET /"), Some(Answer::Broken(Breach::Malformed("multistream-select"))));
    assert_eq!(answered(&[0xff; 12]), Some(Answer::Broken(Breach::Malformed("multistream-select"))));
}

#[test]
fn an_end_or_a_reset_instead_of_an_answer_is_told() {
    let mut bench = dialing();
    assert_eq!(bench.finish(), Next::Done);
    assert_eq!(bench.machine.answer, Some(Answer::Broken(Breach::Cut)));
    let mut bench = dialing();
    bench.pipe.incoming_reset = Some(5);
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(bench.machine.answer, Some(Answer::Broken(Breach::Reset(5))));
}

#[test]
fn an_answer_is_late_at_the_deadline_and_not_before() {
    let mut bench = dialing();
    let at = bench.now + DEADLINE;
    assert_eq!(bench.state.deadline, Some((at, Why::Negotiation)));
    bench.receive(lines(&["header"]));
    assert_eq!(bench.wait(DEADLINE - Duration::from_nanos(1)), Next::PEER);
    assert_eq!(bench.state.deadline, Some((at, Why::Negotiation)));
    assert_eq!(bench.wait(Duration::from_nanos(1)), Next::Done);
    assert_eq!(bench.machine.answer, Some(Answer::Late(DEADLINE)));

    let mut bench = dialing();
    bench.now += DEADLINE;
    bench.receive(lines(&["header", NAME]));
    assert_eq!(bench.machine.answer, Some(Answer::Agreed), "what is there when it is looked at counts");
}

#[test]
fn a_dialer_without_room_proposes_later() {
    let mut bench = Bench::new(Dialing { dialer: Dialer::new(NAME), answer: None });
    bench.pipe.room = 3;
    assert_eq!(bench.drive(), Next::PEER, "the proposal is staged and waits for room");
    bench.pipe.room = usize::MAX;
    bench.drive();
    assert_eq!(bench.pipe.outgoing, lines(&["header", NAME]));
}
