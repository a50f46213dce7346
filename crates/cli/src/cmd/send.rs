//! `strait send`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use strait_core::Keypair;

use super::{bytes, count, print_line};
use crate::args::Send;
use crate::exit::Failure;
use crate::net::Nodes;
use crate::progress::Progress;
use crate::provider::Provider;
use crate::source::{Roots, Source, Told, census, scan};
use crate::ticket::Ticket;
use crate::{keyfile, net};

/// Hashes, serves, prints the ticket, and waits.
pub(super) async fn run(args: Send, nodes: &Nodes) -> Result<(), Failure> {
    let keypair = keyfile::choose(&args.key)?;
    if let Some(warning) = keyfile::warning(&args.key) {
        eprintln!("{warning}");
    }
    let progress = Arc::new(Progress::new(args.quiet));
    let source = read(args.paths, &progress).await?;
    let say = progress.clone();
    let serving = Serving::start(nodes, keypair, args.listen, source, move |line| say.say(&line)).await?;
    progress.say("Give this ticket to the other side, which runs:  strait get TICKET");
    print_line(&serving.ticket.to_string())?;
    progress.say(if args.once { "Waiting until one copy is taken. Ctrl-C stops." } else { "Serving. Ctrl-C stops." });
    let mut copies = serving.provider.copies();
    let mut seen = 0;
    loop {
        let now = *copies.borrow_and_update();
        if now > seen {
            seen = now;
            progress
                .say(&format!("{} taken so far", if now == 1 { "1 full copy".to_owned() } else { format!("{now} full copies") }));
        }
        if args.once && now > 0 {
            serving.node.close().await;
            return Ok(());
        }
        if copies.changed().await.is_err() {
            return Err(Failure::bug("the provider is gone"));
        }
    }
}

/// Finds and hashes what is to be sent, with progress.
pub(super) async fn read(paths: Vec<PathBuf>, progress: &Arc<Progress>) -> Result<Source, Failure> {
    let shown = progress.clone();
    let work = move || {
        let roots = Roots::new(&paths)?;
        let census = census(&roots)?;
        shown.phase("hashing", census.bytes);
        let source = scan(roots, census, &mut |told| match told {
            Told::Hashed(bytes) => shown.add(bytes),
            Told::Skipped(path) => shown.say(&format!("left out, neither a file nor a folder: {}", path.display())),
        })?;
        shown.clear();
        Ok::<_, Failure>(source)
    };
    let source = tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::bug(format!("hashing broke off: {error}"))))?;
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
        listen: Option<SocketAddr>,
        source: Source,
        say: impl Fn(String) + std::marker::Send + Sync + 'static,
    ) -> Result<Serving, Failure> {
        let node = nodes.start(keypair, listen).await?;
        let provider = Provider::new(source, say);
        net::serve(&node, &provider)?;
        let addrs = net::for_ticket(&node.listen_addrs());
        let ticket = Ticket { peer: node.peer_id(), addrs, root: provider.root() };
        Ok(Serving { node, provider, ticket })
    }
}
