//! Making a hash tree while its leaves go by, with memory that does not grow.

use std::io;

use super::{HASH_BYTES, Hash, PAGE_BYTES, Shape};
use crate::spill::Spill;

/// One level of hashes under construction.
#[derive(Debug, Default)]
struct Level {
    hashes: Spill,
    page: blake3::Hasher,
    in_page: u32,
    last: Option<Hash>,
}

/// Takes the hashes of the leaves in order.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    levels: Vec<Level>,
    leaves: u64,
}

impl TreeBuilder {
    /// No leaves yet.
    pub fn new() -> TreeBuilder {
        TreeBuilder::default()
    }

    /// Adds the hash of the next leaf.
    pub fn push(&mut self, leaf: Hash) -> io::Result<()> {
        self.leaves = self.leaves.saturating_add(1);
        self.push_at(0, leaf)
    }

    /// Adds a hash to a level (0 here is level 1 of the tree), and the hashes of pages that become full to those above.
    fn push_at(&mut self, mut at: usize, mut hash: Hash) -> io::Result<()> {
        loop {
            if at == self.levels.len() {
                self.levels.push(Level::default());
            }
            let level = &mut self.levels[at];
            level.hashes.append(hash.as_bytes())?;
            level.page.update(hash.as_bytes());
            level.in_page += HASH_BYTES as u32;
            level.last = Some(hash);
            if level.in_page < PAGE_BYTES {
                return Ok(());
            }
            hash = level.page.finalize();
            level.page.reset();
            level.in_page = 0;
            at += 1;
        }
    }

    /// Closes the tree. `shape` must be that of the sequence whose leaves were pushed.
    pub fn finish(mut self, shape: Shape) -> io::Result<Tree> {
        if shape.leaves() != self.leaves {
            return Err(io::Error::other("the number of leaves is not that of the sequence"));
        }
        let top = usize::from(shape.top());
        for at in 0..top {
            let level = &mut self.levels[at];
            if level.in_page > 0 {
                let hash = level.page.finalize();
                level.in_page = 0;
                self.push_at(at + 1, hash)?;
            }
        }
        let root = match self.levels.get(top) {
            Some(level) => level.last.unwrap_or_else(empty_root),
            None => empty_root(),
        };
        let levels = self.levels.into_iter().take(top).map(|level| level.hashes).collect();
        Ok(Tree { shape, root, levels })
    }
}

/// The root of an empty sequence (TR-22).
fn empty_root() -> Hash {
    blake3::hash(b"")
}

/// All levels of hashes over a sequence; the sequence itself is kept elsewhere.
#[derive(Debug)]
pub struct Tree {
    shape: Shape,
    root: Hash,
    levels: Vec<Spill>,
}

impl Tree {
    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The root.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// One page of hashes, or `None` if there is no such page. `level` counts from 1.
    pub fn page(&self, level: u8, index: u64) -> io::Result<Option<Vec<u8>>> {
        let (Some(at), Some(len)) = (level.checked_sub(1), self.shape.page_len(level, index)) else {
            return Ok(None);
        };
        let Some(spill) = self.levels.get(usize::from(at)) else {
            return Ok(None);
        };
        spill.read_vec(index * u64::from(PAGE_BYTES), len as usize).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root by its definition, level by level, all in memory.
    fn plain_root(mut level: Vec<u8>, leaf: usize) -> Hash {
        let mut size = leaf;
        loop {
            if level.len() <= size {
                return blake3::hash(&level);
            }
            level = level.chunks(size).flat_map(|page| *blake3::hash(page).as_bytes()).collect();
            size = PAGE_BYTES as usize;
        }
    }

    fn build(data: &[u8], leaf: usize) -> Tree {
        let mut builder = TreeBuilder::new();
        for piece in data.chunks(leaf) {
            builder.push(blake3::hash(piece)).unwrap();
        }
        builder.finish(Shape::new(data.len() as u64, leaf as u32)).unwrap()
    }

    /// TR-21, TR-22: leaves, levels and root are as the text defines them.
    #[test]
    fn the_root_is_what_the_definition_says() {
        for len in [0, 1, 3, 4, 32_764, 32_768, 32_769, 65_536, 70_001, 131_072] {
            let data: Vec<u8> = (0..len).map(|i: usize| (i % 241) as u8).collect();
            let tree = build(&data, 4); // 8192 leaves of 4 bytes fill one page
            assert_eq!(tree.root(), plain_root(data, 4), "{len} bytes");
        }
    }

    #[test]
    fn pages_hash_to_what_stands_above_them() {
        let data = vec![7; 70_001];
        let tree = build(&data, 4);
        assert_eq!(tree.shape().top(), 2);
        let top = tree.page(2, 0).unwrap().unwrap();
        assert_eq!(blake3::hash(&top), tree.root());
        for index in 0..tree.shape().pages(1) {
            let page = tree.page(1, index).unwrap().unwrap();
            let (_, at) = Shape::parent(index);
            assert_eq!(&top[at..at + 32], blake3::hash(&page).as_bytes());
        }
        assert_eq!(tree.page(1, 3).unwrap(), None);
        assert_eq!(tree.page(3, 0).unwrap(), None);
        assert_eq!(tree.page(0, 0).unwrap(), None, "level 0 is the sequence, which is not kept here");
    }

    #[test]
    fn a_wrong_number_of_leaves_is_an_error() {
        let mut builder = TreeBuilder::new();
        builder.push(blake3::hash(b"x")).unwrap();
        assert!(builder.finish(Shape::new(10, 4)).is_err());
    }
}
