//! A litep2p node on loopback, run by tasks of its own and steered through a handle.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use libp2p::{Multiaddr, PeerId};
use litep2p::codec::ProtocolCodec;
use litep2p::config::ConfigBuilder;
use litep2p::protocol::libp2p::identify::{self, IdentifyEvent};
use litep2p::protocol::libp2p::ping::{self, PingEvent};
use litep2p::protocol::request_response::{self, DialOptions, RequestResponseEvent, RequestResponseHandle};
use litep2p::protocol::{Direction, TransportEvent, TransportService, UserProtocol};
use litep2p::transport::{quic, tcp};
use litep2p::types::protocol::ProtocolName;
use litep2p::types::{RequestId, SubstreamId};
use litep2p::{Litep2p, Litep2pEvent};
use tokio::sync::{mpsc, oneshot, watch};

use crate::peer::{Answer, Identified, Peer, bare};
use crate::roles::{self, Duplex, Opener, Responder, Role};
use crate::transport::Transport;
use crate::{service, wait};

/// The agent that the node tells in identify.
pub const AGENT: &str = "interop-litep2p/0.16";

/// Its own is 5 s.
const PING_INTERVAL: Duration = Duration::from_millis(100);

/// What the node has learnt so far.
#[derive(Debug, Clone, Default)]
struct Seen {
    identified: BTreeMap<PeerId, Identified>,
    pings: BTreeMap<PeerId, usize>,
    connected: BTreeMap<PeerId, usize>,
    closed: usize,
    dial_failures: Vec<String>,
}

type Reply = oneshot::Sender<Result<Vec<u8>, String>>;
type Opened = oneshot::Sender<Result<Duplex, String>>;

/// The handle of a running node. The node ends when it is dropped.
pub struct Litep2pNode {
    peer_id: PeerId,
    listen: Multiaddr,
    dials: mpsc::Sender<litep2p::types::multiaddr::Multiaddr>,
    requests: mpsc::Sender<(litep2p::PeerId, Vec<u8>, Reply)>,
    streams: HashMap<&'static str, mpsc::Sender<(litep2p::PeerId, Opened)>>,
    seen: watch::Receiver<Seen>,
}

impl Litep2pNode {
    /// Starts a node that listens on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When it cannot, or for TCP with TLS, which litep2p does not have.
    pub fn start(transport: Transport) -> Self {
        let any_port = vec![transport.any_port().parse().expect("a literal")];
        let (ping, pings) = ping::ConfigBuilder::new().with_ping_interval(PING_INTERVAL).build();
        let (identify, identified) = identify::Config::new("/strait-interop/0".to_owned(), Some(AGENT.to_owned()));
        let (request, handle) = request_response::ConfigBuilder::new(ProtocolName::from(service::PREFIXED))
            .with_max_size(service::REPLY_BYTES_MAX)
            .with_timeout(wait::BOUND)
            .build();
        let mut config = ConfigBuilder::new()
            .with_libp2p_ping(ping)
            .with_libp2p_identify(identify)
            .with_request_response_protocol(request)
            .with_keep_alive_timeout(wait::BOUND);
        config = match transport {
            Transport::TcpNoise => config.with_tcp(tcp::config::Config { listen_addresses: any_port, ..Default::default() }),
            Transport::Quic => config.with_quic(quic::config::Config { listen_addresses: any_port, ..Default::default() }),
            Transport::TcpTls => panic!("litep2p secures TCP with Noise only"),
        };
        let responder = Responder::default();
        let mut streams = HashMap::new();
        for name in roles::PROTOCOLS {
            let (sender, wanted) = mpsc::channel(256);
            streams.insert(name, sender);
            let protocol = Streams { name, wanted, responder: responder.clone(), opening: HashMap::new() };
            config = config.with_user_protocol(Box::new(protocol));
        }
        let node = Litep2p::new(config.build()).expect("a litep2p node on loopback");
        let peer_id = ours(*node.local_peer_id());
        let listen = bare(&address(node.listen_addresses().next().expect("a bound node has an address")));
        let (dials, inbox) = mpsc::channel(16);
        let (requests, asked) = mpsc::channel(256);
        let (writer, seen) = watch::channel(Seen::default());
        tokio::spawn(connections(node, inbox, writer.clone()));
        tokio::spawn(answer(handle, asked));
        tokio::spawn(note(pings, writer.clone(), |seen, PingEvent::Ping { peer, .. }| {
            *seen.pings.entry(ours(peer)).or_default() += 1;
        }));
        tokio::spawn(note(identified, writer, note_identity));
        Self { peer_id, listen, dials, requests, streams, seen }
    }
}

