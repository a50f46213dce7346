//! The attacks, by families; [`Attack`] lists them, [`Bot`] performs one.

mod connected;
mod frames;
mod handshake;
mod protocols;
mod strangers;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use handshake::Again;
use rustls::crypto::CryptoProvider;

use crate::client::{Client, Closed};
use crate::identity::{Identity, Papers};
use crate::random::Random;
use crate::wire::Params;

/// A datagram to the node under attack, from the bot's address of this number: 0 is its own, the others are false or spare ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// The number of the address that it comes from.
    pub source: u16,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// The protocols that the node under attack serves.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// A length-prefixed request protocol that replies with what it was sent.
    pub request: &'static str,
    /// The largest request that it takes.
    pub request_bytes_max: usize,
    /// A protocol of raw streams whose bytes are read.
    pub pipe: &'static str,
}

/// What a bot has seen and done.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that came back to its own address.
    pub bytes_back: u64,
    /// Bytes that came back to its false addresses, which could be anybody's.
    pub bytes_astray: u64,
    /// Handshakes that were confirmed.
    pub opened: u64,
    /// Connections that the node ended.
    pub ended: u64,
    /// How the last of them was ended.
    pub last: Option<Closed>,
    /// The node sent something that is no QUIC: a finding.
    pub malformed: u64,
}

/// What all behaviours share.
pub(crate) struct Env {
    provider: Arc<CryptoProvider>,
    random: Random,
    target: Target,
    told: Told,
}

impl Env {
    /// A fresh connection with an identity of its own.
    fn client(&mut self, papers: Papers, params: &Params) -> Client {
        let identity = Identity::new(self.random.seed(), papers);
        Client::new(identity.tls(self.provider.clone()), &mut self.random, params)
    }
}

/// What a bot does, given datagrams and time.
trait Behaviour: Send {
    fn receive(&mut self, env: &mut Env, now: Duration, source: u16, datagram: &[u8]);
    /// About `budget` datagrams at most.
    fn tick(&mut self, env: &mut Env, now: Duration, budget: usize) -> Vec<Out>;
}

