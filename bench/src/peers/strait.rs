//! strait with its default limits. Identities and certificates on both sides; identify runs at the start
//! and ping not at all during the measured part.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ::strait::{
    Builder, Idle, Incoming, Keypair, Limits, Multiaddr, Node, PeerId, Priority, Request, Stream, StreamProtocol, TcpSecurity,
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use strait_admin::Admin;

use super::{Client, REPLY, REQUEST, Serving, Writes, blob, check_count, chunk, paced, parallel, writes};
use crate::{
    measure::{Driver, Latencies},
    plan::{CHUNK_BYTES, Case, Load, MESSAGE_BYTES, REPLY_BYTES},
    stack::Stack,
};

/// As many at once as any case has in flight.
const MESSAGES: Request = Request::new("/strait-bench/request/1", MESSAGE_BYTES, MESSAGE_BYTES, Duration::from_secs(60), 64);

/// As many at once as the chunks case has in flight.
const CHUNKS: Request = Request::new("/strait-bench/chunk/1", MESSAGE_BYTES, REPLY_BYTES, Duration::from_secs(60), 16);

/// The same protocol as a client that does not keep to the server's window has it.
const MESSAGES_UNBOUND: Request = Request::new(MESSAGES.name, MESSAGE_BYTES, MESSAGE_BYTES, Duration::from_secs(60), u16::MAX);

const BULK: StreamProtocol = StreamProtocol { name: "/strait-bench/bulk/1", per_peer_max: 8, idle: Idle::Never };

/// Streams of one byte, for the flood case: a name of their own, so that endless bulk does not take their places.
const TINY: StreamProtocol = StreamProtocol { name: "/strait-bench/tiny/1", per_peer_max: 64, ..BULK };

/// See [`MESSAGES_UNBOUND`].
const TINY_UNBOUND: StreamProtocol = StreamProtocol { per_peer_max: u16::MAX, ..TINY };

/// See [`MESSAGES_UNBOUND`].
const BULK_UNBOUND: StreamProtocol = StreamProtocol { per_peer_max: u16::MAX, ..BULK };

/// What a client must know.
#[derive(Serialize, Deserialize)]
struct Address {
    peer: String,
    at: Vec<String>,
    /// Where its metrics are asked for, if they are.
    admin: Option<SocketAddr>,
}

fn node(ip: IpAddr) -> Builder {
    Node::builder().identity(Keypair::generate_ed25519()).listen((ip, 0).into())
}

/// Room for more connections than the default of 512, and for what each has set aside: a promise, not memory in use.
fn roomy(connections: usize) -> Limits {
    let connections_max = u32::try_from(connections).unwrap_or(u32::MAX).saturating_mul(2);
    let limits = Limits { connections_max, ..Limits::default() };
    let set_aside = limits.connection_floor().saturating_mul(limits.places().into()).saturating_add(limits.shared_floor());
    Limits { memory_bytes: set_aside.max(4 << 30), ..limits }
}

impl Serving for Node {
    fn driver(&self) -> Option<Driver> {
        let (driver, totals) = (self.driver_counters(), self.counters().totals);
        Some(Driver {
            datagrams_in: totals.datagrams_in,
            datagrams_out: totals.datagrams_out,
            receives: driver.receive_calls,
            sends: driver.send_calls,
            wakes: driver.wakeups,
        })
    }
}

/// Starts the server; it serves all protocols until the returned node is dropped. What it offers decides what clients run over.
pub(crate) async fn serve(stack: Stack, case: Case) -> Result<(String, Node)> {
    let ip = super::server_ip();
    let node = match stack {
        Stack::StraitTls => node(ip).listen_tcp((ip, 0).into()).tcp_security(TcpSecurity::Tls),
        Stack::StraitNoise => node(ip).listen_tcp((ip, 0).into()).tcp_security(TcpSecurity::Noise),
        _ => node(ip),
    };
    let node = match case {
        Case::Idle { connections } => node.limits(roomy(connections)),
        _ => node,
    };
    let node = node.start().await?;
    node.serve(&MESSAGES, Priority::Normal, async move |_: Incoming| Bytes::from_static(REPLY))?;
    node.serve(&CHUNKS, Priority::Normal, async move |_: Incoming| blob())?;
    for protocol in [&BULK, &TINY] {
        node.serve_streams(protocol, Priority::Normal, async move |stream: Stream| {
            // An error is the client's to notice: it misses the count.
            let _ = swallow(stream).await;
        })?;
    }
    let at = node.listen_addrs().iter().map(Multiaddr::to_string).filter(|at| at.contains("/tcp/") == stack.is_tcp()).collect();
    let admin = match stack {
        Stack::StraitScraped => {
            let listener = Admin::bind((ip, 0).into()).await?;
            let at = listener.local_addr()?;
            tokio::spawn(Admin::new(node.clone()).serve(listener));
            Some(at)
        }
        _ => None,
    };
    let address = Address { peer: node.peer_id().to_string(), at, admin };
    Ok((serde_json::to_string(&address)?, node))
}

async fn swallow(stream: Stream) -> Result<()> {
    let (mut tx, mut rx) = stream.split();
    let mut count = 0u64;
    while let Some(chunk) = rx.read(CHUNK_BYTES).await? {
        count += chunk.len() as u64;
    }
    tx.write_all(Bytes::copy_from_slice(&count.to_be_bytes())).await?;
    tx.finish()?;
    Ok(())
}

