//! Hostile peers on ordered pipes such as TCP: what they do before the pipe is secure, in the handshake, and with Yamux inside of TLS.
//!
//! A [`PipeBot`] does no I/O and knows no clock either: its owner makes the pipes that it asks for, and hands bytes to and fro.

mod line;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use line::{Line, yamux};
use rustls::crypto::CryptoProvider;

use crate::attacks::{Target, Told};
use crate::identity::{Identity, Papers};
use crate::random::Random;
use crate::wire::uvarint;

const DATA: u8 = 0;
const WINDOW: u8 = 1;
const PING: u8 = 2;
const GO_AWAY: u8 = 3;
const SYN: u16 = 1;
const RST: u16 = 8;
/// Credit that each stream has to begin with.
const CREDIT: u64 = 256 << 10;
/// How long a pipe that comes to nothing is kept.
const PATIENCE: Duration = Duration::from_secs(20);

macro_rules! attacks {
    ($($(#[$doc:meta])* $name:ident $text:literal;)*) => {
        /// An attack of docs/attacks.md over pipes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum PipeAttack {
            $($(#[$doc])* $name,)*
        }

        impl PipeAttack {
            /// All of them.
            pub const ALL: &'static [PipeAttack] = &[$(PipeAttack::$name,)*];

            /// Its name for people.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(PipeAttack::$name => $text,)*
                }
            }
        }
    };
}

attacks! {
    /// Row 4: connects and says nothing.
    Silent "silent";
    /// Row 7: a byte of multistream-select per second.
    SlowSelect "slow-select";
    /// Row 7: a byte of a Noise message per second.
    SlowNoise "slow-noise";
    /// Row 7: a byte of a TLS ClientHello per second.
    SlowTls "slow-tls";
    /// Row 28: Noise messages that are random, empty, cut, or end in a point of small order.
    NoiseGarbage "noise-garbage";
    /// Row 29: TLS with an identity of an RSA key of 8,192 bits and a signature that is wrong.
    RsaBurn "rsa-burn";
    /// Row 30: certificates that are wrong in their last signature.
    WrongAtTheEnd "wrong-at-the-end";
    /// Row 30: certificates that are cut.
    CutCertificate "cut-certificate";
    /// Row 30: TLS records that are noise.
    TlsGarbage "tls-garbage";
    /// Row 31: proposes one way to secure the pipe after the other.
    Proposals "proposals";
    /// Row 54: connects, and goes as soon as it is secure.
    Churn "churn";
    /// Row 54: connects, and goes without a word.
    Knock "knock";
    /// Row 7: a byte of a Yamux header per second.
    SlowYamux "slow-yamux";
    /// Row 7: requests, a byte per second.
    SlowRequest "slow-request";
    /// Row 8: announces requests of 200 GB.
    Giant "giant";
    /// Row 9: opens streams and resets them.
    RapidReset "rapid-reset";
    /// Row 10: opens more streams than may wait, and reads none of the resets.
    ForcedResets "forced-resets";
    /// Row 11: asks for much and gives no credit for it.
    ZeroWindow "zero-window";
    /// Row 12: gives more credit than a window can hold.
    WindowOverflow "window-overflow";
    /// Row 13: frames without a byte.
    EmptyFrames "empty-frames";
    /// Row 13: frames of one byte.
    TinyFrames "tiny-frames";
    /// Row 14: as many streams as there may be, each filled to its window.
    Unread "unread";
    /// Row 15: asks for much, says that it goes away, and gives no credit.
    CreditAtClose "credit-at-close";
    /// Row 16: pings, each with another number.
    Pings "pings";
    /// Row 32: a stream whose first frame has more than its window allows.
    SynOversized "syn-oversized";
    /// Frames of random types and contents.
    BadFrames "bad-frames";
    /// Row 51: requests as large and as many as it may, and reads nothing at all.
    Requests "requests";
}

impl fmt::Display for PipeAttack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl PipeAttack {
    /// Pipes at once.
    fn lines_max(self) -> usize {
        match self {
            PipeAttack::Silent | PipeAttack::SlowSelect | PipeAttack::SlowNoise | PipeAttack::SlowTls => 64,
            PipeAttack::Proposals | PipeAttack::NoiseGarbage | PipeAttack::TlsGarbage | PipeAttack::Knock => 4,
            _ => 1,
        }
    }

    /// Whether it goes on behind the handshake.
    fn is_inside(self) -> bool {
        self >= PipeAttack::SlowYamux
    }

    fn papers(self) -> Option<Papers> {
        match self {
            PipeAttack::RsaBurn => Some(Papers::Rsa(8192)),
            PipeAttack::WrongAtTheEnd => Some(Papers::WrongAtTheEnd),
            PipeAttack::CutCertificate => Some(Papers::Cut),
            PipeAttack::Churn => Some(Papers::Good),
            _ => self.is_inside().then_some(Papers::Good),
        }
    }
}

/// What a bot wants done to one of its pipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipeAct {
    /// Make it.
    Connect,
    /// Write all of this, later if there is no room now.
    Write(Vec<u8>),
    /// Close it.
    Close,
}

