//! The request/response codec on the rust-libp2p side, in the two framings that strait speaks.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

/// How the end of a message is marked on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Framing {
    /// An unsigned varint with the length, then the bytes.
    LengthPrefixed,
    /// The bytes, then the end of that direction of the stream.
    EndOfStream,
}

/// Longest varint accepted as a length: 63 bits, as in the multiformats `unsigned-varint` specification.
const VARINT_BYTES_MAX: usize = 9;

/// Reads and writes messages of at most `read_bytes_max` bytes. Writes are not limited here:
/// the tests want to send what the other side must refuse.
#[derive(Debug, Clone)]
pub struct Codec {
    /// The framing of both the request and the reply.
    pub framing: Framing,
    /// Largest message accepted, in bytes, before anything of it is buffered.
    pub read_bytes_max: usize,
}

impl Codec {
    async fn read<T: AsyncRead + Unpin + Send>(&self, io: &mut T) -> io::Result<Vec<u8>> {
        match self.framing {
            Framing::LengthPrefixed => {
                let length = read_varint(io).await?;
                let length = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= self.read_bytes_max)
                    .ok_or_else(|| self.too_large())?;
                let mut message = vec![0; length];
                io.read_exact(&mut message).await?;
                Ok(message)
            }
            Framing::EndOfStream => {
                let mut message = Vec::new();
                // One byte more than allowed tells "exactly the limit" from "past it".
                let cap = self.read_bytes_max as u64 + 1;
                io.take(cap).read_to_end(&mut message).await?;
                if message.len() > self.read_bytes_max {
                    return Err(self.too_large());
                }
                Ok(message)
            }
        }
    }

    async fn write<T: AsyncWrite + Unpin + Send>(&self, io: &mut T, message: &[u8]) -> io::Result<()> {
        if self.framing == Framing::LengthPrefixed {
            io.write_all(&varint(message.len() as u64)).await?;
        }
        // The end of the stream, in the other framing, comes from the behaviour: it closes the
        // writing side after each message.
        io.write_all(message).await
    }

    fn too_large(&self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("message above the limit of {} bytes", self.read_bytes_max))
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        self.read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, &request).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        self.write(io, &response).await
    }
}

/// `value` as an unsigned varint, least significant seven bits first.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(VARINT_BYTES_MAX);
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

async fn read_varint<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<u64> {
    let mut value = 0u64;
    for index in 0..VARINT_BYTES_MAX {
        let mut byte = [0u8; 1];
        io.read_exact(&mut byte).await?;
        value |= u64::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "length varint longer than nine bytes"))
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    #[test]
    fn varints_survive_the_way_there_and_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1] {
            let read = block_on(read_varint(&mut Cursor::new(varint(value))));
            assert_eq!(read.expect("a varint this codec wrote"), value);
        }
    }

    #[test]
    fn a_message_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        for framing in [Framing::LengthPrefixed, Framing::EndOfStream] {
            let codec = Codec { framing, read_bytes_max: 300 };
            for (length, accepted) in [(0, true), (300, true), (301, false)] {
                let mut wire = Cursor::new(Vec::new());
                block_on(codec.write(&mut wire, &vec![7; length])).expect("memory takes all");
                let read = block_on(codec.read(&mut Cursor::new(wire.into_inner())));
                assert_eq!(read.is_ok(), accepted, "{framing:?}, {length} bytes: {read:?}");
            }
        }
    }
}
