//! Packets: messages that may be lost, over QUIC datagrams (RFC 9221). `docs/specs/packets.md` has their form.
//!
//! For what is worth nothing when it is late: positions, samples of sound, probes. Nothing is repaired, kept in order or waited for. What
//! has no room is dropped, the oldest first, and counted.

use ring::digest;

use crate::error::ConfigError;

/// Bytes in front of each packet that say of which protocol it is (PK-02).
pub const TAG_BYTES: usize = 4;
/// The largest packet of any protocol: what fits the smallest datagrams that QUIC allows (1,200 bytes), whatever else is around it (PK-04).
pub const PACKET_BYTES_MAX: usize = 1100;

/// The definition of a protocol of packets. Make it a `const`; both sides use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketProtocol {
    /// The libp2p protocol name, as identify tells it.
    pub name: &'static str,
    /// Bytes of a packet; at most [`PACKET_BYTES_MAX`].
    pub packet_bytes_max: usize,
    /// How many that have come may wait for the application. Beyond, the oldest is dropped.
    pub waiting_max: usize,
}

impl PacketProtocol {
    /// A definition with all its limits.
    pub const fn new(name: &'static str, packet_bytes_max: usize, waiting_max: usize) -> PacketProtocol {
        PacketProtocol { name, packet_bytes_max, waiting_max }
    }
}

/// Why a packet was not sent. Nothing is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// There is no connection to that peer. Packets do not begin one.
    #[error("not connected to this peer; connect first, packets do not")]
    NotConnected,
    /// The connection carries no packets: it is over TCP, or the peer's QUIC does not take datagrams.
    #[error("this connection carries no packets: it is over TCP, or the peer does not take QUIC datagrams")]
    NotCarried,
    /// The peer does not speak the protocol, or has not said yet what it speaks.
    #[error("the peer has not said that it speaks {0}")]
    Unsupported(&'static str),
    /// It is larger than the definition or the path allows now.
    #[error("a packet of {len} bytes, and {max} are possible now")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

/// The tag of a protocol (PK-02).
pub(crate) fn tag(name: &str) -> [u8; TAG_BYTES] {
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let mut tag = [0; TAG_BYTES];
    tag.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    tag
}

/// Whether packets of this definition can be sent at all.
pub(crate) fn check_packets(def: &PacketProtocol) -> Result<(), ConfigError> {
    let refuse = |why: String| Err(ConfigError::Protocol { name: def.name, why });
    if let Err(error) = strait_wire::multistream::check_name(def.name) {
        return refuse(error.to_string());
    }
    if def.packet_bytes_max > PACKET_BYTES_MAX {
        let found = def.packet_bytes_max;
        return refuse(format!("packets of {found} bytes do not fit every path; the most is {PACKET_BYTES_MAX}"));
    }
    if def.waiting_max == 0 {
        return refuse("waiting_max has to be above zero".to_owned());
    }
    Ok(())
}
