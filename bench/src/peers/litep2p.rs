//! litep2p 0.16 over TCP, Noise and Yamux with its defaults, but for TCP_NODELAY. Requests run through its request-response protocol, bulk on a
//! raw substream of a protocol of our own.

use std::{collections::HashMap, time::Duration, time::Instant};

use ::litep2p::{
    Litep2p as Node, Litep2pEvent, PeerId, ProtocolName,
    codec::ProtocolCodec,
    config::ConfigBuilder,
    protocol::{
        Direction, TransportEvent, TransportService, UserProtocol,
        request_response::{ConfigBuilder as Requests, DialOptions, RequestResponseEvent, RequestResponseHandle},
    },
    substream::Substream,
    transport::tcp::config::Config as Tcp,
    types::{
        SubstreamId,
        multiaddr::{Multiaddr, Protocol},
    },
};
use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{Beside, Client, PAUSE, REPLY, REQUEST, RUN_UP, Writes, blob, check_count, chunk, end_load, writes};
use crate::{
    measure::Latencies,
    plan::{CHUNK_BYTES, Load, MESSAGE_BYTES, REPLY_BYTES},
};

/// What is asked of [`Bulk`].
enum Order {
    /// A substream, to be given here.
    Open(oneshot::Sender<Substream>),
    /// The end of the connection, which only a protocol can ask for.
    Close,
}

/// Bulk: opens what is wanted, swallows what comes.
struct Bulk {
    orders: mpsc::Receiver<(PeerId, Order)>,
}

#[async_trait::async_trait]
impl UserProtocol for Bulk {
    fn protocol(&self) -> ProtocolName {
        ProtocolName::from("/strait-bench/bulk/1")
    }

    fn codec(&self) -> ProtocolCodec {
        ProtocolCodec::Unspecified
    }

