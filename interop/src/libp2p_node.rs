//! A rust-libp2p node on loopback, run by a task of its own and steered through a handle.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, Transport as _,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identify,
    identity::Keypair,
    multiaddr::Protocol,
    noise, ping, quic, request_response,
    request_response::{OutboundRequestId, ProtocolSupport},
    swarm::{
        self, ConnectionId, NetworkBehaviour, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
    tcp, tls, yamux,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    codec::{Codec, Framing},
    libp2p_streams::{self, Opened},
    peer::{Answer, Identified, Peer},
    roles::{self, Duplex, Opener, Role},
    service,
    transport::Transport,
    wait,
};

/// The agent that the node tells in identify.
pub const AGENT: &str = "interop-rust-libp2p/0.57";

/// Pings follow each other quickly, so that a test sees the stream reused.
const PING_INTERVAL: Duration = Duration::from_millis(100);

/// Which of the node's request/response behaviours to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// [`service::PREFIXED`].
    Prefixed,
    /// [`service::UNTIL_END`].
    UntilEnd,
    /// [`service::UNKNOWN`]: asked for, never served.
    Unknown,
}

/// How a node differs from the usual.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it listens on and dials with; QUIC by default.
    pub transport: Transport,
    /// The identity; a fresh Ed25519 one by default.
    pub keypair: Keypair,
    /// Largest request or reply that the node accepts, in bytes.
    pub read_bytes_max: usize,
    /// Whether identify carries a signed peer record.
    pub signed_record: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self::over(Transport::Quic)
    }
}

impl Options {
    /// The usual, over `transport`.
    pub fn over(transport: Transport) -> Self {
        Self { transport, keypair: Keypair::generate_ed25519(), read_bytes_max: service::REPLY_BYTES_MAX, signed_record: false }
    }
}

/// What the node has learnt so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The last identify message of each peer.
    pub identified: BTreeMap<PeerId, identify::Info>,
    /// Successful pings, by peer.
    pub pings: BTreeMap<PeerId, usize>,
    /// Failed pings, in words.
    pub ping_failures: Vec<String>,
    /// Connections established so far, by peer.
    pub opened: BTreeMap<PeerId, usize>,
    /// Connections closed so far, by peer, with the cause.
    pub closed: BTreeMap<PeerId, Vec<String>>,
    /// Requests that this node answered.
    pub answered: usize,
    /// Inbound requests that failed, in words.
    pub inbound_failures: Vec<String>,
    /// Inbound connections that failed before they were established, in words.
    pub incoming_errors: Vec<String>,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    prefixed: request_response::Behaviour<Codec>,
    until_end: request_response::Behaviour<Codec>,
    unknown: request_response::Behaviour<Codec>,
    streams: libp2p_streams::Behaviour,
}

type Dialled = oneshot::Sender<Result<(), String>>;
type Reply = oneshot::Sender<Result<Vec<u8>, String>>;

enum Command {
    Dial(Option<PeerId>, Multiaddr, Dialled),
    Request(Which, PeerId, Vec<u8>, Reply),
    Open(PeerId, &'static str, Opened),
}

/// The handle of a running node. The node ends when it is dropped.
pub struct Libp2pNode {
    peer_id: PeerId,
    transport: Transport,
    listen: Multiaddr,
    commands: mpsc::Sender<Command>,
    seen: watch::Receiver<Seen>,
}

impl Libp2pNode {
    /// Starts a node that listens on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When the port cannot be bound: without it no test has a meaning.
    pub async fn start(options: Options) -> Self {
        let peer_id = options.keypair.public().to_peer_id();
        let mut swarm = swarm(&options);
        let any_port = options.transport.any_port().parse().expect("a literal");
        swarm.listen_on(any_port).expect("a port on loopback");
        let listen = wait::within("rust-libp2p's own listen address", async {
            loop {
                if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                    return address;
                }
            }
        })
        .await;
        let (commands, inbox) = mpsc::channel(256);
        let (seen_writer, seen) = watch::channel(Seen::default());
        tokio::spawn(Task::new(swarm, inbox, seen_writer).run());
        Self { peer_id, transport: options.transport, listen, commands, seen }
    }

    /// The node's identity.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// What it listens on and dials with.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where the node listens, without `/p2p/…`.
    pub fn listen_addr(&self) -> Multiaddr {
        self.listen.clone()
    }

    /// Dials `address` and expects `peer` there, or anybody if `None`.
    ///
    /// # Errors
    /// What rust-libp2p says, in its words.
    pub async fn dial(&self, peer: Option<PeerId>, address: Multiaddr) -> Result<(), String> {
        let (done, result) = oneshot::channel();
        self.command(Command::Dial(peer, address, done)).await;
        wait::within("the end of rust-libp2p's dial", result).await.expect("the node runs")
    }

