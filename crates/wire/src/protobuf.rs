//! A small protobuf reader and writer: fields of one message, in the order in which they come.
//!
//! libp2p's messages are flat and few, so their whole wire format fits on this page
//! (<https://protobuf.dev/programming-guides/encoding/>). Doing it here instead of with a protobuf library has one
//! reason: limits belong inside the decoder. A library decodes a message into collections first, and a limit that
//! looks at them afterwards looks at memory that has been spent (a thousand empty addresses in 2 KiB become tens of
//! KiB). This reader allocates nothing, recurses never, and hands out one field at a time, so its caller stops
//! or drops when its own limit is reached. An inner message is bytes, and read with another reader.
//!
//! Accepted as other decoders do: fields in any order, repeated, unknown. Numbers may have a longer form than
//! needed (negative numbers of 32 bits always take ten bytes). Refused: groups (obsolete, and the one construct
//! that nests without a length), field number 0 or above 2^29 - 1, numbers over 64 bits, and what ends too early.

use bytes::BufMut;
use thiserror::Error;

use crate::varint;

/// The largest field number: 29 bits.
pub const FIELD_NUMBER_MAX: u32 = (1 << 29) - 1;

/// How far each byte of a protobuf number is shifted: ten bytes, where varints of multiformats have nine.
const SHIFTS: [u32; 10] = [0, 7, 14, 21, 28, 35, 42, 49, 56, 63];

/// The value of a field, as its wire type has it. What it means is up to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0: whole numbers, booleans, enumerations.
    Varint(u64),
    /// Wire type 1: eight bytes, little-endian.
    Fixed64(u64),
    /// Wire type 2: bytes, a string, an inner message, or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5: four bytes, little-endian.
    Fixed32(u32),
}

/// Why bytes are not a message, or not the message that was meant. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtobufError {
    /// The message ends inside a field.
    #[error("a protobuf message ends in the middle of a field")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("a protobuf number has more than 64 bits")]
    NumberTooLong,
    /// A field number of zero, or above [`FIELD_NUMBER_MAX`].
    #[error("a protobuf field number is out of range")]
    FieldNumber,
    /// Wire type 3, 4, 6 or 7: groups, which are refused, and types that do not exist.
    #[error("protobuf wire type {0} is not supported")]
    WireType(u8),
    /// A known field has another wire type than its message says.
    #[error("protobuf field {0} has the wrong wire type")]
    WrongType(u32),
    /// A field of text is not UTF-8.
    #[error("protobuf field {0} is not UTF-8")]
    NotUtf8(u32),
}

impl<'a> Value<'a> {
    /// The number of field `field`.
    ///
    /// # Errors
    /// [`ProtobufError::WrongType`] when it is not wire type 0.
    pub fn varint(self, field: u32) -> Result<u64, ProtobufError> {
        match self {
            Value::Varint(value) => Ok(value),
            _ => Err(ProtobufError::WrongType(field)),
        }
    }

    /// The bytes of field `field`.
    ///
    /// # Errors
    /// [`ProtobufError::WrongType`] when it is not wire type 2.
    pub fn bytes(self, field: u32) -> Result<&'a [u8], ProtobufError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::WrongType(field)),
        }
    }

    /// The text of field `field`.
    ///
    /// # Errors
    /// [`ProtobufError::WrongType`] when it is not wire type 2, [`ProtobufError::NotUtf8`].
    pub fn text(self, field: u32) -> Result<&'a str, ProtobufError> {
        str::from_utf8(self.bytes(field)?).map_err(|_| ProtobufError::NotUtf8(field))
    }
}

/// The fields of one message: an iterator over field number and value. Ends after the first error.
///
/// Each step takes at least two bytes off the input (or fails), so n bytes cost O(n) in all.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `message`, which is one whole message without a length prefix. Its size is the caller's to limit.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Reader { rest: message }
    }

    fn number(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in SHIFTS {
            let (&byte, rest) = self.rest.split_first().ok_or(ProtobufError::Truncated)?;
            self.rest = rest;
            if shift == 63 && byte > 1 {
                return Err(ProtobufError::NumberTooLong);
            }
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::NumberTooLong)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), ProtobufError> {
        let key = self.number()?;
        let number = u32::try_from(key >> 3).map_err(|_| ProtobufError::FieldNumber)?;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(ProtobufError::FieldNumber);
        }
        let value = match (key & 7) as u8 {
            0 => Value::Varint(self.number()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = usize::try_from(self.number()?).map_err(|_| ProtobufError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Value<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            // Where the next field would start is unknown.
            self.rest = &[];
        }
        Some(field)
    }
}

impl std::iter::FusedIterator for Reader<'_> {}

/// Writes the fields of one message. Field numbers are the caller's constants, from 1 to [`FIELD_NUMBER_MAX`].
///
/// # Panics
/// Every method does when `out` has a fixed size and no room, as every [`BufMut`] does.
#[derive(Debug)]
pub struct Writer<'b, B> {
    out: &'b mut B,
}

impl<'b, B: BufMut> Writer<'b, B> {
    /// Appends to `out`.
    pub fn new(out: &'b mut B) -> Self {
        Writer { out }
    }

