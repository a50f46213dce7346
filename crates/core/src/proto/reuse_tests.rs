use std::time::Duration;

use super::*;
use crate::error::{Breach, RequestError, StreamError};
use crate::limits::{PIN_BYTES, STREAM_REST, STREAM_REST_MAX};
use crate::message::Message;
use crate::proto::request::{Client, Server};
use crate::stream::testing::Bench;
use crate::stream::{Input, Next, Output};

const MAX: usize = 64 << 10;
static DEF: Request = Request::new("/app/get/1", MAX, MAX, Duration::from_secs(2), 4);
const NANO: Duration = Duration::from_nanos(1);

fn lines() -> Vec<u8> {
    let mut lines = Vec::new();
    strait_wire::multistream::header(&mut lines);
    strait_wire::multistream::protocol("/app/get/1/reuse/1", &mut lines).expect("a name");
    lines
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    strait_wire::framing::put_header(body.len(), &mut out);
    out.extend_from_slice(body);
    out
}

fn asking() -> Bench<Client> {
    let mut bench = Bench::new(Client::reusing(&DEF, Message::from(vec![1; 10])));
    bench.drive();
    bench
}

fn answering() -> Bench<Server> {
    Bench::new(Server::reusing(&DEF))
}

fn said<M>(bench: &mut Bench<M>) -> Vec<u8> {
    std::mem::take(&mut bench.pipe.outgoing)
}

fn rests(next: Next) -> bool {
    matches!(next, Next::Wait(waits) if waits.peer && waits.open_ended)
}

fn ask(bench: &mut Bench<Client>, body: Vec<u8>) -> Next {
    bench.state.input = Some(Input::Request(Message::from(body)));
    bench.drive()
}

fn answer(bench: &mut Bench<Server>, body: Vec<u8>) -> Next {
    bench.state.input = Some(Input::Reply(Message::from(body)));
    bench.drive()
}

/// Takes what was told of one reply, and that the stream stays.
fn reply(bench: &mut Bench<Client>) -> Vec<u8> {
    match &bench.outputs[..] {
        [Output::Reply(Ok(_)), Output::Rests] => {}
        other => panic!("{other:?}"),
    }
    let Output::Reply(Ok(message)) = bench.outputs.remove(0) else { unreachable!() };
    bench.outputs.clear();
    message.into_bytes().to_vec()
}

