#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use strait_core::{Env, WallClock};

#[derive(Debug)]
struct Date;

impl WallClock for Date {
    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_767_225_600)
    }
}

static NOW: OnceLock<Instant> = OnceLock::new();

// What strangers send before anything is encrypted: nobody is believed, and little is held.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let env = Env { seed: [7; 32], crypto, wall: Arc::new(Date), key_log: None, traces: None };
    strait_core::conn::fuzz_pipe(bytes, &env, *NOW.get_or_init(Instant::now));
});
