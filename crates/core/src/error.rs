//! Errors by whose fault they are, each saying what state is left.

use std::net::IpAddr;
use std::time::Duration;

use libp2p_identity::PeerId;

use crate::peers::names::LookupError;
use crate::peers::scope::Scope;

/// Whose fault something was. Everything else about an error is detail to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer broke a rule.
    Peer,
    /// Both sides are sound but share no protocol.
    Incompatible,
    /// A limit was reached.
    Limit,
    /// The caller used the library wrongly.
    Misuse,
    /// The network between failed, or the peer is gone.
    Network,
    /// An error in strait itself.
    Bug,
}

/// A configuration that cannot hold. No node was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The floors of all connections together are above the memory.
    #[error(
        "the limits do not fit: {connections_max} connections and {handshakes_max} handshakes with {connection_floor} bytes set aside for \
         each, {strangers_floor} bytes for first packets and the abuse feed, {book_bytes} for the address book and {dialling_floor} for dialling are more than memory_bytes = {memory_bytes}; what fits: connections_max = {fitting_connections}, or \
         memory_bytes = {fitting_memory}"
    )]
    FloorsDoNotFit {
        /// The budget, in bytes.
        memory_bytes: u64,
        /// How many connections were asked for.
        connections_max: u32,
        /// How many handshakes in flight.
        handshakes_max: u32,
        /// Bytes set aside for each.
        connection_floor: u64,
        /// Bytes set aside for strangers and for the abuse feed.
        strangers_floor: u64,
        /// Bytes set aside for the address book.
        book_bytes: u64,
        /// Bytes set aside for what is to be dialled.
        dialling_floor: u64,
        /// The memory that would fit.
        fitting_memory: u64,
        /// The number of connections that would fit.
        fitting_connections: u64,
    },
    /// Two numbers contradict each other.
    #[error("the limits clash: {what} ({low} against {high}); change one of the two")]
    Clash {
        /// Which numbers.
        what: &'static str,
        /// The one that has to be the smaller.
        low: u64,
        /// The one that has to be the larger.
        high: u64,
    },
    /// A topic cannot be published.
    #[error("the topic {name} cannot be published: {why}")]
    Topic {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A number that has to be above zero is not.
    #[error("the limit {what} is too small to work with; leave it at its default or set it higher")]
    TooSmall {
        /// Which number.
        what: &'static str,
    },
    /// A protocol's definition cannot be kept under these limits.
    #[error("protocol {name}: {why}")]
    Protocol {
        /// Its name.
        name: &'static str,
        /// What does not fit, and what would.
        why: String,
    },
    /// The identity or its certificate could not be used.
    #[error("the identity key cannot be used for TLS: {0}; make a new one of type Ed25519")]
    Identity(String),
}

/// No further peer can be protected, so that slots are left for the others. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{max} peers are protected, which is all that the number of slots allows; unprotect one, or raise connections_max")]
pub struct TooManyProtected {
    /// How many may be.
    pub max: u32,
}

