//! noq 1.4, quinn's fork by n0, with its defaults, which are quinn's in what matters here. TLS through ring, server certificate only.

// See the same line in quinn.rs.
#[path = "quic.rs"]
#[allow(clippy::duplicate_mod, reason = "one text, two crates: their types have the same names")]
mod body;

use ::noq::{self as stack, ReadError, RecvStream};
use bytes::Bytes;

pub(crate) use body::{Quic as Noq, serve};

/// What has come next, in order.
async fn read(rx: &mut RecvStream, max: usize) -> Result<Option<Bytes>, ReadError> {
    rx.read_chunk(max).await
}
