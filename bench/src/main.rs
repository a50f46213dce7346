//! strait and its peers side by side: two processes, loopback, interleaved rounds.
//!
//! `cargo run --release -- --rounds 3 --cases bulk,requests --quick`; see README.md beside this crate.

mod child;
mod count;
mod flood;
mod link;
mod measure;
mod pair;
mod peers;
mod plan;
mod report;
mod siege;
mod stack;
mod table;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{
    pair::Record,
    plan::{Case, CaseName, Sizes},
    stack::{Family, Stack},
};

/// Runs strait and its peers on loopback, interleaved, and prints medians and ratios.
#[derive(Debug, Parser)]
#[command(name = "strait-bench", version)]
struct Cli {
    /// How often each stack runs each case; the stacks take turns within a round.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Which cases to run.
    #[arg(long, value_delimiter = ',', default_value = "bulk,requests")]
    cases: Vec<CaseName>,
    /// Over what: sets the stacks, and what their ratios are taken against.
    #[arg(long, default_value = "quic")]
    over: Family,
    /// Which stacks to run [default: all of --over].
    #[arg(long, value_delimiter = ',')]
    stacks: Vec<Stack>,
    /// The stack that the ratios of the table are taken against [default: quinn, or libp2p-tls over TCP].
    #[arg(long)]
    baseline: Option<Stack>,
    /// Small sizes: 64 MiB, 20,000 requests, 3 s of flood.
    #[arg(long)]
    quick: bool,
    /// Size of the bulk transfer, in MiB [default: 1024].
    #[arg(long)]
    mib: Option<u64>,
    /// Requests of 64 bytes with 64 in flight [default: 200000]; a tenth of it with one in flight.
    #[arg(long)]
    requests: Option<u64>,
    /// Connections of the idle case [default: 1000].
    #[arg(long)]
    connections: Option<usize>,
    /// How long the honest client of the flood case is measured, in seconds [default: 10].
    #[arg(long)]
    flood_seconds: Option<u64>,
    /// In a network namespace of its own, over a loopback that carries so many Mbit/s in packets of 1500 bytes (Linux; as root). The urgent case has
    /// then one more part, with bulk at half of that.
    #[arg(long)]
    link_mbit: Option<u64>,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Honest peers of a node that raw-byte attackers besiege: strait beside rust-libp2p.
    Siege(siege::Args),
    /// What fixed work costs in system calls, instructions and datagrams: says something on a noisy machine too.
    Count(count::Args),
    /// Everything, as a page for docs/ with a chart.
    Report(report::Args),
    /// One side of a pair; started by the orchestrator.
    #[command(hide = true)]
    Child(child::Args),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Child(args)) => return child::run(args),
        Some(Command::Siege(args)) => return siege::run(&args),
        Some(Command::Count(args)) => return count::run(&args),
        Some(Command::Report(args)) => return report::run(&args),
        None => {}
    }
    if let Some(mbit) = cli.link_mbit {
        link::limit(mbit)?;
    }
    let mut sizes = Sizes { link_mbit: cli.link_mbit, ..Sizes::new(cli.quick, cli.mib, cli.requests, cli.flood_seconds) };
    sizes.idle = cli.connections.unwrap_or(sizes.idle).max(1);
    let stacks = if cli.stacks.is_empty() { cli.over.stacks() } else { cli.stacks };
    let baseline = cli.baseline.unwrap_or_else(|| cli.over.baseline());
    let mut records = Vec::new();
    let mut floods = Vec::new();
    for round in 0..cli.rounds {
        for case in cli.cases.iter().flat_map(|name| name.cases(&sizes)) {
            if case == Case::Flood {
                floods.push(flood::round(&sizes, false)?);
                if pair::Place::can_be_chosen() {
                    floods.push(flood::round(&sizes, true)?);
                }
                continue;
            }
            run_round(round, case, &stacks, &mut records)?;
        }
    }
    if cli.json {
        let document = serde_json::json!({
            "sizes": sizes, "baseline": baseline, "runs": records, "floods": floods,
            "summary": table::summaries(&records, baseline), "notes": peers::NOTES,
        });
        println!("{}", serde_json::to_string_pretty(&document)?);
    } else {
        print!("{}", table::render(&records, &floods, baseline));
    }
    Ok(())
}

/// One case, every stack once. The order rotates with the round, so that no stack always runs first.
fn run_round(round: usize, case: Case, stacks: &[Stack], records: &mut Vec<Record>) -> Result<()> {
    for index in 0..stacks.len() {
        let stack = stacks[(index + round) % stacks.len()];
        let record = pair::run(stack, case, round).with_context(|| format!("round {}, {stack}, {case}", round + 1))?;
        eprintln!("round {} {case} {stack}: {}", round + 1, record.brief());
        records.push(record);
    }
    Ok(())
}
