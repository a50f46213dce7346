//! `strait demo`: both sides in one go, and a check of what arrived.

mod common;

use common::command::*;
use common::*;

#[test]
fn with_its_own_sample() {
    let scratch = tempfile::tempdir().unwrap();
    let output = strait(&["demo"]).env("TMPDIR", scratch.path()).output().unwrap();
    assert_code(&output, 0);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("all verified against root") && said.contains("byte by byte: the same"), "{said}");
    assert!(contents(scratch.path()).is_empty(), "nothing is left behind");
}

#[test]
fn with_a_folder_and_for_programs() {
    let from = tempfile::tempdir().unwrap();
    let top = tricky(from.path());
    let output = run(&["demo", top.to_str().unwrap(), "--json", "-q"]);
    assert_code(&output, 0);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["compared_bytes"], json["bytes"]);
    assert_eq!(json["files"].as_u64(), Some(contents(&top).values().filter(|what| what.is_some()).count() as u64));
    assert_code(&run(&["demo", "/nothing/here"]), 16);
}
