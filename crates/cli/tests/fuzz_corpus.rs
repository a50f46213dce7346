//! Replays the fuzz corpus of this crate's decoders, and every prefix of each file.

#[path = "../../../fuzz/seeds.rs"]
mod seeds;

use seeds::replay;
use strait_cli::fuzz_entry;

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
