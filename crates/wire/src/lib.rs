//! Codecs of the strait networking stack: bytes to values and back.
//!
//! Nothing here reads, waits, or keeps state: a caller hands in the bytes it has, and gets a value and
//! how many bytes it took, or the answer that more are needed, or an error. Three rules hold everywhere:
//!
//! * **Total.** Any bytes give a value or an error, never a panic. `fuzz_entry` states what each decoder
//!   promises; the fuzz targets and the tests run the same functions.
//! * **Limits come first.** A length that somebody announces is compared with the caller's limit before
//!   anything is stored, and decoders borrow from their input: they allocate nothing, but for a list whose
//!   length the caller bounded.
//! * **One way to write it.** What we encode is the shortest form, so that equal values are equal bytes.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic)
)]

pub mod framing;
pub mod fuzz_entry;
pub mod identify;
pub mod multistream;
pub mod noise;
pub mod protobuf;
pub mod record;
pub mod topic;
pub mod varint;
pub mod yamux;
