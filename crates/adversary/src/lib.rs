//! Hostile peers, byte by byte: a raw QUIC v1 client (RFC 9000, RFC 9001) with a real Ed25519 identity, so that attacks go on after
//! the handshake, and a [`Bot`] for each [`Attack`] that strait has to stand; the same on pipes such as TCP, a [`PipeBot`] for each
//! [`PipeAttack`].
//!
//! Nothing here shares code with strait or with its QUIC crate; rustls gives handshake and keys, all else is written by hand. It does no
//! I/O and knows no clock: datagrams and time come in, datagrams go out, the same for the same seed. So one bot serves in the simulator
//! (`crates/sim/tests/siege_*.rs`) and over real sockets (`bench siege`). It attacks whoever its owner sends its datagrams to; it is
//! for tests on this machine, and no crate that users compile depends on it.
#![forbid(unsafe_code)]

pub mod attacks;
pub mod client;
pub mod identity;
pub mod packet;
pub mod pipes;
pub mod random;
pub mod read;
pub mod wire;

pub use attacks::{Attack, Bot, Out, Target, Told};
pub use client::Client;
pub use identity::{Identity, Papers};
pub use pipes::{PipeAct, PipeAttack, PipeBot};
pub use random::Random;
