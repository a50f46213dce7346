//! The payload of libp2p's Noise handshake (libp2p/specs `noise`, section "The libp2p Handshake Payload"): who somebody is, the
//! proof of it, and what else they want agreed upon before the first byte of the connection.
//!
//! Nothing is verified here: a payload that decodes may lie about everything.

use bytes::BufMut;
use thiserror::Error;

use crate::protobuf::{self, ProtobufError, Reader, Writer};

const IDENTITY_KEY: u32 = 1;
const IDENTITY_SIG: u32 = 2;
const EXTENSIONS: u32 = 4;

const WEBTRANSPORT_CERTHASHES: u32 = 1;
const STREAM_MUXERS: u32 = 2;

/// How much of a payload is read and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadLimits {
    /// Bytes of the key and of the signature, each. 1100: RSA with 8192 bits has 1069 and 1024. Over it: an error.
    pub key_bytes_max: usize,
    /// Items kept of each list, 16: there are three multiplexers in all. Over it: dropped, since nobody needs so many.
    pub items_max: usize,
    /// Bytes of one item. 256 holds any multihash and any name. Over it: dropped.
    pub item_bytes_max: usize,
}

impl Default for PayloadLimits {
    fn default() -> Self {
        PayloadLimits { key_bytes_max: 1100, items_max: 16, item_bytes_max: 256 }
    }
}

/// One payload. Everything is borrowed from the message, or from the caller that encodes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The identity key in libp2p's protobuf form; empty when it was left out.
    pub identity_key: &'a [u8],
    /// The signature with which it vouches for the Noise static key; empty when it was left out.
    pub identity_sig: &'a [u8],
    /// What the handshake carries beside that. `None`: the sender knows of no extensions.
    pub extensions: Option<Extensions<'a>>,
    /// How many items were over a limit and left out when this was decoded. Not on the wire.
    pub dropped: usize,
}

/// Field 4 of a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// Multihashes of the certificates of a WebTransport listener (libp2p/specs `webtransport`).
    pub webtransport_certhashes: Vec<&'a [u8]>,
    /// Multiplexers that the sender speaks, the best first (libp2p/specs `connections/inlined-muxer-negotiation.md`).
    pub stream_muxers: Vec<&'a str>,
}

/// Why bytes are not a payload. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// A key or signature is larger than any that could be checked.
    #[error("a key or signature has {bytes} bytes, and {max} are read")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The message is not the protobuf that the specification defines.
    #[error("a Noise payload is malformed: {0}")]
    Format(#[from] ProtobufError),
}

impl<'a> Payload<'a> {
    /// Reads one whole payload.
    ///
    /// Of a field that may come once and comes again, the last one counts; unknown fields are skipped. Memory: at most 16 bytes for
    /// each kept item; time O(n).
    ///
    /// # Errors
    /// [`PayloadError`]: a key or signature over its limit, or not the format.
    pub fn decode(message: &'a [u8], limits: &PayloadLimits) -> Result<Self, PayloadError> {
        let mut out = Payload::default();
        let key = |bytes: &'a [u8]| match bytes.len() > limits.key_bytes_max {
            true => Err(PayloadError::TooLong { bytes: bytes.len(), max: limits.key_bytes_max }),
            false => Ok(bytes),
        };
        for field in Reader::new(message) {
            let (number, value) = field?;
            match number {
                IDENTITY_KEY => out.identity_key = key(value.bytes(number)?)?,
                IDENTITY_SIG => out.identity_sig = key(value.bytes(number)?)?,
                EXTENSIONS => {
                    let extensions = out.extensions.get_or_insert_default();
                    let dropped = extensions.merge(value.bytes(number)?, limits)?;
                    out.dropped = out.dropped.saturating_add(dropped);
                }
                _ => {}
            }
        }
        Ok(out)
    }

    /// Writes the payload. Fields that are empty are left out.
    ///
    /// # Panics
    /// When `out` has a fixed size and no room, as every [`BufMut`] does.
    pub fn encode(&self, out: &mut impl BufMut) {
        let mut writer = Writer::new(out);
        for (number, value) in [(IDENTITY_KEY, self.identity_key), (IDENTITY_SIG, self.identity_sig)] {
            if !value.is_empty() {
                writer.bytes(number, value);
            }
        }
        if let Some(extensions) = &self.extensions {
            let mut inner = Vec::with_capacity(extensions.encoded_len());
            extensions.encode(&mut inner);
            writer.bytes(EXTENSIONS, &inner);
        }
    }
}

