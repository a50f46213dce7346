//! `strait top` and `strait explain`.

use std::net::SocketAddr;

use clap::Args;

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
