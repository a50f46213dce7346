//! `strait demo`: what strait promises, shown on this machine over real QUIC on the loopback interface. A sender serves two receivers, of
//! which one is killed in the middle and started again, while another peer floods the sender. Each but the sender is a process of its own.

mod child;
mod compare;
mod flood;
mod sample;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strait::{Incoming, Node, Priority};
use tokio::sync::watch;

use super::send::read_paths;
use super::{bytes, print_json, print_line};
use crate::args::Demo;
use crate::exit::{Code, Failure};
use crate::net::Nodes;
use crate::place::TEMP_PREFIX;
use crate::progress::Progress;
use crate::provider::Provider;
use crate::source::{Roots, Source};
use crate::ticket::Ticket;
use crate::wire::{Ask, Protocol, Status};
use crate::{keyfile, net};

/// Chunks below which a transfer is too short to be ended in its middle.
const CHUNKS_MIN: u64 = 8;
/// Longest wait for the receiver that is to be killed to have recorded something.
const RECORD_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of a journal in which nothing is recorded yet (`place/journal.rs`).
const JOURNAL_HEAD: u64 = 57;

/// Sends, kills, floods, fetches, compares, and says what was verified, counted and refused.
pub(super) async fn run(args: Demo, nodes: &Nodes) -> Result<(), Failure> {
    if let Some(ticket) = &args.flood {
        return flood::run(ticket, nodes).await;
    }
    let progress = Arc::new(Progress::with_events(args.quiet, args.json));
    // Removed when this function ends, however it ends.
    let scratch = tempfile::Builder::new().prefix("strait-demo-").tempdir().map_err(|error| temp_failure(&error))?;
    let path = match args.path {
        Some(path) => path,
        None => {
            stage(&progress, "sample", "Making a sample: a large file, many small ones, empty ones, odd names, an executable.");
            let dir = scratch.path().to_owned();
            let made = tokio::task::spawn_blocking(move || sample::make(&dir)).await.map_err(|error| broke_off(&error))?;
            made.map_err(|error| temp_failure(&error))?
        }
    };
    let source = read_paths(vec![path.clone()], &progress).await?;
    let began = Instant::now();
    let sender = Sender::start(nodes, source, &progress).await?;
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    stage(&progress, "flood", "Another peer begins to flood the sender with valid requests.");
    let flooder = child::flooder(&sender.ticket)?;
    let killed = sender.chunks >= CHUNKS_MIN;
    if killed {
        kill_in_the_middle(&sender, &two, &progress).await?;
    }
    sender.gate.send_replace(u64::MAX);
    stage(&progress, "fetch", "Two receivers fetch at once.");
    progress.phase("fetching", sender.content.saturating_mul(2));
    let receive = |dir: &Path| Ok::<_, Failure>(child::follow(child::receiver(&sender.ticket, dir)?, progress.clone()));
    let (first, second) = tokio::try_join!(receive(&one)?, receive(&two)?)?;
    progress.clear();
    let seconds = began.elapsed().as_secs_f64();
    drop(flooder); // which kills it
    stage(&progress, "compare", "Comparing both copies with what was sent, byte by byte.");
    let compared = compare(path.clone(), one).await?.saturating_add(compare(path, two).await?);
    let copies = *sender.provider.copies().borrow();
    sender.node.close().await;
    check(copies == 2, "the sender did not learn that two copies were taken")?;
    let resumed = second["resumed_bytes"].as_u64().unwrap_or_default();
    check(!killed || resumed > 0, "the receiver that was killed had to begin anew")?;
    let report = sender.report([&first, &second], compared, seconds);
    if args.json {
        return print_json(&report);
    }
    if args.quiet { Ok(()) } else { tell(&report, killed) }
}

fn temp_failure(error: &std::io::Error) -> Failure {
    Failure::disk("make a temporary folder for the demo", error)
}

fn broke_off(error: &tokio::task::JoinError) -> Failure {
    Failure::bug(format!("the demo broke off: {error}"))
}

fn check(holds: bool, otherwise: &str) -> Result<(), Failure> {
    let why = "strait has a fault, or this machine is so busy that the demo came too late";
    if holds { Ok(()) } else { Err(Failure::new(Code::DemoDiffers, otherwise, why, "run it again; if it stays, report it")) }
}

fn stage(progress: &Progress, name: &str, line: &str) {
    progress.say(line);
    progress.event(&json!({"event": "stage", "stage": name}));
}

/// The sender, with a gate for its chunks.
struct Sender {
    node: Node,
    provider: Arc<Provider>,
    ticket: String,
    chunks: u64,
    content: u64,
    /// Chunks from this one on are held back.
    gate: watch::Sender<u64>,
    /// Whether one was asked for.
    reached: watch::Receiver<bool>,
    declined: Arc<AtomicU64>,
}

