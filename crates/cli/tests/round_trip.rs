//! `strait send` and `strait get`, as processes of their own over loopback: what arrives is what was sent.

mod common;

use std::fs;

use common::command::*;
use common::*;

#[test]
fn a_tricky_folder() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = Sender::start(&tricky(from.path()), &[]);
    assert_code(&sender.get(to.path(), &[]), 0);
    assert_same(from.path(), to.path());
    // Once more: all of it is there, nothing is fetched, nothing changes.
    let again = sender.get(to.path(), &["--json", "-q"]);
    assert_code(&again, 0);
    let json: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((json["event"].as_str(), json["fetched_chunks"].as_u64()), (Some("done"), Some(0)));
    assert_eq!(json["had_bytes"], json["bytes"]);
    assert_same(from.path(), to.path());
}

#[test]
fn an_empty_folder_and_an_empty_file() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("nothing")).unwrap();
    write(&from.path().join("empty"), b"");
    for name in ["nothing", "empty"] {
        let to = tempfile::tempdir().unwrap();
        let sender = Sender::start(&from.path().join(name), &[]);
        assert_code(&sender.get(to.path(), &[]), 0);
        let all = contents(to.path());
        assert_eq!(all.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), [name]);
    }
}

#[test]
fn two_thousand_small_files() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..2000 {
        write(&from.path().join(format!("many/{}/{i}", i % 23)), &pattern(i % 4097, i as u64));
    }
    let sender = Sender::start(&from.path().join("many"), &[]);
    assert_code(&sender.get(to.path(), &[]), 0);
    assert_same(from.path(), to.path());
}

/// TR-45: with `--once` the sender ends by itself when the copy is in place, and only then.
#[test]
fn one_large_file_and_once() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("large"), &pattern(64 << 20, 1));
    let sender = Sender::start(&from.path().join("large"), &["--once"]);
    let other = tempfile::tempdir().unwrap();
    write(&other.path().join("large"), b"other content");
    assert_code(&sender.get(other.path(), &[]), 8);
    assert_code(&sender.get(to.path(), &[]), 0);
    assert_same(from.path(), to.path());
    assert_eq!(sender.wait(), Some(0));
}

#[test]
fn two_receivers_at_once() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(5 << 20, 2));
    let sender = Sender::start(&from.path().join("file"), &[]);
    let targets = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    std::thread::scope(|scope| {
        for to in &targets {
            scope.spawn(|| assert_code(&sender.get(to.path(), &[]), 0));
        }
    });
    for to in &targets {
        assert_same(from.path(), to.path());
    }
}
