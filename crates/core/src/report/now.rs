//! What a node is in the middle of: for pages, explanations and gauges.

use std::time::Duration;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::Carrier;

/// What there is at this moment, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Now {
    /// Peers that are connected.
    pub peers: u64,
    /// Established connections, by [`Carrier`].
    pub connections: [u64; 2],
    /// Handshakes of others that are under way.
    pub handshakes: u64,
    /// How many of those there may be.
    pub handshakes_max: u64,
    /// Slots that are taken: connections, and dials under way.
    pub slots: u64,
    /// How many there are.
    pub slots_max: u64,
    /// Streams in the tables.
    pub streams: u64,
    /// Bytes promised to connections and queues: what they may hold at the worst.
    pub memory: u64,
    /// How many may be.
    pub memory_max: u64,
    /// Bytes that it holds for its peers now, as far as it knows: much less than it has promised.
    pub memory_held: u64,
    /// Connections that wait for memory.
    pub starved: u64,
    /// Bytes that the address book holds.
    pub book: u64,
    /// How many it may hold.
    pub book_max: u64,
    /// Subscriptions of peers to topics of this node.
    pub subscriptions: u64,
    /// It takes nobody new: it is closing.
    pub closing: bool,
}

/// What there is to say of one peer.
#[derive(Debug, Clone)]
pub struct PeerNow {
    /// Who.
    pub peer: PeerId,
    /// What it says that it is: its own claim.
    pub agent: Option<String>,
    /// The application protects it: nobody takes its slot.
    pub protected: bool,
    /// Its connections, oldest first; the last is the one in use.
    pub connections: Vec<ConnectionNow>,
}

/// What there is to say of one connection.
#[derive(Debug, Clone)]
pub struct ConnectionNow {
    /// What it runs on.
    pub carrier: Carrier,
    /// Where its peer is seen.
    pub address: Multiaddr,
    /// Whether this node dialled it.
    pub dialled: bool,
    /// How long it has been there.
    pub age: Duration,
    /// How long ago something was last heard from its peer.
    pub silent: Duration,
    /// The smoothed round-trip time.
    pub rtt: Duration,
    /// Stream bytes consumed.
    pub bytes_in: u64,
    /// Stream bytes handed to the transport.
    pub bytes_out: u64,
    /// Bytes that it may hold at the worst, as promised to it.
    pub granted: u64,
    /// How many it may be promised.
    pub granted_max: u64,
    /// It waits for memory of the node.
    pub starved: bool,
    /// It was superseded by another one, and goes when it is not used any more.
    pub retired: bool,
    /// What less urgent streams may have under way, in bytes, while something urgent may come. `None`: as much as its windows hold.
    pub kept_short: Option<u64>,
    /// Its streams.
    pub streams: StreamsNow,
}

/// A connection's streams, and what they wait for. One may wait for several things at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamsNow {
    /// All.
    pub all: u64,
    /// Not open yet: the peer allows no more, or our memory does not.
    pub to_open: u64,
    /// Of the peer, not begun yet: as many of their protocol are worked on as may be.
    pub queued: u64,
    /// Kept for the next request, ours or the peer's: nothing is under way on them.
    pub resting: u64,
    /// Wait for bytes of the peer.
    pub for_peer: u64,
    /// Wait until the peer, or the network, takes what was written.
    pub for_room: u64,
    /// Wait for memory of the node.
    pub for_memory: u64,
    /// Wait for this side's application.
    pub for_app: u64,
}
