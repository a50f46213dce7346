//! One TCP segment (RFC 9293), reduced to what decides when which byte arrives.

use std::net::SocketAddr;

use bytes::Bytes;

/// What TCP's header adds to UDP's, in bytes: 20, and 12 of timestamps, instead of 8.
pub(crate) const MORE_THAN_UDP_BYTES: usize = 24;

/// What a segment carries beside its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens a direction.
    Syn,
    /// Bytes, or nothing.
    Data,
    /// Ends a direction.
    Fin,
    /// Ends everything.
    Reset,
}

/// A segment without its addresses. Sequence numbers start at 0 with the SYN and do not wrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) kind: Kind,
    pub(crate) seq: u64,
    /// All before this has come; `None` in the first SYN.
    pub(crate) ack: Option<u64>,
    /// So many bytes from `ack` on are welcome.
    pub(crate) window: u64,
    /// Ranges behind `ack` that have come too (RFC 2018, without its limit of three or four).
    pub(crate) sacks: Vec<(u64, u64)>,
    pub(crate) payload: Bytes,
}

impl Segment {
    /// What a link carries: a UDP payload that is as large on the wire.
    pub(crate) fn size(&self) -> usize {
        self.payload.len() + MORE_THAN_UDP_BYTES
    }

    /// How far it moves the sequence numbers on.
    pub(crate) fn length(&self) -> u64 {
        self.payload.len() as u64 + u64::from(matches!(self.kind, Kind::Syn | Kind::Fin))
    }

    /// All of it, for the trace.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind as u8];
        let fixed = [self.seq, self.ack.map_or(0, |ack| ack + 1), self.window];
        let sacks = self.sacks.iter().flat_map(|(from, to)| [*from, *to]);
        fixed.into_iter().chain(sacks).for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// A segment with the addresses that it has on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Addressed {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) segment: Segment,
}
