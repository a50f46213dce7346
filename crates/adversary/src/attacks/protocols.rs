//! Abuse of the protocols on streams: multistream-select, requests, ping, identify; each byte by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::connected::{Abuse, Connected, own};
use super::{Env, Out};
use crate::client::{Client, FRAMES_MAX};
use crate::identity::Papers;
use crate::read::Frame;
use crate::wire::{Params, uvarint};

/// Which abuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SlowSelect,
    SlowRequest,
    Giant,
    RapidReset,
    ZeroWindow,
    Echoes,
    Proposals,
    Identify,
    Requests,
}

/// A line of multistream-select: length, text, newline.
fn line(text: &str) -> Vec<u8> {
    [&uvarint(text.len() as u64 + 1), text.as_bytes(), b"\n"].concat()
}

/// What a dialler says first: the header and its proposal.
pub(super) fn opening(protocol: &str) -> Vec<u8> {
    [line("/multistream/1.0.0"), line(protocol)].concat()
}

/// A packet that opens a stream with a proposal.
pub(super) fn proposal(client: &mut Client, id: u64, protocol: &str) -> Vec<u8> {
    let frame = client.stream(id, &opening(protocol), false);
    client.app(&frame)
}

/// A stream of ours that goes on for a while.
struct Open {
    id: u64,
    /// What is left to be said, if it is not without end.
    left: u64,
}

/// See the module.
pub(super) struct Protocols {
    kind: Kind,
    open: Vec<Open>,
    turn: usize,
    next_at: Duration,
    /// What came on streams that the node has opened.
    asked: BTreeMap<u64, Vec<u8>>,
}

pub(super) fn abuse(kind: Kind) -> Connected<Protocols> {
    Connected::new(Protocols { kind, open: Vec::new(), turn: 0, next_at: Duration::ZERO, asked: BTreeMap::new() })
}

impl Abuse for Protocols {
    fn fresh(&mut self) {
        self.open.clear();
        self.asked.clear();
        self.next_at = Duration::ZERO;
    }

    fn client(&mut self, env: &mut Env) -> Client {
        let params = match self.kind {
            Kind::ZeroWindow => Params { max_data: 0, max_stream_data: 0, ..Params::default() },
            // Enough for the answers of negotiations.
            Kind::Requests => Params { max_stream_data: 64, ..Params::default() },
            _ => Params::default(),
        };
        env.client(Papers::Good, &params)
    }

    fn go(&mut self, env: &mut Env, client: &mut Client, now: Duration, frames: Vec<Frame>, budget: usize, out: &mut Vec<Out>) {
        self.close_what_ended(client, &frames, out);
        match self.kind {
            Kind::SlowSelect | Kind::SlowRequest => self.slow(env, client, now, out),
            Kind::RapidReset => self.rapid(env, client, budget, out),
            Kind::Identify => self.identify(client, &frames, out),
            _ => self.streams(env, client, budget, out),
        }
    }
}

impl Protocols {
    /// Ends what the node has ended, so that it gives the stream's place back and there can be another.
    fn close_what_ended(&mut self, client: &mut Client, frames: &[Frame], out: &mut Vec<Out>) {
        let mut bytes = Vec::new();
        for frame in frames {
            let (Frame::Stop(id, _) | Frame::Reset(id, _)) = frame else {
                continue;
            };
            if let Some(at) = self.open.iter().position(|open| open.id == *id) {
                self.open.swap_remove(at);
                bytes.extend(client.reset(*id));
            }
            if bytes.len() > FRAMES_MAX - 30 {
                out.push(own(client.app(&std::mem::take(&mut bytes))));
            }
        }
        if !bytes.is_empty() {
            out.push(own(client.app(&bytes)));
        }
    }

    /// As many streams as there may be, one byte each per second.
    fn slow(&mut self, env: &mut Env, client: &mut Client, now: Duration, out: &mut Vec<Out>) {
        while let Some(id) = client.open() {
            self.open.push(Open { id, left: 0 });
            if self.kind == Kind::SlowRequest {
                let size = uvarint(env.target.request_bytes_max as u64);
                let frame = client.stream(id, &[opening(env.target.request), size].concat(), false);
                out.push(own(client.app(&frame)));
            }
        }
        let whole = opening(env.target.request);
        // One after the other, so that each has a byte a second and not all have it at once.
        let pause = Duration::from_secs(1) / self.open.len().max(1) as u32;
        if self.next_at + Duration::from_secs(1) < now {
            self.next_at = now;
        }
        while self.next_at <= now && !self.open.is_empty() {
            self.next_at += pause;
            self.turn = (self.turn + 1) % self.open.len();
            let open = &mut self.open[self.turn];
            let byte = whole.get(open.left as usize).copied().unwrap_or(b'x');
            open.left += 1;
            let frame = client.stream(open.id, &[byte], false);
            out.push(own(client.app(&frame)));
        }
    }

