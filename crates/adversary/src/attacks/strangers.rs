//! What those send who have no connection and want none.

use std::time::Duration;

use super::{Behaviour, Env, Out};
use crate::client::INITIAL_BYTES;
use crate::identity::Papers;
use crate::packet::{self, Ids, Level};
use crate::random::Random;
use crate::wire::{self, Params};

/// False addresses that are used in turn.
pub(super) const SOURCES: u64 = 256;

fn spoofed(random: &mut Random, bytes: Vec<u8>) -> Out {
    Out { source: 1 + random.below(SOURCES) as u16, bytes }
}

/// First packets in order. The ClientHello is the same in all of them: only a handshake that goes on would tell.
#[derive(Default)]
pub(super) struct Initials {
    hello: Vec<u8>,
    own: [u8; 8],
}

impl Behaviour for Initials {
    fn receive(&mut self, _: &mut Env, _: Duration, _: u16, _: &[u8]) {}

    fn tick(&mut self, env: &mut Env, _: Duration, budget: usize) -> Vec<Out> {
        if self.hello.is_empty() {
            (self.own, self.hello) = env.client(Papers::Good, &Params::default()).hello();
        }
        let one = |_| {
            let bytes = initial(&mut env.random, &self.own, &[], &self.hello);
            spoofed(&mut env.random, bytes)
        };
        (0..budget).map(one).collect()
    }
}

/// A whole Initial with `frames`, to a random id.
fn initial(random: &mut Random, own: &[u8], token: &[u8], hello: &[u8]) -> Vec<u8> {
    let id = random.bits().to_be_bytes();
    let mut frames = wire::crypto(0, hello);
    frames.resize(frames.len().max(INITIAL_BYTES.saturating_sub(token.len())), 0);
    packet::seal(&packet::initial_keys(&id).local, Level::Initial, Ids { to: &id, from: own, token }, 0, &frames)
}

/// Datagrams that are wrong in themselves.
pub(super) enum Garbage {
    /// Initials whose payload cannot be opened.
    Sealed,
    /// Initials with a large token.
    Token,
    /// Many packets in one datagram.
    Coalesced,
    /// Packets for connections that are not there, of unknown versions, of one byte less than allowed.
    Reflection,
    /// Nothing at all.
    Empty,
}

impl Behaviour for Garbage {
    fn receive(&mut self, _: &mut Env, _: Duration, _: u16, _: &[u8]) {}

    fn tick(&mut self, env: &mut Env, _: Duration, budget: usize) -> Vec<Out> {
        let random = &mut env.random;
        let one = |_| {
            let bytes = self.datagram(random);
            spoofed(random, bytes)
        };
        (0..budget).map(one).collect()
    }
}

impl Garbage {
    fn datagram(&self, random: &mut Random) -> Vec<u8> {
        match self {
            Garbage::Sealed => {
                let mut bytes = initial(random, &[7; 8], &[], b"nonsense");
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                bytes
            }
            Garbage::Token => {
                let token = random.bytes(1_000);
                initial(random, &[7; 8], &token, &[1, 0, 0])
            }
            Garbage::Coalesced => coalesced(random),
            Garbage::Reflection => reflection(random),
            Garbage::Empty => vec![0; random.below(2) as usize],
        }
    }
}

/// A good Initial first or last, and around it long headers that are cut, empty, of kinds that cannot be, or for other ids.
fn coalesced(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.below(2) == 0 {
        let id = random.bits().to_be_bytes();
        let frames = [wire::crypto(0, b"\x01\x00"), vec![0; 200]].concat();
        bytes =
            packet::seal(&packet::initial_keys(&id).local, Level::Initial, Ids { to: &id, from: &id, token: &[] }, 0, &frames);
    }
    while bytes.len() < INITIAL_BYTES {
        let kind = 0xc0 | (random.bits() as u8 & 0x3f);
        bytes.extend([kind, 0, 0, 0, 1, 8]);
        bytes.extend(random.bytes(8));
        bytes.push(0);
        if kind & 0x30 == 0 {
            bytes.extend(wire::varint(random.below(40)));
        }
        let len = [0, 1, 19, 20, 21, 1_000, 16_000, wire::VARINT_MAX][random.below(8) as usize];
        bytes.extend(wire::varint(len));
        let some = random.below(24) as usize;
        bytes.extend(random.bytes(some));
    }
    bytes.truncate(1_400);
    bytes
}

fn reflection(random: &mut Random) -> Vec<u8> {
    let len = [21, 22, 41, 42, 43, 100, 1_199, 1_200, 1_400][random.below(9) as usize];
    let mut bytes = random.bytes(len);
    match random.below(3) {
        // A short header, which a stateless reset may answer (RFC 9000 section 10.3).
        0 => bytes[0] = 0x40 | (bytes[0] & 0x3f),
        // An unknown version, which Version Negotiation may answer (section 6).
        1 => {
            bytes[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
            bytes[14] = 8;
        }
        // A Handshake packet of nobody.
        _ => {
            bytes[..6].copy_from_slice(&[0xe3, 0, 0, 0, 1, 8]);
            bytes[14] = 0;
        }
    }
    bytes
}
