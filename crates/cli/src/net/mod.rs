//! The one place that names the node: the protocols' definitions, serving a provider, and asking one.

mod addrs;
mod far;
mod pulse;

pub use addrs::for_ticket;
pub use far::Far;
pub(crate) use pulse::{Pulse, pong_within};

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use strait::{Builder, ConnectError, DialError, Incoming, Node, Priority, Request, StartError, Stop};
use strait_core::{Keypair, Limits, Multiaddr, PeerId};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use addrs::is_tcp;

use crate::exit::{Code, Failure};
use crate::provider::Provider;
use crate::wire::{self, Protocol};

/// How long the first byte of an answer may take. Behind it may be a slow disk with a queue.
const DEADLINE: Duration = Duration::from_secs(30);

/// Header, entries and hashes (TR-02). Only read at the provider.
pub const MANIFEST: Request =
    Request::new(wire::MANIFEST, wire::MANIFEST_REQUEST_BYTES, wire::MANIFEST_REPLY_BYTES_MAX, DEADLINE, 4).idempotent();
/// Content (TR-03). So many at once keep a path of 40 MB/s and 100 ms busy. Only read at the provider.
pub const CHUNK: Request =
    Request::new(wire::CHUNK, wire::CHUNK_REQUEST_BYTES, wire::CHUNK_REPLY_BYTES_MAX, DEADLINE, 16).idempotent();
/// A full copy was taken (TR-04). Counted at the provider, so it is not said twice.
pub const DONE: Request = Request::new(wire::DONE, wire::DONE_REQUEST_BYTES, 1 + wire::DETAIL_BYTES_MAX, DEADLINE, 1);

// TR-01: the node holds both sides to these limits; here they only have to be right.
fn definition(protocol: Protocol) -> &'static Request {
    match protocol {
        Protocol::Manifest => &MANIFEST,
        Protocol::Chunk => &CHUNK,
        Protocol::Done => &DONE,
    }
}

/// The nodes of this process, so that a signal can close them in order: their peers learn at once that they are gone.
#[derive(Default)]
pub struct Nodes {
    all: Mutex<Vec<Node>>,
    started: Notify,
}

impl Nodes {
    /// Starts a node that listens at `listen`, or at a free port of all interfaces, for QUIC.
    pub async fn start(&self, keypair: Keypair, listen: Option<SocketAddr>) -> Result<Node, Failure> {
        self.take(builder(keypair, listen.as_slice(), &[], &[]).start().await)
    }

    /// The same for a node that others are to reach: for TCP too, where that is possible, since UDP may be blocked on the way. Others are told
    /// `announce` of it, if there is any.
    pub async fn start_as(&self, keypair: Keypair, listen: Option<SocketAddr>, announce: &[Multiaddr]) -> Result<Node, Failure> {
        self.start_within(keypair, listen.as_slice(), announce, &Limits::default()).await
    }

