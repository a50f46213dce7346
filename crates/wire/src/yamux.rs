//! Frame headers of Yamux (<https://github.com/hashicorp/yamux/blob/master/spec.md>, as libp2p uses it:
//! <https://github.com/libp2p/specs/blob/master/yamux/README.md>).
//!
//! A frame is a header of twelve bytes, all numbers big endian: version (0), type, flags (16 bits), stream (32 bits), length (32 bits). Only a
//! data frame has a body, of `length` bytes; in the others the length is a number of its own: credit, an opaque ping value, a code. So a header
//! announces at most 4 GiB and nothing is stored for it here: what is allowed is the multiplexer's to say, stream by stream.

use thiserror::Error;

/// Length of a header, in bytes.
pub const HEADER_BYTES: usize = 12;
/// What either side may send on a fresh stream before it is given credit, in bytes.
pub const INITIAL_WINDOW: u32 = 256 << 10;
/// How many streams a side may have opened that the other has not acknowledged yet (libp2p/specs, ACK backlog).
pub const ACK_BACKLOG: u32 = 256;
/// The stream number of frames that are about the whole connection.
pub const CONNECTION: u32 = 0;

/// Opens a stream; on a ping: this is the question.
pub const SYN: u16 = 1;
/// Acknowledges a stream; on a ping: this is the answer.
pub const ACK: u16 = 2;
/// Ends the sender's direction.
pub const FIN: u16 = 4;
/// Ends both directions at once.
pub const RST: u16 = 8;

/// GoAway: an orderly end.
pub const AWAY_NORMAL: u32 = 0;
/// GoAway: the other side broke the rules.
pub const AWAY_PROTOCOL: u32 = 1;
/// GoAway: an error of the sender's own.
pub const AWAY_INTERNAL: u32 = 2;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of a stream follow, `length` of them.
    Data,
    /// `length` more bytes may be sent on this stream. With [`RST`] it is an error code, and no credit.
    WindowUpdate,
    /// A question with [`SYN`] or its answer with [`ACK`]; `length` is to be repeated.
    Ping,
    /// The connection ends; `length` is the code.
    GoAway,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type.
    pub kind: Kind,
    /// Any of [`SYN`], [`ACK`], [`FIN`] and [`RST`]. Bits without a meaning are kept and to be ignored.
    pub flags: u16,
    /// The stream, or [`CONNECTION`].
    pub stream: u32,
    /// Bytes of the body, or what `kind` says.
    pub length: u32,
}

/// Why bytes are not a frame. All are the sender's fault, and nothing behind them can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// A version that does not exist.
    #[error("a frame of Yamux version {0}, and there is only version 0")]
    Version(u8),
    /// A type that does not exist.
    #[error("a frame of the unknown type {0}")]
    Kind(u8),
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`] for a version or a type that does not exist.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderError> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = *bytes;
        if version != 0 {
            return Err(HeaderError::Version(version));
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::WindowUpdate,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            other => return Err(HeaderError::Kind(other)),
        };
        Ok(Header {
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [f0, f1] = self.flags.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [0, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]
    }

    /// Whether all bits of `flag` are set.
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag == flag
    }

    /// How many bytes of body follow.
    #[must_use]
    pub const fn body(&self) -> u32 {
        match self.kind {
            Kind::Data => self.length,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_of_the_specification() {
        let open = Header { kind: Kind::WindowUpdate, flags: SYN, stream: 1, length: 0x01_0000 };
        assert_eq!(open.encode(), [0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0]);
        let data = Header { kind: Kind::Data, flags: ACK | FIN, stream: 0x0203_0405, length: 7 };
        assert_eq!(data.encode(), [0, 0, 0, 6, 2, 3, 4, 5, 0, 0, 0, 7]);
        assert_eq!((data.body(), open.body()), (7, 0), "only data has a body");
        assert!(data.has(FIN) && data.has(ACK | FIN) && !data.has(SYN | FIN));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let bytes = |version, kind| [version, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Header::decode(&bytes(1, 0)), Err(HeaderError::Version(1)));
        assert_eq!(Header::decode(&bytes(0, 4)), Err(HeaderError::Kind(4)));
        assert!(Header::decode(&bytes(0, 3)).is_ok());
    }

    #[test]
    fn unknown_flags_are_kept() {
        let header = Header::decode(&[0, 2, 0xff, 0xf1, 0, 0, 0, 0, 0, 0, 0, 1]).expect("a ping");
        assert!(header.has(SYN) && !header.has(ACK));
        assert_eq!(header.flags, 0xfff1);
    }

    proptest! {
        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            crate::fuzz_entry::yamux(&bytes);
        }
    }
}
