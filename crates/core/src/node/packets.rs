//! Packets: sending them to peers that have said that they take them, and telling apart those that come.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use libp2p_identity::PeerId;

use super::state::Phase;
use super::{Event, Node};
use crate::abuse::Offence;
use crate::error::ConfigError;
use crate::proto::packet::{PacketError, PacketProtocol, TAG_BYTES, check_packets, tag};
use crate::proto::{Entry, Priority, Served};

impl Node {
    /// Takes packets of `def` from now on. Returns the protocol's number in [`Event::Packet`].
    ///
    /// # Errors
    /// [`ConfigError::Protocol`] when the name is taken or malformed, when its tag is that of another, or when a limit cannot be kept.
    pub fn serve_packets(&mut self, def: &'static PacketProtocol) -> Result<usize, ConfigError> {
        check_packets(def)?;
        let tag = tag(def.name);
        if let Some(other) = self.registry.packets(tag) {
            let why = format!("its packets cannot be told from those of {}; use another name", self.registry.name(other));
            return Err(ConfigError::Protocol { name: def.name, why });
        }
        self.register(Entry { name: def.name, served: Served::Packets(def, tag), priority: Priority::Urgent, per_peer_max: 0 })
    }

    /// How large a packet of `def` to this peer may be now: the definition's limit, unless the path or the peer allows less.
    ///
    /// # Errors
    /// [`PacketError`], when none can be sent at all.
    pub fn packet_bytes_max(&mut self, peer: &PeerId, def: &PacketProtocol) -> Result<usize, PacketError> {
        let slot = self.slot_of(peer).ok_or(PacketError::NotConnected)?;
        if self.config.limits.packets_bytes == 0 {
            return Err(PacketError::NotCarried);
        }
        let conn = self.conn_mut(slot).ok_or(PacketError::NotConnected)?;
        let quic = conn.quic.as_quic().ok_or(PacketError::NotCarried)?;
        let carried = quic.packet_bytes_max().and_then(|most| most.checked_sub(TAG_BYTES)).ok_or(PacketError::NotCarried)?;
        // PK-01
        let speaks = conn.identity.as_ref().is_some_and(|identity| identity.protocols.iter().any(|name| name == def.name));
        if !speaks {
            return Err(PacketError::Unsupported(def.name));
        }
        Ok(carried.min(def.packet_bytes_max))
    }

    /// Sends a packet, which may be lost. It leaves with the next datagrams, as soon as congestion control lets it; if too many wait, the oldest of them is
    /// dropped for it, and counted.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn send_packet(&mut self, peer: &PeerId, def: &'static PacketProtocol, body: &[u8]) -> Result<(), PacketError> {
        let max = self.packet_bytes_max(peer, def)?;
        if body.len() > max {
            return Err(PacketError::TooLarge { len: body.len(), max });
        }
        let mut packet = BytesMut::with_capacity(TAG_BYTES.saturating_add(body.len()));
        packet.extend_from_slice(&tag(def.name));
        packet.extend_from_slice(body);
        let slot = self.slot_of(peer).ok_or(PacketError::NotConnected)?;
        let Some(quic) = self.conn_mut(slot).and_then(|conn| conn.quic.as_quic()) else {
            return Err(PacketError::NotCarried);
        };
        let dropped = quic.send_packet(packet.freeze()).ok_or(PacketError::NotCarried)?;
        let totals = &mut self.counters.totals;
        totals.packets_out = totals.packets_out.saturating_add(1);
        totals.packets_out_dropped = totals.packets_out_dropped.saturating_add(u64::from(dropped));
        self.send_later(slot);
        Ok(())
    }

    /// Takes those that have come on a connection.
    pub(super) fn take_packets(&mut self, now: Instant, slot: usize) {
        loop {
            let Some(conn) = self.conn_mut(slot) else {
                return;
            };
            let Some(packet) = conn.quic.as_quic().and_then(|quic| quic.receive_packet()) else {
                return;
            };
            // Of a connection that is over they are taken too, and dropped: they would hold the datagrams that they came in.
            let Phase::Open(peer) = conn.phase else {
                continue;
            };
            let totals = &mut self.counters.totals;
            totals.packets_in = totals.packets_in.saturating_add(1);
            let Some((protocol, body)) = self.registry.packet(&packet) else {
                totals.packets_in_dropped = totals.packets_in_dropped.saturating_add(1);
                // Who is told what we take, and sends something else, wastes our time.
                self.accuse(now, slot, Offence::Malformed, packet.len() as u64);
                continue;
            };
            // A copy of its own size: the datagram that it came in is larger, and would live as long.
            self.events.push_back(Event::Packet { peer, protocol, body: Bytes::copy_from_slice(body) });
        }
    }
}
