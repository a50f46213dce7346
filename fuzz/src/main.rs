//! All fuzz targets in one program: `FUZZ_TARGET` names the one to run, and without it their names are printed. `.ci/fuzz` is the way to run it.
#![no_main]

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::UnixTime;
use strait_core::conn::tls::{peer_id_of, verify};
use strait_core::{Env, WallClock, conn, fuzz_claims, fuzz_datagrams, proto, topic};
use strait_wire::fuzz_entry as wire;

const DATE: Duration = Duration::from_secs(1_767_225_600);

type Target = fn(&[u8]);

/// What the folders in `corpus/` are named after.
const TARGETS: &[(&str, Target)] = &[
    ("claims", fuzz_claims),
    ("datagrams", |bytes| fuzz_datagrams(bytes, &env(), now())),
    ("forward_target", strait_cli::fuzz_entry::forward_target),
    ("framing", wire::framing),
    ("identify", wire::identify),
    ("identify_stream", |bytes| proto::fuzz::identify(bytes, now())),
    ("manifest", strait_cli::fuzz_entry::manifest),
    ("multistream", wire::multistream),
    ("noise_payload", wire::noise_payload),
    ("packet", proto::fuzz::packet),
    ("peer_record", wire::peer_record),
    ("ping_stream", |bytes| proto::fuzz::ping(bytes, now())),
    ("pipe", |bytes| conn::fuzz_pipe(bytes, &env(), now())),
    ("protobuf", wire::protobuf),
    ("raw_stream", |bytes| proto::fuzz::raw(bytes, now())),
    ("request_stream", |bytes| proto::fuzz::request(bytes, now())),
    ("select_stream", |bytes| proto::fuzz::select(bytes, now())),
    ("ticket", strait_cli::fuzz_entry::ticket),
    ("tls_certificate", tls_certificate),
    ("topic", wire::topic),
    ("topic_follower", topic::fuzz::follower),
    ("topic_stream", |bytes| proto::fuzz::topic(bytes, now())),
    ("transfer", strait_cli::fuzz_entry::transfer),
    ("varint", wire::varint),
    ("yamux", wire::yamux),
    ("yamux_session", |bytes| conn::fuzz_yamux(now(), bytes)),
];

/// Any instant, and the same one for the whole run.
fn now() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

#[derive(Debug)]
struct Date;

impl WallClock for Date {
    fn unix_time(&self) -> Duration {
        DATE
    }
}

fn env() -> Env {
    Env { seed: [7; 32], crypto: Arc::new(ring::default_provider()), wall: Arc::new(Date), key_log: None, traces: None }
}

/// A certificate that is accepted names a peer, and the same one when it is read again.
fn tls_certificate(bytes: &[u8]) {
    let algs = ring::default_provider().signature_verification_algorithms;
    let named = peer_id_of(bytes);
    if let Ok(peer) = verify(bytes, UnixTime::since_unix_epoch(DATE), &algs) {
        assert_eq!(named, Ok(peer));
    }
}

/// The target that `FUZZ_TARGET` names. Without one there is nothing to run.
fn chosen() -> Target {
    let Some(name) = std::env::var_os("FUZZ_TARGET") else {
        TARGETS.iter().for_each(|(name, _)| println!("{name}"));
        std::process::exit(0);
    };
    match TARGETS.iter().find(|(known, _)| name == *known) {
        Some((_, target)) => *target,
        None => {
            eprintln!("there is no target {name:?}");
            std::process::exit(2);
        }
    }
}

static CHOSEN: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let _ = CHOSEN.set(chosen());
    },
    |bytes: &[u8]| CHOSEN.get_or_init(chosen)(bytes)
);
