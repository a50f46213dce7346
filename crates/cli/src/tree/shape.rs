//! How many levels and pages a hash tree has. It follows from two numbers, so that nothing of it is ever announced.

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;
/// Bytes of a full page of hashes, and of a full leaf of the entries (TR-21).
pub const PAGE_BYTES: u32 = 256 << 10;
/// Hashes in a full page.
const FAN_OUT: u64 = PAGE_BYTES as u64 / HASH_BYTES as u64;

/// The shape of a tree over `len` bytes in leaves of `leaf` bytes (TR-21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    len: u64,
    leaf: u32,
}

impl Shape {
    /// The shape for a sequence of `len` bytes in leaves of `leaf` bytes, of which the last may be shorter. A `leaf` of 0 counts
    /// as 1.
    pub fn new(len: u64, leaf: u32) -> Shape {
        Shape { len, leaf: leaf.max(1) }
    }

    /// Bytes of the sequence.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the sequence is empty. It has no levels then.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of a full leaf.
    pub fn leaf_bytes(&self) -> u32 {
        self.leaf
    }

    /// Number of leaves.
    pub fn leaves(&self) -> u64 {
        self.pages(0)
    }

    /// Number of pages of a level; 0 above the highest level.
    pub fn pages(&self, level: u8) -> u64 {
        let mut pages = self.len.div_ceil(u64::from(self.leaf));
        for _ in 0..level {
            if pages <= 1 {
                return 0;
            }
            pages = pages.div_ceil(FAN_OUT);
        }
        pages
    }

    /// The highest level, whose one page hashes to the root. An empty sequence has none and says 0.
    pub fn top(&self) -> u8 {
        let mut level = 0;
        while self.pages(level) > 1 {
            level += 1; // ends: each level has at least FAN_OUT times fewer pages, so there are at most 6
        }
        level
    }

    /// Bytes of one page, or `None` if there is no such page.
    pub fn page_len(&self, level: u8, index: u64) -> Option<u32> {
        if index >= self.pages(level) {
            return None;
        }
        let (bytes, full) = match level.checked_sub(1) {
            None => (self.len, self.leaf),
            Some(below) => (self.pages(below).checked_mul(HASH_BYTES as u64)?, PAGE_BYTES),
        };
        let rest = bytes.checked_sub(index.checked_mul(u64::from(full))?)?;
        u32::try_from(rest.min(u64::from(full))).ok()
    }

    /// Where the hash of page `index` of a level stands one level higher: the page there, and the byte in it.
    pub fn parent(index: u64) -> (u64, usize) {
        (index / FAN_OUT, (index % FAN_OUT) as usize * HASH_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_shapes() {
        let empty = Shape::new(0, 10);
        assert_eq!((empty.leaves(), empty.top(), empty.page_len(0, 0)), (0, 0, None));
        let one = Shape::new(10, 10);
        assert_eq!((one.leaves(), one.top(), one.page_len(0, 0)), (1, 0, Some(10)));
        assert_eq!(one.page_len(1, 0), None);
        let two = Shape::new(11, 10);
        assert_eq!((two.leaves(), two.top()), (2, 1));
        assert_eq!((two.page_len(0, 1), two.page_len(1, 0), two.page_len(1, 1)), (Some(1), Some(64), None));
    }

    #[test]
    fn a_page_is_full_at_exactly_its_fan_out() {
        let full = Shape::new(FAN_OUT * 10, 10);
        assert_eq!((full.top(), full.pages(1), full.page_len(1, 0)), (1, 1, Some(PAGE_BYTES)));
        let over = Shape::new(FAN_OUT * 10 + 1, 10);
        assert_eq!((over.top(), over.pages(1), over.pages(2)), (2, 2, 1));
        assert_eq!((over.page_len(1, 1), over.page_len(2, 0)), (Some(32), Some(64)));
    }

    #[test]
    fn a_tebibyte_needs_three_small_steps_and_nothing_overflows() {
        let large = Shape::new(1 << 40, PAGE_BYTES);
        assert_eq!((large.leaves(), large.pages(1), large.pages(2), large.top()), (1 << 22, 512, 1, 2));
        let absurd = Shape::new(u64::MAX, 1);
        assert!(absurd.top() <= 6);
        assert_eq!(absurd.page_len(0, u64::MAX), None);
        assert!(absurd.page_len(1, u64::MAX / FAN_OUT).is_none_or(|len| len <= PAGE_BYTES));
    }

    #[test]
    fn pages_of_each_level_cover_it_exactly() {
        for len in [1, 9, 10, 11, 81_920, 81_921, 900_000] {
            let shape = Shape::new(len, 10);
            for level in 0..=shape.top() {
                let sum: u64 = (0..shape.pages(level)).map(|i| u64::from(shape.page_len(level, i).unwrap())).sum();
                let want = if level == 0 { len } else { shape.pages(level - 1) * 32 };
                assert_eq!(sum, want, "level {level} of {len}");
            }
        }
    }
}
