//! Tickets: everything that is needed to fetch, or to reach a node, in one word that can be copied.
//!
//! ```text
//! "strait1" base32( version u8 | identity length u8 | identity | root 32 bytes | number of addresses u8
//!                   | (length u16 | multiaddr)* | checksum 4 bytes )
//! ```
//!
//! Version 1 stands for files at a node ([`Ticket`]). Version 2 has no root and stands for the node alone ([`Contact`]).
//!
//! The base32 is that of RFC 4648 in lower case without padding; upper case is read as well. The checksum is the start of a
//! BLAKE3 hash, so that a mistyped ticket is told from a provider that cannot be reached.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use strait_core::{Multiaddr, PeerId};

use crate::exit::{Code, Failure};
use crate::tree::{HASH_BYTES, Hash};

/// First letters of every ticket.
const PREFIX: &str = "strait1";
/// The version that stands for files.
const FILES: u8 = 1;
/// The version that stands for a node (TR-14).
const NODE: u8 = 2;
/// Letters of a ticket at most (TR-11).
pub const TEXT_MAX: usize = 4096;
/// Addresses in a ticket at most (TR-11).
pub const ADDRS_MAX: usize = 16;
/// Bytes of one address at most (TR-11).
pub const ADDR_BYTES_MAX: usize = 200;
/// Bytes of an identity at most (TR-11).
const PEER_BYTES_MAX: usize = 64;
const CHECKSUM: usize = 4;

/// Whom to ask, where, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The provider's identity.
    pub peer: PeerId,
    /// Where it may be reached; may be empty.
    pub addrs: Vec<Multiaddr>,
    /// BLAKE3 hash of the manifest's header.
    pub root: Hash,
}

/// Whom to reach, and where: a node, whatever it does (TR-14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Its identity.
    pub peer: PeerId,
    /// Where it may be reached; may be empty.
    pub addrs: Vec<Multiaddr>,
}

/// Why a text is not a ticket, or not the one that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Does not begin as tickets do.
    #[error("it does not begin with \"strait1\"")]
    NotATicket,
    /// A letter that cannot occur, or a number of letters that cannot be.
    #[error("it has a letter that tickets never have, or its end is missing")]
    Letters,
    /// The checksum is wrong.
    #[error("its checksum is wrong: a letter was changed or lost")]
    Checksum,
    /// A version that this strait does not know.
    #[error("it has version {0}, and this strait reads versions 1 and 2")]
    Version(u8),
    /// A good ticket of a node, where one of files is needed.
    #[error("it names a node, and no files")]
    NamesANode,
    /// A number outside its limits, or a part that cannot be read.
    #[error("it is outside the limits of tickets: {0}")]
    Limit(&'static str),
}

impl From<TicketError> for Failure {
    fn from(error: TicketError) -> Failure {
        if error == TicketError::NamesANode {
            let why = "it was printed by a command such as `strait forward` or `strait pipe`, not by `strait send`";
            let next = "use it with the command that its sender told of; for files, ask for a ticket of `strait send`";
            return Failure::new(Code::BadTicket, "this ticket names a node and not files", why, next);
        }
        let next = match error {
            TicketError::Version(_) => "use a newer strait on this side",
            TicketError::Limit(_) => "ask the sender for a fresh ticket",
            _ => "copy the whole ticket again, from \"strait1\" to its last letter",
        };
        let why = match error {
            TicketError::Version(_) => "the sender uses another version of strait",
            TicketError::Limit(_) => "it was not made by strait",
            _ => "a part was lost or mistyped when it was copied",
        };
        Failure::new(Code::BadTicket, format!("this is not a valid ticket: {error}"), why, next)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sealed(encode(&self.peer, &self.addrs, Some(&self.root))))
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sealed(encode(&self.peer, &self.addrs, None)))
    }
}

/// The text of a ticket with these bytes and their checksum.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> String {
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum);
    let mut text = BASE32_NOPAD.encode(&bytes);
    text.make_ascii_lowercase();
    format!("{PREFIX}{text}")
}

/// The bytes behind the prefix, without their checksum (TR-10). Addresses past the limits are left out.
fn encode(peer: &PeerId, addrs: &[Multiaddr], root: Option<&Hash>) -> Vec<u8> {
    let peer = peer.to_bytes();
    let version = if root.is_some() { FILES } else { NODE };
    let mut out = vec![version, peer.len() as u8]; // peer ids have at most 64 bytes by their own definition
    out.extend_from_slice(&peer);
    if let Some(root) = root {
        out.extend_from_slice(root.as_bytes());
    }
    let addrs: Vec<Vec<u8>> = addrs.iter().map(Multiaddr::to_vec).filter(|a| a.len() <= ADDR_BYTES_MAX).take(ADDRS_MAX).collect();
    out.push(addrs.len() as u8);
    for addr in addrs {
        out.extend_from_slice(&(addr.len() as u16).to_be_bytes());
        out.extend_from_slice(&addr);
    }
    out
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(PREFIX.as_bytes()).update(bytes);
    let mut sum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// Takes `len` bytes off the front.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], TicketError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(TicketError::Limit("it ends too early"))?;
    *rest = tail;
    Ok(head)
}

