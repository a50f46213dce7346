//! `strait get`

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::{bytes, count, print_json};
use crate::args::Get;
use crate::exit::Failure;
use crate::fetch::{self, Outcome};
use crate::net::Nodes;
use crate::place::Target;
use crate::progress::Progress;
use crate::ticket::Ticket;
use crate::{keyfile, net};

/// Connects, fetches and says what came.
pub(super) async fn run(args: Get, nodes: &Nodes) -> Result<(), Failure> {
    let ticket: Ticket = args.ticket.parse()?;
    let keypair = match &args.key {
        Some(path) => keyfile::load_or_make(path)?,
        None => keyfile::fresh()?,
    };
    let progress = Arc::new(Progress::new(args.quiet));
    let began = Instant::now();
    let node = nodes.start(keypair, None).await?;
    let far = net::Far::connect(node.clone(), ticket.clone(), progress.clone()).await?;
    progress.say(&format!("connected to {}", ticket.peer));
    let (say, quiet) = (progress.clone(), args.quiet);
    // That it waits for space is needed even when little is to be said.
    let tell = move |line: &str| if quiet { eprintln!("{line}") } else { say.say(line) };
    let target = Target { replace: args.force, tell: Arc::new(tell), ..Target::new(&args.output) };
    let result = fetch::get(Arc::new(far), ticket.root, target, &progress).await;
    progress.clear();
    node.close().await;
    let outcome = result?;
    let seconds = began.elapsed().as_secs_f64();
    progress.say(&summary(&outcome, seconds));
    progress.say(&format!("it is in {}", args.output.display()));
    if args.json {
        print_json(&outcome_json("get", &outcome, seconds))?;
    }
    Ok(())
}

/// What came, in words.
pub(super) fn summary(outcome: &Outcome, seconds: f64) -> String {
    let mut had = String::new();
    for (number, words) in [(outcome.had_bytes, "were here already"), (outcome.resumed_bytes, "from an earlier run")] {
        if number > 0 {
            had.push_str(&format!(" ({} {words})", bytes(number)));
        }
    }
    let rate = (outcome.fetched_bytes as f64 / seconds.max(0.001)) as u64;
    format!(
        "{} and {}, {}{had}, in {}, all verified against root {}\n{seconds:.1} s, {}/s",
        count(outcome.files, "file"),
        count(outcome.folders, "folder"),
        bytes(outcome.bytes),
        count(outcome.chunks, "chunk"),
        outcome.root.to_hex(),
        bytes(rate),
    )
}

/// What came, for programs.
pub(super) fn outcome_json(event: &str, outcome: &Outcome, seconds: f64) -> serde_json::Value {
    json!({
        "event": event,
        "files": outcome.files,
        "folders": outcome.folders,
        "bytes": outcome.bytes,
        "chunks": outcome.chunks,
        "chunk_bytes": outcome.chunk_bytes,
        "fetched_chunks": outcome.fetched_chunks,
        "fetched_bytes": outcome.fetched_bytes,
        "had_bytes": outcome.had_bytes,
        "resumed_bytes": outcome.resumed_bytes,
        "root": outcome.root.to_hex().as_str(),
        "seconds": seconds,
    })
}
