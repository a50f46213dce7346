//! `--announce`: what the ticket and peers say of where this machine is reached.

mod common;

use common::command::*;
use common::*;

#[test]
fn the_ticket_carries_what_is_announced_and_nothing_else() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), b"text");
    let told = ["/dns4/node.example.org/udp/30001/quic-v1", "/ip4/10.1.2.3/udp/30001/quic-v1"];
    let sender = Sender::start(&from.path().join("file"), &["--announce", told[0], "--announce", told[1]]);
    let addrs: Vec<String> = sender.parsed().addrs.iter().map(ToString::to_string).collect();
    assert_eq!(addrs, told);
}

#[test]
fn what_cannot_be_announced_is_explained() {
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("file");
    write(&file, b"text");
    let args = ["send", "--ephemeral", "--announce", "/ip4/0.0.0.0/udp/1/quic-v1", file.to_str().unwrap()];
    let output = run(&args);
    assert_code(&output, 2);
    assert_explained(&output);
    assert!(code_of(&output).1.contains("/ip4/0.0.0.0/udp/1/quic-v1"));
    assert_code(&run(&["get", "strait1x", "--announce", "/ip4/9.9.9.9/udp/1/quic-v1"]), 2);
}
