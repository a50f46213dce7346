//! Length-prefixed frames: an unsigned varint that says how many bytes follow, then those bytes.
//!
//! This is how most libp2p protocols delimit messages on a stream. The one thing that can go wrong is belief:
//! a peer announces 200 GB in five bytes, and a reader that makes room for it is gone. So the limit is an
//! argument here, and what is over it is refused while only the header has been read.

use bytes::BufMut;
use thiserror::Error;

use crate::varint::{self, VarintError};

/// Why bytes are not the start of a frame that may be read. All are the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The frame announces more bytes than may be sent here.
    #[error("a frame announces {announced} bytes, and {max} are allowed")]
    TooLong {
        /// Bytes announced.
        announced: u64,
        /// Bytes allowed.
        max: usize,
    },
    /// The length itself is not a number.
    #[error("the length of a frame is malformed: {0}")]
    Length(#[from] VarintError),
}

/// Reads the header of a frame from the front of `bytes`: the length of the header and of the body behind it.
///
/// The body need not be there yet, so that a caller learns early how much to wait for. `None` means that the
/// header is not complete. `max` is the largest body, in bytes.
///
/// # Errors
/// [`FrameError::TooLong`] for a body over `max`, before anything of it is needed; [`FrameError::Length`]
/// for a length that is no number.
pub fn frame_len(bytes: &[u8], max: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let Some((announced, header)) = varint::decode(bytes)? else {
        return Ok(None);
    };
    match usize::try_from(announced) {
        Ok(body) if body <= max => Ok(Some((header, body))),
        _ => Err(FrameError::TooLong { announced, max }),
    }
}

/// Splits one whole frame off the front of `bytes`: its body, and how many bytes header and body took.
/// `None` means that the frame is not complete. `max` is the largest body, in bytes.
///
/// # Errors
/// As [`frame_len`].
pub fn frame(bytes: &[u8], max: usize) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((header, body)) = frame_len(bytes, max)? else {
        return Ok(None);
    };
    let end = header.saturating_add(body);
    Ok(bytes.get(header..end).map(|body| (body, end)))
}

/// How many bytes the header of a frame with a body of `body` bytes takes.
#[must_use]
pub const fn header_len(body: usize) -> usize {
    varint::encoded_len(body as u64)
}

/// Writes the header of a frame whose body has `body` bytes.
///
/// # Panics
/// When `out` has a fixed size and no room, as every [`BufMut`] does.
pub fn put_header(body: usize, out: &mut impl BufMut) {
    varint::encode(body as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn oversized_is_refused_from_the_header_alone() {
        // 200 GB in six bytes.
        let mut header = Vec::new();
        varint::encode(200 << 30, &mut header);
        assert_eq!(frame_len(&header, 1 << 20), Err(FrameError::TooLong { announced: 200 << 30, max: 1 << 20 }));
    }

    #[test]
    fn limit_is_inclusive() {
        assert_eq!(frame_len(&[4], 4), Ok(Some((1, 4))));
        assert_eq!(frame_len(&[5], 4), Err(FrameError::TooLong { announced: 5, max: 4 }));
        assert_eq!(frame_len(&[0], 0), Ok(Some((1, 0))));
        assert_eq!(frame(&[0], 0), Ok(Some((&[][..], 1))));
    }

    #[test]
    fn incomplete_and_malformed() {
        assert_eq!(frame_len(&[], 4), Ok(None));
        assert_eq!(frame_len(&[0x80], 4), Ok(None));
        assert_eq!(frame(&[3, 1, 2], 4), Ok(None));
        assert_eq!(frame_len(&[0x81, 0x00], 4), Err(FrameError::Length(VarintError::NotMinimal)));
        assert_eq!(frame_len(&[0xff; 9], usize::MAX), Err(FrameError::Length(VarintError::TooLong)));
    }

    proptest! {
        #[test]
        fn round_trip(body in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut out = Vec::new();
            put_header(body.len(), &mut out);
            let header = out.len();
            prop_assert_eq!(header, header_len(body.len()));
            out.extend_from_slice(&body);
            for cut in header..out.len() {
                prop_assert_eq!(frame_len(&out[..cut], body.len()), Ok(Some((header, body.len()))));
                prop_assert_eq!(frame(&out[..cut], body.len()), Ok(None));
            }
            prop_assert_eq!(frame(&out, body.len()), Ok(Some((&body[..], out.len()))));
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            crate::fuzz_entry::framing(&bytes);
        }
    }
}
