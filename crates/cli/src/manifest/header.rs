//! The header: the fixed-size bytes whose hash is the root in a ticket.

use crate::tree::{HASH_BYTES, Hash, PAGE_BYTES, Shape};

/// First bytes of every header. They also keep a header from being mistaken for anything else that is hashed.
const MAGIC: [u8; 8] = *b"strait-m";
/// The only version of the header.
const VERSION: u8 = 1;
/// Content is cut in chunks of 2^16 (64 KiB) to 2^20 (1 MiB) bytes (TR-20).
const CHUNK_LOG2: std::ops::RangeInclusive<u8> = 16..=20;
/// Largest chunk, in bytes. A reply of the chunk protocol carries at most this, and one byte of status.
pub const CHUNK_BYTES_MAX: u32 = 1 << 20;
/// Largest content, in bytes: 1 PiB (TR-23).
const CONTENT_BYTES_MAX: u64 = 1 << 50;
/// Largest list of entries, in bytes: 4 GiB (TR-23).
const ENTRIES_BYTES_MAX: u64 = 1 << 32;
/// The smallest entry: kind, depth, name length, one byte of name.
const ENTRY_BYTES_MIN: u64 = 4;

/// What a ticket's root commits to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Bytes of a full chunk, as a power of two.
    pub chunk_log2: u8,
    /// Number of entries: files and folders.
    pub entries: u64,
    /// Bytes of the encoded entries.
    pub entries_len: u64,
    /// Root of the entries' tree.
    pub entries_root: Hash,
    /// Bytes of all files together.
    pub content_len: u64,
    /// Root of the content's tree.
    pub content_root: Hash,
}

/// Why bytes are not a header that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a header at all.
    #[error("these bytes are not a manifest header")]
    NotAHeader,
    /// Another version.
    #[error("the manifest has version {0}, this strait reads version 1")]
    Version(u8),
    /// A number outside its limits.
    #[error("the manifest says {what} = {value}, which is outside its limits")]
    Limit {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

impl Header {
    /// Bytes of an encoded header.
    pub const BYTES: usize = 8 + 1 + 1 + 8 + 8 + HASH_BYTES + 8 + HASH_BYTES;

    /// The encoded header (TR-20). All numbers are big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Header::BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, self.chunk_log2]);
        out.extend_from_slice(&self.entries.to_be_bytes());
        out.extend_from_slice(&self.entries_len.to_be_bytes());
        out.extend_from_slice(self.entries_root.as_bytes());
        out.extend_from_slice(&self.content_len.to_be_bytes());
        out.extend_from_slice(self.content_root.as_bytes());
        out
    }

    /// Reads a header and checks every number against its limits (TR-20, TR-23).
    pub fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(HeaderError::NotAHeader)?;
        let (&version, rest) = rest.split_first().ok_or(HeaderError::NotAHeader)?;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let (&chunk_log2, rest) = rest.split_first().ok_or(HeaderError::NotAHeader)?;
        let mut rest = rest;
        let header = Header {
            chunk_log2,
            entries: take_u64(&mut rest)?,
            entries_len: take_u64(&mut rest)?,
            entries_root: take_hash(&mut rest)?,
            content_len: take_u64(&mut rest)?,
            content_root: take_hash(&mut rest)?,
        };
        if !rest.is_empty() {
            return Err(HeaderError::NotAHeader);
        }
        header.check()
    }

    fn check(self) -> Result<Header, HeaderError> {
        let limit = |what, value| Err(HeaderError::Limit { what, value });
        if !CHUNK_LOG2.contains(&self.chunk_log2) {
            return limit("log2 of the chunk size", u64::from(self.chunk_log2));
        }
        if self.content_len > CONTENT_BYTES_MAX {
            return limit("bytes of content", self.content_len);
        }
        if self.entries_len > ENTRIES_BYTES_MAX {
            return limit("bytes of entries", self.entries_len);
        }
        // Each entry has its smallest size: the count cannot be larger than its bytes allow, nor zero when there are some.
        if self.entries == 0 || self.entries > self.entries_len / ENTRY_BYTES_MIN {
            return limit("number of entries", self.entries);
        }
        Ok(self)
    }

    /// The root: what the ticket carries.
    pub fn root(&self) -> Hash {
        blake3::hash(&self.encode())
    }

    /// Bytes of a full chunk.
    pub fn chunk_bytes(&self) -> u32 {
        1 << self.chunk_log2.min(*CHUNK_LOG2.end())
    }

    /// The shape of the content's tree; its leaves are the chunks.
    pub fn content(&self) -> Shape {
        Shape::new(self.content_len, self.chunk_bytes())
    }

    /// The shape of the entries' tree.
    pub fn entry_pages(&self) -> Shape {
        Shape::new(self.entries_len, PAGE_BYTES)
    }

    /// The chunk size to use for content of this many bytes: 256 KiB, so that slow links see progress often, and 1 MiB from
    /// 64 GiB on, so that the list of hashes stays small.
    pub fn choose_chunk_log2(content_len: u64) -> u8 {
        if content_len < 64 << 30 { 18 } else { 20 }
    }
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, HeaderError> {
    let (head, tail) = rest.split_first_chunk::<8>().ok_or(HeaderError::NotAHeader)?;
    *rest = tail;
    Ok(u64::from_be_bytes(*head))
}

fn take_hash(rest: &mut &[u8]) -> Result<Hash, HeaderError> {
    let (head, tail) = rest.split_first_chunk::<HASH_BYTES>().ok_or(HeaderError::NotAHeader)?;
    *rest = tail;
    Ok(Hash::from_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            chunk_log2: 18,
            entries: 3,
            entries_len: 60,
            entries_root: blake3::hash(b"e"),
            content_len: 1 << 40,
            content_root: blake3::hash(b"c"),
        }
    }

    /// TR-20: the header has its fixed size and comes back as it went.
    #[test]
    fn a_header_comes_back_as_it_went() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), Header::BYTES);
        assert_eq!(&bytes[..10], b"strait-m\x01\x12");
        assert_eq!(Header::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn a_header_of_any_other_length_is_refused() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            assert!(Header::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(Header::decode(&[&bytes[..], &[0]].concat()), Err(HeaderError::NotAHeader));
        let mut other = bytes;
        other[8] = 2;
        assert_eq!(Header::decode(&other), Err(HeaderError::Version(2)));
    }

    /// TR-23: numbers outside their limits are refused before anything is done with them.
    #[test]
    fn numbers_outside_their_limits_are_refused() {
        let bad = [
            Header { chunk_log2: 15, ..sample() },
            Header { chunk_log2: 21, ..sample() },
            Header { chunk_log2: 255, ..sample() },
            Header { content_len: (1 << 50) + 1, ..sample() },
            Header { entries_len: (1 << 32) + 1, ..sample() },
            Header { entries: 0, ..sample() },
            Header { entries: 16, ..sample() },
            Header { entries: u64::MAX, entries_len: u64::MAX, ..sample() },
        ];
        for header in bad {
            assert!(matches!(Header::decode(&header.encode()), Err(HeaderError::Limit { .. })), "{header:?}");
        }
    }
}
