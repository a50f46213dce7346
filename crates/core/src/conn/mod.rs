//! Connections: what secures and multiplexes.

pub(crate) mod quic;
pub mod tls;
