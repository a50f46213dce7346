//! `strait forward`: what is not allowed or does not work is refused, and said in words at the side that can do something about it.

mod common;

use std::io::Read;

use common::command::*;
use common::tcp::*;
use common::*;

/// A connection that is refused ends with a reset, and without a byte.
fn assert_reset(at: &str) {
    let error = connect(at).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// FW-10, FW-03: a target that is not in the list is not reached, though it is there and another one is open.
#[test]
fn a_target_that_is_not_exposed() {
    let (exposed, hidden) = (server(echo), server(echo));
    let (expose, ticket) = expose(&[&exposed.to_string()]);
    let other = format!("0:localhost:{}", exposed.port()); // the same place by another name is another target
    let (open, at) = open(&ticket, &[&format!("0:{hidden}"), &other, &format!("0:{exposed}")]);
    assert_reset(&at[0]);
    open.says(&format!("{hidden} is not exposed there"));
    assert_reset(&at[1]);
    expose.says("wanted what is not exposed");
    assert!(echoes(&mut connect(&at[2]), 1).unwrap());
}

#[test]
fn without_a_name_there_must_be_one_target() {
    let (one, two) = (server(echo).to_string(), server(echo).to_string());
    let (_expose, ticket) = expose(&[&one, &two]);
    let (open, at) = open(&ticket, &["0"]);
    assert_reset(&at[0]);
    open.says("does not expose exactly one target");
}

/// FW-14: who is not named is not let in, by identity; who is, is.
#[test]
fn a_peer_that_is_not_allowed() {
    let target = server(echo).to_string();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key").to_str().unwrap().to_owned();
    let id = String::from_utf8(run(&["id", "--key", &key]).stdout).unwrap();
    let (expose, ticket) = expose(&[&target, "--allow", id.trim()]);
    let (stranger, at) = open(&ticket, &["0"]);
    assert_reset(&at[0]);
    stranger.says("this node is not let in there");
    stranger.says("have it add --allow 12D3Koo");
    expose.says("was not let in: no --allow names it");
    let (_friend, at) = Running::lines(&["forward", "open", "--key", &key, &ticket, "0"], 1);
    assert!(echoes(&mut connect(&at[0]), 1).unwrap());
}

#[test]
fn a_target_that_refuses_and_one_that_has_no_address() {
    let (closed, nowhere) = (closed_port().to_string(), "no-such-host.invalid:80");
    let (expose, ticket) = expose(&[&closed, nowhere]);
    let (open, at) = open(&ticket, &[&format!("0:{closed}"), &format!("0:{nowhere}")]);
    assert_reset(&at[0]);
    open.says(&format!("{closed} refuses connections"));
    expose.says(&format!("{closed} could not be reached"));
    assert_reset(&at[1]);
    open.says(&format!("{nowhere} cannot be reached from the other side"));
}

/// What is wrong from the start ends the command with its code, before anybody connects.
#[test]
fn what_cannot_work_from_the_start() {
    let target = server(echo).to_string();
    let (_expose, ticket) = expose(&[&target]);
    let taken = server(echo).to_string();
    let nobody = strait_cli::keyfile::fresh().unwrap().public().to_peer_id();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{nobody}", silent.local_addr().unwrap().port());
    for (args, code) in [(&["hello", "0"][..], 3), (&[&ticket, &taken], 4), (&[&gone, "0"], 4)] {
        let output = run(&[&["forward", "open"], args].concat());
        assert_code(&output, code);
        assert_explained(&output);
        assert!(output.stdout.is_empty(), "no address is printed");
    }
    for args in [
        &["forward"][..],
        &["forward", "expose"],
        &["forward", "expose", "nowhere"],
        &["forward", "expose", "--allow", "somebody", "80"],
        &["forward", "open", &ticket],
        &["forward", "open", &ticket, "80:x"],
        &["pipe", &ticket, "--listen", "127.0.0.1:0"],
    ] {
        assert_code(&run(args), 2);
    }
}

/// A ticket of another command leads to a node that does not serve this, and that is said.
#[test]
fn a_ticket_of_another_command() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), b"text");
    let sender = Sender::start(&from.path().join("file"), &[]);
    let (open, at) = open(&sender.ticket, &["0"]);
    assert_reset(&at[0]);
    open.says("does not serve /strait/forward/1");
    let output = run(&["pipe", &sender.ticket]);
    assert_code(&output, 13);
    assert_explained(&output);
}
