//! A deterministic world for strait nodes: virtual time, links, faults and checkers. Made for strait's own
//! tests, and public so that you can test your app in it.
//!
//! The nodes are real: the same core, the same driver turn, real QUIC, TLS, Noise and Yamux as in production. Only
//! what they take from outside is replaced: time, randomness, the network (TCP is modelled too, see [`tcp`]) and the executor. So a run takes no
//! longer than its computation, and is the same, byte for byte, for the same seed.
//!
//! ```
//! use std::time::Duration;
//! use strait::{Incoming, Priority, Request};
//! use strait_sim::{Link, NodeConfig, scenario};
//!
//! const GREET: Request = Request::new("/app/greet/1", 100, 200, Duration::from_secs(5), 4);
//!
//! // Two seeds, each run twice and compared. A failure prints the command that replays it.
//! scenario("greetings_pass_a_bad_network", 2, |world| {
//!     world.net().set_default(Link::new(Duration::from_millis(30)).loss(0.1));
//!     let server = world.node(NodeConfig::default());
//!     let client = world.node(NodeConfig::default());
//!     server
//!         .serve(&GREET, Priority::Normal, async move |request: Incoming| {
//!             [b"hello ", &request.body.into_bytes()[..]].concat()
//!         })
//!         .unwrap();
//!     let reply = world.block_on(async {
//!         client.connect(server.peer_id(), &[server.address()]).await.unwrap();
//!         client.request(server.peer_id(), &GREET, "world").await
//!     });
//!     assert_eq!(&reply.unwrap().into_bytes()[..], b"hello world");
//!     assert!(world.now() >= Duration::from_millis(120), "two round trips of virtual time");
//! });
//! ```
//!
//! # What can be done to a world
//! * Links ([`Link`], per direction): latency, jitter (which reorders), loss, duplication, bit flips, bandwidth
//!   with a bounded queue, cuts, for UDP or TCP alone too.
//! * Hosts ([`World`]): freeze, crash, kill and restart, a change of address behind their back
//!   ([`World::rebind`]) or of their own ([`World::move_node`]), a slow processor ([`Cost`]).
//! * What a node is reached over ([`NodeConfig::over`]): QUIC, TCP with TLS, TCP with Noise.
//! * Names ([`World::set_name`], [`World::set_texts`]): what all nodes' resolvers say.
//! * Other programs: anything that implements [`Host`], or a bare socket ([`World::raw_socket`]), for attackers.
//!
//! # What is checked after each step
//! * Each node's promises ([`check::promises`]): held <= granted <= budget, queues under their caps, nothing
//!   waits without a deadline unless it has declared so.
//! * Nothing spins: neither tasks nor nodes that ask for another turn without doing anything.
//! * With [`check::Flow`]: what is delivered is a prefix of what was sent, and if it is shorter there is exactly
//!   one error.
//! * With [`scenario()`]: the second run of a seed sends the same datagrams and TCP segments at the same times.
//!
//! # What an app must do to stay deterministic
//! Take time from [`World::clock`], randomness from [`rng::Random`], spawn with [`SimNode::spawner`], and use no
//! timers or I/O of tokio (its channels and locks are fine).
#![forbid(unsafe_code)]

pub mod check;
pub mod crypto;
pub mod exec;
pub mod host;
pub mod link;
mod names;
pub mod net;
pub mod node;
mod pipes;
pub mod raw;
pub mod rng;
pub mod scenario;
pub mod tcp;
pub mod trace;
pub mod world;

pub use exec::{Clock, JoinHandle, Spawner};
pub use host::{Cost, Host, Turn, Turned};
pub use link::Link;
pub use net::{Datagram, HostId, Net};
pub use node::{NodeConfig, Over, SimNode};
pub use scenario::scenario;
pub use tcp::{Tcp, TcpId};
pub use world::World;
