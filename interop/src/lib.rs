//! Interoperability of strait with other libp2p stacks: rust-libp2p, litep2p and js-libp2p.
//!
//! This crate is no part of the library. It holds a small node of each stack with a handle ([`libp2p_node`], [`litep2p_node`],
//! [`js_node`]) behind one interface ([`peer`]), what all of them say to each other ([`service`], [`roles`]), and the one list of
//! cases ([`cases`]) that runs over all combinations of stack, transport and direction ([`matrix`]); [`table`] writes down what came of it.
//! The tests under `tests/` run all that.

pub mod cases;
pub mod codec;
pub mod js_node;
pub mod libp2p_node;
pub mod libp2p_streams;
#[cfg(feature = "litep2p")]
pub mod litep2p_node;
pub mod matrix;
pub mod peer;
pub mod roles;
pub mod service;
pub mod strait_node;
pub mod table;
pub mod transport;
pub mod unified;
pub mod wait;
