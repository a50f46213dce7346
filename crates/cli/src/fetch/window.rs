//! How many chunks to ask for at once.

use std::time::Duration;

/// Chunks on the network at once, at most. The protocol's own limit per peer is the same number.
pub(super) const CHUNKS_MAX: usize = 16;
/// A chunk that takes longer than this means that too many share the path.
const SLOW: Duration = Duration::from_secs(5);
/// A chunk that takes less than this leaves room for one more.
const QUICK: Duration = Duration::from_secs(2);

/// Grows by one for each quick chunk and halves for a slow one, so that on a slow path each request stays short: far from its
/// deadline, and with little lost if the connection is.
#[derive(Debug)]
pub(super) struct Window {
    chunks: usize,
}

impl Window {
    pub(super) fn new() -> Window {
        Window { chunks: 4 }
    }

    /// How many chunks may be on the network now.
    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    /// A chunk arrived after this time and so many tries.
    pub(super) fn arrived(&mut self, after: Duration, tries: usize) {
        if tries > 1 || after > SLOW {
            self.chunks = (self.chunks / 2).max(1);
        } else if after < QUICK {
            self.chunks = (self.chunks + 1).min(CHUNKS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_shrinks_to_one() {
        let mut window = Window::new();
        (0..100).for_each(|_| window.arrived(Duration::from_millis(50), 1));
        assert_eq!(window.chunks(), CHUNKS_MAX);
        window.arrived(Duration::from_secs(3), 1);
        assert_eq!(window.chunks(), CHUNKS_MAX, "between quick and slow nothing changes");
        window.arrived(Duration::from_millis(50), 2);
        assert_eq!(window.chunks(), CHUNKS_MAX / 2);
        (0..100).for_each(|_| window.arrived(Duration::from_secs(20), 1));
        assert_eq!(window.chunks(), 1);
    }
}
