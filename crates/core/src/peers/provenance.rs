//! Where an address came from, what speaks for it, and what follows for whether it may be dialled.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::scope::{self, Scope};
use crate::evict::network_group;
use crate::limits::{BOOK_CLAIM_FOR, BOOK_INBOUND_FOR};

/// The path over which a remote told something: how far it reaches, and in which network the remote was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// How far it reaches.
    pub scope: Scope,
    pub(super) group: [u8; 5],
}

impl Path {
    /// The path to a remote that is seen at `ip`.
    pub fn to(ip: IpAddr) -> Path {
        Path { scope: scope::of(ip), group: network_group(ip) }
    }

    /// The same, taken for one that reaches at least as far as `scope`.
    #[must_use]
    pub fn at_least(self, scope: Scope) -> Path {
        Path { scope: self.scope.max(scope), ..self }
    }
}

/// Where an address came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The application or a person: a ticket, a command line, a configuration. Any address of a host may be dialled for them, and none expires.
    Application,
    /// The peer itself, in identify.
    Identify {
        /// The connection over which it said so.
        path: Path,
    },
    /// The peer itself, in a record that it signed (libp2p RFC 0003).
    Record {
        /// The record's sequence number.
        seq: u64,
        /// The connection over which it came.
        path: Path,
    },
    /// The peer was seen to come from there.
    Inbound {
        /// The connection.
        path: Path,
    },
    /// Another peer, who may have any reason to say so.
    Hearsay {
        /// The connection over which it was said.
        path: Path,
    },
}

impl Source {
    /// The path over which it came, if it came from a remote.
    pub fn path(&self) -> Option<Path> {
        match self {
            Source::Application => None,
            Source::Identify { path } | Source::Record { path, .. } | Source::Inbound { path } | Source::Hearsay { path } => {
                Some(*path)
            }
        }
    }

    /// How well it vouches: later ones better.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Source::Hearsay { .. } => 0,
            Source::Inbound { .. } => 1,
            Source::Identify { .. } => 2,
            Source::Record { .. } => 3,
            Source::Application => 4,
        }
    }

    /// How long what it tells is kept. `None`: for ever.
    pub(super) fn lasts(&self) -> Option<Duration> {
        match self {
            Source::Application => None,
            Source::Inbound { .. } => Some(BOOK_INBOUND_FOR),
            _ => Some(BOOK_CLAIM_FOR),
        }
    }
}

/// The best that speaks for an address. In order: later ones are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// Somebody said so.
    None,
    /// The peer said so and signed it.
    Signed {
        /// The record's sequence number.
        seq: u64,
    },
    /// A dial-back has shown that it is reached from elsewhere (AutoNAT).
    DialBack {
        /// When.
        at: Instant,
    },
    /// This node has reached the peer there.
    Worked {
        /// When that began last.
        at: Instant,
    },
}

impl Evidence {
    /// Whether more than words speak for it.
    pub fn is_proof(self) -> bool {
        matches!(self, Evidence::DialBack { .. } | Evidence::Worked { .. })
    }
}

/// Why an address is not kept. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It begins neither with an IP address nor with a name.
    #[error("it begins with no IP address and no name")]
    NoHost,
    /// It can be the address of no host.
    #[error("it is {0}: no single host has such an address")]
    NotAHost(Scope),
    /// It does not mean the same host here as where it was told.
    #[error("it is {scope}, and was told over a path that is {path}: it would lead elsewhere from here")]
    OutOfScope {
        /// How far it reaches.
        scope: Scope,
        /// How far the path does.
        path: Scope,
    },
    /// It names another peer at its end.
    #[error("it names another peer: {0}")]
    OtherPeer(PeerId),
    /// It is this node's own identity.
    #[error("it is this node itself")]
    Itself,
    /// It is too long to be kept.
    #[error("it has {bytes} bytes, and {max} are kept")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A newer record of this peer is known.
    #[error("it is of record {seq}, and record {known} of this peer is known")]
    Stale {
        /// The record's number.
        seq: u64,
        /// The newest known.
        known: u64,
    },
    /// There is no room beside what is better vouched for.
    #[error("the address book is full of addresses that are better vouched for")]
    Full,
}

/// An address that may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The address, without the peer's identity at its end.
    pub address: Multiaddr,
    /// How far it reaches; of a name, as far as the name alone tells.
    pub scope: Scope,
    /// The best that speaks for it.
    pub evidence: Evidence,
    /// How often dialling it has failed since it last worked.
    pub failures: u32,
    /// When it failed last.
    pub failed_at: Option<Instant>,
    /// The nearest path over which a remote told it; `None` when the application did.
    pub told_over: Option<Scope>,
}

impl Candidate {
    /// Whether `ip`, to which its name was resolved, may be dialled. A name that a remote told has to hold over the path by which it came, as
    /// an address would have; for the application any host may be dialled.
    pub fn may_reach(&self, ip: IpAddr) -> bool {
        match self.told_over {
            Some(path) => scope::of(ip).holds_over(path),
            None => scope::of(ip).is_host(),
        }
    }
}
