//! Replays the fuzz corpus of this crate's decoders, and every prefix of each file.

use std::path::Path;

use strait_cli::fuzz_entry;

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
fn ticket() {
    replay("ticket", fuzz_entry::ticket);
}

#[test]
fn manifest() {
    replay("manifest", fuzz_entry::manifest);
}

#[test]
fn transfer() {
    replay("transfer", fuzz_entry::transfer);
}

#[test]
fn forward_target() {
    replay("forward_target", fuzz_entry::forward_target);
}
