//! Every stream machine against scripts that nobody wrote: whatever comes in whatever pieces and at whatever time, it tells exactly
//! one outcome, waits for no peer without a deadline and holds what it was granted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::stream::testing::Bench;
use crate::stream::{Input, Next, Output, StreamMachine};

static DEF: Request = Request::new("/app/get/1", 3000, 2000, Duration::from_secs(2), 4);
static UNTIL_END: Request = DEF.framing(Framing::EndOfStream);
const REUSED: &str = "/app/get/1/reuse/1";
static CHAT: StreamProtocol = StreamProtocol::new("/app/get/1", 4, Idle::After(Duration::from_secs(60)));

/// One thing that happens to a stream.
#[derive(Debug, Clone)]
enum Happens {
    Bytes(Vec<u8>),
    /// A line of the negotiation: by chance the right one.
    Line(&'static str),
    /// A message of so many bytes, with its length.
    Framed(usize),
    Finish,
    Reset(u64),
    Refuse(u64),
    Wait(u64),
    Room(usize),
    Reply(usize),
    /// The next request, where the last one is over.
    Ask(usize),
    Reject,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Happens::Bytes),
        4 => prop_oneof![Just("header"), Just("na"), Just("ls"), Just(DEF.name), Just("/app/other/1")].prop_map(Happens::Line),
        4 => prop_oneof![0usize..300, 1900usize..3100].prop_map(Happens::Framed),
        1 => Just(Happens::Finish),
        1 => (0u64..9).prop_map(Happens::Reset),
        1 => (0u64..9).prop_map(Happens::Refuse),
        3 => prop_oneof![1u64..50, 900u64..4000, Just(20_000)].prop_map(Happens::Wait),
        4 => prop_oneof![0usize..60, 1000usize..5000].prop_map(Happens::Room),
        2 => (0usize..2500).prop_map(Happens::Reply),
        2 => (0usize..2500).prop_map(Happens::Ask),
        1 => Just(Happens::Reject),
    ]
}

fn line(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match text {
        "header" => strait_wire::multistream::header(&mut out),
        "na" => strait_wire::multistream::na(&mut out),
        "ls" => out.extend_from_slice(b"\x03ls\n"),
        name => strait_wire::multistream::protocol(name, &mut out).expect("a name"),
    }
    out
}

fn framed(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    strait_wire::framing::put_header(len, &mut out);
    out.resize(out.len() + len, 5);
    out
}

fn apply<M>(bench: &mut Bench<M>, step: &Happens, piece: usize) {
    let mut come = |bytes: Vec<u8>| bench.pipe.incoming.extend(bytes.chunks(piece.max(1)).map(Bytes::copy_from_slice));
    match step {
        // After its end a peer sends nothing more: the transport sees to that.
        Happens::Bytes(_) | Happens::Line(_) | Happens::Framed(_) if bench.pipe.incoming_finished => {}
        Happens::Bytes(bytes) => come(bytes.clone()),
        Happens::Line(text) => come(line(text)),
        Happens::Framed(len) => come(framed(*len)),
        Happens::Finish => bench.pipe.incoming_finished = true,
        Happens::Reset(code) => bench.pipe.incoming_reset = Some(*code),
        Happens::Refuse(code) => {
            bench.pipe.refused = Some(*code);
            bench.state.peer_stopped.get_or_insert(*code);
        }
        Happens::Wait(millis) => bench.now += Duration::from_millis(*millis),
        Happens::Room(bytes) => bench.pipe.room = *bytes,
        Happens::Reply(len) => bench.state.input = Some(Input::Reply(Message::from(vec![1; *len]))),
        Happens::Ask(len) => {
            if matches!(bench.outputs.last(), Some(Output::Rests)) {
                bench.state.input = Some(Input::Request(Message::from(vec![1; *len])));
            }
        }
        Happens::Reject => bench.state.input = Some(Input::Reject(3)),
    }
}

/// The same, with another name in the negotiation.
fn swap(steps: &[Happens], name: &'static str, with: &'static str) -> Vec<Happens> {
    let swapped = |step: &Happens| match step {
        Happens::Line(line) if *line == name => Happens::Line(with),
        step => step.clone(),
    };
    steps.iter().map(swapped).collect()
}

fn is_final(output: &Output) -> bool {
    !matches!(output, Output::Arrived(_) | Output::Confirmed | Output::Rests | Output::More)
}

fn judge<M: StreamMachine>(name: &str, machine: M, steps: &[Happens], piece: usize) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(machine);
    bench.pipe.room = 500;
    let mut next = bench.drive();
    for step in steps {
        // What is before it was no end.
        let rests = bench.outputs.iter().filter(|output| matches!(output, Output::Rests)).count();
        let finals = bench.outputs.iter().filter(|output| is_final(output)).count() - rests;
        if next == Next::Done {
            prop_assert_eq!(finals, 1, "{}: {:?}", name, bench.outputs);
            return Ok(());
        }
        prop_assert_eq!(finals, 0, "{}: it waits after its outcome: {:?}", name, bench.outputs);
        if let Next::Wait(waits) = next {
            let theirs = (waits.peer || waits.room) && !waits.open_ended && !waits.app && !waits.memory;
            prop_assert!(!theirs || bench.state.deadline.is_some(), "{}: waits for ever: {:?}", name, waits);
            // A deadline in the past would be a loop.
            prop_assert!(bench.state.deadline.is_none_or(|(at, _)| at > bench.now), "{}: {:?}", name, bench.state.deadline);
        }
        prop_assert!(bench.state.held() < 12 << 10, "{}: {} bytes staged", name, bench.state.held());
        apply(&mut bench, step, piece);
        next = bench.drive();
    }
    Ok(())
}

fn registry() -> Arc<Registry> {
    let mut registry = Registry::new();
    let entry = Entry { name: DEF.name, served: Served::Request(&DEF), priority: Priority::Normal, per_peer_max: 1 };
    registry.add(entry).expect("a good name");
    Arc::new(registry)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]
    #[test]
    fn machines_keep_their_promises(
        agreed in any::<bool>(),
        rest in proptest::collection::vec(happens(), 1..40),
        piece in 1usize..2000,
    ) {
        // Chance alone seldom gets through the negotiation.
        let lines = [Happens::Line("header"), Happens::Line(DEF.name)];
        let steps: Vec<Happens> = lines.into_iter().filter(|_| agreed).chain(rest).collect();
        judge("listener", select::Listener::new(registry()), &steps, piece)?;
        judge("client of several", request::Client::reusing(&DEF, Message::from(vec![2; 1500])), &swap(&steps, DEF.name, REUSED), piece)?;
        for def in [&DEF, &UNTIL_END] {
            judge("client", request::Client::new(def, Message::from(vec![2; 1500])), &steps, piece)?;
            judge("server", request::Server::new(def), &steps, piece)?;
        }
        judge("server of several", request::Server::reusing(&DEF), &steps, piece)?;
        judge("echo", ping::Echo::new(), &steps, piece)?;
        judge("pinger", ping::Pinger::new([5; 32]), &steps, piece)?;
        judge("hear", identify::Hear::pushed(), &steps, piece)?;
        judge("ask", identify::Hear::ask(), &steps, piece)?;
        judge("tell", identify::Tell::answer(Bytes::from(vec![3; 3000])), &steps, piece)?;
        judge("push", identify::Tell::push(Bytes::from(vec![3; 3000])), &steps, piece)?;
        judge("raw in", raw::Raw::accept(&CHAT), &steps, piece)?;
        judge("raw out", raw::Raw::dial(&CHAT), &steps, piece)?;
    }
}
