//! One QUIC connection of an attacker: a true handshake, and then whatever frames it is told to send.
//!
//! It keeps no promise of RFC 9000 but those that a node cannot do without: there is no congestion control, nothing but the handshake is
//! ever sent again, and acknowledgements are a matter of taste ([`Client::acks`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::quic::{ClientConnection, KeyChange, Keys, Version};

use crate::packet::{self, Coming, Ids, Level};
use crate::random::Random;
use crate::read::{Frame, Reader, frames};
use crate::wire::{self, Params};

/// A handshake that does not move on is sent again after this.
const AGAIN: Duration = Duration::from_millis(300);
/// The least size of a datagram with an Initial packet (RFC 9000 section 14.1).
pub const INITIAL_BYTES: usize = 1200;
/// Frames of one packet have to fit so many bytes.
pub const FRAMES_MAX: usize = 1150;
/// Ranges of received numbers that are remembered.
const RANGES_MAX: usize = 32;

/// What is acknowledged, once the handshake is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// What came.
    Honest,
    /// Nothing.
    Never,
}

/// How the peer ended the connection: the code, whether it is the application's, and the reason.
pub type Closed = (u64, bool, String);

#[derive(Default)]
struct Space {
    keys: Option<Keys>,
    next: u64,
    /// Received packet numbers, first and last of each run, greatest first.
    seen: Vec<(u64, u64)>,
    unacknowledged: bool,
    crypto_in: BTreeMap<u64, Vec<u8>>,
    crypto_read: u64,
    crypto_out: Vec<u8>,
    crypto_sent: usize,
}

/// See the module.
pub struct Client {
    tls: ClientConnection,
    own: [u8; packet::ID_BYTES],
    to: Vec<u8>,
    token: Vec<u8>,
    moved: bool,
    spaces: [Space; 3],
    again_at: Duration,
    params_read: bool,
    challenges: VecDeque<[u8; 8]>,
    offsets: BTreeMap<u64, u64>,
    streams: u64,
    sent: u64,
    /// The initial window of a stream.
    pub stream_window: u64,
    /// What the peer lets us send in all.
    pub max_data: u64,
    /// How many streams the peer lets us open in all.
    pub max_streams: u64,
    /// See there.
    pub acks: Acks,
    /// One byte of the handshake per interval, instead of all at once.
    pub trickle: Option<Duration>,
    /// PATH_CHALLENGE is answered.
    pub echoes: bool,
    /// Confirmed by the peer.
    pub confirmed: bool,
    /// How it was ended, if it was.
    pub closed: Option<Closed>,
    /// The peer sent something that is no QUIC: a finding.
    pub malformed: bool,
}

