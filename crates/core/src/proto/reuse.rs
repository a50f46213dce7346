//! Streams that are used again: several exchanges of one request protocol, one after the other, on one stream (`docs/specs/reuse.md`).
//!
//! Opening a stream, agreeing on it and ending it costs both sides more than a small exchange itself. The two machines are those of
//! [`request`](super::request); what is kept for the next exchange, and for how long, is the node's business.

use strait_wire::multistream::NAME_BYTES_MAX;

use super::request::{Framing, Request};

/// What a dialer proposes behind a protocol's name when it wants to use the stream again (RE-01).
pub const SUFFIX: &str = "/reuse/1";

/// Whether exchanges of this definition can share a stream: where a message ends with its stream, they cannot (RE-01).
pub(crate) fn allows(def: &Request) -> bool {
    def.framing == Framing::LengthPrefixed && def.name.len().saturating_add(SUFFIX.len()) <= NAME_BYTES_MAX
}

/// What is proposed, and told in identify, for the protocol `name` (RE-02).
pub(crate) fn proposal(name: &str) -> String {
    [name, SUFFIX].concat()
}

/// Whether who speaks `protocols` takes streams of the protocol `name` that are used again (RE-02).
pub(crate) fn is_among(protocols: &[String], name: &str) -> bool {
    protocols.iter().any(|known| known.strip_suffix(SUFFIX) == Some(name))
}

#[cfg(test)]
#[path = "reuse_tests.rs"]
mod tests;
