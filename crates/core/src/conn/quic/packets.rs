//! DATAGRAM frames (RFC 9221).

use bytes::Bytes;

use super::Conn;

impl Conn {
    /// The largest packet that can be sent now, in bytes. `None`: the peer takes none.
    pub(crate) fn packet_bytes_max(&mut self) -> Option<usize> {
        self.inner.datagrams().max_size()
    }

    /// Sends a packet. True when one that waited had to go for it, `None` when none can be sent.
    pub(crate) fn send_packet(&mut self, packet: Bytes) -> Option<bool> {
        let mut packets = self.inner.datagrams();
        let full = packets.send_buffer_space() < packet.len();
        packets.send(packet, true).ok().map(|()| full)
    }

    pub(crate) fn receive_packet(&mut self) -> Option<Bytes> {
        self.inner.datagrams().recv()
    }
}