/// Why a connection could not be made. Nothing is left of the attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Another identity answered at this address.
    #[error(
        "wanted {wanted} but {found} answered: the address now belongs to another node, or somebody is in between; ask for a fresh address or ticket"
    )]
    WrongPeer {
        /// The identity that was asked for.
        wanted: PeerId,
        /// The identity that answered.
        found: PeerId,
    },
    /// The machine at this address says that nothing listens at this port.
    #[error(
        "nothing listens at this port, says the machine there or a firewall before it: most likely the program has ended or was started again at another port; check that it runs, or ask for a fresh address or ticket"
    )]
    NothingListens,
    /// There is no way from here to that address.
    #[error("there is no way to that address ({0}); check that this machine is online and has that IP version")]
    NoWay(String),
    /// No answer within the deadline.
    #[error(
        "no answer within {waited:?}: most likely the machine is off or elsewhere, or a firewall drops what is sent there; check that the other side runs and that its port is open"
    )]
    NoAnswer {
        /// How long it was tried.
        waited: Duration,
    },
    /// Something answered and then did not go on.
    #[error(
        "the connection was made, but {at} was not complete after {waited:?}: what listens there is overloaded or stuck, or no libp2p node; try again later or check the address"
    )]
    Stuck {
        /// What was under way.
        at: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The other side answered and refused.
    #[error("the other side refused the connection: {0}")]
    Refused(String),
    /// It speaks another protocol than libp2p over QUIC version 1.
    #[error("the other side speaks no common version or protocol: {0}")]
    Incompatible(String),
    /// The address cannot be used by this node.
    #[error("this address cannot be dialled: {0}")]
    BadAddress(String),
    /// A name in it leads nowhere.
    #[error("the name {name} {error}")]
    Name {
        /// The name that was looked up.
        name: String,
        /// What went wrong.
        error: LookupError,
    },
    /// A name of one network leads into another.
    #[error(
        "the name {name} leads to {ip}, which is {scope}: that is not dialled, since another machine has that address in each network; if it is right, use the address itself"
    )]
    NameOutOfScope {
        /// The name.
        name: String,
        /// What it leads to.
        ip: IpAddr,
        /// How far that reaches.
        scope: Scope,
    },
    /// The peer has more addresses than are tried at once.
    #[error("not tried: too many addresses; give those that are most likely right")]
    TooMany,
    /// It failed lately and is left alone for a while.
    #[error("not tried: it failed a moment ago and is left alone for another {left:.0?}")]
    Rests {
        /// For so long.
        left: Duration,
    },
    /// No slot or memory is free.
    #[error("this node has no room for another connection ({0}); close one or raise the limit")]
    Full(&'static str),
    /// The node is closing.
    #[error("this node is closing")]
    Closing,
    /// That peer is this node itself.
    #[error("that is this node's own identity")]
    Itself,
}

impl DialError {
    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            DialError::WrongPeer { .. } | DialError::Refused(_) | DialError::Stuck { .. } => Fault::Peer,
            DialError::NoAnswer { .. } | DialError::NothingListens | DialError::NoWay(_) | DialError::Name { .. } => {
                Fault::Network
            }
            DialError::Incompatible(_) => Fault::Incompatible,
            DialError::Full(_) | DialError::TooMany | DialError::Rests { .. } => Fault::Limit,
            DialError::BadAddress(_) | DialError::NameOutOfScope { .. } | DialError::Closing | DialError::Itself => Fault::Misuse,
        }
    }
}

/// Why a connection ended. All its streams are gone and all its memory is given back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// This side closed it.
    #[error("this node closed the connection: {0}")]
    Here(&'static str),
    /// The peer closed it in order.
    #[error("the peer closed the connection (code {code}{reason})")]
    There {
        /// The application's code, 0 when all is well.
        code: u64,
        /// The peer's own words, quoted and cut, or empty.
        reason: String,
    },
    /// The peer has ended the stream on which it was asked once more, and had not looked at the request: the connection may still be there.
    #[error("the peer has ended the stream on which it was asked, most likely because it shuts down; ask again")]
    Leaving,
    /// The peer restarted and knows the connection no more.
    #[error("the peer has forgotten the connection: most likely it was restarted; connect again")]
    Forgotten,
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the peer for {0:?}: it is gone, or the network between is; connect again")]
    Silent(Duration),
    /// This machine has no longer the address that the connection was bound to, and it could not go on from another.
    #[error(
        "the address of this machine that it was bound to is gone, and it could not go on from another: most likely the network was changed; connect again"
    )]
    Moved,
    /// The peer broke the rules of the transport.
    #[error("the peer broke the rules of the transport: {0}")]
    Broken(String),
}

