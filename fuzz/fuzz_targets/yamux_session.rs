#![no_main]

use std::sync::OnceLock;
use std::time::Instant;

static NOW: OnceLock<Instant> = OnceLock::new();

// What a peer sends and what is done here, as a script: memory stays bounded, and what is sent are whole frames.
libfuzzer_sys::fuzz_target!(|script: &[u8]| strait_core::conn::fuzz_yamux(*NOW.get_or_init(Instant::now), script));
