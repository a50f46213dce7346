//! Identify: what this node says of itself, and what it takes from others' words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use strait_wire::identify::Identify;

use super::claims::{self, Identity};
use super::state::Phase;
use super::{Event, Node};
use crate::abuse::Offence;
use crate::conn::transport::Transport;
use crate::error::RequestError;
use crate::limits::RECORD_WORK;
use crate::peers::record::{self, BadRecord};
use crate::peers::{Path, Source, Unusable};

/// The version of the set of protocols, as all libp2p implementations that talk to IPFS say it.
const PROTOCOL_VERSION: &str = "ipfs/0.1.0";

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
    pub(super) fn address(&self) -> Multiaddr {
        match &self.quic {
            Transport::Quic(quic) => quic_address(quic.remote()),
            Transport::Pipe(pipe) => tcp_address(pipe.remote),
        }
    }
}

impl Node {
    /// What we say to the peer in `slot`.
    pub(super) fn own_identity(&mut self, slot: usize) -> Bytes {
        let version = self.own_version;
        if let Some(conn) = self.conn_mut(slot) {
            conn.told_version = Some(version);
        }
        let key = self.config.keypair.public().encode_protobuf();
        let conn = self.conn(slot).map(|conn| (conn.address().to_vec(), conn.path().scope));
        let (observed, path) = conn.unzip();
        let addresses = path.map(|path| self.own.told_over(path)).unwrap_or_default();
        let addresses: Vec<Vec<u8>> = addresses.iter().map(Multiaddr::to_vec).collect();
        let record = path.and_then(|path| self.own.record(&self.config.keypair, path));
        let reusable: Vec<String> = self.registry.reusable().collect();
        let names: Vec<&str> = self.registry.names().collect();
        let mut message = Identify {
            public_key: Some(&key),
            listen_addrs: addresses.iter().map(Vec::as_slice).collect(),
            protocols: names.iter().copied().chain(reusable.iter().map(String::as_str)).collect(),
            observed_addr: observed.as_deref(),
            protocol_version: Some(PROTOCOL_VERSION),
            agent_version: Some(self.config.agent.get(..64).unwrap_or(&self.config.agent)),
            signed_peer_record: record.as_deref(),
            dropped: 0,
        };
        let mut out = BytesMut::new();
        if message.encode(&mut out).is_err() {
            // With many long names: who does not know what can be used again uses it once.
            message.protocols = names;
            if message.encode(&mut out).is_err() {
                message.signed_peer_record = None;
                // Too long even so only with an RSA key and 64 long protocol names; then nothing is said.
                let _ = message.encode(&mut out);
            }
        }
        out.freeze()
    }

    /// A connection is established: what is known of the peer without its words. Where it dialled from is where it listens, if it uses one socket for both, which
    /// over TCP hardly anybody does.
    pub(super) fn note_origin(&mut self, now: Instant, slot: usize, peer: PeerId, inbound: bool) {
        let Some(conn) = self.conn(slot).filter(|conn| inbound && matches!(conn.quic, Transport::Quic(_))) else {
            return;
        };
        let (address, path) = (conn.address(), conn.path());
        // What is refused is no address that could be dialled.
        let _ = self.book.add(now, peer, &address, Source::Inbound { path });
    }

    /// A peer has told what it is. Returns the work that it was to verify it.
    pub(super) fn heard_identity(&mut self, now: Instant, slot: usize, result: Result<Bytes, RequestError>) -> u64 {
        // A peer without identify is no worse a peer.
        let message = match result {
            Ok(message) => message,
            Err(error) => {
                self.accuse_reply(now, slot, &error);
                return 0;
            }
        };
        let Some((Phase::Open(peer), conn)) = self.conn(slot).map(|conn| (conn.phase.clone(), conn)) else {
            return 0;
        };
        let (path, before) = (conn.path(), conn.identity.as_deref().cloned().unwrap_or_default());
        let Some(told) = claims::read(&message, &peer) else {
            self.counters.totals.identify_refused = self.counters.totals.identify_refused.saturating_add(1);
            self.accuse(now, slot, Offence::Malformed, message.len() as u64);
            return 0;
        };
        let mut identity = claims::merged(before, &told, path.scope);
        // Most peers of a node run the same program.
        if identity.protocols == self.told_names {
            identity.protocols = self.told_names.clone();
        }
        if !identity.protocols.is_empty() {
            self.told_names = identity.protocols.clone();
        }
        let lost = if told.listen_addrs.is_empty() { 0 } else { identity.out_of_scope as u64 };
        let totals = &mut self.counters.totals;
        totals.addresses_out_of_scope = totals.addresses_out_of_scope.saturating_add(lost);
        if !told.listen_addrs.is_empty() {
            self.book.replace(now, peer, &identity.addresses, Source::Identify { path });
        }
        let work = match told.signed_peer_record {
            Some(record) => self.heard_record(now, peer, record, path, &mut identity),
            None => 0,
        };
        let identity = Arc::new(identity);
        self.counters.totals.identified = self.counters.totals.identified.saturating_add(1);
        if let Some(conn) = self.conn_mut(slot) {
            conn.identity = Some(identity.clone());
        }
        self.events.push_back(Event::Identified { peer, identity });
        self.push_identity_to(slot);
        work
    }

    /// A peer has told a signed record. One that is not good is as if it had not been there, and counted. Returns the work.
    fn heard_record(&mut self, now: Instant, peer: PeerId, record: &[u8], path: Path, identity: &mut Identity) -> u64 {
        let known = self.book.record_seq(&peer).max(identity.signed);
        let verified = record::verify(record, &peer, known);
        let totals = &mut self.counters.totals;
        match verified {
            Ok(record) => {
                totals.records = totals.records.saturating_add(1);
                identity.signed = Some(record.seq);
                let refused = self.book.replace(now, peer, &record.addresses, Source::Record { seq: record.seq, path });
                let lost = refused.iter().filter(|(_, why)| matches!(why, Unusable::OutOfScope { .. } | Unusable::NotAHost(_)));
                let totals = &mut self.counters.totals;
                totals.addresses_out_of_scope = totals.addresses_out_of_scope.saturating_add(lost.count() as u64);
                RECORD_WORK
            }
            Err(why) => {
                totals.records_refused = totals.records_refused.saturating_add(1);
                if why == BadRecord::Signature { RECORD_WORK } else { 0 }
            }
        }
    }
}
