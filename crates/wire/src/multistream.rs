//! The messages of multistream-select 1.0, by which two peers settle what a fresh stream speaks.
//!
//! A message is a varint length, then text, then a newline that the length counts
//! (<https://github.com/multiformats/multistream-select>, and libp2p/specs `connections`). Who says what when is
//! the business of the negotiation, not of this module. We never answer `ls` with a list: listing is optional, costs
//! more than it is asked with, and identify tells the same. So a list is no message to this decoder either.

use bytes::BufMut;
use thiserror::Error;

use crate::framing::{self, FrameError};

/// The name of the negotiation itself, which each side says first.
pub const HEADER: &str = "/multistream/1.0.0";

/// The largest message in bytes, its newline included and its length prefix not.
///
/// The specification sets no limit. go-multistream and js-libp2p read at most 1024 bytes, so a longer name
/// could not be negotiated with them; rust-libp2p allows 16 KiB, which only gives room to whoever wants to fill it.
/// The longest name in use by libp2p's own protocols has 40 bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// The largest protocol name in bytes: a message without its newline.
pub const NAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1;

/// One message, borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// `/multistream/1.0.0`: the sender speaks this version.
    Header,
    /// `na`: the proposed protocol is not available.
    NotAvailable,
    /// `ls`: the sender asks for a list. An answer is optional; `na` is one.
    List,
    /// A proposed or accepted protocol. Starts with `/`, holds no newline.
    Protocol(&'a str),
}

/// Why bytes are not a message. All are the sender's fault, and end the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MultistreamError {
    /// The length is malformed, or over the limit.
    #[error("not a multistream-select message: {0}")]
    Frame(#[from] FrameError),
    /// The message does not end with a newline.
    #[error("not a multistream-select message: it does not end with a newline")]
    NoNewline,
    /// The message is text, and neither a name nor one of the fixed words.
    #[error("not a multistream-select message: it starts with no slash and is neither `na` nor `ls`")]
    NotAName,
    /// The name is not UTF-8.
    #[error("a protocol name is not UTF-8")]
    NotUtf8,
    /// The name holds a newline.
    #[error("a protocol name holds a newline")]
    InnerNewline,
}

/// Why a name cannot be negotiated. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The name does not start with a slash.
    #[error("a protocol name must start with a slash, as in /app/block/1")]
    NoSlash,
    /// The name holds a newline.
    #[error("a protocol name must not hold a newline")]
    Newline,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("a protocol name has {0} bytes, and at most {NAME_BYTES_MAX} can be negotiated")]
    TooLong(usize),
    /// The name is that of the negotiation itself.
    #[error("{HEADER} is the name of the negotiation and cannot be negotiated")]
    Reserved,
}

/// Whether `name` can be negotiated.
///
/// # Errors
/// [`NameError`] says what is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(name.len()));
    }
    if !name.starts_with('/') {
        return Err(NameError::NoSlash);
    }
    if name.contains('\n') {
        return Err(NameError::Newline);
    }
    if name == HEADER {
        return Err(NameError::Reserved);
    }
    Ok(())
}

/// Reads one message from the front of `bytes`, and says how many bytes it took. `None`: more are needed,
/// in all never more than `max` and the two bytes of the length.
///
/// `max` is the largest message in bytes with its newline; use [`MESSAGE_BYTES_MAX`].
///
/// # Errors
/// [`MultistreamError`]; a message over `max` is refused when its length is there.
pub fn decode(bytes: &[u8], max: usize) -> Result<Option<(Message<'_>, usize)>, MultistreamError> {
    let Some((text, used)) = framing::frame(bytes, max)? else {
        return Ok(None);
    };
    let Some((b'\n', text)) = text.split_last() else {
        return Err(MultistreamError::NoNewline);
    };
    let message = match text {
        _ if text == HEADER.as_bytes() => Message::Header,
        b"na" => Message::NotAvailable,
        b"ls" => Message::List,
        [b'/', ..] => {
            if text.contains(&b'\n') {
                return Err(MultistreamError::InnerNewline);
            }
            match str::from_utf8(text) {
                Ok(name) => Message::Protocol(name),
                Err(_) => return Err(MultistreamError::NotUtf8),
            }
        }
        _ => return Err(MultistreamError::NotAName),
    };
    Ok(Some((message, used)))
}

