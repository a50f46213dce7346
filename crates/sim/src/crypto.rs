//! A rustls provider whose every random byte comes from a seed.
//!
//! Cipher suites, signatures and their verification are ring's, as in production: packets are really
//! encrypted and certificates really checked. Only two things differ, the two that ring draws from the
//! operating system: the random bytes of a handshake (RFC 8446, section 4.1.2) and the ephemeral key of
//! the key exchange (X25519, RFC 7748). Ed25519 signatures need no randomness.
//!
//! Never use this outside a simulation: whoever knows the seed can read everything.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use crate::rng::Random;

/// The provider of one node of the run `seed`; `index` is the node's number in the world.
///
/// rustls keeps `&'static` references to its random source and to its key exchange groups. So each call
/// leaks one random source (about 400 bytes) until the process ends. A thread-local generator would leak
/// nothing, but then the bytes that a node gets would depend on who else draws on that thread.
#[must_use]
pub fn provider(seed: u64, index: u64) -> Arc<CryptoProvider> {
    let random = Mutex::new(Random::new(seed, "tls", index));
    let source: &'static Source = Box::leak(Box::new(Source(random)));
    Arc::new(CryptoProvider { kx_groups: vec![source], secure_random: source, ..rustls::crypto::ring::default_provider() })
}

/// One node's random source, which is also its X25519 group.
struct Source(Mutex<Random>);

impl Source {
    fn draw(&self, buffer: &mut [u8]) {
        // A panic elsewhere cannot leave the generator half-written in a way that matters here.
        let mut random = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        random.fill(buffer);
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("seeded source of the simulator")
    }
}

impl SecureRandom for Source {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.draw(buffer);
        Ok(())
    }
}

impl SupportedKxGroup for Source {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        self.draw(&mut secret);
        let public = x25519(secret, X25519_BASEPOINT_BYTES);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// One key exchange under way.
struct Exchange {
    secret: [u8; 32],
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = <[u8; 32]>::try_from(peer).map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = x25519(self.secret, peer);
        // RFC 8446, section 7.4.2: the all-zero result of a low-order point must be refused.
        if shared == [0; 32] {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(&shared[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