    /// Opens with a request and resets, in one packet.
    fn rapid(&mut self, env: &mut Env, client: &mut Client, budget: usize, out: &mut Vec<Out>) {
        for _ in 0..budget {
            let mut frames = Vec::new();
            while frames.len() < FRAMES_MAX - 120 {
                let Some(id) = client.open() else {
                    break;
                };
                // A whole request or half of one.
                let size = if id & 4 == 0 { 8 } else { 1_000 };
                let words = [opening(env.target.request), uvarint(size), vec![1; 8]].concat();
                frames.extend(client.stream(id, &words, false));
                frames.extend(client.reset(id));
            }
            if frames.is_empty() {
                return;
            }
            out.push(own(client.app(&frames)));
        }
    }

    /// Opens what may be opened, and says on each what there is to say within the windows.
    fn streams(&mut self, env: &mut Env, client: &mut Client, budget: usize, out: &mut Vec<Out>) {
        let begin = out.len();
        while out.len() < begin + budget && client.room() > 200 {
            let Some(id) = client.open() else {
                break;
            };
            let (words, left) = self.first_words(env);
            let frame = client.stream(id, &words, false);
            out.push(own(client.app(&frame)));
            self.open.push(Open { id, left });
        }
        let mut at = 0;
        while out.len() < begin + budget && at < self.open.len() && client.room() > 1_100 {
            let open = &mut self.open[at];
            let len = open.left.min(1_000);
            if len == 0 {
                at += 1;
                continue;
            }
            open.left -= len;
            let (id, last) = (open.id, open.left == 0);
            let words = match self.kind {
                Kind::Proposals => line(&format!("/nothing/{:x}", env.random.bits())).repeat(40),
                _ => vec![9; len as usize],
            };
            let frame = client.stream(id, &words, last);
            out.push(own(client.app(&frame)));
            // One after the other, so that each gets on.
            at += 1;
            if at == self.open.len() {
                at = 0;
            }
        }
        self.open.retain(|open| open.left > 0);
    }

    /// What a stream begins with, and how many bytes follow.
    fn first_words(&self, env: &Env) -> (Vec<u8>, u64) {
        let size = env.target.request_bytes_max as u64;
        match self.kind {
            Kind::Giant => ([opening(env.target.request), uvarint(200_000_000_000)].concat(), 1 << 40),
            Kind::Echoes => (opening("/ipfs/ping/1.0.0"), 1 << 40),
            Kind::Proposals => (line("/multistream/1.0.0"), 1 << 40),
            _ => ([opening(env.target.request), uvarint(size)].concat(), size),
        }
    }

    /// Agrees to all that the node proposes, and answers identify with thousands of items; tells the same unasked, too.
    fn identify(&mut self, client: &mut Client, frames: &[Frame], out: &mut Vec<Out>) {
        for frame in frames {
            let Frame::Stream(id, _, bytes, _) = frame else {
                continue;
            };
            if id & 1 == 0 {
                continue;
            }
            let said = self.asked.entry(*id).or_default();
            said.extend(bytes);
            if said.len() > 24 {
                let answer = [said.clone(), message(1_500)].concat();
                said.clear();
                send(client, *id, &answer, true, out);
            }
        }
        while let Some(id) = client.open() {
            let answer = [opening("/ipfs/id/push/1.0.0"), message(if id % 8 == 0 { 1_500 } else { 100_000 })].concat();
            if client.room() < answer.len() as u64 {
                return;
            }
            send(client, id, &answer, true, out);
        }
    }
}

/// Bytes on a stream, in as many packets as they need.
fn send(client: &mut Client, id: u64, bytes: &[u8], fin: bool, out: &mut Vec<Out>) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (part, more) = rest.split_at(rest.len().min(1_100));
        rest = more;
        let frame = client.stream(id, part, fin && rest.is_empty());
        out.push(own(client.app(&frame)));
    }
}

/// An identify message (libp2p/specs `identify`) of `items` short addresses and protocols, without a key.
fn message(items: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for item in 0..items {
        // listenAddrs (2): /ip4/.../udp/...; protocols (3).
        body.extend([0x12, 8, 4, 10, 1, (item >> 8) as u8, item as u8, 0x91, 0x02, 1]);
        body.extend([0x1a, 2, b'/', b'a' + (item % 26) as u8]);
        if body.len() > 7_900 && items < 10_000 {
            break;
        }
    }
    [uvarint(body.len() as u64), body].concat()
}
