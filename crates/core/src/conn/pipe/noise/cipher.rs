//! One direction of a Noise channel after the handshake: ChaCha20-Poly1305 (RFC 8439) with a counter as its nonce (the Noise Protocol
//! Framework, section 12.3), in place.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::conn::pipe::PipeError;

/// Bytes that sealing adds.
pub(super) const TAG_BYTES: usize = 16;

/// A key and how often it was used.
pub(super) struct Cipher {
    key: LessSafeKey,
    count: u64,
}

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Result<Cipher, PipeError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| PipeError::broken("a key has the wrong length"))?;
        Ok(Cipher { key: LessSafeKey::new(key), count: 0 })
    }

    /// Seals what stands behind `start` in `buffer`, and appends the tag.
    pub(super) fn seal(&mut self, buffer: &mut Vec<u8>, start: usize) -> Result<(), PipeError> {
        let nonce = self.nonce()?;
        let plaintext = buffer.get_mut(start..).unwrap_or_default();
        let Ok(tag) = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), plaintext) else {
            // What is not sealed must not leave.
            buffer.truncate(start);
            return Err(PipeError::broken("sealing failed"));
        };
        buffer.extend_from_slice(tag.as_ref());
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Opens `sealed`. The plaintext stands in its front, and its length is returned. The count moves only when it was authentic.
    pub(super) fn open(&mut self, sealed: &mut [u8]) -> Result<usize, PipeError> {
        let nonce = self.nonce()?;
        let opened = self.key.open_in_place(nonce, Aad::empty(), sealed);
        let len = opened.map_err(|_| PipeError::broken("what came was changed on the way, or is not from the peer"))?.len();
        self.count = self.count.saturating_add(1);
        Ok(len)
    }

    fn nonce(&self) -> Result<Nonce, PipeError> {
        if self.count == u64::MAX {
            // Reserved for rekeying.
            return Err(PipeError::broken("the key was used too often"));
        }
        let mut nonce = [0; 12];
        nonce.iter_mut().skip(4).zip(self.count.to_le_bytes()).for_each(|(to, from)| *to = from);
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_moves_only_with_what_is_authentic() {
        let (mut tx, mut rx) = (Cipher::new(&[7; 32]).unwrap(), Cipher::new(&[7; 32]).unwrap());
        for round in 0..3u8 {
            let mut sealed = vec![0xee, round];
            tx.seal(&mut sealed, 1).unwrap();
            for bit in 8..sealed.len() * 8 {
                let mut changed = sealed.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(rx.open(&mut changed[1..]).is_err());
            }
            assert!(rx.open(&mut []).is_err());
            assert_eq!(rx.open(&mut sealed[1..]), Ok(1));
            assert_eq!(sealed[1], round);
        }
    }

    #[test]
    fn the_nonce_is_that_of_the_specification() {
        // RFC 8439 gives no vector with a little-endian counter, so this is compared with ring used by hand.
        let mut tx = Cipher { count: 0x0102_0304_0506_0708, ..Cipher::new(&[9; 32]).unwrap() };
        let mut sealed = b"text".to_vec();
        tx.seal(&mut sealed, 0).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[9; 32]).unwrap());
        let nonce = Nonce::assume_unique_for_key([0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(key.open_in_place(nonce, Aad::empty(), &mut sealed).unwrap(), b"text");
    }

    #[test]
    fn a_key_ends_before_its_nonces_repeat() {
        let mut tx = Cipher { count: u64::MAX, ..Cipher::new(&[9; 32]).unwrap() };
        assert!(tx.seal(&mut vec![1], 0).is_err());
        assert!(tx.open(&mut [0; 17]).is_err());
    }
}
