//! Real `strait` processes that serve the same content, one of them having fetched it itself.

mod common;

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use common::command::*;
use common::*;

/// A running `strait get --serve`; killed when dropped.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    ticket: String,
}

impl Server {
    fn start(ticket: &str, dir: &Path) -> Server {
        let args = ["get", ticket, "-q", "--json", "--serve", "--listen", "127.0.0.1:0", "-o", dir.to_str().unwrap()];
        let mut child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let serving = next(&mut lines, "serving");
        let ticket = serving["ticket"].as_str().unwrap().to_owned();
        Server { child, lines, ticket }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next event of this name.
fn next(lines: &mut Lines<BufReader<ChildStdout>>, name: &str) -> serde_json::Value {
    let mut events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    events.find(|event| event["event"] == name).unwrap()
}

/// TR-70, TR-47: three providers, of which one has only begun to fetch and one is killed: the copy is whole. Then the one that fetched
/// serves alone, and ends with the code of the signal.
#[test]
fn three_providers_and_one_is_killed() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/large"), &pattern(48 << 20, 1));
    write(&from.path().join("top/small"), b"text");
    let first = Sender::start(&from.path().join("top"), &[]);
    let second = Sender::start(&from.path().join("top"), &[]);
    let (third, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // What is in the target besides is not served.
    write(&third.path().join("top/of its own"), b"private");
    let mut server = Server::start(&second.ticket, third.path());

    let args = ["get", &first.ticket, &second.ticket, &server.ticket, "--json", "-o", to.path().to_str().unwrap()];
    let child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while temp_folder(to.path()).is_none() && !to.path().join("top").exists() {
        std::thread::yield_now();
    }
    drop(first); // killed
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert_same(from.path(), to.path());
    let json: serde_json::Value = events(&output).pop().unwrap();
    let given: u64 = json["providers"].as_array().unwrap().iter().map(|given| given["chunks"].as_u64().unwrap()).sum();
    assert_eq!(given, json["chunks"].as_u64().unwrap());

    assert_eq!(next(&mut server.lines, "done")["command"], "get");
    drop(second);
    let to = tempfile::tempdir().unwrap();
    assert_code(&get(&server.ticket, to.path(), &[]), 0);
    assert_same(from.path(), to.path());
    #[cfg(unix)]
    {
        signal(&server.child, "TERM");
        assert_eq!(server.child.wait().unwrap().code(), Some(143));
    }
}

/// TR-44: a provider that is killed (SIGKILL: it says nothing) and started again with the same identity and address is gone on with, and
/// no chunk that was verified is fetched again.
#[cfg(unix)]
#[test]
fn a_provider_that_is_started_again_is_gone_on_with() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("large"), &pattern(48 << 20, 2));
    let key = from.path().join("key");
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listen, path) = (format!("127.0.0.1:{port}"), from.path().join("large"));
    let start = || {
        let args = ["send", "-q", "--key", key.to_str().unwrap(), "--listen", &listen, path.to_str().unwrap()];
        let mut child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut ticket = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ticket).unwrap();
        (child, ticket.trim().to_owned())
    };
    let (mut sender, ticket) = start();
    let to = tempfile::tempdir().unwrap();
    let args = ["get", &ticket, "--json", "-o", to.path().to_str().unwrap()];
    let child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while temp_folder(to.path()).is_none() && !to.path().join("large").exists() {
        std::thread::yield_now();
    }
    sender.kill().unwrap(); // SIGKILL
    sender.wait().unwrap();
    let (mut sender, again) = start();
    assert_eq!(again, ticket, "the same identity, address and content");
    let output = child.wait_with_output().unwrap();
    sender.kill().unwrap();
    sender.wait().unwrap();
    assert_code(&output, 0);
    assert!(std::fs::read(to.path().join("large")).unwrap() == pattern(48 << 20, 2));
    let done = events(&output).pop().unwrap();
    assert_eq!(done["fetched_bytes"].as_u64().unwrap(), 48 << 20, "each chunk came once: {done}");
    assert_eq!(done["resumed_bytes"], 0);
}

#[test]
fn tickets_for_different_content_are_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("a"), b"one");
    write(&from.path().join("b"), b"other");
    let (one, other) = (Sender::start(&from.path().join("a"), &[]), Sender::start(&from.path().join("b"), &[]));
    let output = run(&["get", &one.ticket, &other.ticket, "-o", to.path().to_str().unwrap()]);
    assert_code(&output, 2);
    assert_explained(&output);
    assert!(contents(to.path()).is_empty());
    for wrong in [&["--timeout", "5"][..], &["--listen", "127.0.0.1:0"]] {
        assert_code(&get(&one.ticket, to.path(), wrong), 2);
    }
}
