//! Topics as the command has them: keys and values are text in lines, or whatever bytes another program publishes.

pub mod lines;
pub mod show;
pub mod table;

use bytes::Bytes;
use strait::{Latest, Lines, Topic};

use crate::args::VALUE_BYTES_MAX;

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 255;
/// Keys of one topic that `watch` takes.
pub const KEYS_MAX: usize = 1_000_000;

/// The definition that `publish` serves.
pub fn published(name: &str, keys_max: u32, value_max: u64) -> Topic<Bytes, Bytes, Latest> {
    let (keys, value) = (usize::try_from(keys_max).unwrap_or(KEYS_MAX), usize::try_from(value_max).unwrap_or(usize::MAX));
    Topic::latest("", keys, KEY_BYTES_MAX, value).named(name.to_owned())
}

/// The same as a log.
pub fn published_log(name: &str, lines_max: u32, value_max: u64) -> Topic<Bytes, Bytes, Lines> {
    let (lines, value) = (usize::try_from(lines_max).unwrap_or(KEYS_MAX), usize::try_from(value_max).unwrap_or(usize::MAX));
    Topic::log("", lines, KEY_BYTES_MAX, value).named(name.to_owned())
}

/// What `watch` takes: any topic of usual size.
pub fn watched(name: &str) -> Topic<Bytes, Bytes, Latest> {
    Topic::latest("", KEYS_MAX, 4 * KEY_BYTES_MAX, VALUE_BYTES_MAX as usize).named(name.to_owned())
}

/// The same as a log.
pub fn watched_log(name: &str) -> Topic<Bytes, Bytes, Lines> {
    Topic::log("", KEYS_MAX, 4 * KEY_BYTES_MAX, VALUE_BYTES_MAX as usize).named(name.to_owned())
}