/// One hostile peer on pipes.
pub struct PipeBot {
    attack: PipeAttack,
    provider: Arc<CryptoProvider>,
    random: Random,
    target: Target,
    told: Told,
    lines: BTreeMap<u32, Line>,
    next: u32,
    again_at: Duration,
}

/// A line of multistream-select: length, text, newline.
fn line(text: &str) -> Vec<u8> {
    [&uvarint(text.len() as u64 + 1), text.as_bytes(), b"\n"].concat()
}

fn opening(protocol: &str) -> Vec<u8> {
    [line("/multistream/1.0.0"), line(protocol)].concat()
}

impl PipeBot {
    /// Performs `attack`; all that it draws comes from `seed` and from the provider.
    #[must_use]
    pub fn new(attack: PipeAttack, seed: u64, provider: Arc<CryptoProvider>, target: Target) -> PipeBot {
        PipeBot {
            attack,
            provider,
            random: Random::new(seed),
            target,
            told: Told::default(),
            lines: BTreeMap::new(),
            next: 0,
            again_at: Duration::ZERO,
        }
    }

    /// What it has seen and done; a datagram is a write.
    #[must_use]
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// Whether it reads what comes on its pipes.
    #[must_use]
    pub fn reads(&self) -> bool {
        !matches!(self.attack, PipeAttack::Requests | PipeAttack::ForcedResets) || self.lines.values().any(|line| !line.opened)
    }

    /// How long after a tick the next is of use.
    #[must_use]
    pub fn pause(&self) -> Duration {
        match self.attack {
            PipeAttack::Silent | PipeAttack::SlowSelect | PipeAttack::SlowNoise | PipeAttack::SlowTls => {
                Duration::from_millis(20)
            }
            PipeAttack::SlowYamux | PipeAttack::SlowRequest => Duration::from_millis(20),
            _ => Duration::from_millis(1),
        }
    }

    /// A pipe is there.
    pub fn connected(&mut self, pipe: u32) {
        if let Some(line) = self.lines.get_mut(&pipe) {
            line.up = true;
        }
    }

    /// Bytes have come.
    pub fn receive(&mut self, pipe: u32, bytes: &[u8]) {
        self.told.bytes_back += bytes.len() as u64;
        if let Some(line) = self.lines.get_mut(&pipe) {
            // Whatever TLS makes of it: the node is about to close the pipe.
            let _ = line.receive(bytes);
        }
    }

    /// The node has ended a pipe, or it could not be made. It is closed.
    pub fn ended(&mut self, pipe: u32) {
        if self.lines.remove(&pipe).is_some() {
            self.told.ended += 1;
        }
    }

    /// Whether all that was written to a pipe has left.
    pub fn blocked(&mut self, pipe: u32, blocked: bool) {
        if let Some(line) = self.lines.get_mut(&pipe) {
            line.blocked = blocked;
        }
    }

    /// Does its part for a moment: about `budget` packets' worth of bytes at most. Call it again after [`pause`](Self::pause).
    pub fn tick(&mut self, now: Duration, budget: usize) -> Vec<(u32, PipeAct)> {
        let mut acts = Vec::new();
        let fresh = self.lines.len() < self.attack.lines_max() && now >= self.again_at;
        for _ in 0..if fresh { budget.clamp(1, 8) } else { 0 } {
            if self.lines.len() < self.attack.lines_max() {
                self.again_at = now + Duration::from_millis(2);
                self.lines.insert(self.next, Line::new(now));
                acts.push((self.next, PipeAct::Connect));
                self.next += 1;
            }
        }
        let mut bytes = budget * 1_200;
        let pipes: Vec<u32> = self.lines.keys().copied().collect();
        for pipe in pipes {
            let Some(mut line) = self.lines.remove(&pipe) else {
                continue;
            };
            let keep = self.drive(&mut line, now, &mut bytes);
            let out = line.take();
            if !out.is_empty() {
                self.told.datagrams += 1;
                self.told.bytes += out.len() as u64;
                acts.push((pipe, PipeAct::Write(out)));
            }
            if keep && (line.opened || now < line.born + PATIENCE) {
                self.lines.insert(pipe, line);
            } else {
                acts.push((pipe, PipeAct::Close));
            }
        }
        acts
    }

