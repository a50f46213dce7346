//! `strait get`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use strait::Node;

use super::{bytes, count, print_json, print_line};
use crate::args::Get;
use crate::exit::{Code, Failure};
use crate::fetch::{self, Outcome, Providers};
use crate::net::Nodes;
use crate::news::News;
use crate::place::{Target, Tell, leftovers};
use crate::progress::Progress;
use crate::provider::Provider;
use crate::ticket::Ticket;
use crate::tree::Hash;
use crate::{keyfile, net};

/// Connects, fetches and says what came.
pub(super) async fn run(args: Get, nodes: &Nodes) -> Result<(), Failure> {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && (args.json || args.force || args.serve) {
        let why = "-o - writes the file itself to stdout, and nothing to a folder";
        let next = "leave those away, or get it into a folder; one that is named - can be given as ./-";
        return Err(Failure::new(Code::Usage, "-o - does not go with --json, --force or --serve", why, next));
    }
    let tickets = read_tickets(&args.tickets)?;
    let root = tickets[0].root;
    let keypair = keyfile::kept_or_fresh(args.key.as_deref())?;
    let progress = Arc::new(Progress::with_events(args.quiet, args.json));
    let began = Instant::now();
    let node = match args.serve {
        true => nodes.start_as(keypair, args.listen, &args.announce).await?,
        false => nodes.start(keypair, None).await?,
    };
    let _abuse = super::abuse_log(&node, args.abuse_log.as_deref(), &progress)?;
    let names: Vec<String> = tickets.iter().map(|ticket| ticket.peer.to_string()).collect();
    progress.news(&News::started(&root.to_hex(), &names));
    let offered = if args.serve { Some(offer(&node, root, args.json, &progress)?) } else { None };
    let far = |ticket| net::Far::new(node.clone(), ticket, progress.clone());
    let providers = Providers::new(tickets.into_iter().map(far).collect());
    // That it waits, for space or for a provider, is needed even when little is to be said.
    let say = progress.clone();
    let tell: Tell = Arc::new(move |news| say.urgent(news));
    let providers = {
        let tell = tell.clone();
        providers.with(args.timeout, keyfile::random()?, move |news| tell(news))
    };
    let target = Target { replace: args.force, wait_for_space: args.timeout, tell, ..Target::new(&args.output) };
    let result = match &offered {
        None if to_stdout => fetch::stream(providers, root, stdout()?, &progress).await,
        None => fetch::get(providers, root, target, &progress).await,
        Some(offered) => fetch::get_to_serve(providers, root, target, &progress).await.map(|(outcome, source)| {
            offered.has(source);
            outcome
        }),
    };
    progress.clear();
    if offered.is_none() || result.is_err() {
        node.close().await;
    }
    tell_done(&args, &result?, began.elapsed().as_secs_f64(), &node, &progress)?;
    match offered {
        None => Ok(()),
        Some(offered) => serve(&offered, &progress).await,
    }
}

fn tell_done(args: &Get, outcome: &Outcome, seconds: f64, node: &Node, progress: &Progress) -> Result<(), Failure> {
    progress.say(&summary(outcome, seconds));
    if args.output != Path::new("-") {
        progress.say(&format!("it is in {}", args.output.display()));
        for left in leftovers(&args.output) {
            progress
                .say(&format!("note: {} holds part of another transfer; delete it if nobody goes on with that", left.display()));
        }
    }
    if !args.json {
        return Ok(());
    }
    let mut done = outcome_json("get", outcome, seconds);
    done["network"] = net::costs(node);
    print_json(&done)
}

/// Stdout without the buffer that Rust keeps for lines.
#[cfg(unix)]
fn stdout() -> Result<impl Write + Send + 'static, Failure> {
    use std::os::fd::AsFd;
    let own = std::io::stdout().as_fd().try_clone_to_owned();
    own.map(std::fs::File::from).map_err(|error| Failure::disk("open stdout", &error))
}

#[cfg(not(unix))]
fn stdout() -> Result<impl Write + Send + 'static, Failure> {
    Ok(std::io::stdout())
}

/// Begins to answer others on the node that fetches, and prints a ticket for it. Until all is here they are told that it is not yet.
fn offer(node: &Node, root: Hash, json: bool, progress: &Arc<Progress>) -> Result<Arc<Provider>, Failure> {
    let say = progress.clone();
    let provider = Provider::awaiting(root, move |line| say.say(&line));
    net::serve(node, &provider)?;
    let ticket = Ticket { peer: node.peer_id(), addrs: net::for_ticket(&node.told_addrs()), root }.to_string();
    progress.say("Others may use this ticket too, alone or beside the first; it is good as soon as all is here:");
    if json {
        print_json(&json!({"event": "serving", "ticket": ticket}))?
    } else {
        print_line(&ticket)?
    }
    Ok(provider)
}

/// Serves until it is stopped.
async fn serve(provider: &Provider, progress: &Progress) -> Result<(), Failure> {
    progress.say("Serving it to others. Ctrl-C stops.");
    let mut copies = provider.copies();
    while copies.changed().await.is_ok() {
        let taken = *copies.borrow_and_update();
        progress.event(&json!({"event": "copy", "copies": taken}));
        progress.say(&format!("taken {} so far", if taken == 1 { "once".to_owned() } else { format!("{taken} times") }));
    }
    Err(Failure::bug("the provider is gone"))
}

/// All tickets, one for each provider. They have to be for the same content.
fn read_tickets(texts: &[String]) -> Result<Vec<Ticket>, Failure> {
    let mut tickets: Vec<Ticket> = Vec::new();
    for text in texts {
        let ticket: Ticket = text.parse()?;
        if tickets.first().is_some_and(|first| first.root != ticket.root) {
            return Err(Failure::new(
                Code::Usage,
                "these tickets are not for the same content",
                "several tickets make one get with several providers, so all have to stand for the same files",
                "run get once for each ticket that stands for something else",
            ));
        }
        match tickets.iter_mut().find(|known| known.peer == ticket.peer) {
            // The same provider, perhaps at other addresses.
            Some(known) => known.addrs.extend(ticket.addrs),
            None => tickets.push(ticket),
        }
    }
    Ok(tickets)
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
pub(super) fn outcome_json(command: &str, outcome: &Outcome, seconds: f64) -> serde_json::Value {
    json!({
        "event": "done",
        "command": command,
        "files": outcome.files,
        "folders": outcome.folders,
        "bytes": outcome.bytes,
        "chunks": outcome.chunks,
        "chunk_bytes": outcome.chunk_bytes,
        "fetched_chunks": outcome.fetched_chunks,
        "fetched_bytes": outcome.fetched_bytes,
        "had_bytes": outcome.had_bytes,
        "resumed_bytes": outcome.resumed_bytes,
        "duplicates": outcome.duplicates,
        "providers": outcome.given.iter().map(|given| json!({"provider": given.provider, "chunks": given.chunks})).collect::<Vec<_>>(),
        "root": outcome.root.to_hex().as_str(),
        "seconds": seconds,
    })
}
