//! For the fuzz target `pipe`: what strangers send before anything is encrypted, to both sides and both ways to secure a pipe.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use libp2p_identity::Keypair;

use super::stage::{Identity, Securing};
use crate::env::{Env, Random};
use crate::limits::Limits;

/// The first byte says which side is attacked (bit 0) and with what preference (bit 1), the second how the rest is cut into pieces.
///
/// # Panics
/// When the pipe breaks its word: more is held than came and one frame of a handshake, or somebody is believed. For tests.
#[doc(hidden)]
#[allow(clippy::expect_used, clippy::panic, reason = "for tests; nothing in the stack calls it")]
pub fn securing(bytes: &[u8], env: &Env, now: Instant) {
    let [kind, cut, rest @ ..] = bytes else {
        return;
    };
    let keypair = Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
    let mut random = Random::new([7; 32]);
    let mut identity = Identity::new(&keypair, env, &mut random).expect("a key that signs");
    if kind & 2 != 0 {
        identity.security = &[super::noise::NAME, super::tls::NAME];
    }
    let limits = Limits::default();
    let mut securing = match kind & 1 {
        0 => Securing::listen(now, &identity, &limits, &mut random),
        _ => Securing::dial(&identity, None, &limits, &mut random).expect("a first message"),
    };
    let mut came = 0usize;
    for piece in rest.chunks(usize::from(*cut).max(1)) {
        came = came.saturating_add(piece.len());
        let mut out = Vec::new();
        match securing.handle(now, &identity, BytesMut::from(piece)) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("somebody without a key was believed"),
            Err(_) => return,
        }
        securing.poll_output(&mut out);
        assert!(
            securing.held() <= came.saturating_mul(2).saturating_add(8 << 10),
            "{} bytes are held for {came}",
            securing.held()
        );
        assert!(securing.deadline().is_none_or(|deadline| deadline <= now.checked_add(Duration::from_secs(60)).unwrap_or(now)));
    }
}
