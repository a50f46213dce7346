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
    assert!(
        said.contains("resumed   ") && !said.contains("resumed   nothing") && said.contains("byte by byte: the same"),
        "{said}"
    );
    assert!(contents(scratch.path()).is_empty(), "nothing is left behind");
}

/// One receiver is killed and goes on; the flood is answered, declined where it asks for what is not served, and harms nobody.
#[test]
fn a_kill_and_a_flood_for_programs() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(8 << 20, 1));
    let output = run(&["demo", from.path().join("file").to_str().unwrap(), "--json"]);
    assert_code(&output, 0);
    let all = events(&output);
    let stages: Vec<_> = all.iter().filter_map(|event| event["stage"].as_str()).collect();
    assert_eq!(stages, ["flood", "kill", "fetch", "compare"]);
    let done = all.last().unwrap();
    let number = |name: &str| done[name].as_u64().unwrap();
    assert!(number("resumed_bytes") > 0);
    assert_eq!(number("fetched_bytes") + number("resumed_bytes"), 2 * number("bytes"));
    assert!(number("declined") > 0 && number("requests") > number("declined"), "{done}");
}

#[test]
fn with_a_folder_and_for_programs() {
    let from = tempfile::tempdir().unwrap();
    let top = tricky(from.path());
    let output = run(&["demo", top.to_str().unwrap(), "--json", "-q"]);
    assert_code(&output, 0);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["compared_bytes"].as_u64().unwrap(), 2 * json["bytes"].as_u64().unwrap());
    assert_eq!(json["files"].as_u64(), Some(contents(&top).values().filter(|what| what.is_some()).count() as u64));
    assert_code(&run(&["demo", "/nothing/here"]), 16);
}
