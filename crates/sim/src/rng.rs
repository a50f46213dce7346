//! Randomness of a run: everything is derived from one `u64` seed.
//!
//! Each use (a link's direction, a node's keys, an app) has a generator of its own, derived from the
//! seed and a name. So adding a packet on one link does not change what happens on another, and a run
//! with a flood can be compared with the same run without it.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// 32 bytes derived from the run's seed for one use. Equal inputs give equal bytes.
#[must_use]
pub fn derive(seed: u64, purpose: &str, index: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("strait-sim seed v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

/// A seeded generator with the few draws that the simulator needs.
#[derive(Debug, Clone)]
pub struct Random(ChaCha12Rng);

impl Random {
    /// The generator of one use, see [`derive()`].
    #[must_use]
    pub fn new(seed: u64, purpose: &str, index: u64) -> Random {
        Random(ChaCha12Rng::from_seed(derive(seed, purpose, index)))
    }

    /// A uniform 64-bit number.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `buffer` with uniform bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill_bytes(buffer);
    }

    /// A number in `0..end`, or 0 if `end` is 0. The bias is below 2^-32 for ends below 2^32, which no
    /// scenario can see.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(end);
        (wide >> 64) as u64
    }

    /// True with probability `p` (0.0 = never, 1.0 = always). Always draws, so that changing a
    /// probability does not shift what later draws see.
    pub fn chance(&mut self, p: f64) -> bool {
        // 53 bits: exactly the numbers in [0, 1) that an f64 spaces evenly.
        let unit = (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_do_not_share_a_stream() {
        let mut a = Random::new(1, "link", 0);
        let mut b = Random::new(1, "link", 1);
        let mut c = Random::new(1, "app", 0);
        let mut again = Random::new(1, "link", 0);
        let first = a.bits();
        assert_eq!(first, again.bits());
        assert_ne!(first, b.bits());
        assert_ne!(first, c.bits());
    }

    #[test]
    fn chance_keeps_its_probability() {
        let mut random = Random::new(7, "chance", 0);
        let hits = (0..100_000).filter(|_| random.chance(0.05)).count();
        assert!((4_700..5_300).contains(&hits), "{hits} of 100000 at 5 %");
        assert!(!random.chance(0.0));
        assert!(random.chance(1.0));
    }

    #[test]
    fn below_stays_below() {
        let mut random = Random::new(7, "below", 0);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }
}
