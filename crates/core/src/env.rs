//! What a node takes from its surroundings: randomness, the wall clock and cryptography. Production hands in the
//! system's, the simulator seeded ones, and a run is then byte-identical for a seed.

use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::trace::Traces;

/// A clock that tells the date. Used only where a protocol's bytes carry a date: QUIC address tokens, and the numbers of signed
/// peer records, which have to grow over restarts.
pub trait WallClock: Send + Sync + std::fmt::Debug {
    /// Time since 1970-01-01T00:00:00Z.
    fn unix_time(&self) -> Duration;
}

/// The surroundings of one node.
#[derive(Debug, Clone)]
pub struct Env {
    /// Secret and fresh for each start: connection ids, tokens, the certificate key and jitter are drawn from it.
    pub seed: [u8; 32],
    /// TLS primitives. Everything random inside TLS comes from here.
    pub crypto: Arc<rustls::crypto::CryptoProvider>,
    /// The date.
    pub wall: Arc<dyn WallClock>,
    /// Told the secrets of each TLS session: for whoever wants to read a capture of this node's own traffic, and otherwise `None`.
    pub key_log: Option<Arc<dyn rustls::KeyLog>>,
    /// Which connections are traced from their beginning: for whoever looks for why they do what they do, and otherwise `None`.
    pub traces: Option<Arc<dyn Traces>>,
}

impl Env {
    /// Has a TLS configuration tell its secrets, if somebody is to know them.
    pub(crate) fn log_keys(&self, to: &mut Arc<dyn rustls::KeyLog>) {
        if let Some(log) = &self.key_log {
            to.clone_from(log);
        }
    }
}

/// A node's own random source, grown from [`Env::seed`].
#[derive(Debug)]
pub(crate) struct Random(ChaCha12Rng);

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Random {
        Random(ChaCha12Rng::from_seed(seed))
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// `base` give or take a quarter, so that nothing that many nodes do at an interval falls into step.
    pub(crate) fn jitter(&mut self, base: Duration) -> Duration {
        let quarter = base.checked_div(4).unwrap_or_default();
        base.saturating_sub(quarter).saturating_add(self.below(quarter.saturating_mul(2)))
    }

    /// Any time below `end`, in microseconds, each as likely as the others.
    pub(crate) fn below(&mut self, end: Duration) -> Duration {
        let micros = u64::try_from(end.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.0.next_u64().checked_rem(micros).unwrap_or(0))
    }
}

/// Surroundings for tests: a fixed date, and all else grown from one byte.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Arc, Duration, Env, WallClock};

    #[derive(Debug)]
    pub(crate) struct Date;

    impl WallClock for Date {
        fn unix_time(&self) -> Duration {
            Duration::from_secs(1_767_225_600)
        }
    }

    pub(crate) fn env(byte: u8) -> Env {
        let crypto = Arc::new(rustls::crypto::ring::default_provider());
        Env { seed: [byte; 32], crypto, wall: Arc::new(Date), key_log: None, traces: None }
    }
}