    /// One pipe's part. False: it is to be closed.
    fn drive(&mut self, line: &mut Line, now: Duration, budget: &mut usize) -> bool {
        if !line.up || line.blocked {
            return true;
        }
        let first = line.said == 0;
        match self.attack {
            PipeAttack::Silent => self.told.datagrams += u64::from(first),
            PipeAttack::Knock => {
                self.told.datagrams += 1;
                return false;
            }
            PipeAttack::SlowSelect => slow(line, now, &opening("/noise")),
            PipeAttack::SlowNoise => slow(line, now, &[&[0, 32][..], &[9; 32]].concat()),
            PipeAttack::SlowTls => slow(line, now, &[&[22, 3, 1, 2, 0][..], &[1; 512]].concat()),
            PipeAttack::Proposals => {
                *budget = budget.saturating_sub(1_200);
                let words = self::line(&format!("/nothing/{:x}", self.random.bits())).repeat(20);
                line.say(&if first { [self::line("/multistream/1.0.0"), words].concat() } else { words });
            }
            PipeAttack::NoiseGarbage if first => {
                let message = self.noise();
                line.say(&[opening("/noise"), message].concat());
            }
            PipeAttack::TlsGarbage if first => {
                let len = self.random.below(2_000) as usize;
                line.say(&[opening("/tls/1.0.0"), self.random.bytes(len)].concat());
            }
            PipeAttack::NoiseGarbage | PipeAttack::TlsGarbage => {}
            _ => return self.through_tls(line, now, budget),
        }
        if matches!(self.attack, PipeAttack::SlowNoise | PipeAttack::SlowTls) && first {
            let security = if self.attack == PipeAttack::SlowNoise { "/noise" } else { "/tls/1.0.0" };
            line.say(&opening(security));
        }
        line.said += 1;
        true
    }

    /// A first message of Noise XX as nobody should write it.
    fn noise(&mut self) -> Vec<u8> {
        let body = match self.random.below(5) {
            // A point of small order (RFC 7748 section 6.1).
            0 => vec![0; 32],
            1 => Vec::new(),
            2 => self.random.bytes(31),
            3 => self.random.bytes(4_000),
            _ => self.random.bytes(32),
        };
        let length = if self.random.below(4) == 0 { u16::MAX } else { body.len() as u16 };
        [&length.to_be_bytes()[..], &body].concat()
    }

    fn through_tls(&mut self, line: &mut Line, now: Duration, budget: &mut usize) -> bool {
        if line.said == 0 {
            line.said = 1;
            let identity = Identity::new(self.random.seed(), self.attack.papers().unwrap_or(Papers::Good));
            line.say(&opening("/tls/1.0.0"));
            line.secure(identity.tls_with(self.provider.clone(), &[b"/yamux/1.0.0", b"libp2p"]));
            return true;
        }
        if !line.is_secure() {
            return true;
        }
        // The node has said something behind its handshake: it has taken ours.
        if !line.opened && !line.heard.is_empty() {
            line.opened = true;
            self.told.opened += 1;
            if self.attack == PipeAttack::Churn {
                return false;
            }
        }
        if line.opened && self.attack.is_inside() {
            while *budget > 0 && self.abuse(line, now, budget) {}
        }
        true
    }