/// Why a request got no reply. Its stream is gone; other requests of the same connection are not touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not connected, and connecting failed.
    #[error("could not connect: {0}")]
    Dial(#[from] DialError),
    /// No address of the peer is known.
    #[error("no address of {0} is known; connect to it first, with an address or a ticket")]
    NoAddress(PeerId),
    /// The connection ended under way. The peer may or may not have seen the request, and done what it asks for.
    #[error("the connection ended before the reply, so the peer may have done what was asked or not: {0}")]
    Lost(Closed),
    /// The peer does not speak this protocol. It has not seen the request.
    #[error("the peer does not speak {0}; most likely its version or its role differs")]
    Unsupported(&'static str),
    /// The peer saw the request and declined.
    #[error("the peer declined the request (code {0})")]
    Rejected(u64),
    /// The first byte of the reply did not come in time.
    #[error("the peer took the request but did not begin to answer within {0:?}: it is overloaded or stuck; try again later")]
    NoAnswer(Duration),
    /// The reply began and then came too slowly.
    #[error("the reply came at less than {bytes} bytes in {within:?}, after {got} bytes: the peer is stuck or stalls on purpose")]
    Stalled {
        /// What had to come.
        bytes: u64,
        /// In which time.
        within: Duration,
        /// What had come in all.
        got: u64,
    },
    /// The whole exchange took longer than its protocol allows.
    #[error("the exchange was not complete after {0:?}, which its protocol allows")]
    TooLong(Duration),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Broken(Breach),
    /// The request is above the protocol's own limit. Nothing was sent.
    #[error("the request has {len} bytes, its protocol allows {max}; split it")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The protocol's definition cannot be kept under this node's limits. Nothing was sent.
    #[error(transparent)]
    Definition(#[from] ConfigError),
    /// The node is closing. Nothing was sent.
    #[error("this node is closing")]
    Closing,
}

impl RequestError {
    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            RequestError::Dial(error) => error.fault(),
            RequestError::Lost(_) => Fault::Network,
            RequestError::Unsupported(_) => Fault::Incompatible,
            RequestError::NoAddress(_) | RequestError::TooLarge { .. } | RequestError::Definition(_) | RequestError::Closing => {
                Fault::Misuse
            }
            _ => Fault::Peer,
        }
    }
}

/// How a peer broke a protocol on one stream. That stream is reset, nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// More bytes than the protocol allows were announced or sent.
    #[error("a message of {len} bytes where {max} are allowed")]
    TooLarge {
        /// What was announced, or had come by then.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Cut,
    /// A message, or its reading, stood still or took longer than it may.
    #[error("too little moved in the time that the message may take")]
    Slow,
    /// Bytes that the protocol does not know at this point.
    #[error("malformed or out of order: {0}")]
    Malformed(&'static str),
    /// The peer reset its side with this code.
    #[error("reset by the peer (code {0})")]
    Reset(u64),
}

/// Why a raw stream's operation failed. After an error the stream's half is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Lost(Closed),
    /// The peer reset its sending side: what came before was delivered, the rest never comes.
    #[error("the peer reset the stream (code {0})")]
    Reset(u64),
    /// The peer asked us to stop sending.
    #[error("the peer wants no more of this stream (code {0})")]
    Stopped(u64),
    /// The peer does not speak the protocol.
    #[error("the peer does not speak {0}")]
    Unsupported(&'static str),
    /// No life within the protocol's idle limit, or its negotiation took too long.
    #[error("nothing moved on the stream for {0:?}")]
    Idle(Duration),
    /// The peer broke the rules.
    #[error("the peer broke the protocol: {0}")]
    Broken(Breach),
    /// This half was finished, reset or stopped here before.
    #[error("this half of the stream is closed already")]
    ClosedHere,
}

impl StreamError {
    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            StreamError::Lost(_) => Fault::Network,
            StreamError::Unsupported(_) => Fault::Incompatible,
            StreamError::Idle(_) => Fault::Limit,
            StreamError::ClosedHere => Fault::Misuse,
            StreamError::Reset(_) | StreamError::Stopped(_) | StreamError::Broken(_) => Fault::Peer,
        }
    }
}
