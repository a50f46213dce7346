//! Replays every file of the fuzz corpus through the function that its fuzz target calls, so that a seed or a
//! crash that fuzzing once found is checked by every ordinary test run.

use std::path::Path;

use strait_wire::fuzz_entry;

/// Runs `entry` on every file of `fuzz/corpus/<target>` and on every prefix of it.
fn replay(target: &str, entry: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let listing = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{} cannot be read: {error}", dir.display()));
    let mut files: Vec<_> = listing.map(|file| file.expect("a directory entry").path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{} has lost its seeds", dir.display());
    for file in files {
        let bytes = std::fs::read(&file).expect("a corpus file");
        for end in 0..=bytes.len() {
            entry(&bytes[..end]);
        }
    }
}

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
