//! Signed peer records: where a peer says that it is reached, in a form that can be passed on (libp2p/specs RFC 0002 and RFC 0003).
//!
//! An [`Envelope`] is bytes, what kind they are, and a signature of both; its payload here is a [`PeerRecord`]. Nothing is verified in this module: it
//! says which bytes the signature is over.
//!
//! The specification's text names another domain and payload type than go-libp2p and js-libp2p use; rust-libp2p knows both. Hence two
//! [`Kind`]s: both are read, and [`Kind::Deployed`] is what one should write.

use bytes::BufMut;
use thiserror::Error;

use crate::protobuf::{self, ProtobufError, Reader, Writer};
use crate::varint;

const PUBLIC_KEY: u32 = 1;
const PAYLOAD_TYPE: u32 = 2;
const PAYLOAD: u32 = 3;
const SIGNATURE: u32 = 5;

const PEER_ID: u32 = 1;
const SEQ: u32 = 2;
const ADDRESSES: u32 = 3;

const MULTIADDR: u32 = 1;

/// What an envelope's payload can be, by its type. Each has its own domain, so that no signature is taken for one of the other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As go-libp2p and js-libp2p have it: domain `libp2p-peer-record`, type `0x0301` of the multicodec table.
    Deployed,
    /// As the text of RFC 0003 has it: domain `libp2p-routing-state`, type `/libp2p/routing-state-record`.
    Written,
}

impl Kind {
    /// The domain that is part of what is signed.
    #[must_use]
    pub const fn domain(self) -> &'static str {
        match self {
            Kind::Deployed => "libp2p-peer-record",
            Kind::Written => "libp2p-routing-state",
        }
    }

    /// The payload type in the envelope.
    #[must_use]
    pub const fn payload_type(self) -> &'static [u8] {
        match self {
            Kind::Deployed => &[0x03, 0x01],
            Kind::Written => b"/libp2p/routing-state-record",
        }
    }

    /// The kind with this payload type.
    #[must_use]
    pub fn of(payload_type: &[u8]) -> Option<Kind> {
        [Kind::Deployed, Kind::Written].into_iter().find(|kind| kind.payload_type() == payload_type)
    }
}

/// How much is read and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// The whole envelope in bytes. 8 KiB, as much as an identify message may have that carries it. Over it: an error.
    pub envelope_bytes_max: usize,
    /// Bytes of the key and of the signature, each. 1100: RSA with 8192 bits has 1069 and 1024. Over it: an error.
    pub key_bytes_max: usize,
    /// Addresses kept. Over it: dropped.
    pub addrs_max: usize,
    /// Bytes of one address. Over it: dropped.
    pub addr_bytes_max: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        RecordLimits { envelope_bytes_max: 8 << 10, key_bytes_max: 1100, addrs_max: 32, addr_bytes_max: 256 }
    }
}

/// Why bytes are no envelope or no record. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// A part is larger than may be read.
    #[error("{what} of a signed record has {bytes} bytes, and {max} are read")]
    TooLong {
        /// Which.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not the protobuf that the specification defines.
    #[error("a signed record is malformed: {0}")]
    Format(#[from] ProtobufError),
}

/// A payload and who signed it. Everything is borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The signer's public key in libp2p's protobuf form; empty when it was left out.
    pub public_key: &'a [u8],
    /// What the payload is.
    pub payload_type: &'a [u8],
    /// What was signed.
    pub payload: &'a [u8],
    /// The signature, over [`Envelope::signed_bytes`].
    pub signature: &'a [u8],
}

fn within<'a>(what: &'static str, bytes: &'a [u8], max: usize) -> Result<&'a [u8], RecordError> {
    if bytes.len() > max { Err(RecordError::TooLong { what, bytes: bytes.len(), max }) } else { Ok(bytes) }
}

impl<'a> Envelope<'a> {
    /// Reads one whole envelope.
    ///
    /// Of a field that comes again the last one counts; unknown fields are skipped. Allocates nothing; time O(n).
    ///
    /// # Errors
    /// [`RecordError`]: too long as a whole or in its key or signature, or not the format.
    pub fn decode(message: &'a [u8], limits: &RecordLimits) -> Result<Self, RecordError> {
        let mut out = Envelope::default();
        for field in Reader::new(within("the whole", message, limits.envelope_bytes_max)?) {
            let (number, value) = field?;
            match number {
                PUBLIC_KEY => out.public_key = within("the key", value.bytes(number)?, limits.key_bytes_max)?,
                PAYLOAD_TYPE => out.payload_type = value.bytes(number)?,
                PAYLOAD => out.payload = value.bytes(number)?,
                SIGNATURE => out.signature = within("the signature", value.bytes(number)?, limits.key_bytes_max)?,
                _ => {}
            }
        }
        Ok(out)
    }

