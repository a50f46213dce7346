//! The identify message: what a peer says about itself (libp2p/specs `identify`).
//!
//! On `/ipfs/id/1.0.0` and `/ipfs/id/push/1.0.0` it travels as a length-prefixed frame. Some peers (go-libp2p)
//! split a large one over several frames on one stream, the signed peer record last: by the rules of protobuf the
//! bodies, put one behind the other, are the whole message, so a reader joins them (up to
//! [`IdentifyLimits::message_bytes_max`] in all) and decodes once. Nothing said here is proven: the key must be
//! compared with the one that was authenticated, and addresses are claims.
//!
//! A peer that runs many services may honestly list more than we keep. So what is over a count or size of one
//! item is dropped and counted, and only what breaks the format is an error.

use bytes::BufMut;
use thiserror::Error;

use crate::protobuf::{self, ProtobufError, Reader, Writer};

/// The largest message that is written, in bytes: rust-libp2p reads no more than this.
pub const ENCODED_BYTES_MAX: usize = 4096;

const PUBLIC_KEY: u32 = 1;
const LISTEN_ADDRS: u32 = 2;
const PROTOCOLS: u32 = 3;
const OBSERVED_ADDR: u32 = 4;
const PROTOCOL_VERSION: u32 = 5;
const AGENT_VERSION: u32 = 6;
const SIGNED_PEER_RECORD: u32 = 8;

/// How much of a message is read and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentifyLimits {
    /// The whole message in bytes. 8 KiB: what go-libp2p and js-libp2p accept. Over it: an error.
    pub message_bytes_max: usize,
    /// Listen addresses kept. Over it: dropped. 32 leaves room for every transport on a few interfaces.
    pub addrs_max: usize,
    /// Bytes of one address, listen or observed. Over it: dropped. 512 holds two peer ids of the longest kind, a
    /// DNS name and certificate hashes.
    pub addr_bytes_max: usize,
    /// Protocols kept. Over it: dropped. A full IPFS node lists some 30.
    pub protocols_max: usize,
    /// Bytes of one protocol name. Over it: dropped. 256; what can be negotiated is limited elsewhere.
    pub protocol_bytes_max: usize,
    /// Bytes of the agent and of the protocol version, each. Over it: dropped. They end in logs and on screens.
    pub agent_bytes_max: usize,
}

impl Default for IdentifyLimits {
    fn default() -> Self {
        IdentifyLimits {
            message_bytes_max: 8 << 10,
            addrs_max: 32,
            addr_bytes_max: 512,
            protocols_max: 128,
            protocol_bytes_max: 256,
            agent_bytes_max: 128,
        }
    }
}

/// One identify message. Everything is borrowed from the message, or from the caller that encodes it.
///
/// `None` and empty lists mean that the sender left the field out, which in a push means "as before".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identify<'a> {
    /// The sender's public key in libp2p's protobuf form.
    pub public_key: Option<&'a [u8]>,
    /// Addresses that the sender claims to listen on: binary multiaddrs, not checked.
    pub listen_addrs: Vec<&'a [u8]>,
    /// Protocols that the sender accepts streams for.
    pub protocols: Vec<&'a str>,
    /// Where the sender sees the receiver: a binary multiaddr, not checked.
    pub observed_addr: Option<&'a [u8]>,
    /// The family of protocols, such as `ipfs/0.1.0`.
    pub protocol_version: Option<&'a str>,
    /// The sender's program and version. Free text of a stranger: escape it before it is shown.
    pub agent_version: Option<&'a str>,
    /// A signed envelope with the sender's peer record (RFC 0002, RFC 0003), not checked.
    pub signed_peer_record: Option<&'a [u8]>,
    /// How many items were over a limit and left out when this was decoded. Not on the wire.
    pub dropped: usize,
}

/// Why bytes are not an identify message. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentifyError {
    /// The message is larger than may be read.
    #[error("an identify message has {bytes} bytes, and {max} are read")]
    TooLong {
        /// Bytes of the message.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The message is not the protobuf that the specification defines.
    #[error("an identify message is malformed: {0}")]
    Format(#[from] ProtobufError),
}

/// The message does not fit in [`ENCODED_BYTES_MAX`] even without addresses. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "an identify message needs {bytes} bytes without its addresses, and peers read {ENCODED_BYTES_MAX}: \
     offer fewer protocols or give them shorter names"
)]
pub struct EncodeError {
    /// Bytes needed without any listen address.
    pub bytes: usize,
}

