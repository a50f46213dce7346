//! Verified hashes of the leaves of a tree that somebody else holds.

use std::future::Future;

use bytes::Bytes;

use super::{HASH_BYTES, Hash, Shape};

/// Which of the two trees of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Names, kinds and sizes.
    Entries,
    /// All files, one after the other.
    Content,
}

/// Walks down a tree to any leaf's hash and holds one page of each level, so that reading the leaves in order fetches each page
/// once and memory does not grow (at most 4 pages of 256 KiB).
#[derive(Debug)]
pub struct HashCursor {
    shape: Shape,
    root: Hash,
    /// The verified page held for each level from 1 up.
    held: Vec<Option<(u64, Bytes)>>,
}

/// A page that is not the one the root stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongPage;

/// Checks bytes against the length and hash they must have (TR-24).
pub fn verify(bytes: &[u8], len: u32, hash: &Hash) -> Result<(), WrongPage> {
    let right = bytes.len() == len as usize && blake3::hash(bytes) == *hash; // Hash compares in constant time
    if right { Ok(()) } else { Err(WrongPage) }
}

impl HashCursor {
    /// A cursor for the tree of this shape and root.
    pub fn new(shape: Shape, root: Hash) -> HashCursor {
        let held = vec![None; usize::from(shape.top())];
        HashCursor { shape, root, held }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The hash of leaf `index`, fetched from the root down and verified at each step, or `None` if there is no such leaf.
    ///
    /// `fetch(level, index, len, hash)` gets the page of this length and hash; `wrong()` makes the error for one that does not match.
    pub async fn leaf<E, F>(
        &mut self,
        index: u64,
        mut fetch: impl FnMut(u8, u64, u32, Hash) -> F,
        wrong: impl Fn() -> E,
    ) -> Result<Option<Hash>, E>
    where
        F: Future<Output = Result<Bytes, E>>,
    {
        if index >= self.shape.leaves() {
            return Ok(None);
        }
        let top = self.shape.top();
        let mut hash = self.root;
        for level in (1..=top).rev() {
            // The page of this level on the way to the leaf, and where it holds the hash of the next step.
            let mut below = index;
            for _ in 1..level {
                below = Shape::parent(below).0;
            }
            let (page_index, at) = Shape::parent(below);
            let slot = usize::from(level - 1);
            if self.held[slot].as_ref().is_none_or(|(held, _)| *held != page_index) {
                let len = self.shape.page_len(level, page_index).ok_or_else(&wrong)?;
                let bytes = fetch(level, page_index, len, hash).await?;
                verify(&bytes, len, &hash).map_err(|_| wrong())?;
                self.held[slot] = Some((page_index, bytes));
            }
            let page = self.held[slot].as_ref().map(|(_, bytes)| bytes).ok_or_else(&wrong)?;
            let row = page.get(at..at + HASH_BYTES).and_then(|row| <[u8; HASH_BYTES]>::try_from(row).ok());
            hash = Hash::from_bytes(row.ok_or_else(&wrong)?);
        }
        Ok(Some(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::super::TreeBuilder;
    use super::*;
    use std::cell::Cell;

    const LEAF: usize = 4;

    #[tokio::test]
    async fn gives_each_leafs_hash_and_fetches_each_page_once() {
        let data: Vec<u8> = (0..70_001).map(|i| (i % 239) as u8).collect();
        let shape = Shape::new(data.len() as u64, LEAF as u32);
        let mut builder = TreeBuilder::new();
        data.chunks(LEAF).for_each(|leaf| builder.push(blake3::hash(leaf)).unwrap());
        let tree = builder.finish(shape).unwrap();
        let fetched = Cell::new(0);
        let mut cursor = HashCursor::new(shape, tree.root());
        for (index, leaf) in data.chunks(LEAF).enumerate() {
            let fetch = async |level, index, _, _| {
                fetched.set(fetched.get() + 1);
                Ok(Bytes::from(tree.page(level, index).unwrap().unwrap()))
            };
            let hash = cursor.leaf(index as u64, fetch, || "wrong").await.unwrap();
            assert_eq!(hash, Some(blake3::hash(leaf)));
        }
        assert_eq!(fetched.get(), 1 + 3);
        let none = cursor.leaf(1 << 40, async |_, _, _, _| Err("asked"), || "wrong").await;
        assert_eq!(none, Ok(None));
    }

    /// TR-24: a page that does not hash to what stands above it is refused before anything of it is used.
    #[tokio::test]
    async fn a_page_with_one_wrong_byte_or_length_is_refused() {
        let shape = Shape::new(12, LEAF as u32);
        let page: Vec<u8> = (0..96).collect();
        let root = blake3::hash(&page);
        for bad in [0, 50, 95] {
            let mut lie = page.clone();
            lie[bad] ^= 1;
            let mut cursor = HashCursor::new(shape, root);
            let got = cursor.leaf(0, async |_, _, _, _| Ok(Bytes::from(lie.clone())), || "wrong").await;
            assert_eq!(got, Err("wrong"));
        }
        for lie in [&page[..95], &[&page[..], &[0]].concat()] {
            let mut cursor = HashCursor::new(shape, blake3::hash(lie));
            let got = cursor.leaf(0, async |_, _, _, _| Ok(Bytes::copy_from_slice(lie)), || "wrong").await;
            assert_eq!(got, Err("wrong"), "{} bytes", lie.len());
        }
    }
}
