//! `--abuse-log`: what an attacker does is in the file, line by line as `docs/abuse-feed.md` has it, and a good peer is not.
#![cfg(unix)]

mod common;

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use common::command::*;
use common::*;
use serde_json::Value;

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a line is cut: {text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every field and offence that comes is in the documentation.
fn assert_documented(line: &Value) {
    let text = include_str!("../../../docs/abuse-feed.md");
    for field in line.as_object().unwrap().keys() {
        assert!(text.contains(&format!("`{field}`")), "the field {field} is not documented");
    }
    let offence = line["offence"].as_str().unwrap();
    assert!(text.contains(&format!("\n| `{offence}` |")), "the offence {offence} is not documented");
}

#[test]
fn an_attacker_is_in_the_file_and_a_good_peer_is_not() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("top/file"), &pattern(1 << 20, 1));
    let log = from.path().join("abuse.jsonl");
    fs::write(&log, "").unwrap();
    let sender = Sender::start(&from.path().join("top"), &["--abuse-log", log.to_str().unwrap()]);
    assert_code(&sender.get(to.path(), &[]), 0);
    let port = sender.parsed().addrs[0].to_string().split('/').nth(4).unwrap().parse::<u16>().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    // Datagrams of one byte, which no QUIC peer sends, until it is told.
    while lines(&log).is_empty() && Instant::now() < end {
        socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let lines = lines(&log);
    assert_eq!(lines.len(), 1, "only the attacker is told of, once: {lines:?}");
    assert_documented(&lines[0]);
    let told = |field: &str| lines[0][field].clone();
    assert_eq!((told("who"), told("address"), told("peer")), ("address".into(), "127.0.0.1".into(), Value::Null));
    assert_eq!((told("offence"), told("forgeable")), ("bad_packet".into(), true.into()));
    assert!(told("count").as_u64().unwrap() >= 8 && told("last").as_u64() >= told("first").as_u64());
}

#[test]
fn all_offences_are_documented() {
    let text = include_str!("../../../docs/abuse-feed.md");
    for offence in strait::Offence::ALL {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}` |", offence.name())));
        let row = row.unwrap_or_else(|| panic!("{} has no row", offence.name()));
        let least = row.split('|').nth(3).unwrap().replace([',', ' '], "");
        assert_eq!(least.parse::<u64>(), Ok(offence.least()), "{row}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_refused_at_once() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), b"1");
    let file = from.path().join("file");
    let output = run(&["send", "--ephemeral", "--abuse-log", "/no/such/folder/abuse", file.to_str().unwrap()]);
    assert_explained(&output);
    let output = run(&["get", "--abuse-log", "x", "strait1x"]);
    assert_code(&output, 2);
}
