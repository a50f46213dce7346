//! [`Message`]: the bytes of a request or a reply, as the chunks they came in.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Chunks below this size are copied together when a message is received, so that a peer that sends tiny frames cannot make
/// each byte pin a datagram: what is kept is at most [`Message::HELD_FACTOR`] times what was received.
const COPY_BELOW: usize = 768;

/// What a received chunk has beside its bytes.
const CHUNK_BYTES: usize = 88;

/// A message of an application protocol: a list of chunks, so that bulk bytes are not copied to be put in a row.
///
/// Reading through [`bytes::Buf`] consumes it.
#[derive(Debug, Clone, Default)]
pub struct Message {
    chunks: VecDeque<Bytes>,
    /// Small pieces gathered so far; always behind all of `chunks`.
    tail: BytesMut,
    len: usize,
}

impl Message {
    /// Allocated bytes of a received message are at most this times its length (plus one small tail), because chunks of
    /// less than half a datagram are copied together.
    pub const HELD_FACTOR: u64 = 2;

    /// An empty message.
    pub fn new() -> Message {
        Message::default()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Allocated bytes, about: each chunk has some of its datagram's headers, and the count of who shares it.
    pub(crate) fn held(&self) -> u64 {
        let chunks = self
            .chunks
            .len()
            .saturating_mul(CHUNK_BYTES)
            .saturating_add(self.chunks.capacity().saturating_mul(size_of::<Bytes>()));
        self.kept().saturating_add(chunks as u64)
    }

    /// Bytes that it keeps beside how they are kept track of: a large chunk is counted by its length.
    pub(crate) fn kept(&self) -> u64 {
        self.len.saturating_sub(self.tail.len()).saturating_add(self.tail.capacity()) as u64
    }

    /// Appends a chunk that was received: large ones as they are, small ones copied. Returns the bytes copied.
    pub(crate) fn push(&mut self, chunk: Bytes) -> usize {
        self.len = self.len.saturating_add(chunk.len());
        if chunk.len() < COPY_BELOW {
            self.tail.extend_from_slice(&chunk);
            return chunk.len();
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(chunk);
        0
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    /// The bytes as chunks, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        self.chunks.iter().map(|chunk| &chunk[..]).chain(tail)
    }

    /// The bytes as owned chunks, in order.
    pub fn into_chunks(mut self) -> VecDeque<Bytes> {
        self.seal();
        self.chunks
    }

    /// The bytes in one piece. Copies only when they came in several chunks.
    pub fn into_bytes(mut self) -> Bytes {
        if self.chunks.is_empty() {
            return self.tail.freeze();
        }
        self.seal();
        if self.chunks.len() == 1 {
            return self.chunks.pop_front().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.len);
        for chunk in &self.chunks {
            whole.extend_from_slice(chunk);
        }
        whole.freeze()
    }

    /// The front chunk, to be handed to a stream; what was taken of it is removed with [`Buf::advance`].
    pub(crate) fn front(&mut self) -> Option<&mut Bytes> {
        self.seal();
        while self.chunks.front().is_some_and(|chunk| chunk.is_empty()) {
            self.chunks.pop_front();
        }
        self.chunks.front_mut()
    }

    /// Notes that `taken` bytes were split off the front chunk by its new owner.
    pub(crate) fn took(&mut self, taken: usize) {
        self.len = self.len.saturating_sub(taken);
    }
}

impl Buf for Message {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks().find(|chunk| !chunk.is_empty()).unwrap_or_default()
    }

    fn advance(&mut self, mut count: usize) {
        count = count.min(self.len);
        self.len = self.len.saturating_sub(count);
        self.seal();
        while let Some(front) = self.chunks.front_mut() {
            if front.len() > count {
                front.advance(count);
                return;
            }
            count = count.saturating_sub(front.len());
            self.chunks.pop_front();
        }
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Message {
        Message { len: bytes.len(), chunks: VecDeque::from([bytes]), tail: BytesMut::new() }
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Message {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Message {
    fn from(bytes: &'static [u8]) -> Message {
        Bytes::from_static(bytes).into()
    }
}

impl<const N: usize> From<&'static [u8; N]> for Message {
    fn from(bytes: &'static [u8; N]) -> Message {
        Bytes::from_static(bytes).into()
    }
}

impl From<&'static str> for Message {
    fn from(text: &'static str) -> Message {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        text.into_bytes().into()
    }
}

impl From<VecDeque<Bytes>> for Message {
    fn from(chunks: VecDeque<Bytes>) -> Message {
        Message { len: chunks.iter().map(Bytes::len).sum(), chunks, tail: BytesMut::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_are_copied_together_and_large_ones_are_not() {
        let large = Bytes::from(vec![1; COPY_BELOW]);
        let mut message = Message::new();
        assert_eq!(message.push(Bytes::from_static(b"ab")), 2);
        assert_eq!(message.push(Bytes::from_static(b"c")), 1);
        assert_eq!(message.push(large.clone()), 0);
        assert_eq!(message.push(Bytes::from_static(b"d")), 1);
        assert_eq!(message.len(), COPY_BELOW + 4);
        let chunks = message.clone().into_chunks();
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr(), "not copied");
        let whole = message.into_bytes();
        assert_eq!(&whole[..3], b"abc");
        assert_eq!(whole.last(), Some(&b'd'));
    }

    #[test]
    fn reading_through_buf_gives_the_bytes_in_order() {
        let mut message = Message::from(vec![1, 2, 3]);
        message.push(Bytes::from_static(&[4, 5]));
        let mut out = Vec::new();
        while message.has_remaining() {
            out.push(message.get_u8());
        }
        assert_eq!(out, [1, 2, 3, 4, 5]);
    }
}
