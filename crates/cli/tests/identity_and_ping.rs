//! `strait id` and `strait ping`.

mod common;

use common::command::*;
use common::*;

#[test]
fn an_identity_is_kept_in_its_file_and_under_the_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let id = |args: &[&str]| {
        let output = strait(args).env("XDG_DATA_HOME", dir.path().join("data")).output().unwrap();
        assert_code(&output, 0);
        String::from_utf8(output.stdout).unwrap()
    };
    let named = id(&["id", "--key", key.to_str().unwrap()]);
    assert!(named.starts_with("12D3Koo"), "{named}");
    assert_eq!(id(&["id", "--key", key.to_str().unwrap()]), named);
    let usual = id(&["id"]);
    assert_eq!(id(&["id"]), usual);
    assert_ne!(usual, named);
    assert!(dir.path().join("data/strait/key").is_file());
    assert_ne!(id(&["id", "--ephemeral"]), id(&["id", "--ephemeral"]));
    write(&key, b"not a key");
    assert_code(&run(&["id", "--key", key.to_str().unwrap()]), 17);
}

#[test]
fn ping_by_ticket_and_by_address() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), b"text");
    let sender = Sender::start(&from.path().join("file"), &[]);
    let output = run(&["ping", &sender.ticket, "-c", "3", "-i", "1"]);
    assert_code(&output, 0);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), 5, "{said}");
    assert!(said.contains("3 of 3 answered, min "), "{said}");
    let ticket = sender.parsed();
    let address = format!("{}/p2p/{}", ticket.addrs[0], ticket.peer);
    let output = run(&["ping", &address, "-c", "2", "-i", "0", "--json"]);
    assert_code(&output, 0);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["event"].as_str(), json["answered"].as_u64()), (Some("ping"), Some(2)));
    assert!(json["min_ms"].as_f64() <= json["max_ms"].as_f64());
    let other = strait_cli::keyfile::fresh().unwrap().public().to_peer_id();
    assert_code(&run(&["ping", &format!("{}/p2p/{other}", ticket.addrs[0])]), 5);
    assert_code(&run(&["ping", "/ip4/127.0.0.1/udp/1/quic-v1"]), 3);
}