    /// The same at several addresses, and within these limits.
    pub async fn start_within(
        &self,
        keypair: Keypair,
        listen: &[SocketAddr],
        announce: &[Multiaddr],
        limits: &Limits,
    ) -> Result<Node, Failure> {
        let free = [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))];
        let tcp = if listen.is_empty() { &free[..] } else { listen };
        // Without IPv6 if there is none; without TCP if the port is taken for that.
        let mut some = tcp;
        loop {
            match (builder(keypair.clone(), listen, some, announce).limits(limits.clone()).start().await, some) {
                (Err(StartError::Bind { .. }), [fewer @ .., _]) => some = fewer,
                (started, _) => return self.take(started),
            }
        }
    }

    fn take(&self, started: Result<Node, StartError>) -> Result<Node, Failure> {
        let node = started.map_err(|error| {
            if let StartError::Announce { address, why } = &error {
                let next = "give --announce the address and port at which others reach this machine, or leave it away";
                return Failure::new(Code::Usage, format!("{address} cannot be announced"), why.to_string(), next);
            }
            let why = "the address or port is taken, or is not one of this machine's";
            let next = "choose another with --listen, or leave it to strait";
            Failure::new(Code::Unreachable, format!("could not start: {error}"), why, next)
        })?;
        self.lock().push(node.clone());
        self.started.notify_one();
        Ok(node)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Node>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until one of them has stopped that nobody has closed.
    pub async fn failed(&self) {
        loop {
            let nodes = self.lock().clone();
            let mut stops: JoinSet<Stop> = nodes.into_iter().map(|node| async move { node.stopped().await }).collect();
            let any = async {
                while let Some(stop) = stops.join_next().await {
                    if stop.is_ok_and(|stop| stop == Stop::Failed) {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                () = any => return,
                () = self.started.notified() => {}
            }
        }
    }

    /// Closes all nodes, and waits for at most `most`.
    pub async fn close(&self, most: Duration) {
        let nodes = std::mem::take(&mut *self.lock());
        let all = async {
            for node in nodes {
                node.close().await;
            }
        };
        let _ = tokio::time::timeout(most, all).await; // past it the peers learn from silence
    }
}

fn builder(keypair: Keypair, listen: &[SocketAddr], tcp: &[SocketAddr], announce: &[Multiaddr]) -> Builder {
    let builder = Node::builder().identity(keypair);
    let builder = listen.iter().copied().fold(builder, Builder::listen);
    let builder = tcp.iter().copied().fold(builder, Builder::listen_tcp);
    announce.iter().cloned().fold(builder, Builder::announce)
}

/// What a transfer cost this node, from its counters, for programs: requests to find out how well small files share them, system calls
/// and copies in user space to find out what a byte costs. What is between the node and the disk is not in it.
pub fn costs(node: &Node) -> serde_json::Value {
    let (counters, driver) = (node.counters(), node.driver_counters());
    let sum = |of: fn(&strait_core::PerProtocol) -> u64| -> u64 {
        [&MANIFEST, &CHUNK, &DONE].iter().filter_map(|request| counters.protocols.get(request.name)).map(of).sum()
    };
    serde_json::json!({
        "requests": sum(|protocol| protocol.sent),
        "served": sum(|protocol| protocol.served),
        "datagrams_in": counters.totals.datagrams_in,
        "datagrams_out": counters.totals.datagrams_out,
        "pipe_reads": counters.totals.pipe_reads,
        "pipe_writes": counters.totals.pipe_writes,
        "receive_calls": driver.receive_calls,
        "send_calls": driver.send_calls,
        "wakeups": driver.wakeups,
        "copied_bytes": counters.totals.bytes_copied.saturating_add(driver.bytes_copied),
    })
}

/// Says so when a node that others are to reach does not listen for TCP.
pub fn note_without_tcp(node: &Node, say: impl Fn(String)) {
    if !node.listen_addrs().iter().any(is_tcp) {
        say("note: it listens for UDP alone, since the port is taken for TCP; where UDP is blocked it cannot be reached"
            .to_owned());
    }
}

/// Serves a provider to everybody who knows its root.
pub fn serve(node: &Node, provider: &Arc<Provider>) -> Result<(), Failure> {
    for (protocol, priority) in
        [(Protocol::Manifest, Priority::Normal), (Protocol::Chunk, Priority::Bulk), (Protocol::Done, Priority::Normal)]
    {
        let provider = provider.clone();
        let handler = async move |request: Incoming| {
            let body = request.body.into_bytes();
            provider.answer(protocol, &body).await
        };
        node.serve(definition(protocol), priority, handler)
            .map_err(|error| Failure::bug(format!("could not serve {}: {error}", definition(protocol).name)))?;
    }
    Ok(())
}

/// Connects, or says why not (TR-13: the identity is proved before anything is asked).
pub async fn connect(node: &Node, peer: PeerId, addrs: &[Multiaddr]) -> Result<(), Failure> {
    if addrs.is_empty() {
        let why = "the ticket carries no address";
        return Err(Failure::new(
            Code::Unreachable,
            format!("no address of {peer} is known"),
            why,
            "ask the other side for a new ticket",
        ));
    }
    node.connect(peer, addrs).await.map_err(|error| connect_failure(&error, addrs))
}

/// The cause that says most, with what was tried at each address.
pub(crate) fn connect_failure(error: &ConnectError, addrs: &[Multiaddr]) -> Failure {
    let failure = dial_failure(&error.first_cause(), addrs);
    if failure.code != Code::Unreachable || error.attempts.is_empty() {
        return failure;
    }
    let alike = |code: fn(&DialError) -> bool| error.attempts.iter().all(|attempt| code(&attempt.error));
    let why = match () {
        () if alike(|error| matches!(error, DialError::NothingListens)) => {
            "the machine is there, and nothing listens at that port: the other side was stopped, or started again at another port"
        }
        () if alike(|error| matches!(error, DialError::NoWay(_))) => "this machine is offline, or has not got that IP version",
        () if alike(|error| matches!(error, DialError::Name { .. })) => {
            "the name in the address is wrong, or no name server answers"
        }
        () => "the other side was stopped, it is on another network, or a firewall is in between",
    };
    Failure { what: error.to_string(), why: why.to_owned(), ..failure }
}

fn dial_failure(error: &DialError, addrs: &[Multiaddr]) -> Failure {
    let places = addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match error {
        DialError::WrongPeer { wanted, found } => Failure::new(
            Code::WrongIdentity,
            format!("another node answers there: wanted {wanted}, found {found}"),
            "the address was given to another machine, or somebody is in between and pretends",
            "ask the other side for a new ticket; nothing was asked of the other node",
        ),
        DialError::Incompatible(_) => Failure::new(
            Code::Incompatible,
            format!("no common protocol: {error}"),
            "what answers there is not strait, or a version that does not fit",
            "use the same version of strait on both sides",
        ),
        _ => Failure::new(
            Code::Unreachable,
            format!("could not reach the other side at {places}: {error}"),
            "the other side was stopped, it is on another network, or a firewall is in between",
            "check that strait still runs there, and that both machines are on the same network",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TR-01, TR-02, TR-03, TR-04: the definitions are those of the written table.
    #[test]
    fn the_definitions_are_those_of_the_spec() {
        let table = [
            (&MANIFEST, "/strait/manifest/1", 42, 262_145, 4),
            (&CHUNK, "/strait/chunk/1", 40, 1_048_577, 16),
            (&DONE, "/strait/done/1", 32, 1_025, 1),
        ];
        for (request, name, request_bytes, reply_bytes, at_once) in table {
            assert_eq!(request.name, name);
            assert_eq!((request.request_bytes_max, request.reply_bytes_max), (request_bytes, reply_bytes), "{name}");
            assert_eq!(request.per_peer_max, at_once, "{name}");
        }
    }
}
