//! What a node sends us, frame by frame. Our own reader, so that it is also a second opinion on what strait writes.

/// A frame that an attack may care about. The others are read over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The largest number that it acknowledges.
    Ack(u64),
    /// Offset and bytes.
    Crypto(u64, Vec<u8>),
    /// Id, offset, bytes and whether they are the last.
    Stream(u64, u64, Vec<u8>, bool),
    /// Id and code of a stream that the peer has reset.
    Reset(u64, u64),
    /// Id and code of a stream that the peer reads no more.
    Stop(u64, u64),
    /// The connection's new window.
    MaxData(u64),
    /// A stream's new window.
    MaxStreamData(u64, u64),
    /// How many streams we may have opened.
    MaxStreams(u64),
    /// Sequence number and id.
    NewId(u64, Vec<u8>),
    /// Wants to be echoed.
    Challenge([u8; 8]),
    /// The echo of a challenge of ours.
    Response([u8; 8]),
    /// The peer closed: the code, whether it is the application's, and the reason.
    Close(u64, bool, String),
    /// The handshake is confirmed.
    Done,
    /// Anything else, by its type.
    Other(u64),
}

/// A cursor over bytes that others wrote.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// The next QUIC varint.
    pub fn varint(&mut self) -> Option<u64> {
        let first = *self.0.first()?;
        let bytes = self.take(1 << (first >> 6))?;
        let value = bytes.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        // Without its two bits of length.
        Some(value & ((1 << (8 * bytes.len() - 2)) - 1))
    }

    /// The next libp2p varint.
    pub fn uvarint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// All frames of a packet. `None` if they are not well-formed.
#[must_use]
pub fn frames(payload: &[u8]) -> Option<Vec<Frame>> {
    let mut reader = Reader(payload);
    let mut found = Vec::new();
    while !reader.0.is_empty() {
        match reader.varint()? {
            0x00 => {}
            kind => found.push(frame(kind, &mut reader)?),
        }
    }
    Some(found)
}

fn frame(kind: u64, r: &mut Reader<'_>) -> Option<Frame> {
    Some(match kind {
        0x02 | 0x03 => {
            let largest = r.varint()?;
            let _delay = r.varint()?;
            let ranges = r.varint()?;
            for _ in 0..1 + 2 * ranges + if kind == 0x03 { 3 } else { 0 } {
                r.varint()?;
            }
            Frame::Ack(largest)
        }
        0x04 => {
            let frame = Frame::Reset(r.varint()?, r.varint()?);
            r.varint()?;
            frame
        }
        0x05 => Frame::Stop(r.varint()?, r.varint()?),
        0x06 => {
            let (offset, len) = (r.varint()?, r.varint()?);
            Frame::Crypto(offset, r.take(len as usize)?.to_vec())
        }
        0x08..=0x0f => {
            let id = r.varint()?;
            let offset = if kind & 0x04 != 0 { r.varint()? } else { 0 };
            let len = if kind & 0x02 != 0 { r.varint()? as usize } else { r.0.len() };
            Frame::Stream(id, offset, r.take(len)?.to_vec(), kind & 0x01 != 0)
        }
        0x10 => Frame::MaxData(r.varint()?),
        0x11 => Frame::MaxStreamData(r.varint()?, r.varint()?),
        0x12 => Frame::MaxStreams(r.varint()?),
        0x18 => {
            let (sequence, _prior) = (r.varint()?, r.varint()?);
            let len = r.byte()?;
            let id = r.take(len.into())?.to_vec();
            r.take(16)?;
            Frame::NewId(sequence, id)
        }
        0x1a => Frame::Challenge(r.take(8)?.try_into().ok()?),
        0x1b => Frame::Response(r.take(8)?.try_into().ok()?),
        0x1c | 0x1d => {
            let code = r.varint()?;
            if kind == 0x1c {
                r.varint()?;
            }
            let len = r.varint()?;
            let reason = String::from_utf8_lossy(r.take(len as usize)?).into_owned();
            Frame::Close(code, kind == 0x1d, reason)
        }
        0x1e => Frame::Done,
        0x07 => {
            let len = r.varint()?;
            r.take(len as usize)?;
            Frame::Other(kind)
        }
        _ => {
            for _ in 0..numbers(kind)? {
                r.varint()?;
            }
            Frame::Other(kind)
        }
    })
}

/// How many numbers a frame has that consists of nothing else and that no attack cares about.
fn numbers(kind: u64) -> Option<usize> {
    match kind {
        0x01 | 0x1f => Some(0),
        0x13 | 0x14 | 0x16 | 0x17 | 0x19 => Some(1),
        0x15 => Some(2),
        // ACK_FREQUENCY, an extension.
        0xaf => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn reads_what_wire_writes() {
        let bytes = [
            wire::ack(1000, 3, &[(1, 2), (0, 0)]),
            wire::stream(4, 70_000, b"abc", true),
            wire::crypto(5, b"hello"),
            wire::new_connection_id(3, 2, 9),
            wire::connection_close(),
            vec![0, 0],
        ]
        .concat();
        let wanted = vec![
            Frame::Ack(1000),
            Frame::Stream(4, 70_000, b"abc".to_vec(), true),
            Frame::Crypto(5, b"hello".to_vec()),
            Frame::NewId(3, 9u64.to_be_bytes().to_vec()),
            Frame::Close(0, false, String::new()),
        ];
        assert_eq!(frames(&bytes), Some(wanted));
        assert_eq!(frames(&[0x06, 0, 5, 1]), None, "cut short");
        let mut reader = Reader(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]);
        assert_eq!(reader.varint(), Some(151_288_809_941_952_652));
    }
}