/// How often metrics are asked for: more often than anybody does.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// Asks for metrics again and again, as Prometheus does. What does not work ends the run: it would have measured nothing.
fn scrape(admin: SocketAddr) {
    loop {
        let asked = || -> Result<String> {
            let mut stream = TcpStream::connect(admin)?;
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = asked();
        if !answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with("# EOF\n")) {
            eprintln!("the metrics cannot be had: {answer:?}");
            std::process::exit(1);
        }
        std::thread::sleep(SCRAPE_EVERY);
    }
}

/// A client with one connection.
pub(crate) struct Strait {
    node: Arc<Node>,
    server: PeerId,
    at: Vec<Multiaddr>,
}

impl Client for Strait {
    async fn connect(address: &str) -> Result<Self> {
        let address: Address = serde_json::from_str(address)?;
        let server: PeerId = address.peer.parse()?;
        let at = address.at.iter().map(|at| at.parse()).collect::<Result<Vec<Multiaddr>, _>>()?;
        if let Some(admin) = address.admin {
            // In the client's process, which pays for asking; the server pays for the answer.
            std::thread::spawn(move || scrape(admin));
        }
        Self::dial(server, at).await
    }

    fn another(&self) -> impl Future<Output = Result<Self>> + Send + 'static {
        Self::dial(self.server, self.at.clone())
    }

    async fn again(&mut self) -> Result<Duration> {
        self.node.disconnect(self.server);
        while self.node.is_connected(self.server) {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        self.node.connect(self.server, &self.at).await?;
        Ok(start.elapsed())
    }

    fn driver(&self) -> Option<Driver> {
        self.node.driver()
    }

    async fn bulk(&mut self, bytes: u64) -> Result<()> {
        let (mut tx, mut rx) = self.node.open(self.server, &BULK).await?.split();
        let chunk = chunk();
        for length in writes(bytes) {
            tx.write_all(chunk.slice(..length)).await?;
        }
        tx.finish()?;
        let mut told = Vec::new();
        while let Some(chunk) = rx.read(8).await? {
            told.extend_from_slice(&chunk);
        }
        check_count(&told, bytes)
    }

    async fn requests(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let (node, server) = (Arc::clone(&self.node), self.server);
        parallel(count, in_flight, move || {
            let node = Arc::clone(&node);
            async move {
                let reply = node.request(server, &MESSAGES, Bytes::from_static(REQUEST)).await?;
                ensure!(reply.len() == MESSAGE_BYTES, "a short reply");
                Ok(())
            }
        })
        .await
    }

    async fn chunks(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let (node, server) = (Arc::clone(&self.node), self.server);
        parallel(count, in_flight, move || {
            let node = Arc::clone(&node);
            async move {
                let reply = node.request(server, &CHUNKS, Bytes::from_static(REQUEST)).await?;
                ensure!(reply.len() == REPLY_BYTES, "a short reply");
                Ok(())
            }
        })
        .await
    }

    async fn urgent(&mut self, count: u64, load: Load) -> Result<Latencies> {
        let (node, server) = (Arc::clone(&self.node), self.server);
        let load = Writes::of(load).map(|mut writes| {
            let node = Arc::clone(&self.node);
            tokio::spawn(async move {
                let (mut tx, _rx) = node.open_with(server, &BULK, Priority::Bulk).await?.split();
                loop {
                    tx.write_all(writes.next().await).await?;
                }
            })
        });
        paced(count, load, || async {
            let reply = node.request_with(server, &MESSAGES, Priority::Urgent, Bytes::from_static(REQUEST).into()).await?;
            ensure!(reply.len() == MESSAGE_BYTES, "a short reply");
            Ok(())
        })
        .await
    }
}

impl Strait {
    async fn dial(server: PeerId, at: Vec<Multiaddr>) -> Result<Self> {
        let node = node(super::client_ip()).start().await?;
        node.connect(server, &at).await.context("strait's dial")?;
        Ok(Self { node: Arc::new(node), server, at })
    }
}

/// For the flood case.
impl Strait {
    /// One request; `unbound` = without keeping to the window that the server declares.
    pub(crate) async fn one(&self, unbound: bool) -> Result<()> {
        let protocol = if unbound { &MESSAGES_UNBOUND } else { &MESSAGES };
        let request = Bytes::from_static(REQUEST);
        let reply = self.node.request(self.server, protocol, request).await?;
        ensure!(reply.len() == MESSAGE_BYTES, "a short reply");
        Ok(())
    }

    /// Opens a stream and pushes into it: one byte if `tiny`, otherwise without end. Adds what went out to `pushed`.
    pub(crate) async fn push(&self, tiny: bool, unbound: bool, pushed: &AtomicU64) -> Result<()> {
        let protocol = match (tiny, unbound) {
            (true, false) => &TINY,
            (true, true) => &TINY_UNBOUND,
            (false, false) => &BULK,
            (false, true) => &BULK_UNBOUND,
        };
        let bytes = if tiny { 1 } else { u64::MAX };
        let stream = self.node.open(self.server, protocol).await?;
        let (mut tx, mut rx) = stream.split();
        let chunk = chunk();
        for length in writes(bytes) {
            tx.write_all(chunk.slice(..length)).await?;
            pushed.fetch_add(length as u64, Relaxed);
        }
        tx.finish()?;
        while rx.read(8).await?.is_some() {}
        Ok(())
    }
}
