//! Interoperability of strait with rust-libp2p 0.57 over QUIC.
//!
//! This crate is no part of the library: it holds a small rust-libp2p node with a handle
//! ([`libp2p_node::Libp2pNode`]), the codec both sides must agree on ([`codec`]), and bounded
//! waits that say what they waited for ([`wait`]). The tests under `tests/` put strait at the other end.

pub mod codec;
pub mod libp2p_node;
pub mod service;
pub mod strait_node;
pub mod wait;
