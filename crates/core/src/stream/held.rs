//! What a stream holds, and what may wait for it.

use super::IoState;

impl IoState {
    /// Allocated bytes that this stream holds beside what its machine holds.
    pub(crate) fn held(&self) -> u64 {
        let parts = [self.front.len(), self.head.capacity(), self.outbox.capacity(), self.unsent.len()];
        parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part as u64))
    }

    /// Whether the transport had nothing more for it when it was last asked, and has not said otherwise since.
    pub(crate) fn dry(&self) -> bool {
        self.dry
    }

    /// Something has come for it.
    pub(crate) fn stirred(&mut self) {
        self.dry = false;
    }
}
