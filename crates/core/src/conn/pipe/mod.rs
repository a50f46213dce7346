//! What turns an ordered pipe of bytes, such as a TCP connection, into a secure one: whoever it is that the bytes come from is proved, and
//! nobody between can read or change them.
//!
//! Pure machines: bytes of the pipe go in, bytes for the pipe and plaintext come out.

#![allow(dead_code, reason = "connections over pipes are being built from these")]

pub(super) mod fuzz;
pub(crate) mod noise;
pub(super) mod select;
pub(crate) mod stage;
pub(crate) mod tls;

use std::time::Duration;

use libp2p_identity::PeerId;

use super::event::{Blame, Lost};
use crate::error::{Closed, DialError};

/// The one multiplexer that is spoken here.
pub(crate) const YAMUX: &str = "/yamux/1.0.0";

/// What is agreed once a pipe is secure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secured {
    /// Who is at the other end: proved.
    pub(crate) peer: PeerId,
    /// Whether [`YAMUX`] was agreed upon in the handshake already (libp2p/specs `connections/inlined-muxer-negotiation.md`). If not, it
    /// has to be negotiated.
    pub(crate) muxer: bool,
}

/// Why a pipe cannot be used any more. Nothing that came behind it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PipeError {
    /// Somebody else answered than was dialled.
    #[error("{wanted} was dialled and {found} answered")]
    WrongPeer { wanted: PeerId, found: PeerId },
    /// Both sides are sound and share no protocol.
    #[error("{0}")]
    Incompatible(String),
    /// The other side, or somebody between, broke the rules.
    #[error("{0}")]
    Broken(String),
    /// A stage took too long.
    #[error("{at} was not complete after {within:?}")]
    Slow { at: &'static str, within: Duration },
}

impl PipeError {
    pub(super) fn broken(why: impl Into<String>) -> PipeError {
        PipeError::Broken(why.into())
    }

    /// In the words of all transports.
    pub(crate) fn lost(self) -> Lost {
        let closed = match &self {
            PipeError::Slow { .. } => Closed::Here("the handshake took too long"),
            _ => Closed::Broken(self.to_string()),
        };
        let dial = match self {
            PipeError::WrongPeer { wanted, found } => DialError::WrongPeer { wanted, found },
            PipeError::Incompatible(why) | PipeError::Broken(why) => DialError::Incompatible(why),
            PipeError::Slow { at, within } => DialError::Stuck { at, waited: within },
        };
        // Bytes that fail the channel's authentication can be anybody's on the way.
        let breach = if matches!(closed, Closed::Broken(_)) { Blame::Anybody } else { Blame::Nobody };
        Lost { closed, dial, breach }
    }
}
