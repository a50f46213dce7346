//! rust-libp2p 0.57 over QUIC or TCP with its defaults; over QUIC: 10 MB stream window, 15 MB connection window, 256 streams,
//! handshake and certificates on both sides. No identify and no ping: nothing but what is measured.
//!
//! Bulk runs on a raw stream of libp2p-stream (AsyncWrite and AsyncRead), which is the thinnest way that
//! rust-libp2p offers. Requests run through `request_response` in the swarm's own loop, without a channel or a
//! task in between; that is the cheapest way an application can use it.

use std::{collections::HashMap, io, time::Duration, time::Instant};

use ::libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    memory_connection_limits,
    multiaddr::Protocol,
    noise,
    request_response::{self, OutboundRequestId, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, tls, yamux,
};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use tokio::task::JoinHandle;

use super::{Beside, Client, PAUSE, REPLY, REQUEST, RUN_UP, Writes, blob, check_count, chunk, end_load, writes};
use crate::{
    measure::Latencies,
    plan::{CHUNK_BYTES, Case, IDLE_STREAMS, Load, MESSAGE_BYTES, REPLY_BYTES},
    stack::Stack,
};

const BULK: StreamProtocol = StreamProtocol::new("/strait-bench/bulk/1");
const MESSAGES: StreamProtocol = StreamProtocol::new("/strait-bench/request/1");
const CHUNKS: StreamProtocol = StreamProtocol::new("/strait-bench/chunk/1");

/// In a siege: connections are refused from here on, as its documentation has it.
const MEMORY_BYTES: usize = 512 << 20;

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: libp2p_stream::Behaviour,
    messages: request_response::Behaviour<Fixed>,
    chunks: request_response::Behaviour<Chunked>,
    limits: connection_limits::Behaviour,
    memory: Toggle<memory_connection_limits::Behaviour>,
}

/// One length byte (the varint of 64) and 64 bytes.
#[derive(Debug, Clone, Copy)]
struct Fixed;

type Message = [u8; MESSAGE_BYTES];

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Message> {
    let mut framed = [0; MESSAGE_BYTES + 1];
    io.read_exact(&mut framed).await?;
    let mut message = [0; MESSAGE_BYTES];
    message.copy_from_slice(&framed[1..]);
    Ok(message)
}

async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, message: Message) -> io::Result<()> {
    let mut framed = [MESSAGE_BYTES as u8; MESSAGE_BYTES + 1];
    framed[1..].copy_from_slice(&message);
    io.write_all(&framed).await
}

impl request_response::Codec for Fixed {
    type Protocol = StreamProtocol;
    type Request = Message;
    type Response = Message;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Message>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Message>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, message: Message) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, message).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, message: Message) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, message).await
    }
}

/// The request of [`Fixed`], and as its reply four bytes of length and so many more.
#[derive(Debug, Clone, Copy)]
struct Chunked;

impl request_response::Codec for Chunked {
    type Protocol = StreamProtocol;
    type Request = Message;
    type Response = Bytes;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Message>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        // No more than is asked for: who says more fails when it does not come.
        let mut reply = vec![0; (u32::from_be_bytes(length) as usize).min(REPLY_BYTES)];
        io.read_exact(&mut reply).await?;
        Ok(reply.into())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, message: Message) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, message).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, reply: Bytes) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&(reply.len() as u32).to_be_bytes()).await?;
        io.write_all(&reply).await
    }
}

/// What is the same over each transport. A macro, since the builder's type tells what was configured and has no name outside.
macro_rules! finish {
    ($builder:expr, $case:expr) => {
        $builder
            .with_quic_config(|mut config| {
                if let Some(Case::Idle { .. }) = $case {
                    config.max_concurrent_stream_limit = IDLE_STREAMS;
                }
                config
            })
            .with_behaviour(|_| behaviour($case == Some(Case::Flood)))?
            // The connection has no stream between warm-up and measured part.
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build()
    };
}

