//! Replays every file of the fuzz corpus through the function that its fuzz target calls, so that a seed or a
//! crash that fuzzing once found is checked by every ordinary test run.

#[path = "../../../fuzz/seeds.rs"]
mod seeds;

use seeds::replay;
use strait_wire::fuzz_entry;

#[test]
fn varint() {
    replay("varint", fuzz_entry::varint);
}

#[test]
fn framing() {
    replay("framing", fuzz_entry::framing);
}

#[test]
fn multistream() {
    replay("multistream", fuzz_entry::multistream);
}

#[test]
fn protobuf() {
    replay("protobuf", fuzz_entry::protobuf);
}

#[test]
fn identify() {
    replay("identify", fuzz_entry::identify);
}

#[test]
fn noise_payload() {
    replay("noise_payload", fuzz_entry::noise_payload);
}

#[test]
fn peer_record() {
    replay("peer_record", fuzz_entry::peer_record);
}

#[test]
fn yamux() {
    replay("yamux", fuzz_entry::yamux);
}

#[test]
fn topic() {
    replay("topic", fuzz_entry::topic);
}
