//! What a ticket stands for: a header of fixed size, and the entries (names, kinds, sizes) that it commits to.

mod entry;
mod header;
mod listing;
mod name;

pub use entry::{Entry, EntryError, Kind, Step, Walker, encode};
pub use header::{CHUNK_BYTES_MAX, Header, HeaderError};
pub use listing::{Listing, Part, PushError, Reader};
pub use name::{BadName, Rules, check_name, shown};

/// Bytes of one encoded entry at most: kind, depth, name length, name, size.
pub const ENTRY_BYTES_MAX: usize = 1 + 1 + 1 + 255 + 8;
/// Folders inside each other, at most (TR-33).
pub const DEPTH_MAX: usize = 255;
/// Bytes of a path with its separators, at most (TR-33).
pub const PATH_BYTES_MAX: usize = 4096;
