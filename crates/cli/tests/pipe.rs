//! `strait pipe`: two processes, with the pipes of this one.
#![cfg(unix)]

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::command::*;
use common::tcp::over;
use common::*;
use strait_cli::ticket::Contact;

struct Side {
    running: Running,
    input: ChildStdin,
    output: ChildStdout,
}

fn side(args: &[&str]) -> Side {
    let set = |command: &mut std::process::Command| _ = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(&[&["pipe"], args].concat(), set);
    let (input, output) = (running.child.stdin.take().unwrap(), running.child.stdout.take().unwrap());
    Side { running, input, output }
}

fn waiting(more: &[&str]) -> (Side, String) {
    let side = side(&[&["--listen", "127.0.0.1:0"], more].concat());
    let ticket = side.running.says("strait1");
    (side, ticket)
}

/// Fails, with what it said, unless it ends with this code.
fn ends(mut running: Running, code: i32) {
    let got = running.child.wait().unwrap().code();
    assert_eq!(got, Some(code), "{}", running.said());
}

fn read_all(mut from: ChildStdout) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}

/// PI-04, PI-05, PI-06: bytes of all values go both ways at once, whole, and both sides end well.
#[test]
fn fifty_megabytes_both_ways() {
    ["udp", "tcp"].into_iter().for_each(fifty_megabytes);
}

fn fifty_megabytes(transport: &str) {
    let (one, ticket) = waiting(&[]);
    let two = side(&[&over(&ticket, transport)]);
    let (there, back) = (pattern(50 << 20, 1), pattern((30 << 20) + 1, 2));
    std::thread::scope(|scope| {
        let (mut to_one, mut to_two) = (one.input, two.input);
        scope.spawn(|| to_one.write_all(&there).map(|()| drop(to_one)).unwrap());
        scope.spawn(|| to_two.write_all(&back).map(|()| drop(to_two)).unwrap());
        let got = scope.spawn(|| blake3::hash(&read_all(two.output)));
        assert_eq!(blake3::hash(&read_all(one.output)), blake3::hash(&back));
        assert_eq!(got.join().unwrap(), blake3::hash(&there));
    });
    ends(one.running, 0);
    ends(two.running, 0);
}

/// PI-05: an end of stdin is an end of stdout at the other side, while the other direction goes on for as long as it likes.
#[test]
fn one_direction_ends_and_the_other_goes_on() {
    ["udp", "tcp"].into_iter().for_each(one_direction_ends);
}

fn one_direction_ends(transport: &str) {
    let (one, ticket) = waiting(&[]);
    let two = side(&[&over(&ticket, transport)]);
    drop(one.input);
    assert_eq!(read_all(two.output), b"", "the reader of stdout sees the end");
    let (mut input, mut output) = (two.input, one.output);
    for word in [b"one", b"two"] {
        input.write_all(word).unwrap();
        let mut got = [0; 3];
        output.read_exact(&mut got).unwrap();
        assert_eq!(&got, word);
    }
    drop(input);
    assert_eq!(read_all(output), b"");
    ends(one.running, 0);
    ends(two.running, 0);
}

/// PI-06: neither leaves before the other has read its last word, however often it is tried.
#[test]
fn both_sides_end_well_each_time() {
    for round in 0..20 {
        let (one, ticket) = waiting(&[]);
        let two = side(&[&over(&ticket, ["udp", "tcp"][round % 2])]);
        drop((one.input, two.input));
        ends(one.running, 0);
        ends(two.running, 0);
    }
}

/// PI-03: it takes one peer, then no other; with --allow nobody else at all.
#[test]
fn others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key").to_str().unwrap().to_owned();
    let id = String::from_utf8(run(&["id", "--key", &key]).stdout).unwrap();
    let (one, ticket) = waiting(&["--allow", id.trim()]);
    let stranger = run(&["pipe", &ticket]);
    assert_code(&stranger, 13);
    assert_explained(&stranger);
    assert!(code_of(&stranger).1.contains("this node is not let in there"));
    one.running.says("was not let in: not allowed");
    let two = side(&["--key", &key, &ticket]);
    two.running.says("joined with");
    let (mut one, mut two) = (one, two);
    one.input.write_all(b"x").unwrap();
    two.output.read_exact(&mut [0]).unwrap();

    let (three, ticket) = waiting(&[]);
    let four = side(&[&ticket]);
    four.running.says("joined with");
    let late = run(&["pipe", &ticket]);
    assert_code(&late, 13);
    assert!(code_of(&late).1.contains("somebody else has that pipe already"));
    drop((three.input, four.input));
    // Who was first is not disturbed.
    ends(three.running, 0);
    ends(four.running, 0);
}

/// PI-07: what is cut does not end well, at neither side, whichever way it is cut.
#[test]
fn a_cut_has_its_code() {
    let (mut one, ticket) = waiting(&[]);
    let mut two = side(&[&ticket]);
    one.input.write_all(b"x").unwrap();
    two.output.read_exact(&mut [0]).unwrap();
    assert_eq!(one.running.signal("TERM"), Some(143));
    assert_eq!(two.running.child.wait().unwrap().code(), Some(15));
    two.running.says("cut");

    // Nobody reads what comes out at one side.
    let (mut one, ticket) = waiting(&[]);
    let two = side(&[&ticket]);
    drop(two.output);
    let _ = one.input.write_all(&pattern(1 << 20, 3)); // it may have ended before it took all
    ends(two.running, 19);
    assert_eq!(one.running.child.wait().unwrap().code(), Some(15));
    one.running.says("cut");
}

/// PI-08: who does not read its output holds up the other's input, and no memory is filled instead.
#[test]
fn a_side_that_does_not_read_stops_the_other() {
    let (one, ticket) = waiting(&[]);
    let two = side(&[&ticket]);
    let wrote = Arc::new(AtomicU64::new(0));
    let (count, mut input) = (wrote.clone(), one.input);
    let writer = std::thread::spawn(move || {
        for _ in 0..(256 << 20 >> 16) {
            if input.write_all(&[5; 1 << 16]).is_err() {
                return;
            }
            count.fetch_add(1 << 16, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    while before == 0 || wrote.load(Ordering::Relaxed) != before {
        before = wrote.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(700));
    }
    assert!(before < 100 << 20, "{before} bytes were taken, and nobody reads them");
    drop(two);
    drop(one.running);
    writer.join().unwrap();
}

/// PI-01, PI-02, PI-06: a peer that ends without having said that it has taken all, or breaks the frames, is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_keep_to_the_protocol() {
    for (bytes, more) in [(&b""[..], 14), (b"\0", 14), (b"\0\x05abc", 14), (b"\0\0", 14), (b"\0\0\0\x01x", 14)] {
        let (mut one, ticket) = tokio::task::spawn_blocking(|| waiting(&[])).await.unwrap();
        drop(one.input);
        let contact = Contact::read(&ticket).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let node = strait_cli::net::Nodes::default();
        let node = node.start(strait_cli::keyfile::fresh().unwrap(), Some(listen)).await.unwrap();
        let (mut send, _recv) = strait_cli::pipe::open(&node, &contact).await.unwrap();
        send.write_all(bytes.to_vec()).await.unwrap();
        send.finish().unwrap();
        let code = tokio::task::spawn_blocking(move || one.running.child.wait().unwrap().code()).await.unwrap();
        assert_eq!(code, Some(more), "{bytes:?}");
    }
}
