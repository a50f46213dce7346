//! `--json`: a whole run of each side, read as a program would read it (`docs/json.md`).
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;

use common::command::*;
use common::gated::Gated;
use common::*;
use serde_json::Value;

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn find<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name} in {:?}", names(events)))
}

fn phases(events: &[Value]) -> Vec<&str> {
    let mut phases: Vec<&str> =
        events.iter().filter(|event| event["event"] == "progress").map(|event| event["phase"].as_str().unwrap()).collect();
    phases.dedup();
    phases
}

#[test]
fn a_whole_run_of_both_sides() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("top/file"), &pattern(3 << 20, 1));
    let top = from.path().join("top");
    let args = ["send", "--ephemeral", "--listen", "127.0.0.1:0", "--json", "--once", top.to_str().unwrap()];
    let mut child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut read = move |last: &str| -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        while events.last().is_none_or(|event| event["event"] != last) {
            events.push(serde_json::from_str(&lines.next().unwrap()).unwrap());
        }
        events
    };
    let before = read("ticket");
    assert_eq!(find(&before, "hashing")["bytes"], 3 << 20);
    assert_eq!(phases(&before), ["hashing"]);
    let ticket = before.last().unwrap()["ticket"].as_str().unwrap().to_owned();

    let output = get(&ticket, to.path(), &["--json"]);
    assert_code(&output, 0);
    let got = events(&output);
    assert_eq!(got[0]["event"], "started");
    assert_eq!(got[0]["providers"][0], before.last().unwrap()["peer"]);
    assert_eq!(find(&got, "provider")["state"], "connected");
    assert_eq!(phases(&got), ["listing", "fetching"]);
    let done = got.last().unwrap();
    assert_eq!((done["event"].as_str(), done["command"].as_str()), (Some("done"), Some("get")));
    assert_eq!((done["fetched_bytes"].as_u64(), &done["root"]), (Some(3 << 20), &got[0]["root"]));

    let after = read("done");
    assert_eq!(names(&after), ["copy", "done"]);
    assert!(child.wait().unwrap().success());
    [&before, &got, &after].into_iter().for_each(|events| assert_documented(events));

    // A failure is the last line; with -q there are no others, whatever it is.
    let failed = events(&get(&ticket[1..], to.path(), &["--json"]));
    assert_eq!((failed[0]["event"].as_str(), failed[0]["code"].as_u64()), (Some("error"), Some(3)));
    assert_documented(&failed);
    assert_eq!(names(&events(&run(&["demo", "/nothing/here", "--json", "-q"]))), ["error"]);
}

/// A provider goes away in the middle and the receiver is stopped while it waits; the next run says what it had.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_and_going_on_are_told() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), &pattern(4 << 20, 1));
    let source = Arc::new(source(&[from.path().join("file")]));
    let mut gated = Gated::start(source.clone(), 9, None, None).await;
    let args = ["get", &gated.ticket, "-o", to.path().to_str().unwrap(), "--json"];
    let mut child = strait(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    gated.reached().await;
    gated.node.close().await; // it says good-bye, so that the other side learns of it at once
    let all = tokio::task::spawn_blocking(move || {
        let mut all: Vec<Value> = Vec::new();
        for line in out.lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if event["event"] == "waiting" && all.iter().all(|event| event["event"] != "waiting") {
                signal(&child, "TERM");
            }
            all.push(event);
        }
        assert_eq!(child.wait().unwrap().code(), Some(143));
        all
    });
    let all = all.await.unwrap();
    let waiting = find(&all, "waiting");
    assert_eq!(
        (waiting["for"].as_str(), waiting["provider"].as_str()),
        (Some("provider"), Some(&gated.node.peer_id().to_string()[..]))
    );
    assert!(waiting["since"].as_u64().unwrap() > 1_600_000_000 && !waiting["why"].as_str().unwrap().is_empty());
    assert_eq!(all.last().unwrap()["code"], 143);
    assert_documented(&all);

    let gated = Gated::start(source, u64::MAX, None, None).await;
    let (ticket, dir) = (gated.ticket.clone(), to.path().to_owned());
    let output = tokio::task::spawn_blocking(move || get(&ticket, &dir, &["--json"])).await.unwrap();
    assert_code(&output, 0);
    let all = events(&output);
    let had = find(&all, "resumed")["bytes"].as_u64().unwrap();
    assert!(had > 0 && had == all.last().unwrap()["resumed_bytes"].as_u64().unwrap(), "{had}");
    assert_documented(&all);
}