fn take_u8(rest: &mut &[u8]) -> Result<u8, TicketError> {
    take(rest, 1).map(|byte| byte.first().copied().unwrap_or_default())
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Reads a ticket of files (TR-10, TR-11, TR-12). Any text gives a ticket or an error; memory is bounded by [`TEXT_MAX`].
    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        let (Contact { peer, addrs }, root) = decode(text)?;
        let root = root.ok_or(TicketError::NamesANode)?;
        Ok(Ticket { peer, addrs, root })
    }
}

impl Contact {
    /// Reads what leads to a node: a ticket of either kind, or an address that ends with the identity.
    ///
    /// # Errors
    /// In words, with [`Code::BadTicket`].
    pub fn read(text: &str) -> Result<Contact, Failure> {
        let text = text.trim();
        if !text.starts_with('/') {
            return Ok(decode(text).map(|(contact, _)| contact)?);
        }
        let bad = |what: String| {
            let next = "use a ticket, or an address such as /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3Koo...";
            Failure::new(Code::BadTicket, what, "a part was lost when it was copied", next)
        };
        if text.len() > TEXT_MAX {
            return Err(bad("this address is too long".to_owned()));
        }
        let (place, identity) =
            text.rsplit_once("/p2p/").ok_or_else(|| bad("this address does not end with /p2p/ and an identity".to_owned()))?;
        let peer = identity.parse().map_err(|error| bad(format!("the identity in this address cannot be read: {error}")))?;
        let addr = place.parse().map_err(|error| bad(format!("this address cannot be read: {error}")))?;
        Ok(Contact { peer, addrs: vec![addr] })
    }
}

/// A ticket of either kind: the root is there in one of files.
fn decode(text: &str) -> Result<(Contact, Option<Hash>), TicketError> {
    let text = text.trim();
    if text.len() > TEXT_MAX {
        return Err(TicketError::Limit("too many letters"));
    }
    let text = text.to_ascii_uppercase();
    let body = text.strip_prefix(&PREFIX.to_ascii_uppercase()).ok_or(TicketError::NotATicket)?;
    let bytes = BASE32_NOPAD.decode(body.as_bytes()).map_err(|_| TicketError::Letters)?;
    let (rest, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TicketError::Letters)?;
    if checksum(rest) != *sum {
        return Err(TicketError::Checksum);
    }
    decode_body(rest)
}

