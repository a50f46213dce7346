//! Traces of real connections: what is in them, that they keep to their bounds, and that nothing secret is told.
#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use common::command::*;
use common::tcp::*;
use serde_json::Value;

/// A JSON text sequence (RFC 7464): each record begins with a separator and ends with a line feed.
fn records(text: &str) -> Vec<Value> {
    let mut parts = text.split('\u{1e}');
    assert_eq!(parts.next(), Some(""), "it begins with a separator");
    parts.map(|part| serde_json::from_str(part.strip_suffix('\n').expect("whole records")).unwrap()).collect()
}

/// The events behind the head of a trace in qlog.
fn events_of(text: &str, role: &str) -> Vec<Value> {
    let mut all = records(text);
    let head = all.remove(0);
    assert_eq!((&head["qlog_version"], &head["qlog_format"]), (&"0.3".into(), &"JSON-SEQ".into()));
    assert_eq!(head["trace"]["vantage_point"]["type"], role);
    assert!(head["trace"]["common_fields"]["reference_time"].as_f64().unwrap() > 1e12, "milliseconds since 1970: {head}");
    let times: Vec<f64> = all.iter().map(|event| event["time"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    all
}

fn names(events: &[Value]) -> BTreeSet<&str> {
    events.iter().map(|event| event["name"].as_str().unwrap()).collect()
}

/// The sum of a number in all events of a name.
fn sum(events: &[Value], name: &str, number: impl Fn(&Value) -> Option<u64>) -> u64 {
    events.iter().filter(|event| event["name"] == name).filter_map(|event| number(&event["data"])).sum()
}

#[test]
fn a_connection_that_is_open_already_is_traced_as_far_as_was_asked_for() {
    for (transport, sent, received) in
        [("udp", "transport:datagrams_sent", "transport:datagrams_received"), ("tcp", "strait:pipe_written", "strait:pipe_read")]
    {
        let (dir, target) = (tempfile::tempdir().unwrap(), server(echo));
        let config = dir.path().join("strait.toml");
        std::fs::write(&config, format!("[forward]\ntargets = ['{target}']\n")).unwrap();
        let (_node, ticket, admin) = node(&[ALONE, &["--config", config.to_str().unwrap()]].concat());
        let (_open, ports) = open(&over(&ticket, transport), &["0"]);
        let mut tcp = connect(&ports[0]);
        let said = b"what is said on a connection is nobody's business";
        let mut exchange = || {
            tcp.write_all(said).unwrap();
            tcp.read_exact(&mut vec![0; said.len()]).unwrap();
        };
        exchange();
        let now: Value = serde_json::from_str(asked(admin, "/now.json").split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let peer = now["peers"][0]["peer"].as_str().expect("a peer").to_owned();
        let args = ["trace", &peer, "--size", "20K", "--for", "10m", "--admin", &admin.to_string()];
        let mut tracing = strait(&args).stdout(Stdio::piped()).spawn().unwrap();
        // Until it is as large as it may be, which only traffic makes it.
        while tracing.try_wait().unwrap().is_none() {
            exchange();
        }
        let output = tracing.wait_with_output().unwrap();
        assert_code(&output, 0);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.len() <= 20 << 10 && text.len() > 19 << 10, "{} bytes", text.len());
        let events = events_of(&text, "server");
        let all = names(&events);
        for name in ["strait:trace_began", sent, received, "recovery:metrics_updated", "strait:state"] {
            assert!(all.contains(name), "{name} is not in {all:?} over {transport}");
        }
        assert_eq!(events[0]["data"]["peer"], peer.as_str());
        assert!(events[0]["data"]["age"].as_f64().unwrap() > 0.0, "it was there before: {}", events[0]);
        let last = events.last().unwrap();
        assert_eq!((&last["name"], &last["data"]["why"]), (&"strait:trace_ended".into(), &"it is as large as it may be".into()));
        if transport == "udp" {
            for (name, frame) in [(sent, "stream"), (sent, "ack"), (received, "stream"), (received, "ack")] {
                assert!(sum(&events, name, |data| data["frames"][frame].as_u64()) > 0, "{name} without {frame}: {text}");
            }
        }
        let bytes = |name| sum(&events, name, |data| data["raw"].as_array()?.iter().map(|raw| raw["length"].as_u64()).sum());
        assert!(bytes(sent) > said.len() as u64 && bytes(received) > said.len() as u64, "{text}");
        assert!(!text.contains("nobody's business"), "{text}");
        for line in ["strait_traces_total 1", "strait_traces_cut_total 1"] {
            assert!(has(admin, line), "{line} is not in {}", asked(admin, "/metrics"));
        }
    }
}

#[test]
fn what_cannot_be_traced_is_told() {
    let (_node, ticket, admin) = node(ALONE);
    let nobody = strait_core::PeerId::random().to_string();
    let output = run(&["trace", &nobody, "--admin", &admin.to_string()]);
    assert_code(&output, 4);
    assert_explained(&output);
    assert!(code_of(&output).1.contains("this peer is not connected"), "{}", code_of(&output).1);
    assert!(asked(admin, &format!("/trace.sqlog?peer={nobody}&seconds=601")).starts_with("HTTP/1.1 400"));
    drop(ticket);
}

/// The one file in a directory.
fn only(dir: &Path) -> (String, String) {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let path = files.remove(0);
    (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap())
}

#[test]
fn each_command_traces_its_connections_from_their_beginning_where_that_is_asked_for() {
    let (_node, ticket, _) = node(ALONE);
    for transport in ["udp", "tcp"] {
        let dir = tempfile::tempdir().unwrap();
        let ping = ["ping", &over(&ticket, transport), "-c", "2"];
        assert_code(&run(&ping), 0);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        assert_code(&strait(&ping).env("QLOGDIR", dir.path()).output().unwrap(), 0);
        let (name, text) = only(dir.path());
        assert!(name.ends_with("-client.sqlog"), "{name}");
        let events = events_of(&text, "client");
        assert_eq!(events[0]["data"]["age"], 0.0, "from its beginning");
        let all: Vec<&str> = names(&events).into_iter().collect();
        assert!(all.contains(&"recovery:metrics_updated") && all.contains(&"connectivity:connection_closed"), "{all:?}");
        assert_eq!(events.last().unwrap()["data"]["why"], "the connection has ended", "{text}");
        if transport == "udp" {
            // All of the handshake is in it.
            let crypto = |data: &Value| data["frames"]["crypto"].as_u64();
            assert!(sum(&events, "transport:datagrams_sent", crypto) > 0, "{text}");
            assert!(sum(&events, "transport:datagrams_received", crypto) > 0, "{text}");
        }
    }
}

#[test]
fn a_connection_that_does_not_come_about_is_traced_too() {
    let (_other, ticket, _) = node(ALONE);
    drop(_other);
    let dir = tempfile::tempdir().unwrap();
    let output = strait(&["ping", &over(&ticket, "udp"), "-c", "1"]).env("QLOGDIR", dir.path()).output().unwrap();
    assert_code(&output, 4);
    let events = events_of(&only(dir.path()).1, "client");
    assert!(names(&events).contains("connectivity:connection_closed"), "{events:?}");
}