/// Writes the header: `/multistream/1.0.0`.
///
/// # Panics
/// When `out` has a fixed size and no room, as every [`BufMut`] does.
pub fn header(out: &mut impl BufMut) {
    line(HEADER, out);
}

/// Writes `na`: the protocol is not available.
///
/// # Panics
/// As [`header`].
pub fn na(out: &mut impl BufMut) {
    line("na", out);
}

/// Writes the proposal or the acceptance of the protocol `name`.
///
/// # Errors
/// [`NameError`] when `name` cannot be negotiated; then nothing is written.
///
/// # Panics
/// As [`header`].
pub fn protocol(name: &str, out: &mut impl BufMut) -> Result<(), NameError> {
    check_name(name)?;
    line(name, out);
    Ok(())
}

/// As [`protocol`], for the name that is made of these two parts. They are not looked at: check the whole with [`check_name`] where it is defined.
///
/// # Panics
/// As [`header`].
pub fn protocol_of(name: &str, suffix: &str, out: &mut impl BufMut) {
    framing::put_header(text_len(name, suffix), out);
    out.put_slice(name.as_bytes());
    out.put_slice(suffix.as_bytes());
    out.put_u8(b'\n');
}

/// How many bytes [`protocol`] writes for `name`.
#[must_use]
pub const fn protocol_len(name: &str) -> usize {
    protocol_of_len(name, "")
}

/// How many bytes [`protocol_of`] writes for these two parts.
#[must_use]
pub const fn protocol_of_len(name: &str, suffix: &str) -> usize {
    let text = text_len(name, suffix);
    text.saturating_add(framing::header_len(text))
}

/// With the newline.
const fn text_len(name: &str, suffix: &str) -> usize {
    name.len().saturating_add(suffix.len()).saturating_add(1)
}

/// How many bytes at the front of `bytes` are the header and the acceptance of the name that is made of these two parts, if that is what they
/// begin with: what a dialer hopes for, and nearly always gets. `None` says nothing: read it message by message with [`decode`].
#[must_use]
pub fn accepted(bytes: &[u8], name: &str, suffix: &str) -> Option<usize> {
    let rest = after_line(bytes, HEADER, "")?;
    let rest = after_line(rest, name, suffix)?;
    bytes.len().checked_sub(rest.len())
}

fn after_line<'a>(bytes: &'a [u8], name: &str, suffix: &str) -> Option<&'a [u8]> {
    let (used, len) = framing::frame_len(bytes, MESSAGE_BYTES_MAX).ok()??;
    let rest = bytes.get(used..)?.strip_prefix(name.as_bytes())?.strip_prefix(suffix.as_bytes())?.strip_prefix(b"\n")?;
    (len == text_len(name, suffix)).then_some(rest)
}