impl<'a> Extensions<'a> {
    /// Reads one occurrence of the field and adds it to what is there, as protobuf wants. Gives how many items it dropped.
    fn merge(&mut self, message: &'a [u8], limits: &PayloadLimits) -> Result<usize, PayloadError> {
        let mut dropped = 0usize;
        for field in Reader::new(message) {
            let (number, value) = field?;
            let kept = match number {
                WEBTRANSPORT_CERTHASHES => push(&mut self.webtransport_certhashes, value.bytes(number)?, limits),
                STREAM_MUXERS => push(&mut self.stream_muxers, value.text(number)?, limits),
                _ => true,
            };
            dropped = dropped.saturating_add(usize::from(!kept));
        }
        Ok(dropped)
    }

    fn encode(&self, out: &mut impl BufMut) {
        let mut writer = Writer::new(out);
        for hash in &self.webtransport_certhashes {
            writer.bytes(WEBTRANSPORT_CERTHASHES, hash);
        }
        for muxer in &self.stream_muxers {
            writer.bytes(STREAM_MUXERS, muxer.as_bytes());
        }
    }

    fn encoded_len(&self) -> usize {
        let hashes = self.webtransport_certhashes.iter().map(|hash| protobuf::bytes_len(WEBTRANSPORT_CERTHASHES, hash.len()));
        let muxers = self.stream_muxers.iter().map(|muxer| protobuf::bytes_len(STREAM_MUXERS, muxer.len()));
        hashes.chain(muxers).fold(0, usize::saturating_add)
    }
}

fn push<T: AsRef<[u8]>>(list: &mut Vec<T>, item: T, limits: &PayloadLimits) -> bool {
    let fits = list.len() < limits.items_max && item.as_ref().len() <= limits.item_bytes_max;
    if fits {
        list.push(item);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(message: &[u8]) -> Result<Payload<'_>, PayloadError> {
        Payload::decode(message, &PayloadLimits::default())
    }

    #[test]
    fn the_bytes_of_the_specification() {
        let extensions = Extensions { webtransport_certhashes: vec![b"h"], stream_muxers: vec!["/y"] };
        let payload = Payload { identity_key: b"key", identity_sig: b"sig", extensions: Some(extensions), dropped: 0 };
        let mut out = Vec::new();
        payload.encode(&mut out);
        assert_eq!(out, b"\x0a\x03key\x12\x03sig\x22\x07\x0a\x01h\x12\x02/y");
        assert_eq!(decode(&out), Ok(payload));
    }

    #[test]
    fn what_is_left_out_is_empty_and_what_is_unknown_is_skipped() {
        assert_eq!(decode(b""), Ok(Payload::default()));
        assert_eq!(decode(b"\x1a\x01x\x28\x07"), Ok(Payload::default()));
        let empty = Payload { extensions: Some(Extensions::default()), ..Payload::default() };
        assert_eq!(decode(b"\x22\x00"), Ok(empty));
    }

    #[test]
    fn parts_of_the_extensions_are_put_together() {
        let found = decode(b"\x22\x03\x12\x01a\x22\x03\x12\x01b").unwrap();
        assert_eq!(found.extensions.unwrap().stream_muxers, ["a", "b"]);
    }

    #[test]
    fn limits() {
        let key = |len: usize| {
            let mut out = Vec::new();
            Writer::new(&mut out).bytes(IDENTITY_KEY, &vec![0; len]);
            out
        };
        assert!(decode(&key(1100)).is_ok());
        assert_eq!(decode(&key(1101)), Err(PayloadError::TooLong { bytes: 1101, max: 1100 }));

        let long = "x".repeat(257);
        let names: Vec<&str> = std::iter::repeat_n("/m", 17).chain([&*long]).collect();
        let many =
            Payload { extensions: Some(Extensions { stream_muxers: names, ..Extensions::default() }), ..Payload::default() };
        let mut out = Vec::new();
        many.encode(&mut out);
        let found = decode(&out).unwrap();
        assert_eq!((found.extensions.unwrap().stream_muxers.len(), found.dropped), (16, 2));
    }

    #[test]
    fn malformed() {
        assert_eq!(decode(b"\x0a\x04key"), Err(ProtobufError::Truncated.into()));
        assert_eq!(decode(b"\x08\x01"), Err(ProtobufError::WrongType(1).into()));
        assert_eq!(decode(b"\x22\x03\x12\x01\xff"), Err(ProtobufError::NotUtf8(2).into()));
    }

    proptest! {
        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            crate::fuzz_entry::noise_payload(&bytes);
        }
    }
}
