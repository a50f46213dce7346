//! What a connection tells its node, whatever transport it runs on.

use crate::error::{Closed, DialError};

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum ConnEvent {
    /// The handshake is complete; the peer's identity is verified.
    Connected,
    Lost(Lost),
    /// The peer has opened streams: accept them.
    Opened,
    Readable(u64),
    Writable(u64),
    /// The peer refuses further bytes of this stream.
    Stopped(u64, u64),
    /// The peer has acknowledged everything of our direction of this stream, its end included.
    Delivered(u64),
    /// Packets have come.
    Packets,
    /// The peer allows more streams.
    Available,
}

/// Why a connection ended, before and after it was established.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    pub(crate) closed: Closed,
    pub(crate) dial: DialError,
    /// Whether the other side broke a rule.
    pub(crate) breach: Blame,
}

/// Whose word it is that a connection was broken off for a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Nobody has broken a rule.
    Nobody,
    /// What broke it was authenticated: it is the peer's.
    Peer,
    /// It was not: somebody between may have put it there.
    Anybody,
}
