//! Connections: what secures and multiplexes.

pub(crate) mod event;
pub(crate) mod quic;
pub mod tls;