impl<'a> Identify<'a> {
    /// Reads one whole message, without its length prefix.
    ///
    /// Of a field that may come once and comes again, the last one within its limit counts. Unknown fields are
    /// skipped. Memory: at most 16 bytes for each kept address and protocol; time O(n).
    ///
    /// # Errors
    /// [`IdentifyError`]: too long as a whole, or not the format (names that are not UTF-8 included).
    pub fn decode(message: &'a [u8], limits: &IdentifyLimits) -> Result<Self, IdentifyError> {
        if message.len() > limits.message_bytes_max {
            return Err(IdentifyError::TooLong { bytes: message.len(), max: limits.message_bytes_max });
        }
        let mut out = Identify::default();
        for field in Reader::new(message) {
            let (number, value) = field?;
            let kept = match number {
                PUBLIC_KEY => set(&mut out.public_key, value.bytes(number)?, usize::MAX),
                LISTEN_ADDRS => {
                    let (items, bytes) = (limits.addrs_max, limits.addr_bytes_max);
                    push(&mut out.listen_addrs, value.bytes(number)?, items, bytes)
                }
                PROTOCOLS => {
                    let (items, bytes) = (limits.protocols_max, limits.protocol_bytes_max);
                    push(&mut out.protocols, value.text(number)?, items, bytes)
                }
                OBSERVED_ADDR => set(&mut out.observed_addr, value.bytes(number)?, limits.addr_bytes_max),
                PROTOCOL_VERSION => set(&mut out.protocol_version, value.text(number)?, limits.agent_bytes_max),
                AGENT_VERSION => set(&mut out.agent_version, value.text(number)?, limits.agent_bytes_max),
                SIGNED_PEER_RECORD => set(&mut out.signed_peer_record, value.bytes(number)?, usize::MAX),
                _ => true,
            };
            if !kept {
                out.dropped = out.dropped.saturating_add(1);
            }
        }
        Ok(out)
    }

    /// How many bytes [`Identify::encode`] writes when no address is left out.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.listen_addrs
            .iter()
            .fold(self.len_without_addrs(), |sum, addr| sum.saturating_add(protobuf::bytes_len(LISTEN_ADDRS, addr.len())))
    }

    /// Writes the message, without a length prefix, in at most [`ENCODED_BYTES_MAX`] bytes.
    ///
    /// Listen addresses that do not fit are left out, from the end of the list, so put the best first. Gives
    /// how many were left out.
    ///
    /// # Errors
    /// [`EncodeError`] when the rest alone is too large; then nothing is written.
    ///
    /// # Panics
    /// When `out` has a fixed size and no room, as every [`BufMut`] does.
    pub fn encode(&self, out: &mut impl BufMut) -> Result<usize, EncodeError> {
        let mut bytes = self.len_without_addrs();
        if bytes > ENCODED_BYTES_MAX {
            return Err(EncodeError { bytes });
        }
        let fitting = self.listen_addrs.iter().take_while(|addr| {
            bytes = bytes.saturating_add(protobuf::bytes_len(LISTEN_ADDRS, addr.len()));
            bytes <= ENCODED_BYTES_MAX
        });
        let kept = fitting.count();

        let mut writer = Writer::new(out);
        if let Some(key) = self.public_key {
            writer.bytes(PUBLIC_KEY, key);
        }
        for addr in self.listen_addrs.iter().take(kept) {
            writer.bytes(LISTEN_ADDRS, addr);
        }
        for protocol in &self.protocols {
            writer.bytes(PROTOCOLS, protocol.as_bytes());
        }
        for (number, value) in self.single_fields() {
            if let Some(value) = value {
                writer.bytes(number, value);
            }
        }
        Ok(self.listen_addrs.len().saturating_sub(kept))
    }

    /// The fields behind the lists, in the order in which they are written.
    fn single_fields(&self) -> [(u32, Option<&'a [u8]>); 4] {
        [
            (OBSERVED_ADDR, self.observed_addr),
            (PROTOCOL_VERSION, self.protocol_version.map(str::as_bytes)),
            (AGENT_VERSION, self.agent_version.map(str::as_bytes)),
            (SIGNED_PEER_RECORD, self.signed_peer_record),
        ]
    }

    fn len_without_addrs(&self) -> usize {
        let key = self.public_key.map(|key| protobuf::bytes_len(PUBLIC_KEY, key.len()));
        let protocols = self.protocols.iter().map(|name| protobuf::bytes_len(PROTOCOLS, name.len()));
        let single = self.single_fields().into_iter();
        let single = single.filter_map(|(number, value)| Some(protobuf::bytes_len(number, value?.len())));
        key.into_iter().chain(protocols).chain(single).fold(0, usize::saturating_add)
    }
}

