//! A deterministic world for strait nodes: virtual time, links, faults and checkers.
#![forbid(unsafe_code)]

pub mod check;
pub mod crypto;
pub mod exec;
pub mod host;
pub mod link;
pub mod net;
pub mod raw;
pub mod rng;
pub mod scenario;
pub mod trace;
pub mod world;

pub use exec::{Clock, JoinHandle, Spawner};
pub use host::{Cost, Host, Turn, Turned};
pub use link::Link;
pub use net::{Datagram, HostId, Net};
pub use scenario::scenario;
pub use world::World;