fn ours(peer: litep2p::PeerId) -> PeerId {
    PeerId::from_bytes(&peer.to_bytes()).expect("an identity")
}

fn theirs(peer: PeerId) -> litep2p::PeerId {
    litep2p::PeerId::from_bytes(&peer.to_bytes()).expect("an identity")
}

fn address(address: &litep2p::types::multiaddr::Multiaddr) -> Multiaddr {
    address.to_string().parse().expect("an address")
}

fn note_identity(seen: &mut Seen, event: IdentifyEvent) {
    let IdentifyEvent::PeerIdentified { peer, user_agent, supported_protocols, observed_address, listen_addresses, .. } = event;
    let identified = Identified {
        agent: user_agent.unwrap_or_default(),
        protocols: supported_protocols.iter().map(ToString::to_string).collect(),
        listens: listen_addresses.iter().map(|listens| bare(&address(listens))).collect(),
        observed: Some(address(&observed_address)),
    };
    seen.identified.insert(ours(peer), identified);
}

/// Notes all events of a protocol.
async fn note<E>(mut events: impl futures::Stream<Item = E> + Unpin, seen: watch::Sender<Seen>, change: impl Fn(&mut Seen, E)) {
    while let Some(event) = events.next().await {
        seen.send_modify(|seen| change(seen, event));
    }
}

async fn connections(
    mut node: Litep2p,
    mut dials: mpsc::Receiver<litep2p::types::multiaddr::Multiaddr>,
    seen: watch::Sender<Seen>,
) {
    loop {
        let event = tokio::select! {
            event = node.next_event() => event,
            dial = dials.recv() => {
                // The handle is gone, and with it the test that wanted the node.
                let Some(dial) = dial else { return };
                if let Err(error) = node.dial_address(dial).await {
                    seen.send_modify(|seen| seen.dial_failures.push(error.to_string()));
                }
                continue;
            }
        };
        seen.send_modify(|seen| match event {
            Some(Litep2pEvent::ConnectionEstablished { peer, .. }) => *seen.connected.entry(ours(peer)).or_default() += 1,
            Some(Litep2pEvent::ConnectionClosed { .. }) => seen.closed += 1,
            Some(Litep2pEvent::DialFailure { address, error }) => seen.dial_failures.push(format!("{address}: {error:?}")),
            Some(Litep2pEvent::ListDialFailures { errors }) => seen.dial_failures.push(format!("{errors:?}")),
            None => {}
        });
    }
}

/// Answers requests, and sends those that are asked for.
async fn answer(mut handle: RequestResponseHandle, mut asked: mpsc::Receiver<(litep2p::PeerId, Vec<u8>, Reply)>) {
    let mut open: HashMap<RequestId, Reply> = HashMap::new();
    loop {
        tokio::select! {
            asked = asked.recv() => {
                let Some((peer, body, reply)) = asked else { return };
                match handle.send_request(peer, body, DialOptions::Reject).await {
                    Ok(id) => drop(open.insert(id, reply)),
                    Err(error) => drop(reply.send(Err(format!("{error:?}")))),
                }
            }
            event = handle.next() => match event {
                Some(RequestResponseEvent::RequestReceived { request_id, request, .. }) => {
                    handle.send_response(request_id, service::answer(&request));
                }
                Some(RequestResponseEvent::ResponseReceived { request_id, response, .. }) => {
                    open.remove(&request_id).map(|reply| reply.send(Ok(response)));
                }
                Some(RequestResponseEvent::RequestFailed { request_id, error, .. }) => {
                    open.remove(&request_id).map(|reply| reply.send(Err(format!("{error:?}"))));
                }
                None => return,
            },
        }
    }
}

/// Raw streams of one protocol.
struct Streams {
    name: &'static str,
    wanted: mpsc::Receiver<(litep2p::PeerId, Opened)>,
    responder: Responder,
    opening: HashMap<SubstreamId, Opened>,
}

