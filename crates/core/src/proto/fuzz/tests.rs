//! Replays the fuzz corpus of the stream machines, and every prefix of each file.

use std::path::Path;
use std::time::Instant;

/// Runs `entry` on every file of `fuzz/corpus/<target>` and on every prefix of it.
#[allow(clippy::disallowed_methods, reason = "a script needs some instant to begin at")]
fn replay(target: &str, entry: fn(&[u8], Instant)) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let listing = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{} cannot be read: {error}", dir.display()));
    let mut files: Vec<_> = listing.map(|file| file.expect("a directory entry").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{} has lost its seeds", dir.display());
    let now = Instant::now();
    for file in files {
        let bytes = std::fs::read(&file).expect("a corpus file");
        for end in 0..=bytes.len() {
            entry(&bytes[..end], now);
        }
    }
}

#[test]
fn select_corpus() {
    replay("select_stream", super::select);
}

#[test]
fn identify_corpus() {
    replay("identify_stream", super::identify);
}

#[test]
fn ping_corpus() {
    replay("ping_stream", super::ping);
}

#[test]
fn request_corpus() {
    replay("request_stream", super::request);
}

#[test]
fn raw_corpus() {
    replay("raw_stream", super::raw);
}

#[test]
fn topic_corpus() {
    replay("topic_stream", super::topic);
}

#[test]
fn topic_follower_corpus() {
    replay("topic_follower", |script, _| crate::topic::fuzz::follower(script));
}