    /// Sends a request and awaits the reply.
    ///
    /// # Errors
    /// What rust-libp2p says, in its words.
    pub async fn request(&self, which: Which, peer: PeerId, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let (done, result) = oneshot::channel();
        self.command(Command::Request(which, peer, body, done)).await;
        wait::within("the reply to rust-libp2p's request", result).await.expect("the node runs")
    }

    /// The first value that `found` makes of what the node has seen, now or later.
    pub async fn until<R>(&self, what: &str, found: impl Fn(&Seen) -> Option<R>) -> R {
        wait::until(what, &mut self.seen.clone(), found).await
    }

    /// What the node has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    async fn command(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            panic!("rust-libp2p's task ended early");
        }
    }
}

/// Opens streams from a rust-libp2p node to a peer.
struct ToPeer<'a>(&'a Libp2pNode, PeerId);

impl Opener for ToPeer<'_> {
    fn open(&self, protocol: &'static str) -> BoxFuture<'_, Result<Duplex, String>> {
        async move {
            let (opened, result) = oneshot::channel();
            self.0.command(Command::Open(self.1, protocol, opened)).await;
            result.await.unwrap_or_else(|_| Err("not connected".to_owned()))
        }
        .boxed()
    }
}

impl Peer for Libp2pNode {
    fn id(&self) -> PeerId {
        self.peer_id
    }

    fn agent(&self) -> &str {
        AGENT
    }

    fn address(&self) -> Multiaddr {
        self.listen.clone()
    }

    fn dial(&self, peer: PeerId, address: Multiaddr) -> Answer<'_, ()> {
        Libp2pNode::dial(self, Some(peer), address).boxed()
    }

    fn identified(&self, peer: PeerId) -> Answer<'_, Identified> {
        async move {
            let info = self.until("rust-libp2p to learn of its peer", |seen| seen.identified.get(&peer).cloned()).await;
            Ok(Identified {
                agent: info.agent_version,
                protocols: info.protocols.iter().map(ToString::to_string).collect(),
                listens: info.listen_addrs,
                observed: Some(info.observed_addr),
            })
        }
        .boxed()
    }

    fn ping(&self, peer: PeerId) -> Answer<'_, ()> {
        async move {
            let before = self.seen().pings.get(&peer).copied().unwrap_or(0);
            let more = |seen: &Seen| match seen.ping_failures.last() {
                Some(failure) => Some(Err(failure.clone())),
                None => (*seen.pings.get(&peer)? > before).then_some(Ok(())),
            };
            self.until("rust-libp2p's next ping", more).await
        }
        .boxed()
    }

    fn ask(&self, peer: PeerId, body: Vec<u8>) -> Answer<'_, Vec<u8>> {
        self.request(Which::Prefixed, peer, body).boxed()
    }

    fn play(&self, peer: PeerId, role: Role) -> Answer<'_, ()> {
        async move { roles::play(role, &ToPeer(self, peer)).await }.boxed()
    }

    fn closed(&self) -> Answer<'_, usize> {
        async { Ok(self.seen().closed.values().map(Vec::len).sum()) }.boxed()
    }
}

fn swarm(options: &Options) -> Swarm<Behaviour> {
    let messages = |framing, name, support| {
        let codec = Codec { framing, read_bytes_max: options.read_bytes_max };
        let config = request_response::Config::default()
            .with_request_timeout(wait::BOUND)
            // The default of 100 would make rust-libp2p itself refuse what a test sends at once.
            .with_max_concurrent_streams(256);
        request_response::Behaviour::with_codec(codec, [(StreamProtocol::new(name), support)], config)
    };
    let keypair = &options.keypair;
    let behaviour = Behaviour {
        identify: identify::Behaviour::new(identify_config(keypair, options.signed_record)),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
        prefixed: messages(Framing::LengthPrefixed, service::PREFIXED, ProtocolSupport::Full),
        until_end: messages(Framing::EndOfStream, service::UNTIL_END, ProtocolSupport::Full),
        unknown: messages(Framing::LengthPrefixed, service::UNKNOWN, ProtocolSupport::Outbound),
        streams: libp2p_streams::Behaviour::default(),
    };
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(wait::BOUND);
    Swarm::new(transport(options.transport, keypair), behaviour, keypair.public().to_peer_id(), config)
}

/// As rust-libp2p's own builder makes them.
fn transport(transport: Transport, keypair: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default()).upgrade(Version::V1Lazy);
    match transport {
        Transport::TcpNoise => {
            let noise = noise::Config::new(keypair).expect("a key for Noise");
            tcp().authenticate(noise).multiplex(yamux::Config::default()).boxed()
        }
        Transport::TcpTls => {
            let tls = tls::Config::new(keypair).expect("a certificate");
            tcp().authenticate(tls).multiplex(yamux::Config::default()).boxed()
        }
        Transport::Quic => quic::tokio::Transport::new(quic::Config::new(keypair))
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    }
}