/// A server has a case; it offers one way to secure TCP, a client both.
fn swarm(security: Option<&str>, case: Option<Case>) -> Result<Swarm<Behaviour>> {
    let (builder, tcp) = (SwarmBuilder::with_new_identity().with_tokio(), tcp::Config::default().nodelay(true));
    Ok(match security {
        Some("/noise") => finish!(builder.with_tcp(tcp, noise::Config::new, yamux::Config::default)?, case),
        Some(_) => finish!(builder.with_tcp(tcp, tls::Config::new, yamux::Config::default)?, case),
        None => {
            let both = (tls::Config::new, noise::Config::new);
            finish!(builder.with_tcp(tcp, both, yamux::Config::default)?, case)
        }
    })
}

fn behaviour(besieged: bool) -> Behaviour {
    Behaviour {
        streams: libp2p_stream::Behaviour::new(),
        messages: request_response::Behaviour::with_codec(
            Fixed,
            [(MESSAGES, ProtocolSupport::Full)],
            // Its default of 100 is above the 64 that are measured.
            request_response::Config::default().with_request_timeout(Duration::from_secs(60)),
        ),
        chunks: request_response::Behaviour::with_codec(
            Chunked,
            [(CHUNKS, ProtocolSupport::Full)],
            request_response::Config::default().with_request_timeout(Duration::from_secs(60)),
        ),
        limits: connection_limits::Behaviour::new(if besieged { limits() } else { ConnectionLimits::default() }),
        memory: besieged.then(|| memory_connection_limits::Behaviour::with_max_bytes(MEMORY_BYTES)).into(),
    }
}

/// The numbers of strait's own limits.
fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(64))
        .with_max_established_incoming(Some(512))
        .with_max_established_per_peer(Some(3))
}

/// Starts the server; it runs until the process ends.
pub(crate) async fn serve(stack: Stack, case: Case) -> Result<(String, JoinHandle<()>)> {
    let mut swarm = swarm(stack.tcp_security(), Some(case))?;
    let me = *swarm.local_peer_id();
    let mut bulk = swarm.behaviour().streams.new_control().accept(BULK)?;
    tokio::spawn(async move {
        while let Some((_, stream)) = bulk.next().await {
            tokio::spawn(swallow(stream));
        }
    });
    let transport = if stack.is_tcp() { "tcp/0" } else { "udp/0/quic-v1" };
    let at = format!("/ip4/{}/{transport}", super::server_ip());
    swarm.listen_on(at.parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(Protocol::P2p(me));
        }
    };
    let task = tokio::spawn(async move {
        loop {
            use request_response::{Event, Message};
            // An answer fails only if the client is gone.
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehaviourEvent::Messages(Event::Message {
                    message: Message::Request { channel, .. },
                    ..
                })) => {
                    let _ = swarm.behaviour_mut().messages.send_response(channel, *REPLY);
                }
                SwarmEvent::Behaviour(BehaviourEvent::Chunks(Event::Message {
                    message: Message::Request { channel, .. },
                    ..
                })) => {
                    let _ = swarm.behaviour_mut().chunks.send_response(channel, blob());
                }
                _ => {}
            }
        }
    });
    Ok((address.to_string(), task))
}

async fn swallow(mut stream: ::libp2p::Stream) -> io::Result<()> {
    let mut count = 0u64;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => count += read as u64,
        }
    }
    stream.write_all(&count.to_be_bytes()).await?;
    stream.close().await
}

/// A client with one connection.
pub(crate) struct Libp2p {
    server: PeerId,
    at: Multiaddr,
    control: libp2p_stream::Control,
    /// `None` once a task runs it, as the bulk case wants.
    swarm: Option<Swarm<Behaviour>>,
}

impl Client for Libp2p {
    async fn connect(address: &str) -> Result<Self> {
        let mut swarm = swarm(None, None)?;
        let at: Multiaddr = address.parse()?;
        let server = dial(&mut swarm, &at).await?;
        Ok(Self { server, at, control: swarm.behaviour().streams.new_control(), swarm: Some(swarm) })
    }

