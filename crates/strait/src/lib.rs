//! strait: a peer-to-peer networking stack that stays up under load.
//!
//! On the wire it is libp2p over QUIC, so existing peers need not change. Inside, every queue has a bound, every peer is served in
//! turns, and every protocol has its limits in its definition.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use std::time::Duration;
//! use strait::{Incoming, Keypair, Node, Priority, Request};
//!
//! // A protocol is its limits: request and reply size, time to answer, how many at once per peer.
//! const BLOCK: Request = Request::new("/app/block/1", 1 << 10, 1 << 20, Duration::from_secs(2), 8);
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Node::builder().identity(Keypair::generate_ed25519()).listen("127.0.0.1:0".parse()?).start().await?;
//! let served = Arc::new(AtomicU64::new(0));
//! let count = served.clone();
//! // Handlers are async closures; they may capture whatever can be cloned.
//! server.serve(&BLOCK, Priority::Bulk, async move |request: Incoming| {
//!     count.fetch_add(1, Ordering::Relaxed);
//!     [b"block ", &request.body.into_bytes()[..]].concat()
//! })?;
//!
//! let client = Node::builder().start().await?;
//! client.connect(server.peer_id(), &server.listen_addrs()).await?;
//! let reply = client.request(server.peer_id(), &BLOCK, "seven").await?;
//! assert_eq!(&reply.into_bytes()[..], b"block seven");
//! assert_eq!(served.load(Ordering::Relaxed), 1);
//! client.close().await;
//! server.close().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod address;
mod builder;
mod connect;
mod driver;
mod error;
mod explain;
mod handler;
#[cfg(target_os = "linux")]
mod icmp;
mod node;
mod packets;
mod resend;
mod resolver;
mod runtime;
mod shared;
mod stream;
mod tcp;
mod topic;
mod trace;
pub mod turn;
#[cfg_attr(not(unix), path = "udp_elsewhere.rs")]
mod udp;
mod watch;

pub use address::{Way, quic_address, socket_address, tcp_address};
pub use builder::{Builder, TcpSecurity};
pub use error::{ConnectError, OpenError, PingError, ServeError, StartError};
pub use explain::{Explanation, Of, Sentence};
pub use handler::{Incoming, IntoReply};
pub use node::{Node, Stop};
pub use packets::{Packet, Packets};
pub use runtime::{Lookup, Runtime, Task};
pub use strait_core::peers::{Answer, Attempt, LookupError, Question, Record, Scope, Undeclarable};
pub use strait_core::proto::request::CODE_SLOW;
pub use strait_core::topic::{FollowError, PublishError, Refusal};
pub use strait_core::{
    AbuseRecord, Audit, Breach, Closed, ConfigError, ConnectionNow, Counters, DialError, Fault, Framing, Identity, Idle, Keypair,
    Limits, Message, Multiaddr, Now, Offence, Offender, PacketError, PacketProtocol, PeerId, PeerNow, Priority, PublicKey,
    Request, RequestError, StreamError, StreamProtocol, TooManyProtected,
};
pub use stream::{RecvHalf, SendHalf, Stream};
pub use topic::{
    Change, Codec, Interest, Interruption, Kind, Known, Latest, Line, Lines, Merged, Mirror, Publisher, Shown, SubscribeError,
    Subscription, Topic,
};
pub use trace::{QLOG_FILE_BYTES_MAX, QLOG_FILES_MAX, TRACE_WAITING_BYTES_MAX, TRACES_MAX, Trace, TraceError};
pub use turn::DriverCounters;

/// What a driver needs beside the nodes: for those who write another one, as the simulator does.
pub mod parts {
    pub use crate::driver::system_env;
    pub use crate::shared::Shared;
    pub use crate::tcp::{ACCEPT_REST, LINGER, LINGER_READS, UNSENT_BYTES};
    pub use strait_core::limits::{PIPE_CHUNK_BYTES_MAX, PIPE_WRITE_BYTES};
    pub use strait_core::{Config, ConnId, Env, Meta, PipeAction, PipeEnd, PipeEvent, SocketId, Transmit, WallClock};
}

/// The README's example, compiled and run like any other.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
