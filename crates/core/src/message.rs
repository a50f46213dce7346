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
    /// The chunk before all others. Most messages are one, and need nothing else.
    first: Bytes,
    more: Option<Box<More>>,
    len: usize,
}

/// What is behind the first chunk: nothing while that is empty, but for small pieces.
#[derive(Debug, Clone, Default)]
struct More {
    chunks: VecDeque<Bytes>,
    /// Small pieces gathered so far; always behind all chunks.
    tail: BytesMut,
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
        let one = usize::from(!self.first.is_empty());
        let (chunks, list) = self.more.as_ref().map_or((one, 0), |more| {
            let list = more.chunks.capacity().saturating_mul(size_of::<Bytes>()).saturating_add(size_of::<More>());
            (more.chunks.len().saturating_add(one), list)
        });
        self.kept().saturating_add(chunks.saturating_mul(CHUNK_BYTES).saturating_add(list) as u64)
    }

    /// Bytes that it keeps beside how they are kept track of: a large chunk is counted by its length.
    pub(crate) fn kept(&self) -> u64 {
        let (len, room) = self.more.as_ref().map_or((0, 0), |more| (more.tail.len(), more.tail.capacity()));
        self.len.saturating_sub(len).saturating_add(room) as u64
    }

    /// A message that came in one chunk: a large one as it is, a small one copied. Returns the bytes copied too.
    pub(crate) fn whole(chunk: Bytes) -> (Message, usize) {
        if chunk.len() < COPY_BELOW {
            return (Bytes::copy_from_slice(&chunk).into(), chunk.len());
        }
        (chunk.into(), 0)
    }

    /// Appends a chunk that was received: large ones as they are, small ones copied. Returns the bytes copied.
    pub(crate) fn push(&mut self, chunk: Bytes) -> usize {
        self.len = self.len.saturating_add(chunk.len());
        if chunk.len() < COPY_BELOW {
            self.more.get_or_insert_default().tail.extend_from_slice(&chunk);
            return chunk.len();
        }
        self.seal();
        self.append(chunk);
        0
    }

    fn append(&mut self, chunk: Bytes) {
        if self.first.is_empty() {
            self.first = chunk;
        } else {
            self.more.get_or_insert_default().chunks.push_back(chunk);
        }
    }

    fn seal(&mut self) {
        if let Some(more) = self.more.as_mut().filter(|more| !more.tail.is_empty()) {
            let tail = more.tail.split().freeze();
            self.append(tail);
        }
    }

    /// The next chunk comes first when the first is used up.
    fn settle(&mut self) {
        while self.first.is_empty()
            && let Some(next) = self.more.as_mut().and_then(|more| more.chunks.pop_front())
        {
            self.first = next;
        }
    }

    /// The bytes as chunks, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let more = self.more.iter().flat_map(|more| more.chunks.iter().map(|chunk| &chunk[..]).chain([&more.tail[..]]));
        [&self.first[..]].into_iter().chain(more).filter(|chunk| !chunk.is_empty())
    }

    /// The bytes as owned chunks, in order.
    pub fn into_chunks(mut self) -> VecDeque<Bytes> {
        self.seal();
        let mut chunks = self.more.map(|more| more.chunks).unwrap_or_default();
        if !self.first.is_empty() {
            chunks.push_front(self.first);
        }
        chunks
    }

    /// The bytes in one piece. Copies only when they came in several chunks.
    pub fn into_bytes(mut self) -> Bytes {
        self.seal();
        if self.first.len() == self.len {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.len);
        for chunk in self.chunks() {
            whole.extend_from_slice(chunk);
        }
        whole.freeze()
    }

    /// The front chunk, to be handed to a stream; what was taken of it is removed with [`Buf::advance`].
    pub(crate) fn front(&mut self) -> Option<&mut Bytes> {
        self.seal();
        self.settle();
        (!self.first.is_empty()).then_some(&mut self.first)
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
        self.chunks().next().unwrap_or_default()
    }

    fn advance(&mut self, mut count: usize) {
        count = count.min(self.len);
        self.len = self.len.saturating_sub(count);
        self.seal();
        while count > 0 && !self.first.is_empty() {
            let step = count.min(self.first.len());
            self.first.advance(step);
            count = count.saturating_sub(step);
            self.settle();
        }
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Message {
        Message { len: bytes.len(), first: bytes, ..Message::default() }
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
        let len = chunks.iter().map(Bytes::len).sum();
        let mut message = Message { len, first: Bytes::new(), more: Some(Box::new(More { chunks, tail: BytesMut::new() })) };
        message.settle();
        message
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
    fn a_small_message_in_one_chunk_is_copied_and_a_large_one_is_not() {
        let (small, large) = (Bytes::from(vec![1; COPY_BELOW - 1]), Bytes::from(vec![2; COPY_BELOW]));
        let (message, copied) = Message::whole(small.clone());
        assert_eq!((message.len(), copied), (COPY_BELOW - 1, COPY_BELOW - 1));
        assert_ne!(message.into_bytes().as_ptr(), small.as_ptr());
        let (message, copied) = Message::whole(large.clone());
        assert_eq!((message.len(), copied), (COPY_BELOW, 0));
        assert_eq!(message.into_bytes().as_ptr(), large.as_ptr());
    }

    proptest::proptest! {
        /// However a message came in pieces, it is the same bytes in the same order: whole, in chunks, read bit by bit, and handed on front by front.
        #[test]
        fn it_is_the_bytes_it_was_made_of(sizes in proptest::collection::vec(0usize..2000, 0..12), steps in proptest::collection::vec(1usize..1500, 1..8)) {
            let pieces: VecDeque<Bytes> = sizes.iter().enumerate().map(|(n, size)| Bytes::from(vec![n as u8; *size])).collect();
            let flat: Vec<u8> = pieces.iter().flatten().copied().collect();
            let mut pushed = Message::new();
            for piece in &pieces {
                pushed.push(piece.clone());
            }
            for message in [pushed, Message::from(pieces)] {
                proptest::prop_assert_eq!(message.len(), flat.len());
                proptest::prop_assert_eq!(&message.clone().into_bytes()[..], &flat[..]);
                proptest::prop_assert_eq!(message.clone().into_chunks().into_iter().flatten().collect::<Vec<u8>>(), flat.clone());
                let (mut read, mut given, mut out) = (message.clone(), message, Vec::new());
                for step in &steps {
                    let step = (*step).min(read.remaining());
                    out.extend_from_slice(&read.copy_to_bytes(step));
                }
                while read.has_remaining() {
                    out.push(read.get_u8());
                }
                proptest::prop_assert_eq!(&out, &flat);
                out.clear();
                while let Some(front) = given.front() {
                    let part = front.split_to(front.len().min(700));
                    given.took(part.len());
                    out.extend_from_slice(&part);
                }
                proptest::prop_assert_eq!((&out, given.len()), (&flat, 0));
            }
        }
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
