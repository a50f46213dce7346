//! `strait node`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use strait_core::Multiaddr;
use tracing::level_filters::LevelFilter;

use super::Key;
use crate::config;

/// `strait node`
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Read the configuration from this TOML file; flags beside it count more (deploy/strait.toml has every setting)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen for other nodes at this address and port, for UDP and TCP; may be given more than once
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Where others reach this node, if not where it listens; may be given more than once
    #[arg(long, value_name = "MULTIADDR")]
    pub announce: Vec<Multiaddr>,
    /// Where metrics, health and the page are, or "off" [default: 127.0.0.1:9464]
    #[arg(long, value_name = "IP:PORT", value_parser = admin)]
    pub admin: Option<Admin>,
    /// Keep this peer connected: an address that ends with /p2p/ and its identity; may be given more than once
    #[arg(long, value_name = "MULTIADDR")]
    pub peer: Vec<Multiaddr>,
    /// Set a limit, such as memory_bytes=1G or idle_timeout=45s; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    pub limit: Vec<String>,
    /// Append evidence of abuse to this file, one JSON object a line, for firewalls (docs/abuse-feed.md)
    #[arg(long, value_name = "FILE")]
    pub abuse_log: Option<PathBuf>,
    /// How much it says on stderr while it runs: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = config::log)]
    pub log: Option<LevelFilter>,
    /// Print every setting with its words and its default, as a configuration file, and end
    #[arg(long)]
    pub reference: bool,
    /// Say whether the configuration can be used, and end
    #[arg(long, conflicts_with = "reference")]
    pub check: bool,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub key: Key,
}

/// Where the admin port is to be, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin(pub Option<SocketAddr>);

fn admin(text: &str) -> Result<Admin, String> {
    config::admin(text).map(Admin)
}
