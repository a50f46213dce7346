//! Peers' addresses: what they are worth, and how to find the one that works.
//!
//! * `scope`: how far an address reaches, by the registries of IANA
//! * `provenance`: where an address came from, and what speaks for it
//! * `own`: which addresses of this node whom is told
//! * `record`: signed peer records, made and verified
//! * `book`: where peers may be reached; `shelves`: who has to go when it is full
//! * `target`: what an address asks to be dialled
//! * `names`: what names in addresses lead to
//! * `race`: which address of a peer is tried next, and when
//! * `rest`: how long who could not be reached is left alone

pub mod book;
pub mod names;
pub mod own;
pub mod provenance;
pub mod race;
pub mod record;
pub(crate) mod rest;
pub mod scope;
mod shelves;
pub mod target;

pub use book::Book;
pub use names::{Answer, LookupError, Question, Record};
pub use own::Undeclarable;
pub use provenance::{Candidate, Evidence, Path, Source, Unusable};
pub use race::Attempt;
pub use scope::Scope;
pub use target::{Target, Way};
