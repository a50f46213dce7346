//! A byte sequence cut in leaves, with a tree of hashes over it, so that each piece can be verified alone.
//!
//! Both long parts of a transfer are such sequences: the content (all files, one after the other) and the entries (their names
//! and sizes). `docs/specs/transfer.md` calls this a hash tree: level 0 is the sequence itself, level n + 1 is the row of BLAKE3
//! hashes of the pages of level n, and the root is the hash of the one page of the highest level.

mod build;
mod cursor;
mod shape;

pub use build::{Tree, TreeBuilder};
pub use cursor::{HashCursor, Which, WrongPage, verify};
pub use shape::{HASH_BYTES, PAGE_BYTES, Shape};

/// A BLAKE3 hash of 32 bytes.
pub type Hash = blake3::Hash;
