//! What cannot work ends with its own exit code, says why and what to do, and writes nothing.

mod common;

use common::command::*;
use common::*;
use strait_cli::ticket::{Contact, Ticket};

/// TR-12: a mistyped ticket is told as such, without any attempt to reach anybody.
#[test]
fn bad_tickets() {
    let to = tempfile::tempdir().unwrap();
    let peer = strait_cli::keyfile::fresh().unwrap().public().to_peer_id();
    let good = Ticket { peer, addrs: vec![], root: blake3::hash(b"") }.to_string();
    let mistyped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('a') { 'b' } else { 'a' });
    for ticket in ["hello", "strait1", "", &mistyped, &good[..good.len() - 9]] {
        let output = get(ticket, &to.path().join("new"), &["--json"]);
        assert_code(&output, 3);
        assert_explained(&output);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((json["event"].as_str(), json["code"].as_u64()), (Some("error"), Some(3)));
        assert!(contents(to.path()).is_empty());
    }
}

/// TR-14: a ticket that names a node is told from one that cannot be read.
#[test]
fn a_ticket_of_a_node() {
    let to = tempfile::tempdir().unwrap();
    let peer = strait_cli::keyfile::fresh().unwrap().public().to_peer_id();
    let output = get(&Contact { peer, addrs: vec![] }.to_string(), &to.path().join("new"), &[]);
    assert_code(&output, 3);
    assert_explained(&output);
    assert!(code_of(&output).1.contains("this ticket names a node and not files"), "{output:?}");
    assert!(contents(to.path()).is_empty());
}

/// TR-13: a provider with another identity is not asked for anything.
#[test]
fn another_identity_at_the_address() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), b"text");
    let sender = Sender::start(&from.path().join("file"), &["--once"]);
    let right = sender.parsed();
    let wanted = strait_cli::keyfile::fresh().unwrap().public().to_peer_id();
    let wrong = Ticket { peer: wanted, ..right.clone() }.to_string();
    let output = get(&wrong, &to.path().join("new"), &[]);
    assert_code(&output, 5);
    assert_explained(&output);
    let (_, said) = code_of(&output);
    assert!(said.contains(&wanted.to_string()) && said.contains(&right.peer.to_string()), "both are named: {said}");
    assert!(contents(to.path()).is_empty());
}

#[test]
fn nobody_at_the_address() {
    let to = tempfile::tempdir().unwrap();
    // Bound and never read, so that no other program answers there.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = format!("/ip4/127.0.0.1/udp/{}/quic-v1", silent.local_addr().unwrap().port());
    let peer = strait_cli::keyfile::fresh().unwrap().public().to_peer_id();
    let ticket = Ticket { peer, addrs: vec![addr.parse().unwrap()], root: blake3::hash(b"") }.to_string();
    let output = get(&ticket, &to.path().join("new"), &[]);
    assert_code(&output, 4);
    assert_explained(&output);
    let output = get(&Ticket { addrs: vec![], ..ticket.parse().unwrap() }.to_string(), &to.path().join("new"), &[]);
    assert_code(&output, 4);
    assert!(contents(to.path()).is_empty());
}

/// TR-50: the right provider with another root.
#[test]
fn a_root_that_is_not_served() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), b"text");
    let sender = Sender::start(&from.path().join("file"), &[]);
    let other = Ticket { root: blake3::hash(b"other"), ..sender.parsed() }.to_string();
    let output = get(&other, &to.path().join("new"), &[]);
    assert_code(&output, 13);
    assert_explained(&output);
    assert!(contents(to.path()).is_empty());
}

#[test]
fn a_source_that_changed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), b"text");
    let sender = Sender::start(&from.path().join("file"), &[]);
    write(&from.path().join("file"), b"longer text");
    let output = sender.get(to.path(), &[]);
    assert_code(&output, 12);
    assert_explained(&output);
    assert!(contents(to.path()).is_empty());
}

#[test]
fn things_that_cannot_be_sent_and_wrong_command_lines() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let output = run(&["send", "--ephemeral", gone.to_str().unwrap()]);
    assert_code(&output, 16);
    assert_explained(&output);
    assert!(output.stdout.is_empty(), "no ticket is printed");
    for args in [&["send"][..], &["get"], &["fetch"], &["send", "--listen", "nowhere", "x"], &[]] {
        assert_code(&run(args), 2);
    }
    assert_code(&run(&["--help"]), 0);
}

/// A folder that may not be written to has its own code. The superuser may write anywhere: nothing to see then.
#[cfg(unix)]
#[test]
fn a_target_that_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), b"text");
    std::fs::set_permissions(to.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(to.path().join("probe"), b"").is_ok() {
        return;
    }
    let sender = Sender::start(&from.path().join("file"), &[]);
    let output = sender.get(to.path(), &[]);
    assert_code(&output, 10);
    assert_explained(&output);
}