fn identify_config(keypair: &Keypair, signed_record: bool) -> identify::Config {
    let version = "/strait-interop/0".to_owned();
    let config = match signed_record {
        true => identify::Config::new_with_signed_peer_record(version, keypair),
        false => identify::Config::new(version, keypair.public()),
    };
    config.with_agent_version(AGENT.to_owned())
}

struct Task {
    swarm: Swarm<Behaviour>,
    inbox: mpsc::Receiver<Command>,
    seen: watch::Sender<Seen>,
    dials: HashMap<ConnectionId, Dialled>,
    requests: HashMap<(Which, OutboundRequestId), Reply>,
}

impl Task {
    fn new(swarm: Swarm<Behaviour>, inbox: mpsc::Receiver<Command>, seen: watch::Sender<Seen>) -> Self {
        Self { swarm, inbox, seen, dials: HashMap::new(), requests: HashMap::new() }
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    // The handle is gone, and with it the test that wanted the node.
                    None => return,
                },
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Dial(peer, address, done) => {
                let options = match peer {
                    Some(peer) => DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::Always).build(),
                    None => DialOpts::unknown_peer_id().address(address).build(),
                };
                let id = options.connection_id();
                match self.swarm.dial(options) {
                    Ok(()) => drop(self.dials.insert(id, done)),
                    Err(error) => drop(done.send(Err(error.to_string()))),
                }
            }
            Command::Request(which, peer, body, done) => {
                let id = self.behaviour(which).send_request(&peer, body);
                self.requests.insert((which, id), done);
            }
            Command::Open(peer, protocol, opened) => self.swarm.behaviour_mut().streams.open(peer, protocol, opened),
        }
    }

    fn behaviour(&mut self, which: Which) -> &mut request_response::Behaviour<Codec> {
        let behaviour = self.swarm.behaviour_mut();
        match which {
            Which::Prefixed => &mut behaviour.prefixed,
            Which::UntilEnd => &mut behaviour.until_end,
            Which::Unknown => &mut behaviour.unknown,
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.note(|seen| *seen.opened.entry(peer_id).or_default() += 1);
                if let Some(done) = self.dials.remove(&connection_id) {
                    drop(done.send(Ok(())));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, cause, .. } => {
                let cause = cause.map_or_else(|| "closed here".to_owned(), |e| e.to_string());
                self.note(|seen| seen.closed.entry(peer_id).or_default().push(cause.clone()));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(done) = self.dials.remove(&connection_id) {
                    drop(done.send(Err(in_full(&error))));
                }
            }
            SwarmEvent::IncomingConnectionError { error, .. } => {
                self.note(|seen| seen.incoming_errors.push(in_full(&error)));
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.note(|seen| drop(seen.identified.insert(peer_id, info.clone())));
            }
            BehaviourEvent::Identify(_) => {}
            BehaviourEvent::Ping(ping::Event { peer, result, .. }) => match result {
                Ok(_) => self.note(|seen| *seen.pings.entry(peer).or_default() += 1),
                Err(error) => self.note(|seen| seen.ping_failures.push(error.to_string())),
            },
            BehaviourEvent::Prefixed(event) => self.on_message(Which::Prefixed, event),
            BehaviourEvent::UntilEnd(event) => self.on_message(Which::UntilEnd, event),
            BehaviourEvent::Unknown(event) => self.on_message(Which::Unknown, event),
            BehaviourEvent::Streams(event) => match event {},
        }
    }

    fn on_message(&mut self, which: Which, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { message, .. } => match message {
                Message::Request { request, channel, .. } => {
                    // A peer that left meanwhile needs no answer; that is its own business.
                    let _ = self.behaviour(which).send_response(channel, service::answer(&request));
                }
                Message::Response { request_id, response } => self.finish(which, request_id, Ok(response)),
            },
            Event::OutboundFailure { request_id, error, .. } => self.finish(which, request_id, Err(in_full(&error))),
            Event::InboundFailure { error, .. } => {
                self.note(|seen| seen.inbound_failures.push(in_full(&error)));
            }
            Event::ResponseSent { .. } => self.note(|seen| seen.answered += 1),
        }
    }

    fn finish(&mut self, which: Which, id: OutboundRequestId, result: Result<Vec<u8>, String>) {
        if let Some(done) = self.requests.remove(&(which, id)) {
            // The test may have given up on it.
            drop(done.send(result));
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }
}

/// An error with all its causes, since rust-libp2p's outer ones say little.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// `address` with `/p2p/<peer>` at its end.
pub fn with_peer(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    address.clone().with(Protocol::P2p(peer))
}