    fn another(&self) -> impl Future<Output = Result<Self>> + Send + 'static {
        let at = self.at.to_string();
        async move { Self::connect(&at).await }
    }

    async fn again(&mut self) -> Result<Duration> {
        let swarm = self.swarm.as_mut().context("bulk and handshakes do not share a client")?;
        let _ = swarm.disconnect_peer_id(self.server);
        while swarm.is_connected(&self.server) {
            swarm.select_next_some().await;
        }
        let start = Instant::now();
        dial(swarm, &self.at).await?;
        Ok(start.elapsed())
    }

    async fn bulk(&mut self, bytes: u64) -> Result<()> {
        if let Some(mut swarm) = self.swarm.take() {
            tokio::spawn(async move {
                loop {
                    swarm.select_next_some().await;
                }
            });
        }
        let mut stream = self.control.open_stream(self.server, BULK).await?;
        let chunk = chunk();
        for length in writes(bytes) {
            stream.write_all(&chunk[..length]).await?;
        }
        stream.close().await?;
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await?;
        check_count(&told, bytes)
    }

    async fn requests(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        self.many(count, in_flight, |behaviour, server| behaviour.messages.send_request(&server, *REQUEST)).await
    }

    async fn chunks(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        self.many(count, in_flight, |behaviour, server| behaviour.chunks.send_request(&server, *REQUEST)).await
    }

    async fn urgent(&mut self, count: u64, load: Load) -> Result<Latencies> {
        let swarm = self.swarm.as_mut().context("bulk and requests do not share a client")?;
        let (mut control, server) = (self.control.clone(), self.server);
        let load = Writes::of(load).map(|mut writes| {
            tokio::spawn(async move {
                let mut stream = control.open_stream(server, BULK).await?;
                loop {
                    stream.write_all(&writes.next().await).await?;
                }
            })
        });
        if load.is_some() {
            rest(swarm, RUN_UP).await?;
        }
        let (mut times, beside) = (Latencies::with_capacity(count as usize), Beside::begin());
        for _ in 0..count {
            rest(swarm, PAUSE).await?;
            let start = Instant::now();
            swarm.behaviour_mut().messages.send_request(&server, *REQUEST);
            next_reply(swarm).await?;
            times.push(start.elapsed());
        }
        times.beside = beside.rate();
        end_load(load).await?;
        Ok(times)
    }
}

impl Libp2p {
    async fn many<F>(&mut self, count: u64, in_flight: usize, send: F) -> Result<Latencies>
    where
        F: Fn(&mut Behaviour, PeerId) -> OutboundRequestId,
    {
        let swarm = self.swarm.as_mut().context("bulk and requests do not share a client")?;
        let mut started = HashMap::with_capacity(in_flight);
        let mut times = Latencies::with_capacity(count as usize);
        let mut sent = 0;
        while (times.len() as u64) < count {
            while sent < count && started.len() < in_flight {
                started.insert(send(swarm.behaviour_mut(), self.server), Instant::now());
                sent += 1;
            }
            let id = next_reply(swarm).await?;
            times.push(started.remove(&id).context("an unknown request")?.elapsed());
        }
        Ok(times)
    }
}

/// Drives the swarm until it is connected.
async fn dial(swarm: &mut Swarm<Behaviour>, at: &Multiaddr) -> Result<PeerId> {
    swarm.dial(at.clone())?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => return Ok(peer_id),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error).context("rust-libp2p's dial"),
            _ => {}
        }
    }
}

/// Drives the swarm for so long. No reply may come meanwhile.
async fn rest(swarm: &mut Swarm<Behaviour>, time: Duration) -> Result<()> {
    match tokio::time::timeout(time, next_reply(swarm)).await {
        Err(_) => Ok(()),
        Ok(reply) => bail!("a reply to nothing: {reply:?}"),
    }
}

/// Drives the swarm until a reply has come.
async fn next_reply(swarm: &mut Swarm<Behaviour>) -> Result<OutboundRequestId> {
    use request_response::{Event, Message};
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Messages(Event::Message {
                message: Message::Response { request_id, response },
                ..
            })) => {
                ensure!(response == *REPLY, "a wrong reply");
                return Ok(request_id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Chunks(Event::Message {
                message: Message::Response { request_id, response },
                ..
            })) => {
                ensure!(response.len() == REPLY_BYTES, "a short reply");
                return Ok(request_id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Chunks(Event::OutboundFailure { error, .. })) => {
                return Err(error).context("rust-libp2p's request");
            }
            SwarmEvent::Behaviour(BehaviourEvent::Messages(Event::OutboundFailure { error, .. })) => {
                return Err(error).context("rust-libp2p's request");
            }
            SwarmEvent::ConnectionClosed { cause, .. } => bail!("closed: {cause:?}"),
            _ => {}
        }
    }
}
