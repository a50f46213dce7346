//! Requests and replies of the three protocols. Their limits are here; `net.rs` hands them to the node.
//!
//! ```text
//! manifest request:  root 32 | what u8 (0 header, 1 entries, 2 content) | level u8 | index u64
//! chunk request:     root 32 | index u64
//! done request:      root 32
//! every reply:       status u8 | bytes
//! ```

use bytes::Bytes;

use crate::manifest::CHUNK_BYTES_MAX;
use crate::tree::{HASH_BYTES, Hash, PAGE_BYTES, Which};

/// Name of the protocol for the header, entries and hashes.
pub const MANIFEST: &str = "/strait/manifest/1";
/// Name of the protocol for content.
pub const CHUNK: &str = "/strait/chunk/1";
/// Name of the protocol that says that a full copy was taken.
pub const DONE: &str = "/strait/done/1";

/// Bytes of a manifest request: exact and at most.
pub const MANIFEST_REQUEST_BYTES: usize = HASH_BYTES + 1 + 1 + 8;
/// Bytes of a chunk request: exact and at most.
pub const CHUNK_REQUEST_BYTES: usize = HASH_BYTES + 8;
/// Bytes of a done request: exact and at most.
pub const DONE_REQUEST_BYTES: usize = HASH_BYTES;
/// Bytes of a manifest reply at most: a page and its status.
pub const MANIFEST_REPLY_BYTES_MAX: usize = PAGE_BYTES as usize + 1;
/// Bytes of a chunk reply at most: a chunk and its status.
pub const CHUNK_REPLY_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize + 1;
/// Bytes of the words that may follow a status other than [`Status::Ok`], at most (TR-46).
pub const DETAIL_BYTES_MAX: usize = 1024;

/// Which of the three protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// [`MANIFEST`].
    Manifest,
    /// [`CHUNK`].
    Chunk,
    /// [`DONE`].
    Done,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The manifest's header.
    Header,
    /// A page of a tree. Level 0 exists here only for the entries; that of the content is asked for with [`Ask::Chunk`].
    Page {
        /// Which tree.
        which: Which,
        /// Which level; 0 is the sequence itself.
        level: u8,
        /// Which page of it.
        index: u64,
    },
    /// A chunk of the content.
    Chunk {
        /// Which.
        index: u64,
    },
    /// Nothing: says that a full copy was taken.
    Done,
}

impl Ask {
    /// The protocol that carries it.
    pub fn protocol(&self) -> Protocol {
        match self {
            Ask::Header | Ask::Page { .. } => Protocol::Manifest,
            Ask::Chunk { .. } => Protocol::Chunk,
            Ask::Done => Protocol::Done,
        }
    }

    /// The request (TR-40).
    pub fn encode(&self, root: &Hash) -> Vec<u8> {
        let mut out = root.as_bytes().to_vec();
        match *self {
            Ask::Header => out.extend_from_slice(&[0; 10]),
            Ask::Page { which, level, index } => {
                let what = match which {
                    Which::Entries => 1,
                    Which::Content => 2,
                };
                out.extend_from_slice(&[what, level]);
                out.extend_from_slice(&index.to_be_bytes());
            }
            Ask::Chunk { index } => out.extend_from_slice(&index.to_be_bytes()),
            Ask::Done => {}
        }
        out
    }

    /// Reads a request of one of the protocols; `None` if it is malformed (TR-41). Whether the page exists is not checked here.
    pub fn decode(protocol: Protocol, bytes: &[u8]) -> Option<(Hash, Ask)> {
        let (root, rest) = bytes.split_first_chunk::<HASH_BYTES>()?;
        let ask = match protocol {
            Protocol::Manifest => {
                let (&[what, level], rest) = rest.split_first_chunk::<2>()?;
                let index = u64::from_be_bytes(rest.try_into().ok()?);
                match (what, level, index) {
                    (0, 0, 0) => Ask::Header,
                    (1, _, _) => Ask::Page { which: Which::Entries, level, index },
                    (2, 1.., _) => Ask::Page { which: Which::Content, level, index },
                    _ => return None,
                }
            }
            Protocol::Chunk => Ask::Chunk { index: u64::from_be_bytes(rest.try_into().ok()?) },
            Protocol::Done if rest.is_empty() => Ask::Done,
            Protocol::Done => return None,
        };
        Some((Hash::from_bytes(*root), ask))
    }
}