impl Sender {
    async fn start(nodes: &Nodes, source: Source, progress: &Arc<Progress>) -> Result<Sender, Failure> {
        let node = nodes.start(keyfile::fresh()?, Some(SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
        let (chunks, content) = (source.header().content().leaves(), source.header().content_len);
        let say = progress.clone();
        let provider = Provider::new(source, move |line| say.say(&line));
        let gate = watch::Sender::new(if chunks >= CHUNKS_MIN { chunks / 2 } else { u64::MAX });
        let (reach, reached) = watch::channel(false);
        let (reach, declined) = (Arc::new(reach), Arc::new(AtomicU64::new(0)));
        for (protocol, request, priority) in [
            (Protocol::Manifest, &net::MANIFEST, Priority::Normal),
            (Protocol::Chunk, &net::CHUNK, Priority::Bulk),
            (Protocol::Done, &net::DONE, Priority::Normal),
        ] {
            let (provider, gate, reach, declined) = (provider.clone(), gate.subscribe(), reach.clone(), declined.clone());
            let handler = async move |request: Incoming| {
                let body = request.body.into_bytes();
                if let Some((_, Ask::Chunk { index })) = Ask::decode(protocol, &body) {
                    let mut gate = gate.clone();
                    if index >= *gate.borrow() {
                        reach.send_replace(true);
                    }
                    let _ = gate.wait_for(|gate| index < *gate).await;
                }
                let reply = provider.answer(protocol, &body).await;
                declined.fetch_add(u64::from(reply.first() != Some(&Status::Ok.to_byte())), Ordering::Relaxed);
                reply
            };
            node.serve(request, priority, handler)
                .map_err(|error| Failure::bug(format!("could not serve {}: {error}", request.name)))?;
        }
        let ticket = Ticket { peer: node.peer_id(), addrs: node.listen_addrs(), root: provider.root() }.to_string();
        progress.say(&format!("sender    {}\nticket    {ticket}", node.peer_id()));
        Ok(Sender { node, provider, ticket, chunks, content, gate, reached, declined })
    }

    /// All that was verified, counted and refused, as the `done` event of `docs/json.md`.
    fn report(&self, copies: [&Value; 2], compared: u64, seconds: f64) -> Value {
        let sum = |name: &str| copies.iter().map(|copy| copy[name].as_u64().unwrap_or_default()).sum::<u64>();
        let counters = self.node.counters();
        let (totals, protocols) = (&counters.totals, counters.protocols.values());
        json!({
            "event": "done",
            "command": "demo",
            "root": copies[0]["root"],
            "files": copies[0]["files"],
            "folders": copies[0]["folders"],
            "bytes": copies[0]["bytes"],
            "copies": 2,
            "chunks": sum("chunks"),
            "fetched_bytes": sum("fetched_bytes"),
            "resumed_bytes": sum("resumed_bytes"),
            "compared_bytes": compared,
            "requests": protocols.map(|protocol| protocol.received).sum::<u64>(),
            "declined": self.declined.load(Ordering::Relaxed),
            "dropped_datagrams": totals.dropped_full + totals.dropped_late,
            "grants_refused": totals.grants_refused,
            "seconds": seconds,
        })
    }
}

/// Starts a receiver, lets it have the first half, and kills it when some of that is recorded.
async fn kill_in_the_middle(sender: &Sender, dir: &Path, progress: &Progress) -> Result<(), Failure> {
    stage(progress, "kill", "A receiver begins; the sender holds back the second half, so that it can be killed in the middle.");
    let mut child = child::receiver(&sender.ticket, dir)?;
    let mut reached = sender.reached.clone();
    let ready = async {
        let _ = reached.wait_for(|reached| *reached).await;
        while !has_recorded(dir) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await; // the rest of the half
    };
    let in_time = tokio::time::timeout(RECORD_WITHIN, ready).await.is_ok();
    check(in_time, "the first receiver recorded nothing in time")?;
    child.kill().await.map_err(|error| Failure::disk("kill a receiver", &error))?;
    progress.say("killed it (SIGKILL); it starts again with the same folder");
    Ok(())
}

fn has_recorded(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    let temp = entries.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX));
    temp.and_then(|temp| std::fs::metadata(temp.path().join("journal")).ok()).is_some_and(|journal| journal.len() > JOURNAL_HEAD)
}

async fn compare(path: PathBuf, target: PathBuf) -> Result<u64, Failure> {
    let work = move || compare::compare(&Roots::new(&[path])?, &target);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(broke_off(&error)))
}

fn tell(report: &Value, killed: bool) -> Result<(), Failure> {
    let number = |name: &str| report[name].as_u64().unwrap_or_default();
    let root = report["root"].as_str().unwrap_or_default();
    print_line(&format!("verified  {} chunks of two copies against root {root}", number("chunks")))?;
    print_line(&format!(
        "compared  {} byte by byte: the same; names, kinds and executable bits too",
        bytes(number("compared_bytes"))
    ))?;
    if killed {
        print_line(&format!("resumed   {} that the killed receiver had were not fetched again", bytes(number("resumed_bytes"))))?;
    } else {
        print_line("resumed   nothing: this is too small to be ended in its middle")?;
    }
    print_line(&format!(
        "counted   {} requests at the sender, the flood's among them; {} fetched by both receivers",
        number("requests"),
        bytes(number("fetched_bytes"))
    ))?;
    print_line(&format!(
        "refused   {} requests for what is not served, {} datagrams past a queue or too late, {} grants of memory",
        number("declined"),
        number("dropped_datagrams"),
        number("grants_refused")
    ))?;
    print_line(&format!("all is well, in {:.1} s", report["seconds"].as_f64().unwrap_or_default()))
}
