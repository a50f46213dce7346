//! Peers' addresses: what they are worth, and how to find the one that works.
//!
//! * `scope`: how far an address reaches, by the registries of IANA

pub mod scope;
