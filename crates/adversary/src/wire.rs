//! QUIC's numbers and frames as bytes (RFC 9000 sections 16 and 19). Nothing here asks whether they make sense: that is the point.

/// The largest number that a QUIC varint holds.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// A QUIC varint in its shortest form. Numbers above [`VARINT_MAX`] are cut to it.
#[must_use]
pub fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (value.min(VARINT_MAX) | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

/// Numbers in a row.
#[must_use]
pub fn varints(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| varint(*value)).collect()
}

/// An unsigned LEB128 varint as libp2p's protocols use it.
#[must_use]
pub fn uvarint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// PING.
pub const PING: &[u8] = &[0x01];
/// HANDSHAKE_DONE, which only a server may send.
pub const HANDSHAKE_DONE: &[u8] = &[0x1e];

/// ACK of `largest` and the `first` numbers before it, then of `ranges`: gap and length as they are on the wire.
#[must_use]
pub fn ack(largest: u64, first: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = varints(&[0x02, largest, 0, ranges.len() as u64, first]);
    for (gap, length) in ranges {
        bytes.extend(varints(&[*gap, *length]));
    }
    bytes
}

/// RESET_STREAM.
#[must_use]
pub fn reset_stream(id: u64, code: u64, size: u64) -> Vec<u8> {
    varints(&[0x04, id, code, size])
}

/// STOP_SENDING.
#[must_use]
pub fn stop_sending(id: u64, code: u64) -> Vec<u8> {
    varints(&[0x05, id, code])
}

/// CRYPTO.
#[must_use]
pub fn crypto(offset: u64, data: &[u8]) -> Vec<u8> {
    [&varints(&[0x06, offset, data.len() as u64]), data].concat()
}

/// STREAM with offset and length.
#[must_use]
pub fn stream(id: u64, offset: u64, data: &[u8], fin: bool) -> Vec<u8> {
    [&varints(&[0x0e | u64::from(fin), id, offset, data.len() as u64]), data].concat()
}

/// MAX_DATA.
#[must_use]
pub fn max_data(value: u64) -> Vec<u8> {
    varints(&[0x10, value])
}

/// MAX_STREAM_DATA.
#[must_use]
pub fn max_stream_data(id: u64, value: u64) -> Vec<u8> {
    varints(&[0x11, id, value])
}

/// DATA_BLOCKED.
#[must_use]
pub fn data_blocked(at: u64) -> Vec<u8> {
    varints(&[0x14, at])
}

/// NEW_CONNECTION_ID with an id and a reset token made of `fill`.
#[must_use]
pub fn new_connection_id(sequence: u64, retire_prior_to: u64, fill: u64) -> Vec<u8> {
    let mut bytes = varints(&[0x18, sequence, retire_prior_to]);
    bytes.push(8);
    bytes.extend(fill.to_be_bytes());
    bytes.extend(fill.to_le_bytes());
    bytes.extend(fill.to_be_bytes());
    bytes
}

/// RETIRE_CONNECTION_ID.
#[must_use]
pub fn retire_connection_id(sequence: u64) -> Vec<u8> {
    varints(&[0x19, sequence])
}

/// PATH_CHALLENGE.
#[must_use]
pub fn path_challenge(data: u64) -> Vec<u8> {
    [&[0x1a][..], &data.to_be_bytes()].concat()
}

/// PATH_RESPONSE.
#[must_use]
pub fn path_response(data: [u8; 8]) -> Vec<u8> {
    [&[0x1b][..], &data].concat()
}

/// CONNECTION_CLOSE of the transport with NO_ERROR.
#[must_use]
pub fn connection_close() -> Vec<u8> {
    varints(&[0x1c, 0, 0, 0])
}

/// What we let the peer do, as transport parameters (RFC 9000 section 18).
#[derive(Debug, Clone)]
pub struct Params {
    /// initial_max_data.
    pub max_data: u64,
    /// All three kinds of initial_max_stream_data.
    pub max_stream_data: u64,
    /// initial_max_streams_bidi.
    pub max_streams: u64,
    /// Appended as it is.
    pub extra: Vec<u8>,
}

impl Default for Params {
    /// Wide: nothing that the peer sends ever waits for us.
    fn default() -> Params {
        Params { max_data: 1 << 40, max_stream_data: 1 << 40, max_streams: 1 << 20, extra: Vec::new() }
    }
}

impl Params {
    /// The extension's content. `source` is the connection id that we send from.
    #[must_use]
    pub fn encode(&self, source: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let numbers = [
            (0x01, 60_000),
            (0x03, 1_472),
            (0x04, self.max_data),
            (0x05, self.max_stream_data),
            (0x06, self.max_stream_data),
            (0x07, self.max_stream_data),
            (0x08, self.max_streams),
            (0x0e, 8),
        ];
        for (id, value) in numbers {
            let value = varint(value);
            bytes.extend(varints(&[id, value.len() as u64]));
            bytes.extend(value);
        }
        bytes.extend(varints(&[0x0f, source.len() as u64]));
        bytes.extend(source);
        bytes.extend(&self.extra);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_rfc_9000_appendix_a_1() {
        assert_eq!(varint(151_288_809_941_952_652), [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]);
        assert_eq!(varint(494_878_333), [0x9d, 0x7f, 0x3e, 0x7d]);
        assert_eq!(varint(15_293), [0x7b, 0xbd]);
        assert_eq!(varint(37), [0x25]);
        assert_eq!(uvarint(300), [0xac, 0x02]);
    }
}
