//! Frames of a peer that is properly connected, by the packet full.

use std::time::Duration;

use super::connected::{Abuse, Connected, own};
use super::strangers::SOURCES;
use super::{Env, Out};
use crate::client::{Acks, Client, FRAMES_MAX};
use crate::packet::Level;
use crate::read::Frame;
use crate::wire;

/// Which frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Tiny,
    Pings,
    Challenges,
    RetireIds,
    Crypto,
    Optimistic,
    Ranges,
    Gaps,
    Migration,
    Random,
    Blocked,
}

/// See the module.
pub(super) struct Frames {
    kind: Kind,
    stream: Option<u64>,
    at: u64,
}

pub(super) fn abuse(kind: Kind) -> Connected<Frames> {
    Connected::new(Frames { kind, stream: None, at: 0 })
}

impl Abuse for Frames {
    fn fresh(&mut self) {
        (self.stream, self.at) = (None, 0);
    }

    fn go(&mut self, env: &mut Env, client: &mut Client, _: Duration, _: Vec<Frame>, budget: usize, out: &mut Vec<Out>) {
        if matches!(self.kind, Kind::Optimistic | Kind::Ranges) {
            client.acks = Acks::Never;
        }
        if matches!(self.kind, Kind::Empty | Kind::Tiny | Kind::Gaps) && self.stream.is_none() {
            let Some(id) = client.open() else {
                return;
            };
            self.stream = Some(id);
            out.push(own(super::protocols::proposal(client, id, env.target.pipe)));
            self.at = super::protocols::opening(env.target.pipe).len() as u64;
        }
        for _ in 0..budget {
            let Some(frames) = self.frames(env, client) else {
                return;
            };
            let source = match self.kind {
                Kind::Migration => 1 + env.random.below(SOURCES) as u16,
                _ => 0,
            };
            out.push(Out { source, bytes: client.app(&frames) });
        }
    }
}

impl Frames {
    /// The frames of one packet.
    fn frames(&mut self, env: &mut Env, client: &mut Client) -> Option<Vec<u8>> {
        let stream = self.stream.unwrap_or(0);
        let largest = client.largest(Level::App);
        let mut bytes = Vec::new();
        match self.kind {
            Kind::Pings => bytes.resize(FRAMES_MAX, wire::PING[0]),
            Kind::Optimistic => {
                // Pings, so that there is something to acknowledge; then a little ahead of what came.
                bytes.extend(wire::PING);
                bytes.extend(wire::ack(largest + env.random.below(8), 0, &[]));
            }
            Kind::Ranges => {
                bytes.extend(wire::PING);
                bytes.extend(wire::ack(largest, 0, &client.every_second(Level::App, 400)));
            }
            Kind::Migration => bytes.extend([wire::PING, &[0; 40]].concat()),
            Kind::Random => {
                let len = 1 + env.random.below(64) as usize;
                bytes = env.random.bytes(len);
                // Half of them with a type that exists.
                if env.random.below(2) == 0 {
                    bytes[0] = env.random.below(0x1f) as u8;
                }
            }
            _ => {
                while bytes.len() < FRAMES_MAX - 30 {
                    bytes.extend(self.one(env, client, stream)?);
                }
            }
        }
        Some(bytes)
    }

    /// One of many frames.
    fn one(&mut self, env: &mut Env, client: &Client, stream: u64) -> Option<Vec<u8>> {
        self.at += 1;
        let room = client.room().min(client.stream_window);
        Some(match self.kind {
            Kind::Empty => wire::stream(stream, 0, &[], false),
            Kind::Tiny => {
                let at = self.at - 1;
                // The pipe is read, so its windows move; what is beyond them would end the connection, and the attack.
                if at >= room {
                    return None;
                }
                wire::stream(stream, at, &[7], false)
            }
            Kind::Gaps => {
                let at = self.at * 2;
                if at >= room.min(60 << 10) {
                    self.at = 100;
                }
                wire::stream(stream, at.min(room.saturating_sub(1)), &[7], false)
            }
            Kind::Challenges => wire::path_challenge(env.random.bits()),
            Kind::RetireIds => wire::new_connection_id(self.at + 1, self.at + 1, env.random.bits()),
            Kind::Crypto => wire::crypto(1 + self.at * 2 % (16 << 10), &[7]),
            Kind::Blocked => wire::data_blocked(self.at),
            _ => return None,
        })
    }
}