#[async_trait::async_trait]
impl UserProtocol for Streams {
    fn protocol(&self) -> ProtocolName {
        ProtocolName::from(self.name)
    }

    fn codec(&self) -> ProtocolCodec {
        ProtocolCodec::Unspecified
    }

    async fn run(mut self: Box<Self>, mut service: TransportService) -> litep2p::Result<()> {
        loop {
            let event = tokio::select! {
                event = service.next() => event,
                wanted = self.wanted.recv() => {
                    let Some((peer, opened)) = wanted else { return Ok(()) };
                    match service.open_substream(peer) {
                        Ok(id) => drop(self.opening.insert(id, opened)),
                        Err(error) => drop(opened.send(Err(format!("{error:?}")))),
                    }
                    continue;
                }
            };
            match event {
                Some(TransportEvent::SubstreamOpened { substream, direction: Direction::Inbound, .. }) => {
                    tokio::spawn(self.responder.clone().serve(self.name.to_owned(), Box::new(substream)));
                }
                Some(TransportEvent::SubstreamOpened { substream, direction: Direction::Outbound(id), .. }) => {
                    self.opening.remove(&id).map(|opened| opened.send(Ok(Box::new(substream))));
                }
                Some(TransportEvent::SubstreamOpenFailure { substream, error }) => {
                    self.opening.remove(&substream).map(|opened| opened.send(Err(format!("{error:?}"))));
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}

/// Opens streams from a litep2p node to a peer.
struct ToPeer<'a>(&'a Litep2pNode, PeerId);

impl Opener for ToPeer<'_> {
    fn open(&self, protocol: &'static str) -> BoxFuture<'_, Result<Duplex, String>> {
        async move {
            let (opened, result) = oneshot::channel();
            let wanted = self.0.streams[protocol].send((theirs(self.1), opened)).await;
            wanted.map_err(|_| "litep2p's protocol ended early".to_owned())?;
            result.await.unwrap_or_else(|_| Err("litep2p dropped the stream".to_owned()))
        }
        .boxed()
    }
}

impl Peer for Litep2pNode {
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
        async move {
            let address = address.with_p2p(peer).map_err(|other| format!("{other} names somebody else"))?;
            let dial = address.to_string().parse().map_err(|error| format!("{error}"))?;
            self.dials.send(dial).await.map_err(|error| error.to_string())?;
            let result = |seen: &Seen| match seen.dial_failures.last() {
                Some(failure) => Some(Err(failure.clone())),
                None => seen.connected.get(&peer).map(|_| Ok(())),
            };
            wait::until("the end of litep2p's dial", &mut self.seen.clone(), result).await
        }
        .boxed()
    }

    fn identified(&self, peer: PeerId) -> Answer<'_, Identified> {
        async move {
            let found = |seen: &Seen| seen.identified.get(&peer).cloned();
            Ok(wait::until("litep2p to learn of its peer", &mut self.seen.clone(), found).await)
        }
        .boxed()
    }

    fn ping(&self, peer: PeerId) -> Answer<'_, ()> {
        async move {
            let count = |seen: &Seen| seen.pings.get(&peer).copied().unwrap_or(0);
            let before = count(&self.seen.borrow());
            let more = |seen: &Seen| (count(seen) > before).then_some(());
            wait::until("litep2p's next ping", &mut self.seen.clone(), more).await;
            Ok(())
        }
        .boxed()
    }

    fn ask(&self, peer: PeerId, body: Vec<u8>) -> Answer<'_, Vec<u8>> {
        async move {
            let (reply, result) = oneshot::channel();
            self.requests.send((theirs(peer), body, reply)).await.map_err(|error| error.to_string())?;
            result.await.unwrap_or_else(|_| Err("litep2p dropped the request".to_owned()))
        }
        .boxed()
    }

    fn play(&self, peer: PeerId, role: Role) -> Answer<'_, ()> {
        async move { roles::play(role, &ToPeer(self, peer)).await }.boxed()
    }

    fn closed(&self) -> Answer<'_, usize> {
        async { Ok(self.seen.borrow().closed) }.boxed()
    }
}
