//! `strait top`, `strait explain` and `strait trace`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use strait_core::PeerId;

use super::{duration, size};
use crate::config::ADMIN;

/// Whose admin port is asked.
#[derive(Debug, Args)]
pub struct Port {
    /// The admin port of the node
    #[arg(long, value_name = "IP:PORT", default_value = ADMIN)]
    pub admin: SocketAddr,
}

/// `strait top`
#[derive(Debug, Args)]
pub struct Top {
    #[allow(missing_docs)]
    #[command(flatten)]
    pub port: Port,
    /// Print what there is once, with the rates of one second, and end
    #[arg(long)]
    pub once: bool,
}

/// `strait explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// The identity of a peer, or the name of a protocol such as /strait/chunk/1; without it the node is explained
    #[arg(value_name = "PEERID-OR-PROTOCOL")]
    pub of: Option<String>,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub port: Port,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `strait trace`
#[derive(Debug, Args)]
pub struct Trace {
    /// The identity of a peer that is connected
    #[arg(value_name = "PEERID")]
    pub peer: PeerId,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub port: Port,
    /// How long (such as 30s or 5m; at most 10m)
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub lasts: Duration,
    /// Write at most so much (such as 500K or 16M; powers of 1024)
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    pub size: u64,
}