fn arrived(bench: &mut Bench<Server>) -> Vec<u8> {
    match bench.only_output() {
        Output::Arrived(message) => message.into_bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}

fn served<M>(bench: &mut Bench<M>, len: usize) {
    assert!(matches!(bench.outputs[..2], [Output::Served(Ok(was)), Output::Rests] if was == len), "{:?}", bench.outputs);
    bench.outputs.drain(..2);
}

/// RE-03.
#[test]
fn exchanges_follow_each_other_on_one_stream() {
    let (mut client, mut server) = (asking(), answering());
    assert_eq!(said(&mut client), [lines(), framed(&[1; 10])].concat(), "RE-01: and the first request right behind");
    client.receive(lines());
    server.receive(framed(&[1; 10]));
    for round in 0..5u8 {
        assert_eq!(arrived(&mut server).len(), 10 + usize::from(round));
        assert!(rests(answer(&mut server, vec![round; 300])));
        served(&mut server, 300);
        let out = said(&mut server);
        assert_eq!(out, framed(&[round; 300]));
        assert!(rests(client.trickle(&out)));
        assert_eq!(reply(&mut client), vec![round; 300]);
        assert!(said(&mut client).is_empty() && !client.pipe.finished && !server.pipe.finished);
        assert_eq!(client.state.grant.bytes() + server.state.grant.bytes(), 0, "nothing is granted while they rest");
        ask(&mut client, vec![round; 11 + usize::from(round)]);
        let out = said(&mut client);
        assert_eq!(out, framed(&vec![round; 11 + usize::from(round)]), "nothing is agreed on again");
        server.trickle(&out);
    }
}

/// RE-03, RE-06.
#[test]
fn what_comes_too_early_waits_for_its_own_turn() {
    let mut server = answering();
    server.receive([framed(&[1; 10]), framed(&[2; 10])].concat());
    assert_eq!(arrived(&mut server), [1; 10]);
    assert!(rests(answer(&mut server, vec![5; 5])));
    served(&mut server, 5);
    assert!(matches!(server.only_output(), Output::More), "it asks for another turn");
    assert_eq!(server.drive(), Next::APP);
    assert_eq!(arrived(&mut server), [2; 10]);
}

#[test]
fn a_second_answer_is_not_one_to_the_next_request() {
    let mut server = answering();
    server.receive(framed(&[1; 10]));
    server.outputs.clear();
    server.pipe.room = 0;
    answer(&mut server, vec![5; 5]);
    server.state.input = Some(Input::Reply(Message::from(vec![6; 5])));
    server.pipe.room = usize::MAX;
    server.drive();
    served(&mut server, 5);
    assert_eq!(server.receive(framed(&[2; 10])), Next::APP, "it waits for an answer");
}

/// RE-04.
#[test]
fn a_large_message_is_the_last_one_of_its_direction() {
    let mut client = asking();
    client.receive([lines(), framed(&[1])].concat());
    reply(&mut client);
    ask(&mut client, vec![1; PIN_BYTES]);
    assert!(!client.pipe.finished);
    client.receive(framed(&[2]));
    reply(&mut client);
    ask(&mut client, vec![1; PIN_BYTES + 1]);
    assert!(client.pipe.finished);
    assert_eq!(client.receive(framed(&[3])), Next::Done);
    assert!(matches!(client.only_output(), Output::Reply(Ok(_))));

    let mut server = answering();
    server.receive(framed(&[1; 10]));
    server.outputs.clear();
    assert_eq!(answer(&mut server, vec![1; PIN_BYTES + 1]), Next::Done);
    assert!(server.pipe.finished);
    assert!(matches!(server.only_output(), Output::Served(Ok(len)) if len == PIN_BYTES + 1));
}

/// RE-04.
#[test]
fn who_ends_behind_a_message_has_its_answer() {
    let mut server = answering();
    server.receive(framed(&[1; 10]));
    server.finish();
    server.outputs.clear();
    assert_eq!(answer(&mut server, vec![5; 5]), Next::Done);
    assert_eq!(said(&mut server), framed(&[5; 5]));
    assert!(server.pipe.finished);

    let mut client = asking();
    client.pipe.incoming_finished = true;
    assert_eq!(client.receive([lines(), framed(&[7])].concat()), Next::Done);
    assert!(matches!(&client.outputs[..], [Output::Reply(Ok(_)), Output::Rests, Output::Quiet]), "{:?}", client.outputs);
}

/// RE-05.
#[test]
fn a_stream_that_rests_for_long_ends_in_order() {
    let mut client = asking();
    client.receive([lines(), framed(&[1])].concat());
    client.outputs.clear();
    assert!(rests(client.wait(STREAM_REST - NANO)));
    assert_eq!(client.wait(NANO), Next::Done);
    assert!(client.pipe.finished && client.pipe.stopped.is_some() && client.pipe.reset.is_none());
    assert!(matches!(client.only_output(), Output::Quiet));

    let mut server = answering();
    server.receive(framed(&[1; 10]));
    answer(&mut server, vec![5; 5]);
    server.outputs.clear();
    assert!(rests(server.wait(STREAM_REST_MAX - NANO)));
    assert_eq!(server.wait(NANO), Next::Done);
    assert!(server.pipe.finished && server.pipe.reset.is_none());
    assert!(matches!(server.only_output(), Output::Quiet));
}

#[test]
fn each_exchange_has_the_deadlines_of_a_first_one() {
    let mut client = asking();
    client.receive([lines(), framed(&[1])].concat());
    client.outputs.clear();
    client.wait(STREAM_REST - NANO);
    ask(&mut client, vec![1; 10]);
    assert_eq!(client.wait(DEF.deadline - NANO), Next::PEER, "from its own beginning");
    assert_eq!(client.wait(NANO), Next::Done);
    assert!(matches!(client.only_output(), Output::Reply(Err(RequestError::NoAnswer(_)))));
    assert!(client.pipe.reset.is_some(), "RE-07");

    let mut server = answering();
    server.receive(framed(&[1; 10]));
    answer(&mut server, vec![5; 5]);
    server.outputs.clear();
    server.wait(STREAM_REST_MAX / 2);
    server.receive(framed(&[1; 10])[..5].to_vec());
    let interval = server.limits.progress_interval;
    assert_eq!(server.wait(interval - NANO), Next::PEER);
    assert_eq!(server.wait(NANO), Next::Done, "and progress is watched");
    assert!(matches!(server.only_output(), Output::Served(Err(Breach::Slow))));
}

/// RE-07.
#[test]
fn whatever_is_not_in_order_ends_the_stream() {
    fn resting() -> Bench<Client> {
        let mut client = asking();
        client.receive([lines(), framed(&[1])].concat());
        client.outputs.clear();
        client
    }
    let mut client = resting();
    assert_eq!(client.receive(framed(&[2])), Next::Done);
    assert!(matches!(client.only_output(), Output::Failed(StreamError::Broken(Breach::Malformed(_)))));
    assert!(client.pipe.reset.is_some());

    let mut client = resting();
    client.pipe.incoming_reset = Some(3);
    assert_eq!(client.drive(), Next::Done);
    assert!(matches!(client.only_output(), Output::Quiet));

    let mut client = resting();
    ask(&mut client, vec![1; 10]);
    assert_eq!(client.receive(framed(&vec![0; MAX + 1])), Next::Done);
    assert!(matches!(client.only_output(), Output::Reply(Err(RequestError::Broken(Breach::TooLarge { .. })))));

    let mut server = answering();
    server.receive(framed(&[1; 10]));
    server.outputs.clear();
    server.state.input = Some(Input::Reject(3));
    assert_eq!(server.drive(), Next::Done);
    assert_eq!(server.pipe.reset, Some(3));
}

/// RE-02.
#[test]
fn only_who_has_told_so_is_asked() {
    let told = [String::from("/app/get/1"), proposal("/app/put/1")];
    assert!(is_among(&told, "/app/put/1"));
    assert!(!is_among(&told, "/app/get/1"));
    assert!(!is_among(&told, "/app/put"));
}

/// RE-01.
#[test]
fn only_messages_with_a_length_can_follow_each_other() {
    assert!(allows(&DEF));
    assert!(!allows(&DEF.framing(Framing::EndOfStream)));
    let name = |len: usize| -> &'static str { format!("/{}", "x".repeat(len - 1)).leak() };
    let longest = NAME_BYTES_MAX - SUFFIX.len();
    assert!(allows(&Request { name: name(longest), ..DEF }));
    assert!(!allows(&Request { name: name(longest + 1), ..DEF }));
}