fn decode_body(mut rest: &[u8]) -> Result<(Contact, Option<Hash>), TicketError> {
    let version = take_u8(&mut rest)?;
    if ![FILES, NODE].contains(&version) {
        return Err(TicketError::Version(version));
    }
    let len = usize::from(take_u8(&mut rest)?);
    if len > PEER_BYTES_MAX {
        return Err(TicketError::Limit("the identity is too long"));
    }
    let peer = PeerId::from_bytes(take(&mut rest, len)?).map_err(|_| TicketError::Limit("the identity cannot be read"))?;
    let mut root = None;
    if version == FILES {
        let bytes = <[u8; HASH_BYTES]>::try_from(take(&mut rest, HASH_BYTES)?);
        root = Some(Hash::from_bytes(bytes.map_err(|_| TicketError::Limit("the root is cut"))?));
    }
    let count = usize::from(take_u8(&mut rest)?);
    if count > ADDRS_MAX {
        return Err(TicketError::Limit("too many addresses"));
    }
    let mut addrs = Vec::new();
    for _ in 0..count {
        let len = usize::from(take_u8(&mut rest)?) << 8 | usize::from(take_u8(&mut rest)?);
        if len > ADDR_BYTES_MAX {
            return Err(TicketError::Limit("an address is too long"));
        }
        let addr = Multiaddr::try_from(take(&mut rest, len)?.to_vec());
        addrs.push(addr.map_err(|_| TicketError::Limit("an address cannot be read"))?);
    }
    if !rest.is_empty() {
        return Err(TicketError::Limit("bytes are left over"));
    }
    Ok((Contact { peer, addrs }, root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(seed: u8) -> PeerId {
        strait_core::Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id()
    }

    fn sample() -> Ticket {
        Ticket {
            peer: peer(1),
            addrs: vec!["/ip4/192.0.2.7/udp/4001/quic-v1".parse().unwrap(), "/ip6/2001:db8::1/udp/4001/quic-v1".parse().unwrap()],
            root: blake3::hash(b"root"),
        }
    }

    fn contact() -> Contact {
        Contact { peer: peer(1), addrs: sample().addrs }
    }

    /// A ticket text around a body, with a right checksum.
    fn wrap(body: &[u8]) -> String {
        sealed(body.to_vec())
    }

    /// TR-10: a ticket comes back as it went, in either case.
    #[test]
    fn a_ticket_comes_back_in_lower_and_upper_case() {
        let text = sample().to_string();
        assert!(text.starts_with("strait1"));
        assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{text}");
        assert_eq!(text.parse(), Ok(sample()));
        assert_eq!(text.to_ascii_uppercase().parse(), Ok(sample()));
        assert_eq!(format!("  {text}\n").parse(), Ok(sample()));
        let bare = Ticket { addrs: vec![], ..sample() };
        assert_eq!(bare.to_string().parse(), Ok(bare));
    }

    /// TR-12: every change of one letter, every lost letter and every cut is told as a mistake in copying.
    #[test]
    fn mistyped_tickets_are_told_as_such() {
        let text = sample().to_string();
        for at in PREFIX.len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).unwrap().parse::<Ticket>();
            assert!(matches!(changed, Err(TicketError::Checksum | TicketError::Letters)), "letter {at}: {changed:?}");
            let mut lost = text.clone();
            lost.remove(at);
            // Losing one of two equal neighbours is the same as losing the other: always an error too.
            assert!(lost.parse::<Ticket>().is_err(), "letter {at} lost");
            assert!(text[..at].parse::<Ticket>().is_err(), "cut at {at}");
        }
        assert_eq!("hello".parse::<Ticket>(), Err(TicketError::NotATicket));
        assert_eq!("strait1".parse::<Ticket>(), Err(TicketError::Letters));
        assert_eq!("strait1äöü".parse::<Ticket>(), Err(TicketError::Letters));
    }

    /// TR-11: every number is bounded, and announced lengths take no memory.
    #[test]
    fn numbers_outside_the_limits_are_refused() {
        let ticket = sample();
        let body = &encode(&ticket.peer, &ticket.addrs, Some(&ticket.root))[..];
        assert!(wrap(body).parse::<Ticket>().is_ok(), "the helper must make good tickets");
        let count_at = 2 + peer(1).to_bytes().len() + HASH_BYTES;
        let with = |at: usize, value: u8| {
            let mut body = body.to_vec();
            body[at] = value;
            wrap(&body).parse::<Ticket>()
        };
        assert_eq!(with(0, 9), Err(TicketError::Version(9)));
        assert!(matches!(with(1, 65), Err(TicketError::Limit(_))));
        assert!(matches!(with(count_at, 17), Err(TicketError::Limit("too many addresses"))));
        assert!(matches!(with(count_at, 1), Err(TicketError::Limit("bytes are left over"))));
        assert!(matches!(with(count_at + 1, 0xff), Err(TicketError::Limit("an address is too long"))));
        assert!(matches!("strait1a".repeat(1000).parse::<Ticket>(), Err(TicketError::Limit("too many letters"))));
        for len in 0..body.len() {
            assert!(wrap(&body[..len]).parse::<Ticket>().is_err(), "{len} bytes");
        }
    }
    /// TR-14: a node's ticket comes back; it is no ticket of files, and a ticket of files leads to its node too.
    #[test]
    fn a_ticket_of_a_node_is_told_from_one_of_files() {
        let text = contact().to_string();
        assert!(text.starts_with("strait1") && text.len() < sample().to_string().len());
        assert_eq!(Contact::read(&format!(" {} \n", text.to_ascii_uppercase())), Ok(contact()));
        assert_eq!(Contact::read(&sample().to_string()), Ok(contact()));
        let bare = Contact { addrs: vec![], ..contact() };
        assert_eq!(Contact::read(&bare.to_string()), Ok(bare));
        assert_eq!(text.parse::<Ticket>(), Err(TicketError::NamesANode));
        let failure = Failure::from(TicketError::NamesANode);
        assert!(failure.code == Code::BadTicket && failure.what == "this ticket names a node and not files");
        // A root behind a version that has none is bytes left over, or a count that cannot be.
        let ticket = sample();
        let mut body = encode(&ticket.peer, &ticket.addrs, Some(&ticket.root));
        body[0] = NODE;
        assert_eq!(Contact::read(&wrap(&body)).unwrap_err().code, Code::BadTicket);
        for at in 0..text.len() {
            assert!(Contact::read(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn addresses_with_an_identity_are_read_and_other_texts_are_not() {
        let (peer, addr) = (peer(1), sample().addrs[0].clone());
        let read = Contact::read(&format!("{addr}/p2p/{peer}"));
        assert_eq!(read, Ok(Contact { peer, addrs: vec![addr.clone()] }));
        let long = "/ip4/1.2.3.4".repeat(1000);
        for text in ["", "hello", &addr.to_string(), &format!("{addr}/p2p/xyz"), &format!("/ip9/1/p2p/{peer}"), &long] {
            assert_eq!(Contact::read(text).unwrap_err().code, Code::BadTicket, "{text}");
        }
    }
}
