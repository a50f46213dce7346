//! `strait demo`: a sender and a receiver on this machine, over real QUIC on the loopback interface.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::get::{outcome_json, summary};
use super::send::{Serving, read_paths};
use super::{bytes, print_json, print_line, sample};
use crate::args::Demo;
use crate::exit::{Code, Failure};
use crate::fetch::{self, Outcome};
use crate::net::Nodes;
use crate::progress::Progress;
use crate::source::Roots;
use crate::ticket::Ticket;
use crate::{keyfile, net};

fn temp_failure(error: &std::io::Error) -> Failure {
    Failure::disk("make a temporary folder for the demo", error)
}

fn broke_off(error: &tokio::task::JoinError) -> Failure {
    Failure::bug(format!("the demo broke off: {error}"))
}

/// Sends, fetches, compares, and says what was verified.
pub(super) async fn run(args: Demo, nodes: &Nodes) -> Result<(), Failure> {
    let progress = Arc::new(Progress::new(args.quiet));
    // Removed when this function ends, however it ends.
    let scratch = tempfile::Builder::new().prefix("strait-demo-").tempdir().map_err(|error| temp_failure(&error))?;
    let path = match args.path {
        Some(path) => path,
        None => {
            progress.say("Making a sample: a large file, many small ones, empty ones, odd names, an executable.");
            let dir = scratch.path().to_owned();
            let made = tokio::task::spawn_blocking(move || sample::make(&dir)).await.map_err(|error| broke_off(&error))?;
            made.map_err(|error| temp_failure(&error))?
        }
    };
    let source = read_paths(vec![path.clone()], &progress).await?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let say = progress.clone();
    let serving = Serving::start(nodes, keyfile::fresh()?, Some(loopback), source, move |line| say.say(&line)).await?;
    let ticket = serving.ticket.to_string();
    progress.say(&format!("sender    {}\nticket    {ticket}", serving.ticket.peer));
    let target = scratch.path().join("received");
    let (outcome, seconds) = receive(nodes, &ticket, target.clone(), &progress).await?;
    let copies = *serving.provider.copies().borrow();
    serving.node.close().await;
    let compared = compare(path, target).await?;
    if copies != 1 {
        let why = "its last message was lost";
        return Err(Failure::new(Code::DemoDiffers, "the sender did not learn that its copy was taken", why, "report this"));
    }
    tell(&outcome, seconds, compared, args.json, args.quiet)
}

/// The receiver's side: it knows nothing but the ticket.
async fn receive(nodes: &Nodes, ticket: &str, target: PathBuf, progress: &Arc<Progress>) -> Result<(Outcome, f64), Failure> {
    let ticket: Ticket = ticket.parse()?;
    let node = nodes.start(keyfile::fresh()?, Some(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    progress.say(&format!("receiver  {}", node.peer_id()));
    let began = Instant::now();
    let far = net::Far::connect(node.clone(), ticket.clone(), progress.clone()).await?;
    let outcome = fetch::get(Arc::new(far), ticket.root, &target, progress).await;
    progress.clear();
    let seconds = began.elapsed().as_secs_f64();
    node.close().await;
    Ok((outcome?, seconds))
}

async fn compare(path: PathBuf, target: PathBuf) -> Result<u64, Failure> {
    let work = move || super::compare::compare(&Roots::new(&[path])?, &target);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(broke_off(&error)))
}

fn tell(outcome: &Outcome, seconds: f64, compared: u64, json: bool, quiet: bool) -> Result<(), Failure> {
    if json {
        let mut value = outcome_json("demo", outcome, seconds);
        value["compared_bytes"] = compared.into();
        return print_json(&value);
    }
    if quiet {
        return Ok(());
    }
    print_line(&format!("fetched   {}", summary(outcome, seconds).replace('\n', "\ntook      ")))?;
    print_line(&format!(
        "compared  {} on both sides byte by byte: the same; names, kinds and executable bits too",
        bytes(compared)
    ))?;
    print_line("all is well")
}
