//! `strait publish` and `strait watch`, as programs.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use common::command::{assert_code, assert_explained, events, run, signal, strait};
use serde_json::{Value, json};

/// A running command; killed when dropped.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(args: &[&str]) -> Running {
        let mut child =
            strait(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (input, lines) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("it is piped")));
        Running { child, input, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        if line.is_empty() {
            let mut said = String::new();
            self.child.stderr.take().expect("once").read_to_string(&mut said).expect("text");
            panic!("it ended: {said}");
        }
        line.trim_end().to_owned()
    }

    fn event(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// Reads events until this one comes.
    fn until(&mut self, wanted: &Value) {
        while self.event() != *wanted {}
    }

    fn write(&mut self, text: &str) {
        self.input.as_mut().expect("it is open").write_all(text.as_bytes()).expect("it is read");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A publisher and its ticket.
fn publish(more: &[&str]) -> (Running, String) {
    let mut publisher = Running::start(&[&["publish", "t", "--ephemeral", "--listen", "127.0.0.1:0"], more].concat());
    let ticket = publisher.line();
    (publisher, ticket)
}

fn put(key: &str, value: &str) -> Value {
    json!({"event": "put", "key": key, "value": value})
}

#[test]
fn what_is_there_comes_first_and_then_what_changes() {
    let (mut publisher, ticket) = publish(&[]);
    publisher.write("a=1\nb=2\n");
    let mut watcher = Running::start(&["watch", &ticket, "t"]);
    watcher.until(&json!({"event": "whole"}));
    publisher.write("a=3\nb\n");
    watcher.until(&put("a", "3"));
    watcher.until(&json!({"event": "delete", "key": "b"}));
    let once = run(&["watch", &ticket, "t", "--once"]);
    assert_code(&once, 0);
    assert_eq!(events(&once), [json!({"event": "begin"}), put("a", "3"), json!({"event": "whole"})]);
    // What comes after one that is too long is read.
    publisher.write(&format!("a={}\nc=4\n", "x".repeat(17 << 10)));
    watcher.until(&put("c", "4"));
    let mut chosen = Running::start(&["watch", &ticket, "t", "--prefix", "c"]);
    assert_eq!(
        [chosen.event(), chosen.event(), chosen.event()],
        [json!({"event": "begin"}), put("c", "4"), json!({"event": "whole"})]
    );
}

#[test]
fn what_cannot_be_watched_is_explained() {
    let (_publisher, ticket) = publish(&[]);
    for (args, code, words) in [
        (&["watch", &ticket, "other"][..], 13, "no topic of this name"),
        (&["watch", &ticket, "t", "--log"], 13, "of another mode"),
        (&["watch", "nonsense", "t"], 3, "not a valid ticket"),
        (&["watch", &ticket, &"t".repeat(141)], 2, "1 to 140 bytes"),
    ] {
        let output = run(args);
        assert_code(&output, code);
        assert_explained(&output);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{said}");
    }
    let output = run(&["publish", &"t".repeat(141)]);
    assert_code(&output, 2);
}

#[test]
fn each_line_of_a_log_comes_or_is_counted() {
    let (mut publisher, ticket) = publish(&["--log", "--keys-max", "50", "--until-eof"]);
    let mut watcher = Running::start(&["watch", &ticket, "t", "--log"]);
    // The first is published when the watcher is there, or waits for it.
    publisher.write("first\n");
    assert_eq!(watcher.event(), json!({"event": "said", "key": "", "value": "first"}));
    for number in 0..20_000 {
        publisher.write(&format!("line {number}\n"));
    }
    drop(publisher.input.take());
    let (mut said, mut lost) = (0u64, 0u64);
    while said + lost < 20_000 {
        let event = watcher.event();
        match event["event"].as_str() {
            Some("said") => {
                assert_eq!(event["value"], json!(format!("line {}", said + lost)), "in order");
                said += 1;
            }
            Some("gap") => lost += event["lost"].as_u64().expect("a number"),
            _ => panic!("{event}"),
        }
    }
    assert_eq!(publisher.child.wait().expect("it ends").code(), Some(0));
    assert!(said >= 50, "at least what is kept");
}

#[test]
fn a_file_is_watched() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("values");
    std::fs::write(&path, "a=1\nb=2\n").expect("written");
    let (_publisher, ticket) = publish(&["--file", path.to_str().expect("text")]);
    let mut watcher = Running::start(&["watch", &ticket, "t"]);
    watcher.until(&put("b", "2"));
    // As editors do it: a new file in place of the old one.
    let next = dir.path().join("next");
    std::fs::write(&next, "b=3\nc=4\n").expect("written");
    std::fs::rename(&next, &path).expect("renamed");
    let mut changes = [(); 3].map(|()| watcher.event());
    while changes.iter().any(|change| change["event"] == "whole" || *change == put("a", "1")) {
        changes.rotate_left(1);
        changes[2] = watcher.event();
    }
    changes.sort_by_key(ToString::to_string);
    assert_eq!(changes, [json!({"event": "delete", "key": "a"}), put("b", "3"), put("c", "4")]);
    let output = run(&["publish", "t", "--ephemeral", "--file", dir.path().join("missing").to_str().expect("text")]);
    assert_code(&output, 16);
    assert_explained(&output);
}

fn key_file(dir: &Path) -> String {
    dir.join("key").to_str().expect("text").to_owned()
}

#[test]
fn a_watcher_goes_on_when_its_publisher_is_started_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = key_file(dir.path());
    let port = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("it has one").to_string()
    };
    let start = || {
        let mut publisher = Running::start(&["publish", "t", "--key", &key, "--listen", &port]);
        let ticket = publisher.line();
        (publisher, ticket)
    };
    let (mut publisher, ticket) = start();
    publisher.write("a=1\nb=1\n");
    let mut watcher = Running::start(&["watch", &ticket, "t"]);
    watcher.until(&put("b", "1"));
    drop(publisher);
    let (mut publisher, _) = start();
    publisher.write("a=2\n");
    let mut seen = Vec::new();
    while seen.last() != Some(&put("a", "2")) {
        seen.push(watcher.event());
    }
    assert!(seen.iter().any(|event| event["event"] == "interrupted"), "{seen:?}");
    assert_eq!(signal(&watcher.child, "TERM"), ());
    assert_eq!(watcher.child.wait().expect("it ends").code(), Some(143));
}

#[test]
fn a_watcher_whose_output_is_closed_ends() {
    let (mut publisher, ticket) = publish(&[]);
    let Running { ref mut child, .. } = publisher;
    assert!(child.try_wait().expect("it runs").is_none());
    let mut child = strait(&["watch", &ticket, "t"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    publisher.write("a=1\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(19));
}
