//! What the streams of a node are for.

use crate::proto::{Request, StreamProtocol};
use crate::topic::TopicId;

/// What a stream is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// The peer opened it and has not said for what.
    Listener,
    /// Agreed on, and waiting for its turn within the protocol's `per_peer_max`.
    Queued,
    /// A request of the peer. `told`: the application has it.
    Server { protocol: usize, def: &'static Request, told: bool },
    /// A request of ours.
    Client { def: &'static Request },
    /// Kept for the next one.
    Resting { def: &'static Request },
    /// A stream of the peer that it keeps for its next request.
    Kept { protocol: usize, def: &'static Request },
    /// A raw stream that the peer opened.
    RawIn { protocol: usize },
    /// A raw stream that we opened.
    RawOut { def: &'static StreamProtocol },
    /// A peer's subscription; to which topic, once it has said so.
    Subscriber { protocol: usize, topic: Option<TopicId> },
    /// A ping of ours.
    Pinger,
    /// libp2p's own protocols, as the answering side.
    Answer(usize),
    /// Our own identify question or push.
    Own,
    /// All was said; the rest of it waits for room.
    Linger,
}

impl Role {
    /// The number of the protocol in whose `per_peer_max` it counts.
    pub(super) fn counted(self) -> Option<usize> {
        match self {
            Role::Server { protocol, .. }
            | Role::RawIn { protocol }
            | Role::Answer(protocol)
            | Role::Subscriber { protocol, .. } => Some(protocol),
            _ => None,
        }
    }

    /// The name under which it counts among those that we opened.
    pub(super) fn opened(self) -> Option<&'static str> {
        match self {
            Role::Client { def } => Some(def.name),
            Role::RawOut { def } => Some(def.name),
            _ => None,
        }
    }

    /// The topic that it is told.
    pub(super) fn topic(self) -> Option<TopicId> {
        match self {
            Role::Subscriber { topic, .. } => topic,
            _ => None,
        }
    }

    /// Whether what the peer has proposed and asked for is answered on it.
    pub(super) fn answers(self) -> bool {
        matches!(self, Role::Listener | Role::Server { .. })
    }

    pub(super) fn is_raw(self) -> bool {
        matches!(self, Role::RawIn { .. } | Role::RawOut { .. })
    }
}