    async fn run(mut self: Box<Self>, mut service: TransportService) -> ::litep2p::Result<()> {
        let mut waiting = HashMap::new();
        // A protocol may hear of a connection later than its node does. Whoever waits learns of a failure by the sender that is dropped.
        let mut early = Vec::new();
        loop {
            tokio::select! {
                Some((peer, order)) = self.orders.recv() => early.extend(obey(&mut service, &mut waiting, peer, order)),
                event = service.next() => match event {
                    Some(TransportEvent::ConnectionEstablished { .. }) => {
                        for (peer, order) in std::mem::take(&mut early) {
                            early.extend(obey(&mut service, &mut waiting, peer, order));
                        }
                    }
                    Some(TransportEvent::SubstreamOpened { direction: Direction::Outbound(id), substream, .. }) => {
                        if let Some(wanted) = waiting.remove(&id) {
                            let _ = wanted.send(substream);
                        }
                    }
                    Some(TransportEvent::SubstreamOpened { substream, .. }) => {
                        tokio::spawn(swallow(substream));
                    }
                    Some(TransportEvent::SubstreamOpenFailure { substream, .. }) => {
                        waiting.remove(&substream);
                    }
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
        }
    }
}

/// What cannot be done yet comes back.
fn obey(
    service: &mut TransportService,
    waiting: &mut HashMap<SubstreamId, oneshot::Sender<Substream>>,
    peer: PeerId,
    order: Order,
) -> Option<(PeerId, Order)> {
    match order {
        Order::Close => service.force_close(peer).is_err().then_some((peer, Order::Close)),
        Order::Open(wanted) => match service.open_substream(peer) {
            Ok(id) => {
                waiting.insert(id, wanted);
                None
            }
            Err(_) => Some((peer, Order::Open(wanted))),
        },
    }
}

async fn swallow(mut stream: Substream) -> Result<()> {
    let mut count = 0u64;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => count += read as u64,
        }
    }
    stream.write_all(&count.to_be_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

struct Parts {
    node: Node,
    messages: RequestResponseHandle,
    chunks: RequestResponseHandle,
    bulk: mpsc::Sender<(PeerId, Order)>,
}

fn parts(listen: Vec<Multiaddr>) -> Result<Parts> {
    let (requests, messages) = Requests::new(ProtocolName::from("/strait-bench/request/1"))
        .with_max_size(MESSAGE_BYTES)
        .with_timeout(Duration::from_secs(60))
        .build();
    let (large, chunks) = Requests::new(ProtocolName::from("/strait-bench/chunk/1"))
        .with_max_size(REPLY_BYTES)
        .with_timeout(Duration::from_secs(60))
        .build();
    let (bulk, orders) = mpsc::channel(8);
    let config = ConfigBuilder::new()
        .with_tcp(Tcp { listen_addresses: listen, nodelay: true, ..Tcp::default() })
        .with_request_response_protocol(requests)
        .with_request_response_protocol(large)
        .with_user_protocol(Box::new(Bulk { orders }))
        // The connection has no substream between warm-up and measured part.
        .with_keep_alive_timeout(Duration::from_secs(3600))
        .build();
    Ok(Parts { node: Node::new(config)?, messages, chunks, bulk })
}

/// Starts the server; it runs until the process ends.
pub(crate) async fn serve() -> Result<(String, JoinHandle<()>)> {
    let Parts { mut node, mut messages, mut chunks, bulk } = parts(vec![format!("/ip4/{}/tcp/0", super::server_ip()).parse()?])?;
    let address = node.listen_addresses().next().context("it listens nowhere")?.to_string();
    let task = tokio::spawn(async move {
        let _bulk = bulk;
        loop {
            tokio::select! {
                event = messages.next() => match event {
                    Some(RequestResponseEvent::RequestReceived { request_id, .. }) => {
                        messages.send_response(request_id, REPLY.to_vec());
                    }
                    Some(_) => {}
                    None => return,
                },
                event = chunks.next() => match event {
                    Some(RequestResponseEvent::RequestReceived { request_id, .. }) => {
                        chunks.send_response(request_id, blob().to_vec());
                    }
                    Some(_) => {}
                    None => return,
                },
                _ = node.next_event() => {}
            }
        }
    });
    Ok((address, task))
}

/// A client with one connection.
pub(crate) struct Litep2p {
    server: PeerId,
    at: Multiaddr,
    messages: RequestResponseHandle,
    chunks: RequestResponseHandle,
    bulk: mpsc::Sender<(PeerId, Order)>,
    /// `None` once a task runs it, as all but handshakes want.
    node: Option<Node>,
}

async fn dial(node: &mut Node, at: &Multiaddr) -> Result<()> {
    node.dial_address(at.clone()).await?;
    loop {
        match node.next_event().await.context("litep2p has ended")? {
            Litep2pEvent::ConnectionEstablished { .. } => return Ok(()),
            Litep2pEvent::DialFailure { error, .. } => bail!("litep2p's dial: {error:?}"),
            _ => {}
        }
    }
}

impl Litep2p {
    /// Has a task run the node from here on.
    fn drive(&mut self) {
        if let Some(mut node) = self.node.take() {
            tokio::spawn(async move { while node.next_event().await.is_some() {} });
        }
    }
}

impl Client for Litep2p {
    async fn connect(address: &str) -> Result<Self> {
        let Parts { mut node, messages, chunks, bulk } = parts(Vec::new())?;
        let at: Multiaddr = address.parse()?;
        let Some(Protocol::P2p(server)) = at.iter().last() else {
            bail!("{address} names nobody");
        };
        let server = PeerId::from_multihash(server).ok().context("no peer id")?;
        dial(&mut node, &at).await?;
        Ok(Self { server, at, messages, chunks, bulk, node: Some(node) })
    }

    fn another(&self) -> impl Future<Output = Result<Self>> + Send + 'static {
        let at = self.at.to_string();
        async move { Self::connect(&at).await }
    }

    async fn again(&mut self) -> Result<Duration> {
        let node = self.node.as_mut().context("bulk and handshakes do not share a client")?;
        self.bulk.send((self.server, Order::Close)).await.ok().context("litep2p has ended")?;
        while !matches!(node.next_event().await.context("litep2p has ended")?, Litep2pEvent::ConnectionClosed { .. }) {}
        let start = Instant::now();
        dial(node, &self.at).await?;
        Ok(start.elapsed())
    }

    async fn bulk(&mut self, bytes: u64) -> Result<()> {
        self.drive();
        let mut stream = open(&self.bulk, self.server).await?;
        let chunk = chunk();
        for length in writes(bytes) {
            stream.write_all(&chunk[..length]).await?;
        }
        stream.shutdown().await?;
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await?;
        check_count(&told, bytes)
    }

    async fn requests(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        self.drive();
        many(&mut self.messages, self.server, count, in_flight).await
    }

    async fn chunks(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        self.drive();
        many(&mut self.chunks, self.server, count, in_flight).await
    }

    async fn urgent(&mut self, count: u64, load: Load) -> Result<Latencies> {
        self.drive();
        let (bulk, server) = (self.bulk.clone(), self.server);
        let load = Writes::of(load).map(|mut writes| {
            tokio::spawn(async move {
                let mut stream = open(&bulk, server).await?;
                loop {
                    stream.write_all(&writes.next().await).await?;
                }
            })
        });
        if load.is_some() {
            tokio::time::sleep(RUN_UP).await;
        }
        let (mut times, beside) = (Latencies::with_capacity(count as usize), Beside::begin());
        for _ in 0..count {
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            self.messages.send_request(server, REQUEST.to_vec(), DialOptions::Reject).await?;
            next_reply(&mut self.messages).await?;
            times.push(start.elapsed());
        }
        times.beside = beside.rate();
        end_load(load).await?;
        Ok(times)
    }
}

async fn many(messages: &mut RequestResponseHandle, server: PeerId, count: u64, in_flight: usize) -> Result<Latencies> {
    let mut started = HashMap::with_capacity(in_flight);
    let mut times = Latencies::with_capacity(count as usize);
    let mut sent = 0;
    while (times.len() as u64) < count {
        while sent < count && started.len() < in_flight {
            let start = Instant::now();
            started.insert(messages.send_request(server, REQUEST.to_vec(), DialOptions::Reject).await?, start);
            sent += 1;
        }
        let id = next_reply(messages).await?;
        times.push(started.remove(&id).context("an unknown request")?.elapsed());
    }
    Ok(times)
}

async fn open(bulk: &mpsc::Sender<(PeerId, Order)>, server: PeerId) -> Result<Substream> {
    let (wanted, opened) = oneshot::channel();
    bulk.send((server, Order::Open(wanted))).await.ok().context("litep2p has ended")?;
    opened.await.context("litep2p opened no substream")
}

async fn next_reply(messages: &mut RequestResponseHandle) -> Result<::litep2p::types::RequestId> {
    loop {
        match messages.next().await.context("litep2p has ended")? {
            RequestResponseEvent::ResponseReceived { request_id, response, .. } => {
                ensure!(response == REPLY || response.len() == REPLY_BYTES, "a wrong reply");
                return Ok(request_id);
            }
            RequestResponseEvent::RequestFailed { error, .. } => bail!("litep2p's request: {error:?}"),
            _ => {}
        }
    }
}
