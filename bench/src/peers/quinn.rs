//! quinn 0.11 with its defaults: 1.25 MB stream window, unlimited connection window, 100 streams,
//! Cubic, system-default socket buffers, GSO and GRO on. TLS through ring, server certificate only.

// noq is quinn's fork: what is measured is the same text for both, so that no difference comes from here.
#[path = "quic.rs"]
mod body;

use ::quinn::{self as stack, ReadError, RecvStream};
use bytes::Bytes;

pub(crate) use body::{Quic as Quinn, serve};

/// What has come next, in order.
async fn read(rx: &mut RecvStream, max: usize) -> Result<Option<Bytes>, ReadError> {
    Ok(rx.read_chunk(max, true).await?.map(|chunk| chunk.bytes))
}
