//! What both stacks serve in these tests: names, limits, and the answer to a request.

/// Request/response with length-prefixed messages.
pub const PREFIXED: &str = "/strait-interop/prefixed/1";
/// Request/response where the end of the stream ends the message.
pub const UNTIL_END: &str = "/strait-interop/until-end/1";
/// A protocol that nobody serves.
pub const UNKNOWN: &str = "/strait-interop/unknown/1";

/// Largest request of [`PREFIXED`] and [`UNTIL_END`], in bytes.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Largest reply of [`PREFIXED`] and [`UNTIL_END`], in bytes.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// A request that starts with these bytes asks for a reply of the length (8 bytes, big endian) that
/// follows them; any other request is answered with its own bytes, changed.
const WANT: &[u8] = b"want";

/// The request that asks for a reply of `length` bytes.
pub fn request_for(length: usize) -> Vec<u8> {
    let mut request = WANT.to_vec();
    request.extend_from_slice(&(length as u64).to_be_bytes());
    request
}

/// `length` bytes that differ by position and by `seed`, and never look like [`request_for`].
pub fn body(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| ((index.wrapping_mul(31)).wrapping_add(seed) % 64) as u8).collect()
}

/// The reply to `request`. Bytes are changed on the way, so that a reply cannot be taken for an echo
/// of the requester's own buffer.
pub fn answer(request: &[u8]) -> Vec<u8> {
    let wanted = request
        .strip_prefix(WANT)
        .and_then(|rest| <[u8; 8]>::try_from(rest).ok())
        .and_then(|length| usize::try_from(u64::from_be_bytes(length)).ok());
    match wanted {
        Some(length) => body(length, length),
        None => request.iter().map(|byte| byte ^ 0xa5).collect(),
    }
}
