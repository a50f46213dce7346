//! One topic of many keys that change all the time, and thousands of subscribers, a part of them frozen: what does the publishing side hold, how old are the
//! values that are seen, and are last values lost? strait beside NATS and zenoh, one after the other, on loopback.
//!
//! Four processes: the publisher (with nats-server: a fifth), subscribers that read as fast as they can, and subscribers that are stopped with SIGSTOP while
//! the topic changes. When it has stopped changing they go on, and everybody has time to catch up.

mod orchestrate;
mod peers;
mod seen;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// strait beside NATS and zenoh: one topic, many subscribers, some frozen.
#[derive(Debug, Parser)]
#[command(name = "strait-bench-topics", version)]
struct Cli {
    #[command(flatten)]
    plan: Plan,
    /// Which to run, in this order
    #[arg(long, value_delimiter = ',', default_value = "strait,nats,zenoh")]
    stacks: Vec<Stack>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The numbers of a run.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// Connections of subscribers that read
    #[arg(long, default_value_t = 90, global = true)]
    pub connections: usize,
    /// Connections of subscribers that are frozen meanwhile
    #[arg(long, default_value_t = 10, global = true)]
    pub frozen: usize,
    /// Subscriptions on each connection
    #[arg(long, default_value_t = 100, global = true)]
    pub subscriptions: usize,
    /// Keys
    #[arg(long, default_value_t = 1_000, global = true)]
    pub keys: usize,
    /// Changes a second
    #[arg(long, default_value_t = 10_000, global = true)]
    pub rate: u64,
    /// Seconds of changes
    #[arg(long, default_value_t = 10, global = true)]
    pub seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stack {
    Strait,
    Nats,
    Zenoh,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The publishing side; started by the orchestrator
    #[command(hide = true)]
    Publisher { stack: Stack, at: String },
    /// Subscribers; started by the orchestrator
    #[command(hide = true)]
    Subscribers { stack: Stack, at: String, count: usize },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match cli.role {
        None => orchestrate::run(&cli.plan, &cli.stacks, cli.json),
        Some(Role::Publisher { stack, at }) => runtime.block_on(peers::publish(stack, &at, &cli.plan)),
        Some(Role::Subscribers { stack, at, count }) => runtime.block_on(peers::subscribe(stack, &at, count, &cli.plan)),
    }
}