    /// Writes the envelope. Fields that are empty are left out.
    ///
    /// # Panics
    /// When `out` has a fixed size and no room, as every [`BufMut`] does.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut writer = Writer::new(out);
        let fields = [
            (PUBLIC_KEY, self.public_key),
            (PAYLOAD_TYPE, self.payload_type),
            (PAYLOAD, self.payload),
            (SIGNATURE, self.signature),
        ];
        for (number, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            writer.bytes(number, value);
        }
    }

    /// The bytes that the signature is over (RFC 0002, "Signature Production / Verification"): domain, payload type and payload, each behind its
    /// length.
    #[must_use]
    pub fn signed_bytes(&self, domain: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for part in [domain.as_bytes(), self.payload_type, self.payload] {
            varint::encode(part.len() as u64, &mut out);
            out.extend_from_slice(part);
        }
        out
    }
}

/// Where a peer says that it is reached. Everything is borrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRecord<'a> {
    /// Whose addresses these are: the bytes of a peer id, not checked.
    pub peer_id: &'a [u8],
    /// Grows from one record of a peer to the next.
    pub seq: u64,
    /// Binary multiaddrs, not checked.
    pub addresses: Vec<&'a [u8]>,
    /// How many addresses were over a limit and left out when this was decoded. Not on the wire.
    pub dropped: usize,
}

impl<'a> PeerRecord<'a> {
    /// Reads the payload of an envelope of either [`Kind`].
    ///
    /// Of a field that may come once and comes again the last one counts; unknown fields are skipped. Memory: at most 16 bytes for each
    /// kept address; time O(n).
    ///
    /// # Errors
    /// [`RecordError::Format`].
    pub fn decode(payload: &'a [u8], limits: &RecordLimits) -> Result<Self, RecordError> {
        let mut out = PeerRecord::default();
        for field in Reader::new(within("the payload", payload, limits.envelope_bytes_max)?) {
            let (number, value) = field?;
            match number {
                PEER_ID => out.peer_id = value.bytes(number)?,
                SEQ => out.seq = value.varint(number)?,
                ADDRESSES => {
                    let address = address(value.bytes(number)?)?;
                    if out.addresses.len() < limits.addrs_max && address.len() <= limits.addr_bytes_max {
                        out.addresses.push(address);
                    } else {
                        out.dropped = out.dropped.saturating_add(1);
                    }
                }
                _ => {}
            }
        }
        Ok(out)
    }

    /// Writes the record.
    ///
    /// # Panics
    /// When `out` has a fixed size and no room, as every [`BufMut`] does.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut writer = Writer::new(out);
        if !self.peer_id.is_empty() {
            writer.bytes(PEER_ID, self.peer_id);
        }
        if self.seq != 0 {
            writer.varint(SEQ, self.seq);
        }
        let mut info = Vec::new();
        for address in &self.addresses {
            info.clear();
            if !address.is_empty() {
                Writer::new(&mut info).bytes(MULTIADDR, address);
            }
            writer.bytes(ADDRESSES, &info);
        }
    }

    /// How many bytes one address of `len` bytes takes in a record.
    #[must_use]
    pub fn address_len(len: usize) -> usize {
        protobuf::bytes_len(ADDRESSES, protobuf::bytes_len(MULTIADDR, len))
    }
}

