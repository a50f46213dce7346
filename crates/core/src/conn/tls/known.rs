//! Certificates that were found right: who comes back is not checked twice. What a certificate says of itself does not change, and its two signatures are two
//! thirds of what a handshake verifies; that the peer holds its key is proved anew each time, and so is its date.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use libp2p_identity::PeerId;

/// So many are known, the newest ones. Comparing them all takes a hundredth of what checking one does.
const KNOWN_MAX: usize = 128;
/// Larger ones are checked each time. The usual one has 400 bytes.
const KNOWN_BYTES_MAX: usize = 512;

/// Certificates that were found right, in DER, with the peer that each names.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<VecDeque<(Box<[u8]>, PeerId)>>);

impl Known {
    /// Whose certificate this is, if it was found right before.
    pub(super) fn find(&self, der: &[u8]) -> Option<PeerId> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(certificate, _)| **certificate == *der).map(|(_, peer)| *peer)
    }

    /// Allocated bytes.
    pub(super) fn held(&self) -> u64 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = known.capacity().saturating_mul(size_of::<(Box<[u8]>, PeerId)>());
        known.iter().fold(list as u64, |sum, (certificate, _)| sum.saturating_add(certificate.len() as u64))
    }

    /// Notes that a certificate was found right. The oldest is forgotten when there are too many.
    pub(super) fn note(&self, der: &[u8], peer: PeerId) {
        if der.len() > KNOWN_BYTES_MAX {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.pop_front();
        }
        known.push_back((der.into(), peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_known_and_large_ones_never() {
        let known = Known::default();
        let peer = PeerId::random();
        let der = |number: usize| number.to_be_bytes();
        for number in 0..=KNOWN_MAX {
            known.note(&der(number), peer);
        }
        assert_eq!(known.find(&der(0)), None);
        assert_eq!(known.find(&der(1)), Some(peer));
        assert_eq!(known.find(&der(KNOWN_MAX)), Some(peer));
        assert_eq!(known.find(&der(1)[..7]), None, "all of it counts");
        let large = vec![1; KNOWN_BYTES_MAX + 1];
        known.note(&large, peer);
        assert_eq!(known.find(&large), None);
    }
}