    /// Writes a number.
    pub fn varint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        varint::encode(value, self.out);
    }

    /// Writes bytes, text or an inner message.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        varint::encode(value.len() as u64, self.out);
        self.out.put_slice(value);
    }

    /// Writes eight bytes, little-endian.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, 1);
        self.out.put_u64_le(value);
    }

    /// Writes four bytes, little-endian.
    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.key(field, 5);
        self.out.put_u32_le(value);
    }

    fn key(&mut self, field: u32, wire_type: u64) {
        debug_assert!((1..=FIELD_NUMBER_MAX).contains(&field), "field number {field}");
        varint::encode(u64::from(field) << 3 | wire_type, self.out);
    }
}

/// How many bytes [`Writer::bytes`] writes for a value of `len` bytes in field `field`.
#[must_use]
pub const fn bytes_len(field: u32, len: usize) -> usize {
    varint::encoded_len((field as u64) << 3).saturating_add(varint::encoded_len(len as u64)).saturating_add(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, ProtobufError> {
        Reader::new(bytes).collect()
    }

    #[test]
    fn documented_examples() {
        // From the encoding guide: field 1 = 150, field 2 = "testing".
        assert_eq!(fields(&[0x08, 0x96, 0x01]), Ok(vec![(1, Value::Varint(150))]));
        let testing = [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67];
        assert_eq!(fields(&testing), Ok(vec![(2, Value::Bytes(b"testing"))]));
        let minus_two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(fields(&minus_two), Ok(vec![(1, Value::Varint(-2i64 as u64))]));
    }

    #[test]
    fn malformed() {
        assert_eq!(fields(&[0x08]), Err(ProtobufError::Truncated));
        assert_eq!(fields(&[0x80]), Err(ProtobufError::Truncated));
        assert_eq!(fields(&[0x12, 0x02, 0x00]), Err(ProtobufError::Truncated));
        assert_eq!(fields(&[0x09, 0, 0, 0, 0, 0, 0, 0]), Err(ProtobufError::Truncated));
        assert_eq!(fields(&[0x0d, 0, 0, 0]), Err(ProtobufError::Truncated));
        assert_eq!(fields(&[0x00, 0x00]), Err(ProtobufError::FieldNumber));
        assert_eq!(fields(&[0x0b, 0x0c]), Err(ProtobufError::WireType(3)));
        assert_eq!(fields(&[0x0c]), Err(ProtobufError::WireType(4)));
        assert_eq!(fields(&[0x0e]), Err(ProtobufError::WireType(6)));
        let eleven = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(fields(&eleven), Err(ProtobufError::NumberTooLong));
        let bit_64 = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(fields(&bit_64), Err(ProtobufError::NumberTooLong));
        // A length of nearly 2^64 is no reason to overflow.
        let vast = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00];
        assert_eq!(fields(&vast), Err(ProtobufError::Truncated));
        let mut key = Vec::new();
        varint::encode(u64::from(FIELD_NUMBER_MAX + 1) << 3, &mut key);
        key.push(0);
        assert_eq!(fields(&key), Err(ProtobufError::FieldNumber));
    }

    #[test]
    fn ends_after_an_error() {
        let mut reader = Reader::new(&[0x0b, 0x08, 0x01]);
        assert_eq!(reader.next(), Some(Err(ProtobufError::WireType(3))));
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn nesting_costs_no_stack() {
        // Ten thousand messages, each inside the next: to this reader it is one field of bytes.
        let mut message = Vec::new();
        for _ in 0..10_000 {
            let mut outer = Vec::with_capacity(message.len() + 8);
            Writer::new(&mut outer).bytes(1, &message);
            message = outer;
        }
        assert_eq!(fields(&message).map(|found| found.len()), Ok(1));
        // Ten thousand opened groups: refused at the first.
        assert_eq!(fields(&[0x0b; 10_000]), Err(ProtobufError::WireType(3)));
    }

    #[test]
    fn types_of_values() {
        assert_eq!(Value::Varint(3).varint(1), Ok(3));
        assert_eq!(Value::Varint(3).bytes(7), Err(ProtobufError::WrongType(7)));
        assert_eq!(Value::Bytes(b"x").varint(7), Err(ProtobufError::WrongType(7)));
        assert_eq!(Value::Bytes(b"x").text(7), Ok("x"));
        assert_eq!(Value::Bytes(b"\xff").text(7), Err(ProtobufError::NotUtf8(7)));
    }

    proptest! {
        #[test]
        fn round_trip(
            number in 1..=FIELD_NUMBER_MAX,
            whole in any::<u64>(),
            small in any::<u32>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            writer.varint(number, whole);
            writer.fixed64(number, whole);
            writer.fixed32(number, small);
            writer.bytes(number, &bytes);
            let expected = vec![
                (number, Value::Varint(whole)),
                (number, Value::Fixed64(whole)),
                (number, Value::Fixed32(small)),
                (number, Value::Bytes(&bytes)),
            ];
            prop_assert_eq!(fields(&out), Ok(expected));
            let mut out = Vec::new();
            Writer::new(&mut out).bytes(number, &bytes);
            prop_assert_eq!(out.len(), bytes_len(number, bytes.len()));
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            crate::fuzz_entry::protobuf(&bytes);
        }
    }
}
