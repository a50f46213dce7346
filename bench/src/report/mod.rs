//! `report`: runs everything and writes `benchmarks.md` and `benchmarks.svg`.

mod chart;
mod machine;
mod page;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use self::machine::Machine;
use crate::{
    pair::{self, Record},
    plan::{CaseName, Sizes},
    stack::Stack,
};

/// What the page is about, in its order.
const CASES: &[CaseName] =
    &[CaseName::Bulk, CaseName::Requests, CaseName::Chunks, CaseName::Urgent, CaseName::Handshakes, CaseName::Idle];

/// Arguments of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each stack runs each case.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The larger sizes, those of the program without `--quick`: takes much longer than the quarter of an hour that it takes else.
    #[arg(long)]
    full: bool,
    /// Which stacks to run [default: all that are compiled in].
    #[arg(long, value_delimiter = ',')]
    stacks: Vec<Stack>,
    /// Where the page and the chart go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"), value_name = "DIR", hide_default_value = true)]
    write: PathBuf,
    /// What else the page should say, such as how the program was built.
    #[arg(long)]
    note: Option<String>,
    /// Also keep what was measured, for `--from`.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Measure nothing: write the page about what another run has kept.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keep", "rounds", "full", "stacks", "note"])]
    from: Option<PathBuf>,
}

/// All that was measured.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    machine: Machine,
    rounds: usize,
    seconds: f64,
    note: Option<String>,
    runs: Vec<Record>,
    /// Runs that failed, and why.
    failed: Vec<String>,
}

/// Runs the report.
pub(crate) fn run(args: &Args) -> Result<()> {
    // Before anything is measured: nobody wants to learn at the end that there is no place for it.
    fs::create_dir_all(&args.write).with_context(|| format!("making {}", args.write.display()))?;
    let measured = match &args.from {
        Some(file) => serde_json::from_str(&fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?)?,
        None => measure(args)?,
    };
    for (name, text) in [("benchmarks.md", page::render(&measured)), ("benchmarks.svg", chart::render(&measured.runs))] {
        let file = args.write.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        eprintln!("wrote {name}");
    }
    Ok(())
}

/// Sizes at which all stacks, three times, take about a quarter of an hour on two cores.
fn sizes(full: bool) -> Sizes {
    if full {
        return Sizes::new(false, None, None, None);
    }
    Sizes { urgent: 200, chunks: 256, ..Sizes::new(true, Some(256), None, None) }
}

/// One stack that fails in one case must not take an hour of figures with it.
fn measure(args: &Args) -> Result<Measured> {
    let stacks = if args.stacks.is_empty() { Stack::by_default().collect() } else { args.stacks.clone() };
    let (sizes, start) = (sizes(args.full), Instant::now());
    let mut measured = Measured {
        machine: Machine::this(),
        rounds: args.rounds,
        seconds: 0.0,
        note: args.note.clone(),
        runs: Vec::new(),
        failed: Vec::new(),
    };
    for round in 0..args.rounds {
        for case in CASES.iter().flat_map(|name| name.cases(&sizes)) {
            for index in 0..stacks.len() {
                let stack = stacks[(index + round) % stacks.len()];
                match pair::run(stack, case, round) {
                    Ok(record) => {
                        eprintln!("round {} {case} {stack}: {}", round + 1, record.brief());
                        measured.runs.push(record);
                    }
                    Err(error) => {
                        eprintln!("round {} {case} {stack} failed: {error:#}", round + 1);
                        measured.failed.push(format!("{stack}, {case}: {error:#}"));
                    }
                }
            }
        }
        measured.seconds = start.elapsed().as_secs_f64();
        // After each round, since the next may be interrupted.
        if let Some(file) = &args.keep {
            fs::write(file, serde_json::to_string(&measured)?).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(measured)
}
