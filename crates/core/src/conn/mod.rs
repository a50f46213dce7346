//! Connections: what secures and multiplexes.

pub(crate) mod event;
pub(crate) mod pipe;
pub(crate) mod quic;
pub mod tls;
pub(crate) mod yamux;

#[doc(hidden)]
pub use yamux::fuzz::session as fuzz_yamux;
