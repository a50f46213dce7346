//! TCP ports carried over raw streams: a local port here to a port that another node can reach and has exposed.
//!
//! TCP ends at both sides, and what is between the two is one stream of strait for each connection: bytes, their end in each direction,
//! and resets. The protocol is written down in `docs/specs/forward.md`; comments name its clauses (`FW-…`).

mod expose;
mod frame;
mod local;
mod open;
mod relay;

pub use expose::{Deadlines, Exposed, Serving, Told};
pub use frame::{LEN_BYTES, Status, TARGET_BYTES_MAX, Target, read_exact};
pub(crate) use frame::{opening, target_len};
pub use local::Local;
pub use open::{Doorway, Happened, LOCAL_MAX, listen};
pub use relay::Carried;

use strait::{Idle, StreamProtocol};

/// The protocol (FW-01). So many connections of a peer at once leave some of the 256 streams of a connection to everything else. How long
/// a connection may be silent is a matter of those who talk over it: nothing is given up here while both nodes live (FW-09).
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/strait/forward/1", 128, Idle::Never);

/// The codes that streams are reset with (FW-08).
pub mod code {
    /// The TCP connection was reset, or can be carried no further.
    pub const TCP: u32 = 1;
    /// The opening frame was too long, or did not come in time.
    pub const OPENING: u32 = 2;
}
