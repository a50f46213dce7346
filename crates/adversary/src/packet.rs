//! QUIC v1 packets: headers, numbers, protection (RFC 9000 section 17, RFC 9001 section 5).

use rustls::quic::{Algorithm, DirectionalKeys, Keys, Version};
use rustls::{Side, Tls13CipherSuite};

use crate::read::Reader;
use crate::wire::varint;

/// The kinds of packet that carry frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Protected with keys that anybody can derive.
    Initial,
    /// Protected with keys of the handshake.
    Handshake,
    /// Everything after.
    App,
}

/// A packet number is always written with so many bytes.
const NUMBER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// All ids that attacks give out are so long.
pub const ID_BYTES: usize = 8;

/// What stands in a long header, beside kind and number.
#[derive(Debug, Clone, Copy)]
pub struct Ids<'a> {
    /// Destination.
    pub to: &'a [u8],
    /// Source.
    pub from: &'a [u8],
    /// The token of an Initial.
    pub token: &'a [u8],
}

/// A long header up to the length field, which counts `rest` bytes.
fn long_header(level: Level, ids: Ids<'_>, rest: usize) -> Vec<u8> {
    let kind = if level == Level::Initial { 0x00 } else { 0x20 };
    let mut header = vec![0xc0 | kind | (NUMBER_BYTES as u8 - 1), 0, 0, 0, 1];
    for id in [ids.to, ids.from] {
        header.push(id.len() as u8);
        header.extend(id);
    }
    if level == Level::Initial {
        header.extend(varint(ids.token.len() as u64));
        header.extend(ids.token);
    }
    // Always two bytes, so that the length of the header is known before.
    header.extend((rest as u16 | 0x4000).to_be_bytes());
    header
}

/// A whole protected packet.
#[must_use]
pub fn seal(keys: &DirectionalKeys, level: Level, ids: Ids<'_>, number: u64, frames: &[u8]) -> Vec<u8> {
    let rest = NUMBER_BYTES + frames.len() + TAG_BYTES;
    let mut packet = match level {
        Level::App => [&[0x40 | (NUMBER_BYTES as u8 - 1)], ids.to].concat(),
        _ => long_header(level, ids, rest),
    };
    let at = packet.len();
    packet.extend((number as u32).to_be_bytes());
    let begin = packet.len();
    packet.extend(frames);
    let (header, payload) = packet.split_at_mut(begin);
    let tag = keys.packet.encrypt_in_place(number, header, payload).expect("far below the limit of packets");
    packet.extend(tag.as_ref());
    let mut first = packet[0];
    let (number, sampled) = packet[at..].split_at_mut(NUMBER_BYTES);
    keys.header.encrypt_in_place(&sampled[..16], &mut first, number).expect("16 bytes are a sample");
    packet[0] = first;
    packet
}

/// A packet that came in, still protected.
#[derive(Debug)]
pub enum Coming<'a> {
    /// A packet of this level: the whole of it, where its number begins, and the id that it names as its source.
    Sealed(Level, &'a [u8], usize, &'a [u8]),
    /// Wants the token back in a new Initial: the server's new id and the token.
    Retry(&'a [u8], &'a [u8]),
    /// Not for us, or of no use.
    Other,
}

/// The first packet of a datagram, and what comes after it.
#[must_use]
pub fn split(datagram: &[u8]) -> (Coming<'_>, &[u8]) {
    let parsed = if datagram.first().is_some_and(|first| first & 0x80 == 0) {
        // Any id: an attack may have given out others than its first.
        Some((Coming::Sealed(Level::App, datagram, 1 + ID_BYTES, &[][..]), &[][..]))
    } else {
        long(datagram)
    };
    parsed.unwrap_or((Coming::Other, &[]))
}

fn long(datagram: &[u8]) -> Option<(Coming<'_>, &[u8])> {
    let mut reader = Reader(datagram);
    let first = reader.byte()?;
    if reader.take(4)? != [0, 0, 0, 1] {
        return None;
    }
    let len = reader.byte()?;
    reader.take(len.into())?;
    let len = reader.byte()?;
    let source = reader.take(len.into())?;
    let level = match first & 0x30 {
        0x00 => Level::Initial,
        0x20 => Level::Handshake,
        0x30 => {
            let token = reader.0.get(..reader.0.len().checked_sub(TAG_BYTES)?)?;
            return Some((Coming::Retry(source, token), &[]));
        }
        _ => return None,
    };
    if level == Level::Initial {
        let len = reader.varint()?;
        reader.take(len as usize)?;
    }
    let len = reader.varint()? as usize;
    let at = datagram.len() - reader.0.len();
    let (packet, rest) = datagram.split_at_checked(at + len)?;
    Some((Coming::Sealed(level, packet, at, source), rest))
}

/// Opens a packet: its number and its frames. `largest` is the largest number seen before.
#[must_use]
pub fn open(keys: &DirectionalKeys, packet: &[u8], at: usize, largest: u64) -> Option<(u64, Vec<u8>)> {
    let mut packet = packet.to_vec();
    let sample: [u8; 16] = packet.get(at + 4..at + 20)?.try_into().ok()?;
    let mut first = packet[0];
    let mut bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    keys.header.decrypt_in_place(&sample, &mut first, &mut bytes).ok()?;
    let len = usize::from(first & 0x03) + 1;
    packet[0] = first;
    packet[at..at + len].copy_from_slice(&bytes[..len]);
    let low = bytes[..len].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    // RFC 9000 appendix A.3.
    let window = 1u64 << (8 * len);
    let expected = largest + 1;
    let mut number = (expected & !(window - 1)) | low;
    if number + window / 2 <= expected {
        number += window;
    } else if number > expected + window / 2 && number >= window {
        number -= window;
    }
    let (header, payload) = packet.split_at_mut(at + len);
    let payload = keys.packet.decrypt_in_place(number, header, payload).ok()?;
    Some((number, payload.to_vec()))
}

/// The keys of Initial packets, which follow from the first destination id.
#[must_use]
pub fn initial_keys(id: &[u8]) -> Keys {
    let (suite, quic) = suite();
    Keys::initial(Version::V1, suite, quic, id, Side::Client)
}

fn suite() -> (&'static Tls13CipherSuite, &'static dyn Algorithm) {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("of TLS 1.3");
    (suite, suite.quic.expect("with QUIC"))
}
