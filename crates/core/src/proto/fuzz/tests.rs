//! Replays the fuzz corpus of the stream machines, and every prefix of each file.

use std::time::Instant;

use crate::seeds;

#[allow(clippy::disallowed_methods, reason = "a script needs some instant to begin at")]
fn replay(target: &str, entry: fn(&[u8], Instant)) {
    let now = Instant::now();
    seeds::replay(target, |script| entry(script, now));
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

#[test]
fn packet_corpus() {
    replay("packet", |script, _| super::packet(script));
}
