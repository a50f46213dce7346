//! The protocols: each a pair of state machines on a stream, with its limits in its definition.

#[doc(hidden)]
pub mod fuzz;
pub mod identify;
pub mod pace;
pub mod packet;
pub mod ping;
pub mod raw;
pub mod request;
pub mod reuse;
pub mod select;
pub mod topic;

use std::time::Duration;

pub use packet::{PacketError, PacketProtocol};
pub use raw::{Idle, StreamProtocol};
pub use request::{Framing, Request};

use crate::error::ConfigError;
use crate::limits::Limits;
use crate::message::Message;

/// Which bytes leave first when several streams of a connection have some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// After everything else.
    Bulk,
    /// The usual.
    #[default]
    Normal,
    /// At the next packet. Over QUIC, streams of the same connection that are less urgent keep less under way for 10 s after the last such byte, about what the
    /// path moves in three round trips: what has left cannot be overtaken.
    Urgent,
}

/// What a listener may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    Request(&'static Request),
    Stream(&'static StreamProtocol),
    Identify,
    IdentifyPush,
    Ping,
    Topics,
    /// With its tag.
    Packets(&'static PacketProtocol, [u8; packet::TAG_BYTES]),
}

/// A protocol that this node answers, as a dialer has proposed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The protocol's number in the registry.
    pub(crate) number: usize,
    /// The stream is for several exchanges.
    pub(crate) reused: bool,
}

impl Found {
    /// What the proposal had behind the protocol's name.
    pub(crate) fn suffix(self) -> &'static str {
        if self.reused { reuse::SUFFIX } else { "" }
    }
}

/// One protocol that this node answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) served: Served,
    pub(crate) priority: Priority,
    pub(crate) per_peer_max: u16,
}

impl Entry {
    fn is_reusable(&self) -> bool {
        matches!(self.served, Served::Request(def) if reuse::allows(def))
    }
}

/// What this node answers, in the order in which it was registered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    entries: Vec<Entry>,
}

impl Registry {
    /// With libp2p's own protocols, which every node answers.
    pub(crate) fn new() -> Registry {
        let own = |name, served, per_peer_max| Entry { name, served, priority: Priority::Normal, per_peer_max };
        Registry {
            entries: vec![
                own(identify::NAME, Served::Identify, identify::PER_PEER_MAX),
                own(identify::PUSH_NAME, Served::IdentifyPush, identify::PER_PEER_MAX),
                own(ping::NAME, Served::Ping, ping::PER_PEER_MAX),
            ],
        }
    }

    /// Adds a protocol and returns its number.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<usize, ConfigError> {
        let refuse = |why: String| Err(ConfigError::Protocol { name: entry.name, why });
        if let Err(error) = strait_wire::multistream::check_name(entry.name) {
            return refuse(error.to_string());
        }
        if self.entries.iter().any(|known| known.name == entry.name) {
            return refuse("it is served already".to_owned());
        }
        if self.entries.len() >= PROTOCOLS_MAX {
            return refuse(format!("a node serves at most {PROTOCOLS_MAX} protocols"));
        }
        self.entries.push(entry);
        Ok(self.entries.len().saturating_sub(1))
    }

    /// What a stream is opened for: never packets (PK-05).
    pub(crate) fn find(&self, name: &str) -> Option<Found> {
        let position = |is: &dyn Fn(&Entry) -> bool| self.entries.iter().position(is);
        let plain = position(&|entry| entry.name == name && !matches!(entry.served, Served::Packets(..)));
        if let Some(number) = plain {
            return Some(Found { number, reused: false });
        }
        let name = name.strip_suffix(reuse::SUFFIX)?;
        let number = position(&|entry| entry.name == name && entry.is_reusable())?;
        Some(Found { number, reused: true })
    }

    /// What packets with this tag are for.
    pub(crate) fn packets(&self, tag: [u8; packet::TAG_BYTES]) -> Option<usize> {
        self.entries.iter().position(|entry| matches!(entry.served, Served::Packets(_, of) if of == tag))
    }

    /// Which protocol a packet that has come is of, and its body. `None` for what was not told, or is larger than its protocol allows (PK-03).
    pub(crate) fn packet<'a>(&self, packet: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let (tag, body) = packet.split_first_chunk()?;
        let number = self.packets(*tag)?;
        let fits = |entry: Entry| matches!(entry.served, Served::Packets(def, _) if body.len() <= def.packet_bytes_max);
        self.get(number).is_some_and(fits).then_some((number, body))
    }

    pub(crate) fn name(&self, number: usize) -> &'static str {
        self.entries.get(number).map_or("", |entry| entry.name)
    }

    pub(crate) fn get(&self, number: usize) -> Option<Entry> {
        self.entries.get(number).copied()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|entry| entry.name)
    }

    /// What is proposed for streams that are to be used again.
    pub(crate) fn reusable(&self) -> impl Iterator<Item = String> {
        self.entries.iter().filter(|entry| entry.is_reusable()).map(|entry| reuse::proposal(entry.name))
    }
}

/// Identify tells all names in one message of 4 KiB, and a proposal is compared with each.
const PROTOCOLS_MAX: usize = 64;

/// Whether a request of this definition can ever be granted memory.
pub(crate) fn check_request(def: &'static Request, limits: &Limits) -> Result<(), ConfigError> {
    let refuse = |why: String| Err(ConfigError::Protocol { name: def.name, why });
    if let Err(error) = strait_wire::multistream::check_name(def.name) {
        return refuse(error.to_string());
    }
    // What either side reserves before it keeps a byte: the message that comes, at its worst size in memory, and the other one.
    let both = |comes: usize, goes: usize| (comes as u64).saturating_mul(Message::HELD_FACTOR).saturating_add(goes as u64);
    let (request, reply) = (def.request_bytes_max, def.reply_bytes_max);
    let needed = both(request, reply).max(both(reply, request).saturating_add(Limits::streams_cost(1)));
    let room = limits.message_room();
    if needed > room {
        return refuse(format!(
            "requests of {request} bytes with replies of {reply} can never be granted: an exchange needs {needed} bytes, because what \
             comes may take twice its size, and a connection has {room} beside its windows; split the messages, or raise \
             connection_bytes_max to {}",
            limits.room_for(needed)
        ));
    }
    if def.per_peer_max == 0 || def.deadline == Duration::ZERO {
        return refuse("per_peer_max and deadline have to be above zero".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 1 << 20;
    static BOTH: Request = Request::new("/app/both/1", MESSAGE, MESSAGE, Duration::from_secs(1), 1);

    #[test]
    fn a_definition_needs_room_for_both_messages_at_once() {
        let mut limits = Limits::default();
        for inbox in [0, limits.inbox_bytes_max, 64 << 20] {
            limits.inbox_bytes_max = inbox;
            limits.connection_bytes_max = 1 << 20;
            let error = check_request(&BOTH, &limits).expect_err("too little").to_string();
            let advice = error.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number at the end");
            limits.connection_bytes_max = advice;
            assert_eq!(check_request(&BOTH, &limits), Ok(()), "the advice does it");
            limits.connection_bytes_max -= 2;
            assert!(check_request(&BOTH, &limits).is_err(), "and hardly less does");
        }
    }
}

#[cfg(test)]
mod machine_tests;
