//! The sending side's view of what it sends: found and hashed once, then read piece by piece.

mod buffers;
mod read;
mod scan;
mod walk;

pub use read::{Problem, ReadTap, Source};
pub use scan::{Told, scan};
pub use walk::{Census, Found, Item, Roots, census};