macro_rules! attacks {
    ($($(#[$doc:meta])* $name:ident $text:literal => $make:expr;)*) => {
        /// An attack of docs/attacks.md.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Attack {
            $($(#[$doc])* $name,)*
        }

        impl Attack {
            /// All of them.
            pub const ALL: &'static [Attack] = &[$(Attack::$name,)*];

            /// Its name for people and commands.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Attack::$name => $text,)*
                }
            }

            fn behaviour(self) -> Box<dyn Behaviour> {
                match self {
                    $(Attack::$name => Box::new($make),)*
                }
            }
        }
    };
}

attacks! {
    /// Row 1: first packets that are in order, each from another false address.
    SpoofedInitials "spoofed-initials" => strangers::Initials::default();
    /// Row 1: first packets whose protection is wrong.
    GarbageInitials "garbage-initials" => strangers::Garbage::Sealed;
    /// Row 1: first packets with a token of 1,000 bytes.
    HugeTokens "huge-tokens" => strangers::Garbage::Token;
    /// Row 3: datagrams of many packets, most of them cut, empty or for others.
    BadCoalesced "bad-coalesced" => strangers::Garbage::Coalesced;
    /// Row 24: packets of no connection, from false addresses: each may cause an answer.
    Reflection "reflection" => strangers::Garbage::Reflection;
    /// Row 26: datagrams without a byte, and with one.
    EmptyDatagrams "empty-datagrams" => strangers::Garbage::Empty;
    /// Row 6: connections of as many identities as it can have, all idle.
    Squat "squat" => handshake::Squat::default();
    /// Row 7: one byte of the handshake per second.
    SlowHandshake "slow-handshake" => handshake::abuse(Again::Slow(Duration::from_secs(1)));
    /// Row 25: transport parameters that make no sense.
    BadParams "bad-params" => handshake::abuse(Again::Params);
    /// Row 29: identities of RSA keys with 8,192 bits, and signatures that are wrong.
    RsaBurn "rsa-burn" => handshake::abuse(Again::Papers(Papers::Rsa(8192)));
    /// Row 30: certificates that are wrong in their last signature.
    WrongAtTheEnd "wrong-at-the-end" => handshake::abuse(Again::Papers(Papers::WrongAtTheEnd));
    /// Row 30: certificates that are cut.
    CutCertificate "cut-certificate" => handshake::abuse(Again::Papers(Papers::Cut));
    /// Row 30: certificates of 7,000 bytes.
    LargeCertificate "large-certificate" => handshake::abuse(Again::Papers(Papers::Padded(7_000)));
    /// Row 54: connects, and closes as soon as it is connected.
    Churn "churn" => handshake::abuse(Again::Churn);
    /// Row 13: STREAM frames without a byte.
    EmptyFrames "empty-frames" => frames::abuse(frames::Kind::Empty);
    /// Row 13: STREAM frames of one byte, in order.
    TinyFrames "tiny-frames" => frames::abuse(frames::Kind::Tiny);
    /// Row 16: PING frames, a thousand per packet.
    Pings "pings" => frames::abuse(frames::Kind::Pings);
    /// Row 17: PATH_CHALLENGE frames.
    PathChallenges "path-challenges" => frames::abuse(frames::Kind::Challenges);
    /// Row 18: NEW_CONNECTION_ID frames, each retiring all before.
    RetireIds "retire-ids" => frames::abuse(frames::Kind::RetireIds);
    /// Row 19: CRYPTO frames after the handshake, with a gap before them.
    EndlessCrypto "endless-crypto" => frames::abuse(frames::Kind::Crypto);
    /// Row 20: acknowledges what was not sent yet.
    OptimisticAck "optimistic-ack" => frames::abuse(frames::Kind::Optimistic);
    /// Row 21: ACK frames of hundreds of ranges.
    AckRanges "ack-ranges" => frames::abuse(frames::Kind::Ranges);
    /// Row 22: STREAM frames of one byte with gaps of one byte.
    Gaps "gaps" => frames::abuse(frames::Kind::Gaps);
    /// Row 23: each packet comes from another address.
    Migration "migration" => frames::abuse(frames::Kind::Migration);
    /// Row 25: frames of random types and contents.
    BadFrames "bad-frames" => frames::abuse(frames::Kind::Random);
    /// Says that it is blocked, in every packet.
    Blocked "blocked" => frames::abuse(frames::Kind::Blocked);
    /// Row 7: one byte of a protocol negotiation per second.
    SlowSelect "slow-select" => protocols::abuse(protocols::Kind::SlowSelect);
    /// Row 7: one byte of a request per second.
    SlowRequest "slow-request" => protocols::abuse(protocols::Kind::SlowRequest);
    /// Row 8: announces a request of 200 GB.
    Giant "giant" => protocols::abuse(protocols::Kind::Giant);
    /// Row 9: opens streams and resets them.
    RapidReset "rapid-reset" => protocols::abuse(protocols::Kind::RapidReset);
    /// Row 11: asks for much and lets nothing be sent.
    ZeroWindow "zero-window" => protocols::abuse(protocols::Kind::ZeroWindow);
    /// Row 16: bytes to be echoed by libp2p's ping, on as many streams as it may open.
    Echoes "echoes" => protocols::abuse(protocols::Kind::Echoes);
    /// Row 31: proposes one protocol after the other.
    Proposals "proposals" => protocols::abuse(protocols::Kind::Proposals);
    /// Row 33: says of itself thousands of addresses and protocols.
    Identify "identify" => protocols::abuse(protocols::Kind::Identify);
    /// Rows 50 and 51: requests as large and as many as it may, whose replies it does not read.
    Requests "requests" => protocols::abuse(protocols::Kind::Requests);
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Attack {
    type Err = String;

    fn from_str(text: &str) -> Result<Attack, String> {
        let found = Attack::ALL.iter().find(|attack| attack.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Attack::ALL.iter().map(|attack| attack.name()).collect();
            format!("there is no attack {text:?}; there are {}", names.join(", "))
        })
    }
}

/// One hostile peer.
pub struct Bot {
    behaviour: Box<dyn Behaviour>,
    env: Env,
}

impl Bot {
    /// Performs `attack`; all that it draws comes from `seed` and from the provider.
    #[must_use]
    pub fn new(attack: Attack, seed: u64, provider: Arc<CryptoProvider>, target: Target) -> Bot {
        let env = Env { provider, random: Random::new(seed), target, told: Told::default() };
        Bot { behaviour: attack.behaviour(), env }
    }

    /// Takes what came to its address of this number.
    pub fn receive(&mut self, now: Duration, source: u16, datagram: &[u8]) {
        let told = &mut self.env.told;
        *(if source == 0 { &mut told.bytes_back } else { &mut told.bytes_astray }) += datagram.len() as u64;
        self.behaviour.receive(&mut self.env, now, source, datagram);
    }

    /// Does its part for a moment: about `budget` datagrams at most. Call it about once a millisecond.
    pub fn tick(&mut self, now: Duration, budget: usize) -> Vec<Out> {
        let out = self.behaviour.tick(&mut self.env, now, budget);
        self.env.told.datagrams += out.len() as u64;
        self.env.told.bytes += out.iter().map(|out| out.bytes.len() as u64).sum::<u64>();
        out
    }

    /// What it has seen and done.
    #[must_use]
    pub fn told(&self) -> &Told {
        &self.env.told
    }
}
