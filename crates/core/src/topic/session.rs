//! What a subscriber reads and writes on one stream: whole frames in, credit out.

use bytes::{Buf, Bytes, BytesMut};
use strait_wire::framing;
use strait_wire::topic::{Ask, Mode, Resume};

use super::FollowError;

/// Frames below this get an allocation of their own size: who keeps a small value must not keep all that came with it.
const OWN_BYTES: usize = 4 << 10;

/// What a subscription asks for when a stream for it is opened.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// What the topic is taken for.
    pub mode: Mode,
    /// Its name, 1 to 140 bytes.
    pub name: &'a str,
    /// Only keys that begin so, at most 255 bytes.
    pub prefix: &'a [u8],
    /// At most once in so many milliseconds.
    pub interval_ms: u64,
    /// Bytes that the publisher may send before they are taken.
    pub window: u32,
    /// Where it goes on.
    pub resume: Option<Resume>,
}

/// One stream's frames and credit.
#[derive(Debug)]
pub struct Session {
    /// What has come and is no whole frame yet.
    buffer: BytesMut,
    window: u64,
    /// Bytes of frames taken, and how many the publisher may send in all.
    taken: u64,
    credit: u64,
}

impl Session {
    /// Begins, with the frame that is to be sent first.
    pub fn new(wish: &Wish<'_>) -> (Session, Bytes) {
        let Wish { mode, name, prefix, interval_ms, window, resume } = wish.clone();
        let window = u64::from(window.max(1));
        let first = Ask::Subscribe { mode, interval_ms, credit: window, resume, name, prefix }.frame();
        (Session { buffer: BytesMut::new(), window, taken: 0, credit: window }, first)
    }

    /// Takes what has come. The caller asks for [`next`](Self::next) until there is none before it hands in more, so that what is held is one
    /// frame and one such chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The body of the next frame that is there whole; at most `max` bytes.
    ///
    /// # Errors
    /// [`FollowError::Broken`]: what came is no frame, or a larger one is announced.
    pub fn next(&mut self, max: usize) -> Result<Option<Bytes>, FollowError> {
        let announced = framing::frame_len(&self.buffer, max);
        let Some((header, body)) = announced.map_err(|_| FollowError::Broken("a frame larger than its definition allows"))?
        else {
            return Ok(None);
        };
        let len = header.saturating_add(body);
        if self.buffer.len() < len {
            return Ok(None);
        }
        self.taken = self.taken.saturating_add(len as u64);
        if len >= OWN_BYTES {
            return Ok(Some(self.buffer.split_to(len).freeze().slice(header..)));
        }
        let body = Bytes::copy_from_slice(self.buffer.get(header..len).unwrap_or_default());
        self.buffer.advance(len);
        Ok(Some(body))
    }

    /// Bytes allocated for what has come.
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether all that has come was taken.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The frame that gives more credit, when half of the window or more is taken (TP-32): a word for each frame would cost as much as the frames.
    pub fn credit(&mut self) -> Option<Bytes> {
        let wanted = self.taken.saturating_add(self.window);
        if wanted.saturating_sub(self.credit) < self.window.div_ceil(2) {
            return None;
        }
        self.credit = wanted;
        Some(Ask::Credit { total: wanted }.frame())
    }
}