impl Client {
    /// A connection that has sent nothing. Its ids are drawn from `random`, its keys from the provider in `tls`.
    ///
    /// # Panics
    /// If `tls` cannot begin a handshake.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>, random: &mut Random, params: &Params) -> Client {
        let (own, to) = (random.bits().to_be_bytes(), random.bits().to_be_bytes().to_vec());
        let name = rustls::pki_types::ServerName::try_from("libp2p").expect("a name");
        let tls = ClientConnection::new(tls, Version::V1, name, params.encode(&own)).expect("TLS 1.3 with QUIC");
        let mut spaces = <[Space; 3]>::default();
        spaces[0].keys = Some(packet::initial_keys(&to));
        let mut client = Client {
            tls,
            own,
            to,
            token: Vec::new(),
            moved: false,
            spaces,
            again_at: Duration::MAX,
            params_read: false,
            challenges: VecDeque::new(),
            offsets: BTreeMap::new(),
            streams: 0,
            sent: 0,
            stream_window: 0,
            max_data: 0,
            max_streams: 0,
            acks: Acks::Honest,
            trickle: None,
            echoes: true,
            confirmed: false,
            closed: None,
            malformed: false,
        };
        client.pull();
        client
    }

    /// Whether frames of level `App` can be sent. Before `confirmed`, the peer may not yet have our certificate.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.spaces[2].keys.is_some() && self.closed.is_none()
    }

    /// Its own id and its ClientHello, for who only wants these.
    #[must_use]
    pub fn hello(&self) -> ([u8; 8], Vec<u8>) {
        (self.own, self.spaces[0].crypto_out.clone())
    }

    /// The greatest packet number that the peer has used.
    #[must_use]
    pub fn largest(&self, level: Level) -> u64 {
        self.spaces[level as usize].seen.first().map_or(0, |(_, last)| *last)
    }

    /// Every second packet number that was received, from the greatest on, as the ranges of an ACK frame; at most `max`.
    #[must_use]
    pub fn every_second(&self, level: Level, max: usize) -> Vec<(u64, u64)> {
        let seen = |number: &u64| self.spaces[level as usize].seen.iter().any(|(first, last)| (first..=last).contains(&number));
        let numbers: Vec<_> = (0..self.largest(level)).rev().skip(1).step_by(2).filter(seen).take(max).collect();
        let mut before = self.largest(level);
        let mut ranges = Vec::new();
        for number in numbers {
            ranges.push((before - number - 2, 0));
            before = number;
        }
        ranges
    }

    /// Takes a datagram and gives the frames in it, from all levels.
    pub fn receive(&mut self, mut datagram: &[u8]) -> Vec<Frame> {
        let mut found = Vec::new();
        while !datagram.is_empty() {
            let (coming, rest) = packet::split(datagram);
            datagram = rest;
            match coming {
                Coming::Sealed(level, packet, at, source) => self.opened(level, packet, at, source, &mut found),
                Coming::Retry(source, token) if !self.moved && self.token.is_empty() => {
                    (self.to, self.token) = (source.to_vec(), token.to_vec());
                    self.spaces[0].keys = Some(packet::initial_keys(source));
                    self.spaces[0].crypto_sent = 0;
                }
                Coming::Retry(..) | Coming::Other => {}
            }
        }
        self.pull();
        found
    }

    fn opened(&mut self, level: Level, packet: &[u8], at: usize, source: &[u8], found: &mut Vec<Frame>) {
        let largest = self.largest(level);
        let space = &mut self.spaces[level as usize];
        let Some((number, payload)) = space.keys.as_ref().and_then(|keys| packet::open(&keys.remote, packet, at, largest)) else {
            return;
        };
        if level == Level::Initial && !self.moved {
            (self.moved, self.to) = (true, source.to_vec());
        }
        space.note(number);
        let Some(frames) = frames(&payload) else {
            self.malformed = true;
            return;
        };
        for frame in frames {
            self.take(level, &frame);
            found.push(frame);
        }
    }

    fn take(&mut self, level: Level, frame: &Frame) {
        match frame {
            Frame::Ack(_) => return,
            Frame::Crypto(offset, data) => {
                let space = &mut self.spaces[level as usize];
                if offset + data.len() as u64 > space.crypto_read {
                    space.crypto_in.insert(*offset, data.clone());
                }
                while let Some((offset, data)) = space.crypto_in.pop_first() {
                    if offset > space.crypto_read {
                        space.crypto_in.insert(offset, data);
                        break;
                    }
                    let skip = (space.crypto_read - offset) as usize;
                    let Some(fresh) = data.get(skip..) else {
                        continue;
                    };
                    space.crypto_read += fresh.len() as u64;
                    if self.tls.read_hs(fresh).is_err() {
                        self.malformed = true;
                    }
                }
            }
            Frame::MaxData(value) => self.max_data = self.max_data.max(*value),
            Frame::MaxStreams(value) => self.max_streams = self.max_streams.max(*value),
            Frame::Challenge(data) if self.echoes && self.challenges.len() < 64 => self.challenges.push_back(*data),
            Frame::Done => self.confirmed = true,
            Frame::Close(code, app, reason) => self.closed = Some((*code, *app, reason.clone())),
            _ => {}
        }
        self.spaces[level as usize].unacknowledged = true;
    }

    /// Takes from TLS what it wants to say and the keys that it has found.
    fn pull(&mut self) {
        let mut level = match &self.spaces {
            [_, _, app] if app.keys.is_some() => 2,
            [_, handshake, _] if handshake.keys.is_some() => 1,
            _ => 0,
        };
        loop {
            let mut bytes = Vec::new();
            let change = self.tls.write_hs(&mut bytes);
            self.spaces[level].crypto_out.extend(bytes);
            match change {
                Some(KeyChange::Handshake { keys }) => (level, self.spaces[1].keys) = (1, Some(keys)),
                Some(KeyChange::OneRtt { keys, .. }) => (level, self.spaces[2].keys) = (2, Some(keys)),
                None => break,
            }
        }
        if !self.params_read
            && let Some(params) = self.tls.quic_transport_parameters()
        {
            self.params_read = true;
            let mut reader = Reader(params);
            while let (Some(id), Some(len)) = (reader.varint(), reader.varint()) {
                let value = reader.take(len as usize).and_then(|value| Reader(value).varint()).unwrap_or(0);
                match id {
                    0x04 => self.max_data = value,
                    0x06 => self.stream_window = value,
                    0x08 => self.max_streams = value,
                    _ => {}
                }
            }
        }
    }

    /// A packet of this level with these frames, or nothing if there are no keys for it.
    pub fn seal(&mut self, level: Level, frames: &[u8]) -> Option<Vec<u8>> {
        let ids = Ids { to: &self.to, from: &self.own, token: &self.token };
        let space = &mut self.spaces[level as usize];
        let keys = space.keys.as_ref()?;
        let packet = packet::seal(&keys.local, level, ids, space.next, frames);
        space.next += 1;
        Some(packet)
    }

    /// A datagram with one 1-RTT packet. Empty before there are keys.
    pub fn app(&mut self, frames: &[u8]) -> Vec<u8> {
        self.seal(Level::App, frames).unwrap_or_default()
    }

    /// Leaves out a packet number, and gives it.
    pub fn skip(&mut self, level: Level) -> u64 {
        let space = &mut self.spaces[level as usize];
        space.next += 1;
        space.next - 1
    }

    /// What a peer in good order would send by itself: its part of the handshake, acknowledgements, echoes of path challenges.
    pub fn poll(&mut self, now: Duration) -> Vec<Vec<u8>> {
        if self.closed.is_some() {
            return Vec::new();
        }
        if now >= self.again_at && !self.confirmed {
            self.again_at = Duration::MAX;
            if self.trickle.is_none() {
                self.spaces[0].crypto_sent = 0;
                self.spaces[1].crypto_sent = 0;
            }
        }
        let mut out = Vec::new();
        for level in [Level::Initial, Level::Handshake, Level::App] {
            self.flight(now, level, &mut out);
        }
        out
    }

    fn flight(&mut self, now: Duration, level: Level, out: &mut Vec<Vec<u8>>) {
        let space = &mut self.spaces[level as usize];
        // Once there are keys for what follows, Initials have been forgotten on the other side.
        if space.keys.is_none() || level == Level::Initial && self.confirmed {
            return;
        }
        let mut frames = Vec::new();
        if std::mem::take(&mut space.unacknowledged) && (level != Level::App || self.acks == Acks::Honest) {
            frames.extend(space.ack());
        }
        if level == Level::App {
            while let Some(data) = self.challenges.pop_front() {
                frames.extend(wire::path_response(data));
            }
            if !frames.is_empty() {
                out.push(self.app(&frames));
            }
            return;
        }
        loop {
            let space = &mut self.spaces[level as usize];
            let room = if self.trickle.is_some() { 1 } else { 1_000 };
            let (from, to) = (space.crypto_sent, (space.crypto_sent + room).min(space.crypto_out.len()));
            if from < to && self.again_at > now && self.trickle.is_some() && self.again_at != Duration::MAX {
                // It is not yet time for the next byte.
            } else if from < to {
                frames.extend(wire::crypto(from as u64, &space.crypto_out[from..to]));
                space.crypto_sent = to;
                self.again_at = now + self.trickle.unwrap_or(AGAIN);
            }
            if frames.is_empty() {
                return;
            }
            if level == Level::Initial {
                frames.resize(frames.len().max(INITIAL_BYTES - self.token.len()), 0);
            }
            out.extend(self.seal(level, &frames));
            frames.clear();
        }
    }

    /// The next stream of ours, if the peer lets us open one.
    pub fn open(&mut self) -> Option<u64> {
        (self.streams < self.max_streams).then(|| {
            self.streams += 1;
            (self.streams - 1) * 4
        })
    }

    /// How many more bytes of streams the peer takes.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.max_data.saturating_sub(self.sent)
    }

    /// A STREAM frame with the next bytes of a stream. The connection's window is counted, and not kept to.
    pub fn stream(&mut self, id: u64, data: &[u8], fin: bool) -> Vec<u8> {
        let offset = self.offsets.entry(id).or_default();
        let frame = wire::stream(id, *offset, data, fin);
        *offset += data.len() as u64;
        self.sent += data.len() as u64;
        if fin {
            self.offsets.remove(&id);
        }
        frame
    }

    /// A RESET_STREAM frame that fits what was sent of a stream.
    pub fn reset(&mut self, id: u64) -> Vec<u8> {
        wire::reset_stream(id, 0, self.offsets.remove(&id).unwrap_or(0))
    }
}

impl Space {
    fn note(&mut self, number: u64) {
        let at = self.seen.partition_point(|(first, _)| *first > number);
        if self.seen.get(at).is_some_and(|(_, last)| *last >= number) {
            return;
        }
        self.seen.insert(at, (number, number));
        // With the run after it (of smaller numbers), then with the one before it.
        for at in [at, at.wrapping_sub(1)] {
            if let (Some(upper), Some(lower)) = (self.seen.get(at).copied(), self.seen.get(at.wrapping_add(1)).copied())
                && lower.1 + 1 == upper.0
            {
                self.seen[at].0 = lower.0;
                self.seen.remove(at + 1);
            }
        }
        self.seen.truncate(RANGES_MAX);
    }

    fn ack(&self) -> Vec<u8> {
        let Some(((first, last), rest)) = self.seen.split_first() else {
            return Vec::new();
        };
        let (mut before, mut ranges) = (*first, Vec::new());
        for (first, last) in rest {
            ranges.push((before - last - 2, last - first));
            before = *first;
        }
        wire::ack(*last, last - first, &ranges)
    }
}
