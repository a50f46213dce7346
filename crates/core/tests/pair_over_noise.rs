//! Two nodes on one pipe that Noise secures, with Yamux inside: all that `pair.rs` tests.

const OVER: Option<&[&str]> = Some(&["/noise"]);

#[path = "pair.rs"]
mod pair;
