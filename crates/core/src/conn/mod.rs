//! Connections: what secures and multiplexes.

pub(crate) mod event;
pub(crate) mod pipe;
pub(crate) mod piped;
#[cfg(test)]
mod piped_tests;
pub(crate) mod quic;
pub mod tls;
pub(crate) mod transport;
pub(crate) mod yamux;

#[doc(hidden)]
pub use pipe::fuzz::securing as fuzz_pipe;
#[doc(hidden)]
pub use yamux::fuzz::session as fuzz_yamux;
