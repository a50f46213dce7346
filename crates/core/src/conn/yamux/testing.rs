//! Frames made by hand, and two sessions side by side.

use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;
use strait_wire::yamux::{HEADER_BYTES, Header, Kind};

use super::*;
use crate::stream::{Read, StreamPort as _};

/// One and the same time in all tests.
#[allow(clippy::disallowed_methods)]
pub(super) fn now() -> Instant {
    static NOW: OnceLock<Instant> = OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

/// Type, flags, stream, length, body: what is said of the length need not be true.
pub(super) type Frame<'a> = (Kind, u16, u32, u32, &'a [u8]);

/// Frames, byte by byte as the specification has them.
pub(super) fn frames(frames: &[Frame<'_>]) -> Bytes {
    let mut bytes = Vec::new();
    for (kind, flags, stream, length, body) in frames {
        let kind = match kind {
            Kind::Data => 0,
            Kind::WindowUpdate => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        bytes.extend_from_slice(&[0, kind]);
        bytes.extend_from_slice(&flags.to_be_bytes());
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
    }
    bytes.into()
}

pub(super) fn hand(session: &mut Session, what: &[Frame<'_>]) -> Result<(), Broken> {
    session.handle(now(), frames(what))
}

/// The headers of what was written.
pub(super) fn headers(chunks: &[Bytes]) -> Vec<Header> {
    let all = chunks.concat();
    let mut rest = &all[..];
    let mut found = Vec::new();
    while let Some((head, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(head).expect("a frame");
        found.push(header);
        rest = &behind[header.body() as usize..];
    }
    found
}

/// All that a session wants to send.
pub(super) fn drain(session: &mut Session) -> Vec<Header> {
    let mut out = Vec::new();
    while session.poll_output(now(), 1 << 20, &mut out) > 0 {}
    headers(&out)
}

/// Reads until nothing comes: the bytes, and the end when there was one.
pub(super) fn read_all(session: &mut Session, id: u64) -> (Vec<u8>, Option<Result<(), u64>>) {
    let mut bytes = Vec::new();
    loop {
        match session.port(id).read(1 << 16) {
            Ok(Read::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(Read::Blocked) => return (bytes, None),
            Ok(Read::Finished) => return (bytes, Some(Ok(()))),
            Err(code) => return (bytes, Some(Err(code))),
        }
    }
}

/// A client and a server.
pub(super) struct Pair {
    pub(super) client: Session,
    pub(super) server: Session,
    pub(super) now: Instant,
    seen: Vec<String>,
}

impl Pair {
    pub(super) fn new() -> Pair {
        let limits = Limits::default();
        let (client, server) = (Session::new(Side::Client, &limits), Session::new(Side::Server, &limits));
        let mut pair = Pair { client, server, now: now(), seen: Vec::new() };
        pair.shuttle();
        pair
    }

    /// A stream that the server has accepted, with these bytes in it.
    pub(super) fn open(&mut self, bytes: &'static [u8]) -> u64 {
        let id = self.client.open().expect("room");
        self.client.port(id).write(&mut Bytes::from_static(bytes)).expect("open");
        self.shuttle();
        assert_eq!(self.server.accept(), Some(id));
        self.shuttle();
        id
    }

    /// Carries everything to and fro until nothing is left.
    pub(super) fn shuttle(&mut self) {
        loop {
            let mut out = Vec::new();
            let there = self.client.poll_output(self.now, 1 << 16, &mut out);
            if there > 0 {
                self.server.handle(self.now, out.concat().into()).expect("a good client");
            }
            out.clear();
            let back = self.server.poll_output(self.now, 1 << 16, &mut out);
            if back > 0 {
                self.client.handle(self.now, out.concat().into()).expect("a good server");
            }
            if there == 0 && back == 0 {
                return;
            }
        }
    }

    /// All that both have told.
    pub(super) fn events(&mut self) -> Vec<String> {
        self.seen.extend(std::iter::from_fn(|| self.client.poll()).map(|event| format!("client {event:?}")));
        self.seen.extend(std::iter::from_fn(|| self.server.poll()).map(|event| format!("server {event:?}")));
        self.seen.clone()
    }
}
