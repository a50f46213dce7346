//! What a protocol on a stream is to the node that drives it, and what they tell each other.

use std::time::Duration;

use bytes::Bytes;

use super::StreamIo;
use crate::error::{Breach, RequestError, StreamError};
use crate::message::Message;
use crate::topic::TopicId;

/// What a machine waits for. Several may be set: any of them drives it again, and so does its deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// Bytes, an end or a reset from the peer.
    pub peer: bool,
    /// Room to write, which the peer gives by reading.
    pub room: bool,
    /// An [`Input`] of the application.
    pub app: bool,
    /// Memory: a reservation was refused.
    pub memory: bool,
    /// It is declared that this wait for the peer needs no deadline: the stream is the application's own.
    pub open_ended: bool,
}

/// What a machine says after it was driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes on when one of these changes.
    Wait(Waits),
    /// It is through: the stream can be forgotten when the transport has delivered what was written.
    Done,
}

impl Next {
    /// Waits for the peer's bytes.
    pub const PEER: Next = Next::Wait(Waits { peer: true, room: false, app: false, memory: false, open_ended: false });
    /// Waits for room to write. The peer's reset is noticed too.
    pub const ROOM: Next = Next::Wait(Waits { peer: false, room: true, app: false, memory: false, open_ended: false });
    /// Waits for the application, and notices when the peer gives up.
    pub const APP: Next = Next::Wait(Waits { peer: false, room: false, app: true, memory: false, open_ended: false });
    /// Waits for memory.
    pub const MEMORY: Next = Next::Wait(Waits { peer: false, room: false, app: false, memory: true, open_ended: false });
}

/// A protocol on one stream, as a state machine without I/O.
pub trait StreamMachine: Send {
    /// Goes as far as it can. Must be idempotent when nothing has changed.
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next;

    /// Allocated bytes of messages that it keeps, about.
    fn held(&self) -> u64 {
        0
    }
}

/// What the application tells a machine.
#[derive(Debug)]
pub enum Input {
    /// The reply to the request that this stream brought.
    Reply(Message),
    /// The request is declined with this code.
    Reject(u32),
    /// The next request on a stream that rests.
    Request(Message),
}

/// What a machine tells its node. Each stream has exactly one final outcome; [`Output::Agreed`],
/// [`Output::Arrived`], [`Output::Subscribed`], [`Output::Watching`] and [`Output::More`] are steps, and so is what comes right before [`Output::Rests`].
#[derive(Debug)]
pub enum Output {
    /// The listener agreed on a protocol.
    Agreed {
        /// Its number in the node's registry.
        protocol: usize,
        /// The stream is for several exchanges.
        reused: bool,
    },
    /// A request is complete.
    Arrived(Message),
    /// A request of ours has ended.
    Reply(Result<Message, RequestError>),
    /// The reply to the peer is in the transport's hands, or the peer has gone away before.
    Served(Result<usize, Breach>),
    /// That exchange was in order and is over, and its stream stays for the next one.
    Rests,
    /// A ping has come back.
    Pong(Result<Duration, RequestError>),
    /// An identify message (not decoded) has come, as an answer or as a push.
    Identity(Result<Bytes, RequestError>),
    /// A raw stream's dialer has the peer's agreement.
    Confirmed,
    /// A subscription is taken.
    Subscribed(TopicId),
    /// What the peer has asked to be told is not to be had here.
    Refused,
    /// A subscriber has been told everything: it is to be driven when its topic changes.
    Watching(TopicId),
    /// It could go on at once, and lets others have their turn.
    More,
    /// The stream failed before any protocol was agreed on, or while it was the application's.
    Failed(StreamError),
    /// Nothing to tell: the stream is over in order, or the application itself has declined.
    Quiet,
}
