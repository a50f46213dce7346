//! Signed peer records: made, and verified (libp2p/specs RFC 0002, RFC 0003).

use libp2p_identity::{Keypair, PeerId, PublicKey};
use multiaddr::Multiaddr;
use strait_wire::record::{Envelope, Kind, PeerRecord, RecordError, RecordLimits};

/// Where a peer says that it is reached, and that it has signed this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRecord {
    /// Grows from one record of a peer to the next.
    pub seq: u64,
    /// Claims of the peer; what cannot be read as an address is left out.
    pub addresses: Vec<Multiaddr>,
}

/// Why a record is not believed. The sender's fault, but for [`Stale`](Self::Stale), which an old record that was passed on is too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// It cannot be read.
    #[error(transparent)]
    Format(#[from] RecordError),
    /// Its payload is no peer record.
    #[error("the envelope holds no peer record")]
    Kind,
    /// It was signed with another key than that of the peer it should be of.
    #[error("it was signed by another peer")]
    OtherSigner,
    /// It is about another peer than the one who signed it.
    #[error("it is about another peer than the one who signed it")]
    OtherPeer,
    /// A newer one is known.
    #[error("it is record {seq}, and record {known} of this peer is known")]
    Stale {
        /// Its number.
        seq: u64,
        /// The newest known.
        known: u64,
    },
    /// The signature is not of this key over these bytes.
    #[error("the signature does not fit")]
    Signature,
}

/// Makes a record in an envelope, of the kind that go-libp2p and js-libp2p read. `None` when the key cannot sign.
pub fn sign(keypair: &Keypair, seq: u64, addresses: &[Multiaddr]) -> Option<Vec<u8>> {
    let public = keypair.public();
    let (peer_id, public_key) = (public.to_peer_id().to_bytes(), public.encode_protobuf());
    let addresses: Vec<Vec<u8>> = addresses.iter().map(Multiaddr::to_vec).collect();
    let record = PeerRecord { peer_id: &peer_id, seq, addresses: addresses.iter().map(Vec::as_slice).collect(), dropped: 0 };
    let mut payload = Vec::new();
    record.encode(&mut payload);
    let kind = Kind::Deployed;
    let mut envelope = Envelope { public_key: &public_key, payload_type: kind.payload_type(), payload: &payload, signature: &[] };
    let signature = keypair.sign(&envelope.signed_bytes(kind.domain())).ok()?;
    envelope.signature = &signature;
    let mut out = Vec::new();
    envelope.encode(&mut out);
    Some(out)
}