    /// Says one thing inside of Yamux. False: nothing more for now.
    fn abuse(&mut self, line: &mut Line, now: Duration, budget: &mut usize) -> bool {
        let id = line.stream;
        let begin = line.out_len();
        let more = match self.attack {
            PipeAttack::SlowYamux => {
                slow(line, now, &yamux(DATA, SYN, id, 100));
                false
            }
            PipeAttack::SlowRequest => self.slow_request(line, now),
            PipeAttack::RapidReset => {
                let words = [opening(self.target.request), uvarint(8), vec![1; 8]].concat();
                let frames = [yamux(DATA, SYN, id, words.len() as u32), words, yamux(WINDOW, RST, id, 0)].concat();
                line.stream += 2;
                line.say(&frames);
                true
            }
            PipeAttack::ForcedResets => {
                line.stream += 2;
                line.say(&yamux(WINDOW, SYN, id, 0));
                true
            }
            PipeAttack::WindowOverflow => {
                line.say(&[yamux(WINDOW, SYN, id, 0), yamux(WINDOW, 0, id, u32::MAX).repeat(2)].concat());
                line.stream += 2;
                false
            }
            PipeAttack::EmptyFrames | PipeAttack::TinyFrames => self.small_frames(line),
            PipeAttack::Pings => {
                line.stream += 2;
                line.say(&yamux(PING, SYN, 0, id));
                true
            }
            PipeAttack::SynOversized => {
                line.say(&[yamux(DATA, SYN, id, 512 << 10), vec![7; 1_000]].concat());
                line.stream += 2;
                false
            }
            PipeAttack::BadFrames => {
                let [kind, flags, stream, length] = [5, 16, 9, 2_000].map(|end| self.random.below(end));
                let sensible = self.random.below(2) == 0;
                let noise = self.random.bytes(12);
                line.say(&if sensible { yamux(kind as u8, flags as u16, stream as u32, length as u32) } else { noise });
                true
            }
            PipeAttack::CreditAtClose if line.streams.len() == 8 => {
                line.say(&yamux(GO_AWAY, 0, 0, 0));
                false
            }
            _ => self.requests(line),
        };
        *budget = budget.saturating_sub(line.out_len().saturating_sub(begin).max(60));
        more
    }

    /// Frames that carry a byte or none, on one stream that is read.
    fn small_frames(&mut self, line: &mut Line) -> bool {
        if line.streams.is_empty() {
            let words = opening(self.target.pipe);
            line.say(&[yamux(DATA, SYN, line.stream, words.len() as u32), words].concat());
            line.streams.push((line.stream, CREDIT - 1_000));
        }
        let Some((id, left)) = line.streams.first_mut() else {
            return false;
        };
        let id = *id;
        if self.attack == PipeAttack::EmptyFrames {
            line.say(&yamux(DATA, 0, id, 0).repeat(50));
            return true;
        }
        // As far as the credit goes that everybody has.
        *left = left.saturating_sub(50);
        let more = *left > 0;
        if more {
            line.say(&[yamux(DATA, 0, id, 1), vec![7]].concat().repeat(50));
        }
        more
    }

    /// Opens what it may, says how large the request is, and as much of it as the window takes.
    fn requests(&mut self, line: &mut Line) -> bool {
        let streams = match self.attack {
            PipeAttack::Unread => 200,
            PipeAttack::ZeroWindow | PipeAttack::CreditAtClose => 8,
            _ => 64,
        };
        if line.streams.len() < streams {
            let size = if self.attack == PipeAttack::Giant { 200_000_000_000 } else { self.target.request_bytes_max as u64 };
            let words = [opening(self.target.request), uvarint(size)].concat();
            line.say(&[yamux(DATA, SYN, line.stream, words.len() as u32), words.clone()].concat());
            line.streams.push((line.stream, (CREDIT - words.len() as u64).min(size)));
            line.stream += 2;
            return true;
        }
        let count = line.streams.len();
        for _ in 0..count {
            line.turn = (line.turn + 1) % count;
            let (id, left) = &mut line.streams[line.turn];
            let part = (*left).min(1_100);
            if part > 0 {
                *left -= part;
                let id = *id;
                line.say(&[yamux(DATA, 0, id, part as u32), vec![9; part as usize]].concat());
                return true;
            }
        }
        false
    }

    /// Eight requests of which a byte comes per second.
    fn slow_request(&mut self, line: &mut Line, now: Duration) -> bool {
        if now < line.next_at {
            return false;
        }
        line.next_at = now + Duration::from_secs(1);
        let mut frames = Vec::new();
        for number in 0..8 {
            if line.streams.len() <= number {
                let words = [opening(self.target.request), uvarint(self.target.request_bytes_max as u64)].concat();
                frames.extend([yamux(DATA, SYN, line.stream, words.len() as u32), words].concat());
                line.streams.push((line.stream, 0));
                line.stream += 2;
            } else {
                frames.extend([yamux(DATA, 0, line.streams[number].0, 1), vec![7]].concat());
            }
        }
        line.say(&frames);
        false
    }
}

/// The next byte of `whole`, if a second has passed since the last; its last byte again when all was said.
fn slow(line: &mut Line, now: Duration, whole: &[u8]) {
    if now >= line.next_at {
        line.next_at = now + Duration::from_secs(1);
        let at = line.turn.min(whole.len() - 1);
        line.turn += 1;
        line.say(&whole[at..=at]);
    }
}
