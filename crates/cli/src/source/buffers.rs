//! Buffers that chunks are read into, used again and again: a fresh one would have to be cleared first, and its pages found.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

/// Bytes that are kept for the next chunks, at most; what is needed beyond is given back to the system after use. A path of 40 MB/s and
/// 100 ms has so much under way.
const KEPT_BYTES: usize = 4 << 20;
/// What is read begins at a multiple of this in memory. On some processors (AMD Zen 3) the kernel's copy takes four times as long into a
/// place a few bytes behind the start of a page, which is where a large allocation and one byte of status would put it.
const ALIGN: usize = 64;

/// See the module's text. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

/// Room for one byte and a body.
#[derive(Debug)]
pub(super) struct Buffer {
    /// What the buffer was used for before is still in it.
    all: Vec<u8>,
    /// Where the body begins; the one byte is before it.
    start: usize,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer for a body of `len` bytes. What is in it is not defined; it may be of another chunk of the same source.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let need = len.saturating_add(ALIGN);
        let mut kept = self.kept();
        let fits = kept.free.iter().rposition(|free| free.len() >= need);
        let all = fits.map(|at| kept.free.swap_remove(at));
        kept.bytes = kept.bytes.saturating_sub(all.as_ref().map_or(0, Vec::len));
        drop(kept);
        let all = all.unwrap_or_else(|| vec![0; need]);
        let start = ALIGN - all.as_ptr().addr() % ALIGN; // at least 1, at most ALIGN
        Buffer { all, start, len, home: self.clone() }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Buffer {
    /// The body, to be filled.
    pub(super) fn body(&mut self) -> &mut [u8] {
        &mut self.all[self.start..self.start + self.len]
    }

    /// The byte and then the body, uncopied. The buffer is free again when the last of it was dropped.
    pub(super) fn after(mut self, byte: u8) -> Bytes {
        self.all[self.start - 1] = byte;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.all[self.start - 1..self.start + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let all = std::mem::take(&mut self.all);
        let mut kept = self.home.kept();
        if kept.bytes.saturating_add(all.len()) <= KEPT_BYTES {
            kept.bytes += all.len();
            kept.free.push(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_all_of_it_was_dropped_and_not_before() {
        let buffers = Buffers::default();
        let mut first = buffers.take(100);
        first.body().copy_from_slice(&[7; 100]);
        assert_eq!(first.body().as_ptr().addr() % ALIGN, 0);
        let mut reply = first.after(9);
        assert_eq!((reply.len(), reply[0], reply[100]), (101, 9, 7));
        let place = reply.as_ptr();
        let rest = reply.split_off(50);
        drop(reply);
        let second = buffers.take(100);
        assert_ne!(second.as_ref().as_ptr(), place, "a part of it is still held");
        drop(rest);
        assert_eq!(buffers.take(100).as_ref().as_ptr(), place);
        assert_eq!(buffers.take(100).as_ref().len(), 101);
        drop(second);
    }

    #[test]
    fn what_is_kept_is_bounded_and_too_small_a_buffer_is_not_used() {
        let buffers = Buffers::default();
        drop((0..20).map(|_| buffers.take(1 << 20)).collect::<Vec<_>>());
        let kept = || {
            let kept = buffers.kept();
            (kept.free.len(), kept.bytes)
        };
        assert_eq!(kept(), (3, 3 * ((1 << 20) + ALIGN)));
        let large = buffers.take((1 << 20) + 1);
        assert_eq!(kept().0, 3);
        drop(large);
        assert_eq!(kept().0, 3, "there is no room for it");
    }
}
