//! What the tests ask of a node of another stack, whichever it is.

use futures::future::BoxFuture;
use libp2p::{Multiaddr, PeerId};

use crate::roles::Role;

/// What identify has told a node of another.
#[derive(Debug, Clone)]
pub struct Identified {
    /// Its software.
    pub agent: String,
    /// What it speaks.
    pub protocols: Vec<String>,
    /// Where it says that it listens, without `/p2p/…`.
    pub listens: Vec<Multiaddr>,
    /// Where it sees the node that was told.
    pub observed: Option<Multiaddr>,
}

/// The answer to what was asked of a node.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, String>>;

/// A running node of another stack that serves what [`crate::service`] and [`crate::roles`] say. Errors are in the stack's words.
pub trait Peer: Send + Sync {
    /// The node's identity.
    fn id(&self) -> PeerId;

    /// The agent that it tells in identify.
    fn agent(&self) -> &str;

    /// Where it listens, without `/p2p/…`.
    fn address(&self) -> Multiaddr;

    /// Dials.
    fn dial(&self, peer: PeerId, address: Multiaddr) -> Answer<'_, ()>;

    /// What identify tells of `peer`, once it has.
    fn identified(&self, peer: PeerId) -> Answer<'_, Identified>;

    /// One more ping.
    fn ping(&self, peer: PeerId) -> Answer<'_, ()>;

    /// A request of [`crate::service::PREFIXED`].
    fn ask(&self, peer: PeerId, body: Vec<u8>) -> Answer<'_, Vec<u8>>;

    /// Opens streams, and plays a role on them.
    fn play(&self, peer: PeerId, role: Role) -> Answer<'_, ()>;

    /// How many connections have been closed so far.
    fn closed(&self) -> Answer<'_, usize>;
}

/// `address` without `/p2p/…`.
pub fn bare(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, libp2p::multiaddr::Protocol::P2p(_))).collect()
}
