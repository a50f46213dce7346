//! The primitives that snow calls in a handshake: SHA-256 and ChaCha20-Poly1305 of ring, X25519 (RFC 7748) of x25519-dalek, and
//! randomness from the node's own source, so that a run is the same for a seed. ring's X25519 cannot be seeded.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest;
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use super::TAG_BYTES;
use crate::env;

/// The public half of a static key.
pub(super) fn public_key(secret: [u8; 32]) -> [u8; 32] {
    x25519(secret, X25519_BASEPOINT_BYTES)
}

/// What one handshake uses.
pub(super) struct Resolver {
    seed: [u8; 32],
}

impl Resolver {
    pub(super) fn new(seed: [u8; 32]) -> Resolver {
        Resolver { seed }
    }
}

impl CryptoResolver for Resolver {
    /// snow asks once for each handshake.
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded(env::Random::new(self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256(digest::Context::new(&digest::SHA256))) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaCha { key: None }) as Box<dyn Cipher>)
    }
}

struct Seeded(env::Random);

impl Random for Seeded {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        self.0.fill(out);
        Ok(())
    }
}

#[derive(Default)]
struct X25519 {
    secret: [u8; 32],
    public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        self.public = public_key(self.secret);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        random.try_fill_bytes(&mut self.secret)?;
        self.public = public_key(self.secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.secret
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let (public, _) = public.split_first_chunk::<32>().ok_or(Error::Dh)?;
        let shared = x25519(self.secret, *public);
        // RFC 7748 section 6.1: what a point of low order gives is known to everybody. No honest peer has such a key.
        if shared == [0; 32] {
            return Err(Error::Dh);
        }
        out.iter_mut().zip(shared).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

struct Sha256(digest::Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = digest::Context::new(&digest::SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.clone().finish();
        out.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    }
}

/// Used in the handshake only: snow asks for it with some buffers that do not overlap.
struct ChaCha {
    key: Option<LessSafeKey>,
}

fn nonce(count: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce.iter_mut().skip(4).zip(count.to_le_bytes()).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(nonce)
}

impl Cipher for ChaCha {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.key = UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new);
    }

    /// Writes nothing when there is no key or no room; snow checks both before it calls, and what it then sends opens nowhere.
    fn encrypt(&self, count: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let len = plaintext.len();
        let (Some(key), Some((body, rest))) = (&self.key, out.split_at_mut_checked(len)) else {
            return 0;
        };
        let Some((tag, _)) = rest.split_first_chunk_mut::<TAG_BYTES>() else {
            return 0;
        };
        body.copy_from_slice(plaintext);
        let Ok(made) = key.seal_in_place_separate_tag(nonce(count), Aad::from(authtext), body) else {
            return 0;
        };
        tag.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from);
        len.saturating_add(TAG_BYTES)
    }

    fn decrypt(&self, count: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let key = self.key.as_ref().ok_or(Error::Decrypt)?;
        let mut opened = ciphertext.to_vec();
        let plaintext = key.open_in_place(nonce(count), Aad::from(authtext), &mut opened).map_err(|_| Error::Decrypt)?;
        let to = out.get_mut(..plaintext.len()).ok_or(Error::Decrypt)?;
        to.copy_from_slice(plaintext);
        Ok(plaintext.len())
    }
}