/// How a request went: the first byte of every reply (TR-42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// What was asked for follows.
    Ok,
    /// This root is not served here.
    NotServed,
    /// The request is malformed, or there is no such page or chunk.
    NoSuchPart,
    /// The file changed after the ticket was made; its path follows.
    SourceChanged,
    /// The file could not be read; the reason follows.
    SourceUnreadable,
    /// It is not here yet; it may be later (TR-47).
    NotYet,
}

impl Status {
    /// The byte.
    pub fn to_byte(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::NotServed => 1,
            Status::NoSuchPart => 2,
            Status::SourceChanged => 3,
            Status::SourceUnreadable => 4,
            Status::NotYet => 5,
        }
    }

    fn from_byte(byte: u8) -> Option<Status> {
        use Status::*;
        [Ok, NotServed, NoSuchPart, SourceChanged, SourceUnreadable, NotYet].into_iter().find(|status| status.to_byte() == byte)
    }
}

/// A reply that does not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declined {
    /// With a status that says why, and the provider's own words, made fit to print.
    Status(Status, String),
    /// Empty, or with a status that does not exist.
    Malformed,
}

/// Makes a reply that carries no data.
pub fn decline(status: Status, detail: &str) -> Vec<u8> {
    let mut out = vec![status.to_byte()];
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1; // ends: 0 is a boundary
    }
    out.extend_from_slice(&detail.as_bytes()[..end]);
    out
}

/// Takes a reply apart (TR-42, TR-46).
pub fn open_reply(mut reply: Bytes) -> Result<Bytes, Declined> {
    let Some(status) = reply.first().and_then(|byte| Status::from_byte(*byte)) else {
        return Err(Declined::Malformed);
    };
    let rest = reply.split_off(1);
    if status == Status::Ok {
        return Ok(rest);
    }
    let words = String::from_utf8_lossy(rest.get(..DETAIL_BYTES_MAX).unwrap_or(&rest)).into_owned();
    Err(Declined::Status(status, crate::manifest::shown(&words).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TR-40, TR-41: requests have their exact size and come back as they went; all else is malformed.
    #[test]
    fn requests_come_back_and_no_other_length_is_read() {
        let root = blake3::hash(b"r");
        let asks = [
            (Ask::Header, MANIFEST_REQUEST_BYTES),
            (Ask::Page { which: Which::Entries, level: 0, index: 7 }, MANIFEST_REQUEST_BYTES),
            (Ask::Page { which: Which::Content, level: 3, index: u64::MAX }, MANIFEST_REQUEST_BYTES),
            (Ask::Chunk { index: 1 << 40 }, CHUNK_REQUEST_BYTES),
            (Ask::Done, DONE_REQUEST_BYTES),
        ];
        for (ask, len) in asks {
            let bytes = ask.encode(&root);
            assert_eq!(bytes.len(), len);
            assert_eq!(Ask::decode(ask.protocol(), &bytes), Some((root, ask)));
            for cut in 0..len {
                assert_eq!(Ask::decode(ask.protocol(), &bytes[..cut]), None);
            }
            assert_eq!(Ask::decode(ask.protocol(), &[&bytes[..], &[0]].concat()), None);
        }
        let raw = |what, level| {
            let bytes = [&root.as_bytes()[..], &[what, level], &[0; 8]].concat();
            Ask::decode(Protocol::Manifest, &bytes)
        };
        assert_eq!(raw(2, 0), None, "content itself has its own protocol");
        assert_eq!(raw(0, 1), None);
        assert_eq!(raw(3, 0), None);
    }

    /// TR-42, TR-46: statuses come back, unknown ones are malformed, foreign words are cut and made harmless.
    #[test]
    fn replies_are_opened_by_their_status() {
        assert_eq!(open_reply(Bytes::from_static(b"\0data")), Ok(Bytes::from_static(b"data")));
        assert_eq!(open_reply(Bytes::new()), Err(Declined::Malformed));
        assert_eq!(open_reply(Bytes::from_static(b"\x09x")), Err(Declined::Malformed));
        let long = "ü\x1b".repeat(2000);
        let reply = decline(Status::SourceChanged, &long);
        assert!(reply.len() <= 1 + DETAIL_BYTES_MAX);
        let Err(Declined::Status(Status::SourceChanged, words)) = open_reply(reply.into()) else {
            panic!("wrong status");
        };
        assert!(words.starts_with("ü\\u{1b}ü") && !words.contains('\x1b'));
    }
}
