//! `strait publish` and `strait watch`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use strait_core::Multiaddr;

use super::{Key, duration, size};

/// `strait publish`
#[derive(Debug, Args)]
pub struct Publish {
    /// The topic's name, such as sensors; others need it with the ticket
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Publish what is in this file, now and whenever it changes, instead of stdin: its lines are all there is, and keys that are gone from it are
    /// deleted
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    pub file: Option<PathBuf>,
    /// Each line of stdin counts: whoever reads too slowly for what is kept is told how many lines it missed
    #[arg(long)]
    pub log: bool,
    /// Keys at once; with --log, lines that are kept for those who read slowly
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keys_max: u32,
    /// The largest value (such as 700 or 64K)
    #[arg(long, value_name = "SIZE", default_value = "16K", value_parser = value_size)]
    pub value_max: u64,
    /// End when stdin ends, when all who are subscribed by then have been told, instead of serving on until stopped
    #[arg(long, conflicts_with = "file")]
    pub until_eof: bool,
    /// Print events on stdout, one JSON object a line (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// Listen at this address and port, for UDP and TCP, instead of free ports of all interfaces
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where others reach this machine, if not where it listens (such as /ip4/A.B.C.D/udp/PORT/quic-v1 of a port forward); may be given more than once
    #[arg(long, value_name = "MULTIADDR")]
    pub announce: Vec<Multiaddr>,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub key: Key,
}

/// `strait watch`
#[derive(Debug, Args)]
pub struct Watch {
    /// The ticket that `strait publish` printed, or an address such as /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3Koo...
    #[arg(value_name = "TICKET-OR-MULTIADDR")]
    pub target: String,
    /// The topic's name
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Only keys that begin so
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = prefix)]
    pub prefix: String,
    /// Be told at most once in this time (such as 500ms or 10s)
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub every: Option<Duration>,
    /// The topic is a log
    #[arg(long)]
    pub log: bool,
    /// End when all is shown that was there
    #[arg(long, conflicts_with = "log")]
    pub once: bool,
    /// Print JSON lines even on a terminal (docs/json.md); elsewhere that is done anyway
    #[arg(long)]
    pub json: bool,
}

/// The largest value that `watch` takes.
pub const VALUE_BYTES_MAX: u64 = 1 << 20;

fn value_size(text: &str) -> Result<u64, String> {
    let found = size(text)?;
    if found <= VALUE_BYTES_MAX { Ok(found) } else { Err("a value has at most 1M".to_owned()) }
}

fn interval(text: &str) -> Result<Duration, String> {
    let found = duration(text)?;
    if found <= Duration::from_secs(86_400) { Ok(found) } else { Err("at most a day (1d)".to_owned()) }
}

fn prefix(text: &str) -> Result<String, String> {
    if text.len() <= 255 { Ok(text.to_owned()) } else { Err("a prefix has at most 255 bytes".to_owned()) }
}
