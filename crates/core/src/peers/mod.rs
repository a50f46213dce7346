//! Peers' addresses: what they are worth, and how to find the one that works.
//!
//! * `scope`: how far an address reaches, by the registries of IANA
//! * `provenance`: where an address came from, and what speaks for it
//! * `own`: which addresses of this node whom is told
//! * `record`: signed peer records, made and verified
//! * `book`: where peers may be reached; `shelves`: who has to go when it is full

pub mod book;
pub mod own;
pub mod provenance;
pub mod record;
pub mod scope;
mod shelves;

pub use book::Book;
pub use own::Undeclarable;
pub use provenance::{Candidate, Evidence, Path, Source, Unusable};
pub use scope::Scope;
