//! The pure heart of strait: a peer-to-peer node as a state machine.
//!
//! Time, randomness and bytes come in, bytes and events go out: no sockets, clock, threads or async in here. See [`Node`] for the
//! calls and `ARCHITECTURE.md` for the shape.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)
)]

mod abuse;
pub mod budget;
pub mod conn;
mod env;
mod error;
pub mod evict;
pub mod json;
pub mod limits;
mod message;
mod node;
pub mod peers;
pub mod proto;
mod report;
#[cfg(test)]
#[path = "../../../fuzz/seeds.rs"]
mod seeds;
pub mod stream;
pub mod topic;
mod trace;
pub mod turn;
mod wake;

pub use abuse::{ABUSE_ENTRY_BYTES, AbuseRecord, FORGIVEN, Offence, Offender};
pub use conn::piped::PipeEnd;
pub use conn::quic::{Meta, SocketId, Transmit};
pub use env::{Env, WallClock};
pub use error::{Breach, Closed, ConfigError, DialError, Fault, RequestError, StreamError, TooManyProtected};
pub use libp2p_identity::{Keypair, PeerId, PublicKey};
pub use limits::{LimitError, LimitValue, Limits};
pub use message::Message;
pub use multiaddr::Multiaddr;
pub use node::{
    CODE_NO_ROOM, Config, ConnId, Event, Identity, LookupId, Node, PipeAction, PipeEvent, RawRead, Refused, StreamRef,
    quic_address, tcp_address,
};
#[doc(hidden)]
pub use node::{fuzz_claims, fuzz_datagrams};
pub use proto::{Framing, Idle, PacketError, PacketProtocol, Priority, Request, StreamProtocol};
pub use report::{
    Audit, BOUNDS_US, Carrier, ConnectionNow, Counters, Histogram, Latency, Now, PeerNow, PerCarrier, PerProtocol, StreamsNow,
    Totals,
};
pub use trace::{Taken, TraceSink, Traces};
pub use wake::Why;
