#![no_main]

use std::time::Duration;

use rustls::pki_types::UnixTime;
use strait_core::conn::tls::{peer_id_of, verify};

// A certificate that is accepted names a peer, and the same one when it is read again.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let algs = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));
    let named = peer_id_of(bytes);
    if let Ok(peer) = verify(bytes, now, &algs) {
        assert_eq!(named, Ok(peer));
    }
});
