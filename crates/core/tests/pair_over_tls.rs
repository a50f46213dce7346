//! Two nodes on one pipe that TLS secures, with Yamux inside: all that `pair.rs` tests.

const OVER: Option<&[&str]> = Some(&["/tls/1.0.0"]);

#[path = "pair.rs"]
mod pair;
