//! `strait send`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use strait_core::{Keypair, Multiaddr};

use super::{bytes, count, print_json, print_line};
use crate::args::Send;
use crate::exit::{Code, Failure};
use crate::net::Nodes;
use crate::progress::Progress;
use crate::provider::Provider;
use crate::qr::Picture;
use crate::source::{Roots, Source, Told, census, scan};
use crate::spool::Spool;
use crate::ticket::Ticket;
use crate::{keyfile, net};

/// Hashes, serves, prints the ticket, and waits.
pub(super) async fn run(args: Send, nodes: &Nodes) -> Result<(), Failure> {
    let keypair = keyfile::choose(&args.key)?;
    if let Some(warning) = keyfile::warning(&args.key) {
        eprintln!("{warning}");
    }
    let progress = Arc::new(Progress::with_events(args.quiet, args.json));
    // What came on stdin lives as long as this.
    let (roots, _spool) = roots(&args, &progress).await?;
    let source = read(roots, &progress).await?;
    let say = progress.clone();
    let serving = Serving::start(nodes, keypair, (args.listen, &args.announce), source, move |line| say.say(&line)).await?;
    let _abuse = super::abuse_log(&serving.node, args.abuse_log.as_deref(), &progress)?;
    tell_ticket(&args, &serving, &progress)?;
    progress.say(if args.once { "Waiting until one copy is taken. Ctrl-C stops." } else { "Serving. Ctrl-C stops." });
    let mut copies = serving.provider.copies();
    let mut seen = 0;
    loop {
        let now = *copies.borrow_and_update();
        if now > seen {
            seen = now;
            progress
                .say(&format!("{} taken so far", if now == 1 { "1 full copy".to_owned() } else { format!("{now} full copies") }));
            progress.event(&json!({"event": "copy", "copies": now}));
        }
        if args.once && now > 0 {
            serving.node.close().await;
            let done = json!({"event": "done", "command": "send", "copies": now, "network": net::costs(&serving.node)});
            return if args.json { print_json(&done) } else { Ok(()) };
        }
        if copies.changed().await.is_err() {
            return Err(Failure::bug("the provider is gone"));
        }
    }
}

/// What the command line names, with what came on stdin kept in a file.
async fn roots(args: &Send, progress: &Arc<Progress>) -> Result<(Roots, Option<Spool>), Failure> {
    let dash = Path::new("-");
    if args.paths != [dash] {
        if args.paths.iter().any(|path| path == dash) {
            let why = "stdin is one file, and gets a ticket of its own";
            let next = "send the files on their own; a file that is named - can be given as ./-";
            return Err(Failure::new(Code::Usage, "- stands alone", why, next));
        }
        return Ok((Roots::new(&args.paths)?, None));
    }
    let (most, shown) = (args.stdin_max, progress.clone());
    progress.say(&format!(
        "Reading stdin into a temporary file, up to {}: a ticket can be made when all of it is known.",
        bytes(most)
    ));
    let work = move || {
        shown.phase("reading", 0);
        let spool = Spool::fill(std::io::stdin(), most, |read| shown.add(read));
        shown.clear();
        spool
    };
    let spool = on_a_thread(work).await?;
    Ok((Roots::named(&args.name, spool.path().to_owned())?, Some(spool)))
}

/// Prints the ticket: for people alone on a line, so that it can be copied; as a picture on stderr; as an event.
fn tell_ticket(args: &Send, serving: &Serving, progress: &Progress) -> Result<(), Failure> {
    let ticket = &serving.ticket;
    if args.json {
        let source = serving.provider.source().ok_or_else(|| Failure::bug("nothing to serve"))?;
        let addrs: Vec<String> = ticket.addrs.iter().map(ToString::to_string).collect();
        print_json(&json!({
            "event": "ticket",
            "ticket": ticket.to_string(),
            "peer": ticket.peer.to_string(),
            "addrs": addrs,
            "root": ticket.root.to_hex().as_str(),
            "files": source.files(),
            "folders": source.folders(),
            "bytes": source.header().content_len,
        }))?;
    } else {
        progress.say("Give this ticket to the other side, which runs:  strait get TICKET");
        print_line(&ticket.to_string())?;
    }
    if args.qr {
        eprintln!("{}", Picture::of(ticket)?.fitted(console::Term::stderr().size_checked()));
    }
    Ok(())
}

async fn on_a_thread<T: std::marker::Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + std::marker::Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::bug(format!("reading what is to be sent broke off: {error}"))))
}

/// Finds and hashes these paths, with progress.
pub(super) async fn read_paths(paths: Vec<PathBuf>, progress: &Arc<Progress>) -> Result<Source, Failure> {
    read(Roots::new(&paths)?, progress).await
}

/// Hashes what is to be sent, with progress.
async fn read(roots: Roots, progress: &Arc<Progress>) -> Result<Source, Failure> {
    let shown = progress.clone();
    let work = move || {
        let census = census(&roots)?;
        let (files, folders, bytes) = (census.files, census.folders, census.bytes);
        shown.event(&json!({"event": "hashing", "files": files, "folders": folders, "bytes": bytes}));
        shown.phase("hashing", census.bytes);
        let source = scan(roots, census, &mut |told| match told {
            Told::Hashed(bytes) => shown.add(bytes),
            Told::Skipped(path) => shown.say(&format!("left out, neither a file nor a folder: {}", path.display())),
        })?;
        shown.clear();
        Ok(source)
    };
    let source = on_a_thread(work).await?;
    progress.say(&format!(
        "{} and {}, {}",
        count(source.files(), "file"),
        count(source.folders(), "folder"),
        bytes(source.header().content_len)
    ));
    Ok(source)
}

/// A node that serves a source.
pub(super) struct Serving {
    pub(super) node: strait::Node,
    pub(super) provider: Arc<Provider>,
    pub(super) ticket: Ticket,
}

impl Serving {
    pub(super) async fn start(
        nodes: &Nodes,
        keypair: Keypair,
        (listen, announce): (Option<SocketAddr>, &[Multiaddr]),
        source: Source,
        say: impl Fn(String) + std::marker::Send + Sync + 'static,
    ) -> Result<Serving, Failure> {
        let node = nodes.start_as(keypair, listen, announce).await?;
        net::note_without_tcp(&node, &say);
        let provider = Provider::new(source, say);
        net::serve(&node, &provider)?;
        let addrs = net::for_ticket(&node.told_addrs());
        let ticket = Ticket { peer: node.peer_id(), addrs, root: provider.root() };
        Ok(Serving { node, provider, ticket })
    }
}
