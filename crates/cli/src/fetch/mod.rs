//! The receiver's side of the protocol. From one request outwards: `ask` makes it and verifies what comes, `providers` knows who can
//! be asked, `window` how much of each, `plan` says whom for what, `content` fetches the chunks, and `get` all; `stream`
//! fetches one file in order.

mod ask;
mod content;
mod get;
mod plan;
mod providers;
mod stream;
mod window;

pub use ask::{Fetch, FetchError};
pub use get::{Given, Outcome, get, get_to_serve};
pub use providers::Providers;
pub use stream::stream;
