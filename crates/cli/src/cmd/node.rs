//! `strait node`

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use strait::Node;
use strait_admin::Admin;
use strait_admin::logs::Logs;
use strait_core::{Multiaddr, PeerId};
use tokio::task::JoinSet;
use tracing_subscriber::layer::SubscriberExt as _;

use super::forward::Teller;
use super::{end_at_next_signal, print_line, signal};
use crate::args::{Key, NodeArgs};
use crate::config::{self, Config};
use crate::exit::{Code, Failure};
use crate::forward::{Deadlines, Exposed};
use crate::net::{self, Nodes};
use crate::progress::Progress;
use crate::ticket::Contact;
use crate::{keyfile, net::note_without_tcp};

/// A peer that is to be connected and is not is tried again after this, and up to as much again by chance: many that lost the same peer do not come back together.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Runs until a signal: the first one drains, the second one ends it at once.
pub(super) async fn run(args: NodeArgs, nodes: &Nodes) -> Result<(), Failure> {
    if args.reference {
        return print_line(config::reference().trim_end());
    }
    let config = configuration(&args)?;
    if args.check {
        return print_line("the configuration can be used");
    }
    // The flag counts more; what the file names is looked at in the same ways.
    let key = Key { key: args.key.key.clone().or_else(|| config.key.clone()), ephemeral: args.key.ephemeral };
    let keypair = keyfile::choose(&key)?;
    if let Some(warning) = keyfile::warning(&key) {
        eprintln!("{warning}");
    }
    let logs = tracing_subscriber::registry().with(Logs::new(config.log, std::io::stderr()));
    // Only whoever uses this library in a larger program may have set one before: then that one hears it.
    let _ = tracing::subscriber::set_global_default(logs);
    let progress = Arc::new(Progress::new(args.quiet));
    // Before the node, so that what is wrong with its address is known before peers are.
    let listener = match config.admin {
        Some(address) => Some(Admin::bind(address).await.map_err(|error| admin_failure(address, &error))?),
        None => None,
    };
    // Before anybody is told that it runs.
    let stop = signal();
    let node = nodes.start_within(keypair, &config.listen, &config.announce, &config.limits).await?;
    note_without_tcp(&node, |line| progress.say(&line));
    let _abuse = super::abuse_log(&node, config.abuse_log.as_deref(), &progress)?;
    let mut tasks = JoinSet::new();
    if let Some(listener) = listener {
        if let Ok(address) = listener.local_addr() {
            progress.say(&format!("What it does: http://{address}/"));
        }
        tasks.spawn(Admin::new(node.clone()).serve(listener));
    }
    let told = Teller::new(progress.clone());
    let exposed =
        Exposed::new(config.targets.clone(), config.allow.clone(), Deadlines::default(), move |what| told.exposed(&what));
    let serving = if config.targets.is_empty() { None } else { Some(exposed.serve(&node)?) };
    for address in &config.peers {
        keep(&node, address, &mut tasks)?;
    }
    let contact = Contact { peer: node.peer_id(), addrs: net::for_ticket(&node.told_addrs()) };
    progress.say(&format!("This is {}. Ctrl-C stops.", contact.peer));
    print_line(&contact.to_string())?;
    tokio::select! {
        () = drain(&node, &progress, stop) => {}
        () = nodes.failed() => return Err(Failure::bug("the node has stopped, and nothing can be sent or received any more")),
    }
    drop(serving);
    Ok(())
}

/// The file and the flags together.
fn configuration(args: &NodeArgs) -> Result<Config, Failure> {
    let mut config = match &args.config {
        Some(path) => Config::read(&text_of(path)?)?,
        None => Config::default(),
    };
    if !args.listen.is_empty() {
        config.listen.clone_from(&args.listen);
    }
    if !args.announce.is_empty() {
        config.announce.clone_from(&args.announce);
    }
    for address in &args.peer {
        config::identity(address).map_err(|why| usage("--peer cannot be used", &why))?;
        config.peers.push(address.clone());
    }
    if let Some(level) = args.log {
        config.log = level;
    }
    if let Some(admin) = args.admin {
        config.admin = admin.0;
    }
    if let Some(path) = &args.abuse_log {
        config.abuse_log = Some(path.clone());
    }
    for limit in &args.limit {
        let Some((name, value)) = limit.split_once('=') else {
            return Err(usage(&format!("--limit {limit} cannot be used"), "it is not NAME=VALUE"));
        };
        config.set_limit(name, value)?;
    }
    config.check()?;
    Ok(config)
}

fn usage(what: &str, why: &str) -> Failure {
    Failure::new(Code::Usage, what.to_owned(), why.to_owned(), "strait node --help says what is expected")
}

fn text_of(path: &Path) -> Result<String, Failure> {
    let failed = |error: &std::io::Error| {
        let why = "it is not there, not readable, or no text";
        Failure::new(Code::BadSource, format!("could not read {}: {error}", path.display()), why, "check the name")
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    file.take(config::FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| failed(&error))?;
    Ok(text)
}

fn admin_failure(address: std::net::SocketAddr, error: &std::io::Error) -> Failure {
    let why = "the port is taken, perhaps by another node, or the address is not one of this machine's";
    let next = "choose another with --admin, or --admin off";
    Failure::new(Code::Unreachable, format!("the admin port {address} cannot be used: {error}"), why, next)
}

/// Keeps a peer connected, and its slot.
fn keep(node: &Node, address: &Multiaddr, tasks: &mut JoinSet<()>) -> Result<(), Failure> {
    let peer: PeerId = config::identity(address).map_err(|why| usage("a peer cannot be used", &why))?;
    node.protect(peer).map_err(|error| usage("not all peers can be kept", &error.to_string()))?;
    let (node, address) = (node.clone(), address.clone());
    tasks.spawn(async move {
        loop {
            if !node.is_connected(peer) {
                // Why it failed is told by the page; here it is only tried again.
                let _ = node.connect(peer, std::slice::from_ref(&address)).await;
            }
            let mut chance = [0; 2];
            let _ = getrandom::fill(&mut chance);
            tokio::time::sleep(TRY_AGAIN + TRY_AGAIN * u32::from(u16::from_le_bytes(chance)) / (1 << 16)).await;
        }
    });
    Ok(())
}

/// Waits for the signal to stop, then closes in order. A second signal ends the process.
async fn drain(node: &Node, progress: &Progress, stop: impl Future<Output = Code>) {
    let _first = stop.await;
    let most = node.limits().drain_deadline;
    progress.say(&format!(
        "Stopping: nobody new is taken, and what is under way has {} s. Once more stops at once.",
        most.as_secs_f32()
    ));
    end_at_next_signal();
    node.close().await;
    progress.say("Stopped.");
}
