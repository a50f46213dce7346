//! The receiver's side of the protocol.

mod ask;
mod content;
mod get;
mod window;

pub use ask::{Fetch, FetchError};
pub use get::{Outcome, get};
