//! Packets from a peer that keeps to no definition.

use crate::proto::packet::{PACKET_BYTES_MAX, PacketProtocol, TAG_BYTES, tag};
use crate::proto::{Entry, Priority, Registry, Served};

static NONE: PacketProtocol = PacketProtocol::new("/app/none/1", 0, 1);
static SOME: PacketProtocol = PacketProtocol::new("/app/some/1", 100, 1);
static MOST: PacketProtocol = PacketProtocol::new("/app/most/1", PACKET_BYTES_MAX, 1);
static OTHER: PacketProtocol = PacketProtocol::new("/app/other/1", PACKET_BYTES_MAX, 1);

/// One packet. The first byte says whose tag it has: that of the first to third protocol, that of one which is not taken, or none.
///
/// # Panics
/// When a packet is taken that its protocol does not allow, taken for another, or refused though it is allowed. For tests.
pub fn packet(script: &[u8]) {
    let Some((which, body)) = script.split_first() else {
        return;
    };
    let mut registry = Registry::new();
    let taken = [&NONE, &SOME, &MOST];
    let numbers = taken.map(|def| {
        let served = Served::Packets(def, tag(def.name));
        registry.add(Entry { name: def.name, served, priority: Priority::Urgent, per_peer_max: 0 })
    });
    let meant = [&NONE, &SOME, &MOST, &OTHER].into_iter().nth(usize::from(*which));
    let mut packet = meant.map(|def| tag(def.name).to_vec()).unwrap_or_default();
    packet.extend_from_slice(body);
    match registry.packet(&packet) {
        Some((number, inside)) => {
            let of = taken.iter().zip(&numbers).find(|(_, of)| **of == Ok(number)).map(|(def, _)| def);
            assert!(of.is_some_and(|def| inside.len() <= def.packet_bytes_max && packet.starts_with(&tag(def.name))));
            assert_eq!(inside.len().checked_add(TAG_BYTES), Some(packet.len()));
        }
        None => {
            let allows = |def: &&PacketProtocol| taken.contains(def) && body.len() <= def.packet_bytes_max;
            assert_eq!(meant.filter(allows), None, "refused");
        }
    }
}