/// The one field of an `AddressInfo`.
fn address(info: &[u8]) -> Result<&[u8], RecordError> {
    let mut out = &[][..];
    for field in Reader::new(info) {
        let (number, value) = field?;
        if number == MULTIADDR {
            out = value.bytes(number)?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: RecordLimits = RecordLimits { envelope_bytes_max: 1000, key_bytes_max: 40, addrs_max: 3, addr_bytes_max: 20 };

    #[test]
    fn fields_have_the_numbers_of_the_specification() {
        let mut out = Vec::new();
        Envelope { public_key: b"k", payload_type: b"t", payload: b"p", signature: b"s" }.encode(&mut out);
        assert_eq!(out, b"\x0a\x01k\x12\x01t\x1a\x01p\x2a\x01s");
        let mut out = Vec::new();
        PeerRecord { peer_id: b"id", seq: 5, addresses: vec![b"a", b"b"], dropped: 0 }.encode(&mut out);
        assert_eq!(out, b"\x0a\x02id\x10\x05\x1a\x03\x0a\x01a\x1a\x03\x0a\x01b");
    }

    #[test]
    fn each_part_of_what_is_signed_is_behind_its_length() {
        let envelope = Envelope { payload_type: b"ty", payload: b"pay", ..Envelope::default() };
        assert_eq!(envelope.signed_bytes("d"), b"\x01d\x02ty\x03pay");
        let moved = Envelope { payload_type: b"typ", payload: b"ay", ..Envelope::default() };
        assert_ne!(envelope.signed_bytes("d"), moved.signed_bytes("d"), "bytes cannot move from one part to the next");
    }

    #[test]
    fn kinds_are_told_by_their_type() {
        for kind in [Kind::Deployed, Kind::Written] {
            assert_eq!(Kind::of(kind.payload_type()), Some(kind));
        }
        assert_eq!(Kind::of(b"\x03\x02"), None, "a relay's voucher is no peer record");
        assert_eq!(Kind::of(b""), None);
    }

    #[test]
    fn over_a_limit_is_dropped_or_refused() {
        let (long, addresses) = ([1; 21], vec![&b"a"[..]; 5]);
        let mut out = Vec::new();
        PeerRecord { addresses: [vec![&long[..]], addresses].concat(), ..PeerRecord::default() }.encode(&mut out);
        let got = PeerRecord::decode(&out, &LIMITS).unwrap();
        assert_eq!((got.addresses.len(), got.dropped), (3, 3));
        for (public_key, signature) in [(vec![0; 41], vec![]), (vec![], vec![0; 41])] {
            let mut out = Vec::new();
            Envelope { public_key: &public_key, signature: &signature, ..Envelope::default() }.encode(&mut out);
            assert!(matches!(Envelope::decode(&out, &LIMITS), Err(RecordError::TooLong { bytes: 41, max: 40, .. })));
        }
        let whole = vec![0; 1001];
        assert!(matches!(Envelope::decode(&whole, &LIMITS), Err(RecordError::TooLong { bytes: 1001, max: 1000, .. })));
    }

    #[test]
    fn malformed_is_an_error() {
        for bytes in [&b"\x0a\x05k"[..], b"\x08\x01", b"\x1b"] {
            assert!(matches!(Envelope::decode(bytes, &LIMITS), Err(RecordError::Format(_))), "{bytes:?}");
        }
        for bytes in [&b"\x12\x01a"[..], b"\x1a\x02\x0a\x05", b"\x1a\x02\x08\x01"] {
            assert!(matches!(PeerRecord::decode(bytes, &LIMITS), Err(RecordError::Format(_))), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            id in proptest::collection::vec(any::<u8>(), 0..40),
            seq: u64,
            addrs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..3),
        ) {
            let envelope = Envelope { public_key: &key, payload_type: b"t", payload: &payload, signature: &id };
            let mut out = Vec::new();
            envelope.encode(&mut out);
            prop_assert_eq!(Envelope::decode(&out, &LIMITS), Ok(envelope));
            let record = PeerRecord { peer_id: &id, seq, addresses: addrs.iter().map(Vec::as_slice).collect(), dropped: 0 };
            let mut out = Vec::new();
            record.encode(&mut out);
            prop_assert_eq!(PeerRecord::decode(&out, &LIMITS), Ok(record.clone()));
            let mut without = Vec::new();
            PeerRecord { addresses: Vec::new(), ..record.clone() }.encode(&mut without);
            let sum: usize = addrs.iter().map(|addr| PeerRecord::address_len(addr.len())).sum();
            // An address without bytes is left out of its info; nobody sends one.
            if addrs.iter().all(|addr| !addr.is_empty()) {
                prop_assert_eq!(out.len() - without.len(), sum);
            }
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            crate::fuzz_entry::peer_record(&bytes);
        }

        #[test]
        fn total_near_the_format(items in proptest::collection::vec((1u32..6, "[a-z\\x00]{0,5}"), 0..9)) {
            let mut out = Vec::new();
            for (number, text) in items {
                Writer::new(&mut out).bytes(number, text.as_bytes());
            }
            crate::fuzz_entry::peer_record(&out);
        }
    }
}
