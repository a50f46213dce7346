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
    types::multiaddr::{Multiaddr, Protocol},
};
use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{Client, PAUSE, REPLY, REQUEST, RUN_UP, Writes, check_count, chunk, end_load, writes};
use crate::{
    measure::Latencies,
    plan::{CHUNK_BYTES, Load, MESSAGE_BYTES},
};

/// Who wants a substream gets it here.
type Wanted = oneshot::Sender<Substream>;

/// Bulk: opens what is wanted, swallows what comes.
struct Bulk {
    wanted: mpsc::Receiver<(PeerId, Wanted)>,
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
                Some((peer, wanted)) = self.wanted.recv() => match service.open_substream(peer) {
                    Ok(id) => drop(waiting.insert(id, wanted)),
                    Err(_) => early.push((peer, wanted)),
                },
                event = service.next() => match event {
                    Some(TransportEvent::ConnectionEstablished { .. }) => {
                        for (peer, wanted) in early.drain(..) {
                            if let Ok(id) = service.open_substream(peer) {
                                waiting.insert(id, wanted);
                            }
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
    bulk: mpsc::Sender<(PeerId, Wanted)>,
}

fn parts(listen: Vec<Multiaddr>) -> Result<Parts> {
    let (requests, messages) = Requests::new(ProtocolName::from("/strait-bench/request/1"))
        .with_max_size(MESSAGE_BYTES)
        .with_timeout(Duration::from_secs(60))
        .build();
    let (bulk, wanted) = mpsc::channel(8);
    let config = ConfigBuilder::new()
        .with_tcp(Tcp { listen_addresses: listen, nodelay: true, ..Tcp::default() })
        .with_request_response_protocol(requests)
        .with_user_protocol(Box::new(Bulk { wanted }))
        // The connection has no substream between warm-up and measured part.
        .with_keep_alive_timeout(Duration::from_secs(3600))
        .build();
    Ok(Parts { node: Node::new(config)?, messages, bulk })
}

/// Starts the server; it runs until the process ends.
pub(crate) async fn serve() -> Result<(String, JoinHandle<()>)> {
    let Parts { mut node, mut messages, bulk } = parts(vec![format!("/ip4/{}/tcp/0", super::server_ip()).parse()?])?;
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
                _ = node.next_event() => {}
            }
        }
    });
    Ok((address, task))
}

/// A client with one connection.
pub(crate) struct Litep2p {
    server: PeerId,
    messages: RequestResponseHandle,
    bulk: mpsc::Sender<(PeerId, Wanted)>,
    _driver: JoinHandle<()>,
}

impl Client for Litep2p {
    async fn connect(address: &str) -> Result<Self> {
        let Parts { mut node, messages, bulk } = parts(Vec::new())?;
        let address: Multiaddr = address.parse()?;
        let Some(Protocol::P2p(server)) = address.iter().last() else {
            bail!("{address} names nobody");
        };
        let server = PeerId::from_multihash(server).ok().context("no peer id")?;
        node.dial_address(address).await?;
        loop {
            match node.next_event().await.context("litep2p has ended")? {
                Litep2pEvent::ConnectionEstablished { .. } => break,
                Litep2pEvent::DialFailure { error, .. } => bail!("litep2p's dial: {error:?}"),
                _ => {}
            }
        }
        let driver = tokio::spawn(async move { while node.next_event().await.is_some() {} });
        Ok(Self { server, messages, bulk, _driver: driver })
    }

    async fn bulk(&mut self, bytes: u64) -> Result<()> {
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
        let mut started = HashMap::with_capacity(in_flight);
        let mut times = Latencies::with_capacity(count as usize);
        let mut sent = 0;
        while (times.len() as u64) < count {
            while sent < count && started.len() < in_flight {
                let start = Instant::now();
                let id = self.messages.send_request(self.server, REQUEST.to_vec(), DialOptions::Reject).await?;
                started.insert(id, start);
                sent += 1;
            }
            let id = next_reply(&mut self.messages).await?;
            times.push(started.remove(&id).context("an unknown request")?.elapsed());
        }
        Ok(times)
    }

    async fn urgent(&mut self, count: u64, load: Load) -> Result<Latencies> {
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
        let mut times = Latencies::with_capacity(count as usize);
        for _ in 0..count {
            tokio::time::sleep(PAUSE).await;
            let start = Instant::now();
            self.messages.send_request(server, REQUEST.to_vec(), DialOptions::Reject).await?;
            next_reply(&mut self.messages).await?;
            times.push(start.elapsed());
        }
        end_load(load).await?;
        Ok(times)
    }
}

async fn open(bulk: &mpsc::Sender<(PeerId, Wanted)>, server: PeerId) -> Result<Substream> {
    let (wanted, opened) = oneshot::channel();
    bulk.send((server, wanted)).await.ok().context("litep2p has ended")?;
    opened.await.context("litep2p opened no substream")
}

async fn next_reply(messages: &mut RequestResponseHandle) -> Result<::litep2p::types::RequestId> {
    loop {
        match messages.next().await.context("litep2p has ended")? {
            RequestResponseEvent::ResponseReceived { request_id, response, .. } => {
                ensure!(response == REPLY, "a wrong reply");
                return Ok(request_id);
            }
            RequestResponseEvent::RequestFailed { error, .. } => bail!("litep2p's request: {error:?}"),
            _ => {}
        }
    }
}
