//! Unsigned variable-length integers, as multiformats defines them.
//!
//! Seven bits a byte, low bits first, the top bit set on every byte but the last. The specification
//! (<https://github.com/multiformats/unsigned-varint>) allows 9 bytes, so 63 bits, and demands the shortest
//! form. Both matter: without the first a peer can make a reader wait for ever on a number that never ends,
//! without the second the same number has many spellings, and whatever is compared or hashed as bytes can be
//! forged.

use bytes::BufMut;
use thiserror::Error;

/// The longest encoding, in bytes.
pub const BYTES_MAX: usize = 9;

/// The largest number that can be written: 63 bits.
pub const VALUE_MAX: u64 = (1 << 63) - 1;

/// How far each byte's seven bits are shifted.
const SHIFTS: [u32; BYTES_MAX] = [0, 7, 14, 21, 28, 35, 42, 49, 56];

/// Why bytes are not a number. Both are the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VarintError {
    /// The ninth byte says that a tenth follows.
    #[error("a number runs past {BYTES_MAX} bytes")]
    TooLong,
    /// A shorter encoding of the same number exists: the last byte adds nothing.
    #[error("a number is not in its shortest form")]
    NotMinimal,
}

/// Reads one number from the front of `bytes`.
///
/// Gives the number and how many bytes it took, or `None` when `bytes` ends before the number does; then
/// at most [`BYTES_MAX`] bytes will ever be needed.
///
/// # Errors
/// [`VarintError`] as soon as the bytes at hand cannot become a number.
pub fn decode(bytes: &[u8]) -> Result<Option<(u64, usize)>, VarintError> {
    let mut value = 0u64;
    for ((index, &byte), shift) in bytes.iter().enumerate().zip(SHIFTS) {
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(VarintError::NotMinimal);
            }
            return Ok(Some((value, index.saturating_add(1))));
        }
    }
    if bytes.len() >= BYTES_MAX { Err(VarintError::TooLong) } else { Ok(None) }
}

/// How many bytes `value` takes: 1 to 9 up to [`VALUE_MAX`], 10 above it (protobuf needs those).
#[must_use]
pub const fn encoded_len(value: u64) -> usize {
    // Bits in use, at least one, rounded up to groups of seven.
    ((value | 1).ilog2() / 7).saturating_add(1) as usize
}

/// Writes `value` in its shortest form.
///
/// Numbers above [`VALUE_MAX`] come out as 10 bytes, which protobuf fields may hold and [`decode`] refuses:
/// a length never gets there.
///
/// # Panics
/// When `out` has a fixed size and no room, as every [`BufMut`] does.
pub fn encode(value: u64, out: &mut impl BufMut) {
    let mut rest = value;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of the specification.
    const VECTORS: &[(u64, &[u8])] = &[
        (1, &[0x01]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (255, &[0xff, 0x01]),
        (300, &[0xac, 0x02]),
        (16384, &[0x80, 0x80, 0x01]),
    ];

    #[test]
    fn specification_vectors() {
        for (value, bytes) in VECTORS {
            assert_eq!(decode(bytes), Ok(Some((*value, bytes.len()))));
            let mut out = Vec::new();
            encode(*value, &mut out);
            assert_eq!(&out, bytes);
            assert_eq!(encoded_len(*value), bytes.len());
        }
    }

    #[test]
    fn edges() {
        assert_eq!(decode(&[]), Ok(None));
        assert_eq!(decode(&[0]), Ok(Some((0, 1))));
        assert_eq!(decode(&[0x80]), Ok(None));
        assert_eq!(decode(&[0x80, 0x00]), Err(VarintError::NotMinimal));
        assert_eq!(decode(&[0xff, 0x80, 0x00]), Err(VarintError::NotMinimal));
        let mut top = [0xff; 9];
        top[8] = 0x7f;
        assert_eq!(decode(&top), Ok(Some((VALUE_MAX, 9))));
        assert_eq!(decode(&[0xff; 8]), Ok(None));
        assert_eq!(decode(&[0xff; 9]), Err(VarintError::TooLong));
        assert_eq!(decode(&[0x80; 200]), Err(VarintError::TooLong));
        // What follows the number is not looked at.
        assert_eq!(decode(&[0x05, 0xff, 0xff]), Ok(Some((5, 1))));
    }

    #[test]
    fn lengths_at_every_power() {
        assert_eq!(encoded_len(0), 1);
        assert_eq!(encoded_len(u64::MAX), 10);
        for bits in 1..64u32 {
            let value = 1u64 << bits;
            for value in [value - 1, value, value + 1] {
                let mut out = Vec::new();
                encode(value, &mut out);
                assert_eq!(encoded_len(value), out.len(), "{value}");
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=VALUE_MAX, tail in proptest::collection::vec(any::<u8>(), 0..4)) {
            let mut out = Vec::new();
            encode(value, &mut out);
            let len = out.len();
            prop_assert_eq!(len, encoded_len(value));
            for cut in 0..len {
                prop_assert_eq!(decode(&out[..cut]), Ok(None));
            }
            out.extend(tail);
            prop_assert_eq!(decode(&out), Ok(Some((value, len))));
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            crate::fuzz_entry::varint(&bytes);
        }
    }
}