fn line(text: &str, out: &mut impl BufMut) {
    protocol_of(text, "", out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        framing::put_header(text.len(), &mut out);
        out.extend_from_slice(text);
        out
    }

    #[test]
    fn specification_vectors() {
        // Both from the specification: 0x036e610a and 0x036c730a.
        assert_eq!(decode(b"\x03na\n", 1024), Ok(Some((Message::NotAvailable, 4))));
        assert_eq!(decode(b"\x03ls\n", 1024), Ok(Some((Message::List, 4))));
        assert_eq!(decode(b"\x13/multistream/1.0.0\n", 1024), Ok(Some((Message::Header, 20))));
        let mut out = Vec::new();
        header(&mut out);
        na(&mut out);
        protocol("/ipfs/kad/1.0.0", &mut out).unwrap();
        assert_eq!(out, b"\x13/multistream/1.0.0\n\x03na\n\x10/ipfs/kad/1.0.0\n");
        assert_eq!(decode(&out[24..], 1024), Ok(Some((Message::Protocol("/ipfs/kad/1.0.0"), 17))));
    }

    #[test]
    fn an_acceptance_in_one_piece() {
        let mut out = Vec::new();
        header(&mut out);
        protocol("/a/1", &mut out).unwrap();
        let len = out.len();
        out.extend_from_slice(b"what follows");
        assert_eq!(accepted(&out, "/a/1", ""), Some(len));
        assert_eq!(accepted(&out, "/a", "/1"), Some(len));
        assert_eq!(accepted(&out, "/a/", ""), None);
        assert_eq!(accepted(&out, "/a/11", ""), None);
        assert_eq!(accepted(&out, "/a/1", "/b"), None);
        assert_eq!(accepted(&out[..len - 1], "/a/1", ""), None);
        let mut refused = Vec::new();
        header(&mut refused);
        na(&mut refused);
        assert_eq!(accepted(&refused, "/a/1", ""), None);
        // The length is of another line than the text.
        assert_eq!(accepted(b"\x13/multistream/1.0.0\n\x06/a/1\n", "/a/1", ""), None);
    }

    #[test]
    fn malformed() {
        let refuse = |text: &[u8]| decode(&framed(text), MESSAGE_BYTES_MAX).unwrap_err();
        assert_eq!(refuse(b""), MultistreamError::NoNewline);
        assert_eq!(refuse(b"/a"), MultistreamError::NoNewline);
        assert_eq!(refuse(b"\n"), MultistreamError::NotAName);
        assert_eq!(refuse(b"ipfs\n"), MultistreamError::NotAName);
        assert_eq!(refuse(b"NA\n"), MultistreamError::NotAName);
        assert_eq!(refuse(b"/a\n/b\n"), MultistreamError::InnerNewline);
        assert_eq!(refuse(b"/a\xff\n"), MultistreamError::NotUtf8);
        // The answer to `ls` is a list of messages within a message.
        assert_eq!(refuse(b"\x03/a\n\x03/b\n\n"), MultistreamError::NotAName);
    }

    #[test]
    fn oversized_is_refused_before_it_is_there() {
        let max = MESSAGE_BYTES_MAX;
        let mut out = Vec::new();
        framing::put_header(max + 1, &mut out);
        let too_long = FrameError::TooLong { announced: 1025, max };
        assert_eq!(decode(&out, max), Err(too_long.into()));
    }

    #[test]
    fn names() {
        let longest = format!("/{}", "x".repeat(NAME_BYTES_MAX - 1));
        let mut out = Vec::new();
        protocol(&longest, &mut out).unwrap();
        assert_eq!(out.len(), protocol_len(&longest));
        let (message, used) = decode(&out, MESSAGE_BYTES_MAX).unwrap().unwrap();
        assert_eq!((message, used), (Message::Protocol(&longest), out.len()));

        let written = out.len();
        assert_eq!(protocol(&format!("{longest}x"), &mut out), Err(NameError::TooLong(1024)));
        assert_eq!(protocol("app/1", &mut out), Err(NameError::NoSlash));
        assert_eq!(protocol("", &mut out), Err(NameError::NoSlash));
        assert_eq!(protocol("/a\nb", &mut out), Err(NameError::Newline));
        assert_eq!(protocol(HEADER, &mut out), Err(NameError::Reserved));
        assert_eq!(out.len(), written, "a refused name writes nothing");
    }

    proptest! {
        #[test]
        fn round_trip(name in "/[^\n]{0,300}") {
            prop_assume!(check_name(&name).is_ok());
            let mut out = Vec::new();
            protocol(&name, &mut out).unwrap();
            prop_assert_eq!(out.len(), protocol_len(&name));
            let (mut parts, half) = (Vec::new(), name.floor_char_boundary(name.len() / 2));
            protocol_of(&name[..half], &name[half..], &mut parts);
            prop_assert_eq!(&parts, &out);
            for cut in 0..out.len() {
                prop_assert_eq!(decode(&out[..cut], MESSAGE_BYTES_MAX), Ok(None));
            }
            let whole = Some((Message::Protocol(&name), out.len()));
            prop_assert_eq!(decode(&out, MESSAGE_BYTES_MAX), Ok(whole));
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            crate::fuzz_entry::multistream(&bytes);
        }

        #[test]
        fn total_when_framed(text in "[/\n anls\\x00\\x80é]{0,20}") {
            crate::fuzz_entry::multistream(&framed(text.as_bytes()));
        }
    }
}