/// Verifies a record of `peer`, of which `known` is the newest number that is known. All that is cheap is looked at first: at most one signature is
/// checked, and that last, so that only [`BadRecord::Signature`] and success have cost one.
///
/// # Errors
/// [`BadRecord`]: nothing of it may be believed.
pub fn verify(bytes: &[u8], peer: &PeerId, known: Option<u64>) -> Result<SignedRecord, BadRecord> {
    let limits = RecordLimits::default();
    let envelope = Envelope::decode(bytes, &limits)?;
    let kind = Kind::of(envelope.payload_type).ok_or(BadRecord::Kind)?;
    let record = PeerRecord::decode(envelope.payload, &limits)?;
    if record.peer_id != peer.to_bytes() {
        return Err(BadRecord::OtherPeer);
    }
    if let Some(known) = known.filter(|known| record.seq < *known) {
        return Err(BadRecord::Stale { seq: record.seq, known });
    }
    let key = PublicKey::try_decode_protobuf(envelope.public_key).map_err(|_| BadRecord::OtherSigner)?;
    if key.to_peer_id() != *peer {
        return Err(BadRecord::OtherSigner);
    }
    if !key.verify(&envelope.signed_bytes(kind.domain()), envelope.signature) {
        return Err(BadRecord::Signature);
    }
    let addresses = record.addresses.iter().filter_map(|address| Multiaddr::try_from(address.to_vec()).ok());
    Ok(SignedRecord { seq: record.seq, addresses: addresses.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u8) -> Keypair {
        Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes")
    }

    fn addresses() -> Vec<Multiaddr> {
        ["/ip4/9.9.9.9/udp/4001/quic-v1", "/dns4/a.b/tcp/1"].map(|text| text.parse().expect("a multiaddr")).to_vec()
    }

    fn peer(number: u8) -> PeerId {
        key(number).public().to_peer_id()
    }

    /// An envelope by hand: whose key is in it, who signs, of what kind it says to be and over which domain, and about whom it is.
    fn envelope(named: u8, signer: u8, payload_type: &[u8], domain: &str, about: u8) -> Vec<u8> {
        let (peer_id, public_key) = (peer(about).to_bytes(), key(named).public().encode_protobuf());
        let mut payload = Vec::new();
        PeerRecord { peer_id: &peer_id, seq: 5, addresses: Vec::new(), dropped: 0 }.encode(&mut payload);
        let mut envelope = Envelope { public_key: &public_key, payload_type, payload: &payload, signature: &[] };
        let signature = key(signer).sign(&envelope.signed_bytes(domain)).expect("it signs");
        envelope.signature = &signature;
        let mut out = Vec::new();
        envelope.encode(&mut out);
        out
    }

    #[test]
    fn what_one_signs_the_other_reads() {
        let signed = sign(&key(1), 5, &addresses()).expect("it signs");
        let want = SignedRecord { seq: 5, addresses: addresses() };
        assert_eq!(verify(&signed, &peer(1), None), Ok(want.clone()));
        assert_eq!(verify(&signed, &peer(1), Some(5)), Ok(want), "the same again is no older one");
        assert_eq!(verify(&signed, &peer(1), Some(6)), Err(BadRecord::Stale { seq: 5, known: 6 }));
    }

    /// Both kinds are read, each with its own domain and no other.
    #[test]
    fn kinds_do_not_mix() {
        for kind in [Kind::Deployed, Kind::Written] {
            for domain in [Kind::Deployed, Kind::Written].map(Kind::domain).into_iter().chain(["libp2p-relay-rsvp"]) {
                let got = verify(&envelope(1, 1, kind.payload_type(), domain, 1), &peer(1), None);
                assert_eq!(got.is_ok(), domain == kind.domain(), "{kind:?} over {domain}: {got:?}");
            }
        }
        assert_eq!(verify(&envelope(1, 1, b"\x03\x02", "libp2p-relay-rsvp", 1), &peer(1), None), Err(BadRecord::Kind));
    }

    /// Attack 34: whoever signs, and whatever is in it, a record of one peer is believed only with that peer's key.
    #[test]
    fn forged_records_are_named() {
        let kind = Kind::Deployed;
        let forged =
            |named, signer, about| verify(&envelope(named, signer, kind.payload_type(), kind.domain(), about), &peer(1), None);
        assert_eq!(forged(2, 2, 1), Err(BadRecord::OtherSigner), "another's key and signature");
        assert_eq!(forged(1, 2, 1), Err(BadRecord::Signature), "the right key, another's signature");
        assert_eq!(forged(2, 1, 1), Err(BadRecord::OtherSigner));
        assert_eq!(forged(1, 1, 2), Err(BadRecord::OtherPeer), "it signs about somebody else");
        assert_eq!(forged(2, 2, 2), Err(BadRecord::OtherPeer), "a good record of somebody else");
        assert_eq!(verify(&[], &peer(1), None), Err(BadRecord::Kind));
    }

    proptest! {
        #[test]
        fn no_changed_byte_is_believed(at in any::<proptest::sample::Index>(), bit in 0u8..8, seq in 1u64.., cut: bool) {
            let good = sign(&key(1), seq, &addresses()).expect("it signs");
            let mut bad = good.clone();
            let at = at.index(bad.len());
            if cut { bad.truncate(at) } else { bad[at] ^= 1 << bit }
            let read = verify(&good, &peer(1), None);
            // What protobuf does not look at (an unknown field's number) may change; what is believed may not.
            prop_assert!(verify(&bad, &peer(1), None).is_err() || verify(&bad, &peer(1), None) == read);
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(verify(&bytes, &peer(1), None).is_err());
        }

        /// Any payload that another key than the peer's has signed, however much of it is right.
        #[test]
        fn nobody_signs_for_another(signer in 2u8.., named_is_own: bool, written: bool) {
            let named = if named_is_own { signer } else { 1 };
            let kind = if written { Kind::Written } else { Kind::Deployed };
            prop_assert!(verify(&envelope(named, signer, kind.payload_type(), kind.domain(), 1), &peer(1), None).is_err());
        }
    }
}