/// Keeps `value` if it is within `bytes_max`; says whether it did.
fn set<T: AsRef<[u8]>>(slot: &mut Option<T>, value: T, bytes_max: usize) -> bool {
    let fits = value.as_ref().len() <= bytes_max;
    if fits {
        *slot = Some(value);
    }
    fits
}

/// Keeps `value` if it is within `bytes_max` and the list is not full; says whether it did.
fn push<T: AsRef<[u8]>>(list: &mut Vec<T>, value: T, items_max: usize, bytes_max: usize) -> bool {
    let fits = list.len() < items_max && value.as_ref().len() <= bytes_max;
    if fits {
        list.push(value);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: IdentifyLimits = IdentifyLimits {
        message_bytes_max: 8 << 10,
        addrs_max: 4,
        addr_bytes_max: 64,
        protocols_max: 3,
        protocol_bytes_max: 20,
        agent_bytes_max: 16,
    };

    fn message<'a>() -> Identify<'a> {
        Identify {
            public_key: Some(b"\x08\x01\x12\x02ab"),
            listen_addrs: vec![&[4, 127, 0, 0, 1, 6, 0x1f, 0x90], &[4, 10, 0, 0, 1, 6, 0, 80]],
            protocols: vec!["/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"],
            observed_addr: Some(&[4, 192, 0, 2, 1, 6, 0x1f, 0x90]),
            protocol_version: Some("ipfs/0.1.0"),
            agent_version: Some("strait/0.1.0"),
            signed_peer_record: Some(b"record"),
            dropped: 0,
        }
    }

    #[test]
    fn fields_have_the_numbers_of_the_specification() {
        let mut out = Vec::new();
        assert_eq!(message().encode(&mut out), Ok(0));
        assert_eq!(out.len(), message().encoded_len());
        let numbers: Vec<u32> = Reader::new(&out).map(|field| field.unwrap().0).collect();
        assert_eq!(numbers, [1, 2, 2, 3, 3, 4, 5, 6, 8]);
        assert_eq!(Identify::decode(&out, &LIMITS), Ok(message()));
        // Tag bytes written by hand: (number << 3) | 2.
        assert_eq!(Identify::decode(b"\x32\x01a\x2a\x01p", &LIMITS).unwrap().agent_version, Some("a"));
        assert_eq!(Identify::decode(b"\x32\x01a\x2a\x01p", &LIMITS).unwrap().protocol_version, Some("p"));
    }

    #[test]
    fn empty_message_is_an_empty_update() {
        assert_eq!(Identify::decode(&[], &LIMITS), Ok(Identify::default()));
    }

    #[test]
    fn joined_frames_are_one_message() {
        let whole = message();
        let first = Identify { signed_peer_record: None, ..message() };
        let second = Identify { signed_peer_record: whole.signed_peer_record, ..Identify::default() };
        let mut out = Vec::new();
        first.encode(&mut out).unwrap();
        second.encode(&mut out).unwrap();
        assert_eq!(Identify::decode(&out, &LIMITS), Ok(whole));
    }

    #[test]
    fn over_a_limit_is_dropped_and_counted() {
        let long = [0u8; 65];
        let sent = Identify {
            listen_addrs: vec![b"a", &long, b"b", b"c", b"d", b"e", b"f"],
            protocols: vec!["/1", "/a-name-that-is-too-long", "/2", "/3", "/4"],
            observed_addr: Some(&long),
            agent_version: Some("an agent that tells its life"),
            ..Identify::default()
        };
        let mut out = Vec::new();
        sent.encode(&mut out).unwrap();
        let got = Identify::decode(&out, &LIMITS).unwrap();
        assert_eq!(got.listen_addrs, [b"a", b"b", b"c", b"d"]);
        assert_eq!(got.protocols, ["/1", "/2", "/3"]);
        assert_eq!((got.observed_addr, got.agent_version), (None, None));
        assert_eq!(got.dropped, 3 + 2 + 1 + 1);
    }

    #[test]
    fn thousands_of_items_keep_no_more_than_the_limit() {
        let mut out = Vec::new();
        for _ in 0..1000 {
            Writer::new(&mut out).bytes(LISTEN_ADDRS, b"");
            Writer::new(&mut out).bytes(PROTOCOLS, b"/");
        }
        let got = Identify::decode(&out, &LIMITS).unwrap();
        assert_eq!((got.listen_addrs.len(), got.protocols.len(), got.dropped), (4, 3, 1993));
        assert!(got.listen_addrs.capacity() <= 8);
    }

    #[test]
    fn malformed_is_an_error() {
        let long = vec![0; LIMITS.message_bytes_max + 1];
        assert_eq!(Identify::decode(&long, &LIMITS), Err(IdentifyError::TooLong { bytes: 8193, max: 8192 }));
        let refuse = |bytes: &[u8]| Identify::decode(bytes, &LIMITS).unwrap_err();
        assert_eq!(refuse(b"\x08\x01"), ProtobufError::WrongType(1).into());
        assert_eq!(refuse(b"\x1a\x02/\xff"), ProtobufError::NotUtf8(3).into());
        assert_eq!(refuse(b"\x0a\x05ab"), ProtobufError::Truncated.into());
    }

    #[test]
    fn unknown_fields_are_skipped_and_the_last_of_a_field_counts() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.varint(77, 5);
        writer.bytes(PUBLIC_KEY, b"first");
        writer.bytes(7, b"?");
        writer.bytes(PUBLIC_KEY, b"second");
        let got = Identify::decode(&out, &LIMITS).unwrap();
        assert_eq!((got.public_key, got.dropped), (Some(&b"second"[..]), 0));
    }

    #[test]
    fn encoding_leaves_out_addresses_from_the_end() {
        let addr = [0u8; 98];
        // 100 bytes each on the wire, so 40 of them leave 96 bytes, and 41 do not fit.
        let sent = Identify { listen_addrs: vec![&addr; 50], ..Identify::default() };
        let mut out = Vec::new();
        assert_eq!(sent.encode(&mut out), Ok(10));
        assert_eq!(out.len(), 4000);
        let mut exact = sent.clone();
        exact.signed_peer_record = Some(&[0; 94]);
        let mut out = Vec::new();
        assert_eq!(exact.encode(&mut out), Ok(10));
        assert_eq!(out.len(), ENCODED_BYTES_MAX);
        exact.signed_peer_record = Some(&[0; 95]);
        let mut out = Vec::new();
        assert_eq!(exact.encode(&mut out), Ok(11), "one byte too many costs an address");
        assert_eq!(out.len(), ENCODED_BYTES_MAX - 99);
    }

    #[test]
    fn encoding_refuses_what_peers_would_not_read() {
        let record = [0; ENCODED_BYTES_MAX];
        let sent = Identify { signed_peer_record: Some(&record), ..message() };
        let mut out = Vec::new();
        let error = sent.encode(&mut out).unwrap_err();
        assert!(error.bytes > ENCODED_BYTES_MAX);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn round_trip(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            addrs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..4),
            protocols in proptest::collection::vec("/[a-zé]{0,8}", 0..3),
            agent in proptest::option::of("[a-zé]{0,8}"),
            record in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        ) {
            let sent = Identify {
                public_key: key.as_deref(),
                listen_addrs: addrs.iter().map(Vec::as_slice).collect(),
                protocols: protocols.iter().map(String::as_str).collect(),
                agent_version: agent.as_deref(),
                protocol_version: agent.as_deref(),
                signed_peer_record: record.as_deref(),
                ..Identify::default()
            };
            let mut out = Vec::new();
            prop_assert_eq!(sent.encode(&mut out), Ok(0));
            prop_assert_eq!(out.len(), sent.encoded_len());
            prop_assert_eq!(Identify::decode(&out, &LIMITS), Ok(sent));
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            crate::fuzz_entry::identify(&bytes);
        }

        #[test]
        fn total_near_the_format(items in proptest::collection::vec((1u32..10, "[/a\\x00é]{0,5}"), 0..9)) {
            let mut out = Vec::new();
            for (number, text) in items {
                Writer::new(&mut out).bytes(number, text.as_bytes());
            }
            crate::fuzz_entry::identify(&out);
        }
    }
}
