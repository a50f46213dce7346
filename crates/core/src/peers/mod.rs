//! Peers' addresses: what they are worth, and how to find the one that works.
//!
//! * `scope`: how far an address reaches, by the registries of IANA
//! * `provenance`: where an address came from, and what speaks for it
//! * `book`: where peers may be reached; `shelves`: who has to go when it is full

pub mod book;
pub mod provenance;
pub mod scope;
mod shelves;

pub use book::Book;
pub use provenance::{Candidate, Evidence, Path, Source, Unusable};
pub use scope::Scope;
