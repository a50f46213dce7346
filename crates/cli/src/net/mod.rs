//! The one place that names the node: the protocols' definitions, serving a provider, and asking one.

mod addrs;

pub use addrs::for_ticket;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use strait::{Breach, DialError, Incoming, Node, Priority, Request, RequestError};
use strait_core::{Keypair, Multiaddr, PeerId};

use crate::exit::{Code, Failure};
use crate::fetch::{Fetch, FetchError};
use crate::progress::Progress;
use crate::provider::Provider;
use crate::ticket::Ticket;
use crate::tree::Hash;
use crate::wire::{self, Ask, Protocol};

/// How long the first byte of an answer may take. Behind it may be a slow disk with a queue.
const DEADLINE: Duration = Duration::from_secs(30);

/// Header, entries and hashes (TR-02).
pub const MANIFEST: Request =
    Request::new(wire::MANIFEST, wire::MANIFEST_REQUEST_BYTES, wire::MANIFEST_REPLY_BYTES_MAX, DEADLINE, 4);
/// Content (TR-03). So many at once keep a path of 40 MB/s and 100 ms busy.
pub const CHUNK: Request = Request::new(wire::CHUNK, wire::CHUNK_REQUEST_BYTES, wire::CHUNK_REPLY_BYTES_MAX, DEADLINE, 16);
/// A full copy was taken (TR-04).
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
pub struct Nodes(Mutex<Vec<Node>>);

impl Nodes {
    /// Starts a node that listens at `listen`, or at a free port of all interfaces.
    pub async fn start(&self, keypair: Keypair, listen: Option<SocketAddr>) -> Result<Node, Failure> {
        let mut builder = Node::builder().identity(keypair);
        if let Some(address) = listen {
            builder = builder.listen(address);
        }
        let node = builder.start().await.map_err(|error| {
            let why = "the address or port is taken, or is not one of this machine's";
            let next = "choose another with --listen, or leave it to strait";
            Failure::new(Code::Unreachable, format!("could not start: {error}"), why, next)
        })?;
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(node.clone());
        Ok(node)
    }

    /// Closes all nodes, and waits for at most `most`.
    pub async fn close(&self, most: Duration) {
        let nodes = std::mem::take(&mut *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let all = async {
            for node in nodes {
                node.close().await;
            }
        };
        let _ = tokio::time::timeout(most, all).await; // past it the peers learn from silence
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
            "ask the sender for a new ticket",
        ));
    }
    node.connect(peer, addrs).await.map_err(|error| dial_failure(&error.first_cause(), addrs))
}

fn dial_failure(error: &DialError, addrs: &[Multiaddr]) -> Failure {
    let places = addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match error {
        DialError::WrongPeer { wanted, found } => Failure::new(
            Code::WrongIdentity,
            format!("another node answers there: wanted {wanted}, found {found}"),
            "the address was given to another machine, or somebody is in between and pretends",
            "ask the sender for a new ticket; nothing was asked of the other node",
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
            "the sender was stopped, it is on another network, or a firewall drops UDP",
            "check that `strait send` still runs, and that both machines are on the same network",
        ),
    }
}

/// Asks one provider over the network.
pub struct Far {
    node: Node,
    peer: PeerId,
    addrs: Vec<Multiaddr>,
    root: Hash,
    /// The connection was seen to be lost, and that was told.
    lost: AtomicBool,
    /// How many attempts to connect again have ended, and how the last did.
    attempts: tokio::sync::Mutex<(u64, Result<(), FetchError>)>,
    ended: AtomicU64,
    progress: Arc<Progress>,
}

impl Far {
    /// Connects to the provider. What happens to the connection later is told to `progress`.
    pub async fn connect(node: Node, ticket: Ticket, progress: Arc<Progress>) -> Result<Far, Failure> {
        let Ticket { peer, addrs, root } = ticket;
        connect(&node, peer, &addrs).await?;
        Ok(Far {
            node,
            peer,
            addrs,
            root,
            lost: AtomicBool::new(false),
            attempts: tokio::sync::Mutex::new((0, Ok(()))),
            ended: AtomicU64::new(0),
            progress,
        })
    }

    /// Connects again. Of many requests that want it at once, one tries, and its result is that of all who waited for it: so a
    /// provider that is gone costs one deadline, not one for each.
    async fn connect_again(&self) -> Result<(), FetchError> {
        let before = self.ended.load(Ordering::Relaxed);
        let mut attempt = self.attempts.lock().await;
        if attempt.0 > before {
            return attempt.1.clone();
        }
        let again = self.node.connect(self.peer, &self.addrs).await;
        let result = again.map_err(|error| self.failed(RequestError::Dial(error.first_cause())));
        if result.is_ok() && self.lost.swap(false, Ordering::Relaxed) {
            self.progress.say("connected again");
        }
        *attempt = (before + 1, result.clone());
        self.ended.store(before + 1, Ordering::Relaxed);
        result
    }

    /// Notes that the connection is gone; of all requests that find it out, one tells.
    fn lose(&self, error: &RequestError) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            self.progress.say(&format!("{error}; trying again"));
        }
    }

    fn failed(&self, error: RequestError) -> FetchError {
        let last = |failure| FetchError::Final(Box::new(failure));
        match error {
            RequestError::Dial(error @ (DialError::WrongPeer { .. } | DialError::Incompatible(_))) => {
                last(dial_failure(&error, &self.addrs))
            }
            RequestError::Dial(_) | RequestError::NoAddress(_) | RequestError::Lost(_) => {
                self.lose(&error);
                FetchError::Again(error.to_string())
            }
            RequestError::Unsupported(name) => last(Failure::new(
                Code::NotServed,
                format!("the node answers, but does not serve {name}"),
                "`strait send` no longer runs there, or another version does",
                "ask the sender to run send again, and use the new ticket",
            )),
            // Not declined, but given up for want of memory or time: there may be some later.
            RequestError::Rejected(code) if code == u64::from(strait::CODE_SLOW) => FetchError::Again(error.to_string()),
            RequestError::Rejected(_) => last(Failure::new(
                Code::NotServed,
                "the provider declined the request without a reason",
                "it is no sender of strait, or it is about to stop",
                "ask the sender to run send again, and use the new ticket",
            )),
            RequestError::Broken(Breach::TooLarge { .. } | Breach::Malformed(_)) => last(Failure::new(
                Code::Incompatible,
                format!("the provider does not keep to the protocol: {error}"),
                "its version is not compatible, or it is faulty or hostile",
                "use the same version of strait on both sides",
            )),
            RequestError::Closing => last(Failure::new(Code::Interrupted, "stopped", "this node is closing", "run get again")),
            RequestError::TooLarge { .. } => last(Failure::bug(error.to_string())),
            _ => FetchError::Again(error.to_string()),
        }
    }
}

impl Fetch for Far {
    async fn fetch(&self, ask: Ask) -> Result<Bytes, FetchError> {
        if !self.node.is_connected(self.peer) {
            self.connect_again().await?;
        }
        let request = ask.encode(&self.root);
        let reply = self.node.request(self.peer, definition(ask.protocol()), request).await;
        reply.map(|message| message.into_bytes()).map_err(|error| self.failed(error))
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
