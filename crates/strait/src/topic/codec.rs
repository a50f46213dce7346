//! How keys and values are written.

use bytes::{BufMut, Bytes, BytesMut};

/// What can be a key or a value of a topic. What is written has one spelling: equal keys are equal bytes.
pub trait Codec: Sized + Send + 'static {
    /// How many bytes [`encode`](Self::encode) writes. Asked at each publication, so it should cost little.
    fn encoded_len(&self) -> usize;
    /// Appends it.
    fn encode(&self, out: &mut BytesMut);
    /// Reads it. `None`: these bytes are none; they come from a remote.
    fn decode(bytes: Bytes) -> Option<Self>;
}

impl Codec for Bytes {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }

    fn decode(bytes: Bytes) -> Option<Bytes> {
        Some(bytes)
    }
}

impl Codec for Vec<u8> {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }

    fn decode(bytes: Bytes) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

impl Codec for String {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(self.as_bytes());
    }

    fn decode(bytes: Bytes) -> Option<String> {
        String::from_utf8(bytes.into()).ok()
    }
}

impl Codec for () {
    fn encoded_len(&self) -> usize {
        0
    }

    fn encode(&self, _: &mut BytesMut) {}

    fn decode(bytes: Bytes) -> Option<()> {
        bytes.is_empty().then_some(())
    }
}

impl Codec for bool {
    fn encoded_len(&self) -> usize {
        1
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8((*self).into());
    }

    fn decode(bytes: Bytes) -> Option<bool> {
        match bytes[..] {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

/// Numbers are written big-endian, so that keys stand in their order.
macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Codec for $number {
            fn encoded_len(&self) -> usize {
                size_of::<$number>()
            }

            fn encode(&self, out: &mut BytesMut) {
                out.put_slice(&self.to_be_bytes());
            }

            fn decode(bytes: Bytes) -> Option<$number> {
                bytes[..].try_into().ok().map(<$number>::from_be_bytes)
            }
        })*
    };
}

numbers!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64);

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<T: Codec + PartialEq + std::fmt::Debug>(value: T) {
        let mut out = BytesMut::new();
        value.encode(&mut out);
        assert_eq!(out.len(), value.encoded_len());
        assert_eq!(T::decode(out.freeze()), Some(value));
    }

    #[test]
    fn all_come_back_as_they_were() {
        there_and_back(Bytes::from_static(b"abc"));
        there_and_back(vec![0u8, 255]);
        there_and_back("grüße".to_owned());
        there_and_back(());
        there_and_back(true);
        there_and_back(u64::MAX - 1);
        there_and_back(-7i16);
        there_and_back(0.1f64);
    }

    #[test]
    fn other_bytes_are_refused() {
        assert_eq!(bool::decode(Bytes::from_static(&[2])), None);
        assert_eq!(u64::decode(Bytes::from_static(&[1, 2, 3])), None);
        assert_eq!(String::decode(Bytes::from_static(&[0xff])), None);
        assert_eq!(<()>::decode(Bytes::from_static(&[0])), None);
    }
}
