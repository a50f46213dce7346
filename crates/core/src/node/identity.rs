//! Identify: what this node says of itself, and what it takes from others' words.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use multiaddr::{Multiaddr, Protocol};
use strait_wire::identify::{Identify, IdentifyLimits};

use super::state::Phase;
use super::{Event, Node};
use crate::conn::transport::Transport;
use crate::error::RequestError;
use crate::proto::identify;

/// The version of the set of protocols, as all libp2p implementations that talk to IPFS say it.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";

/// What a peer says of itself: claims, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its software.
    pub agent: String,
    /// The set of protocols that it says to belong to.
    pub protocol_version: String,
    /// Names of the protocols that it answers.
    pub protocols: Vec<String>,
    /// Where it says to listen. Unproven.
    pub addresses: Vec<Multiaddr>,
    /// Our own address as it sees it. A hint.
    pub observed: Option<Multiaddr>,
    /// Entries that were above a limit and dropped.
    pub dropped: usize,
}

fn limits() -> IdentifyLimits {
    IdentifyLimits {
        message_bytes_max: identify::MESSAGE_BYTES_MAX,
        addrs_max: 32,
        addr_bytes_max: 256,
        protocols_max: 128,
        protocol_bytes_max: 256,
        agent_bytes_max: 256,
    }
}

/// `/ip4/…/udp/…/quic-v1` of a socket address.
pub fn quic_address(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

/// `/ip4/…/tcp/…` of a socket address.
pub fn tcp_address(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

impl super::state::ConnState {
    /// Where its peer is seen.
    fn address(&self) -> Multiaddr {
        match &self.quic {
            Transport::Quic(quic) => quic_address(quic.remote()),
            Transport::Pipe(pipe) => tcp_address(pipe.remote),
        }
    }
}

impl Node {
    /// What we say to the peer in `slot`.
    pub(super) fn own_identity(&self, slot: usize) -> Bytes {
        let key = self.config.keypair.public().encode_protobuf();
        let addresses: Vec<Vec<u8>> = self.external.iter().map(Multiaddr::to_vec).collect();
        let observed = self.conn(slot).map(|conn| conn.address().to_vec());
        let message = Identify {
            public_key: Some(&key),
            listen_addrs: addresses.iter().map(Vec::as_slice).collect(),
            protocols: self.registry.names().collect(),
            observed_addr: observed.as_deref(),
            protocol_version: Some(PROTOCOL_VERSION),
            agent_version: Some(self.config.agent.get(..64).unwrap_or(&self.config.agent)),
            signed_peer_record: None,
            dropped: 0,
        };
        let mut out = BytesMut::new();
        // Too long only with an RSA key and 64 long protocol names; then nothing is said.
        let _ = message.encode(&mut out);
        out.freeze()
    }

    /// A peer has told what it is.
    pub(super) fn heard_identity(&mut self, slot: usize, result: Result<Bytes, RequestError>) {
        let Some(conn) = self.conns.get(slot).and_then(Option::as_deref) else {
            return;
        };
        let Phase::Open(peer) = conn.phase else {
            return;
        };
        // A peer without identify is no worse a peer.
        let Ok(message) = result else {
            return;
        };
        let before = conn.identity.as_deref().cloned().unwrap_or_default();
        let Some(identity) = merged(before, &message, &peer) else {
            self.counters.totals.identify_refused = self.counters.totals.identify_refused.saturating_add(1);
            return;
        };
        let identity = Arc::new(identity);
        self.counters.totals.identified = self.counters.totals.identified.saturating_add(1);
        if let Some(conn) = self.conn_mut(slot) {
            conn.identity = Some(identity.clone());
        }
        self.events.push_back(Event::Identified { peer, identity });
    }
}

/// Takes over what a message says (a push may say a part). `None` when it is malformed or of another key than the connection's.
fn merged(mut known: Identity, message: &[u8], peer: &libp2p_identity::PeerId) -> Option<Identity> {
    let told = Identify::decode(message, &limits()).ok()?;
    if let Some(key) = told.public_key {
        let key = libp2p_identity::PublicKey::try_decode_protobuf(key).ok()?;
        if key.to_peer_id() != *peer {
            return None;
        }
    }
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
        known.addresses = told.listen_addrs.iter().filter_map(|bytes| address(bytes)).collect();
    }
    if let Some(observed) = told.observed_addr.and_then(address) {
        known.observed = Some(observed);
    }
    Some(known)
}
