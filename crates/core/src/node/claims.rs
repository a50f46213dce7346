//! What a peer says of itself, read within limits: claims, all of them.

pub(super) mod fuzz;

use std::sync::Arc;

use libp2p_identity::{PeerId, PublicKey};
use multiaddr::Multiaddr;
use strait_wire::identify::{Identify, IdentifyLimits};

use crate::peers::scope::{self, Scope};
use crate::proto::identify;

/// What a message may hold; of the lists, more entries or longer ones are left out and counted.
const LIMITS: IdentifyLimits = IdentifyLimits {
    message_bytes_max: identify::MESSAGE_BYTES_MAX,
    addrs_max: 32,
    addr_bytes_max: 256,
    protocols_max: 128,
    protocol_bytes_max: 256,
    agent_bytes_max: 256,
};

/// What a peer says of itself: claims, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its software.
    pub agent: String,
    /// The set of protocols that it says to belong to.
    pub protocol_version: String,
    /// Names of the protocols that it answers. Peers that tell the same share them.
    pub protocols: Arc<[String]>,
    /// Where it says to listen, as far as that holds over the path to it ([`peers::Scope`](crate::peers::Scope)). Unproven.
    pub addresses: Vec<Multiaddr>,
    /// How many it said beside these that would lead elsewhere from here. They are forgotten.
    pub out_of_scope: usize,
    /// The number of its newest signed record (libp2p RFC 0003) that was verified.
    pub signed: Option<u64>,
    /// Our own address as it sees it. A hint, used for nothing.
    pub observed: Option<Multiaddr>,
    /// Entries that were above a limit and dropped.
    pub dropped: usize,
}

/// Reads a message of `peer`. `None` if it cannot be read, or has another peer's key: of such a message nothing is believed.
pub(super) fn read<'a>(message: &'a [u8], peer: &PeerId) -> Option<Identify<'a>> {
    Identify::decode(message, &LIMITS).ok().filter(|told| is_key_of(told.public_key, peer))
}

/// Whether a message has no key, or that of the connection's peer.
fn is_key_of(key: Option<&[u8]>, peer: &PeerId) -> bool {
    key.is_none_or(|key| PublicKey::try_decode_protobuf(key).is_ok_and(|key| key.to_peer_id() == *peer))
}

/// Takes over what a message says (a push may say a part), over a path of scope `path`.
pub(super) fn merged(mut known: Identity, told: &Identify<'_>, path: Scope) -> Identity {
    let address = |bytes: &[u8]| Multiaddr::try_from(bytes.to_vec()).ok();
    known.dropped = told.dropped;
    if let Some(agent) = told.agent_version {
        known.agent = agent.to_owned();
    }
    if let Some(version) = told.protocol_version {
        known.protocol_version = version.to_owned();
    }
    if !told.protocols.is_empty() {
        known.protocols = told.protocols.iter().map(|name| (*name).to_owned()).collect();
    }
    if !told.listen_addrs.is_empty() {
        let all = told.listen_addrs.iter().filter_map(|bytes| address(bytes));
        let holds = |address: &Multiaddr| scope::of_address(address).is_some_and(|scope| scope.holds_over(path));
        let (kept, lost): (Vec<Multiaddr>, Vec<Multiaddr>) = all.partition(holds);
        known.out_of_scope = lost.len();
        known.addresses = kept;
    }
    if let Some(observed) = told.observed_addr.and_then(address) {
        known.observed = Some(observed);
    }
    known
}
