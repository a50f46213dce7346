//! The stacks, each as a server and a client of the same few things.

pub(crate) mod libp2p;
#[cfg(feature = "litep2p")]
pub(crate) mod litep2p;
#[cfg(feature = "noq")]
pub(crate) mod noq;
pub(crate) mod quinn;
#[cfg(feature = "s2n-quic")]
pub(crate) mod s2n;
pub(crate) mod strait;
#[cfg(feature = "tcp-tls")]
pub(crate) mod tcp_tls;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    measure::{Driver, Latencies},
    plan::{Before, CHUNK_BYTES, Case, Load, MESSAGE_BYTES, REPLY_BYTES},
};

/// What a reader of the figures must know.
pub(crate) const NOTES: &[&str] = &[
    "Two processes on loopback; the measured part excludes start, handshake and warm-up. CPU is user + system of \
     each process (getrusage); peak memory is VmHWM of the whole process.",
    "Each stack runs with its own defaults (windows, socket buffers, congestion control), as its users get them.",
    "quinn, noq, s2n-quic and tcp-tls authenticate the server only; strait, rust-libp2p and litep2p authenticate both sides.",
    "Ciphers are the stacks' own choice: quinn, noq and tcp-tls use ring and prefer AES-256-GCM; s2n-quic uses aws-lc; rust-libp2p 0.57 uses \
     aws-lc-rs and offers ChaCha20-Poly1305 first; strait uses ring.",
    "rust-libp2p, litep2p and strait negotiate the protocol on every stream (multistream-select); the others have none of it. strait uses a stream again for the next request where both sides are strait (docs/specs/reuse.md); all others open one for each.",
    "rust-libp2p: bulk over a raw stream of libp2p-stream, requests through request_response with a codec of \
     one length byte and the 64 bytes (the same bytes that strait sends), or four and the MiB.",
    "Over TCP: rust-libp2p with TCP_NODELAY, TLS or Noise, and Yamux with its default windows that grow; litep2p with TCP_NODELAY, \
     which it leaves off by default, and Noise, the only way that it has. Its requests are framed by itself, its bulk is its raw substream.",
    "tcp-tls is a limit, not a stack: bulk is the bare TLS connection, requests are numbered frames on it; no streams, no flow control, no \
     limits. With replies of 1 MiB it limits least: each is gathered in one buffer by the task that also writes.",
    "Urgent: strait asks for priority Urgent, quinn and noq for a stream priority of 1, and tcp-tls sends requests first; s2n-quic, rust-libp2p \
     and litep2p have no priorities. Beside bulk the rate is what the bulk has meanwhile: strait keeps it from filling the path's queue.",
    "Handshakes: each of so many clients, with an endpoint of its own, ends its connection and makes the next; no session is resumed. The times are \
     those of the making, the rate counts the ending too.",
    "Idle: how much the server's resident set has grown, 2 s after the last connection was made. 100 streams are allowed by default with quinn, noq \
     and s2n-quic; rust-libp2p's QUIC is set to as many; strait allows 8 and more as they are used, its server has limits for more than 512 \
     connections here. Each client has an endpoint of its own, those of s2n-quic share one.",
    "Judge by CPU and by ratios: wall time moves with whatever else runs on the machine.",
];

/// What runs a server until it is dropped.
pub(crate) trait Serving {
    /// What its driver has counted so far, if it counts.
    fn driver(&self) -> Option<Driver> {
        None
    }
}

impl Serving for JoinHandle<()> {}

/// The client side of a stack, connected to its server.
pub(crate) trait Client: Sized + Send + 'static {
    /// Connects to the address that the server printed.
    fn connect(address: &str) -> impl Future<Output = Result<Self>> + Send;
    /// One more client, with a connection of its own. It has an endpoint of its own too, unless a thousand of these need more memory than there is.
    fn another(&self) -> impl Future<Output = Result<Self>> + Send + 'static;
    /// Ends the connection and makes a new one from the same endpoint, and says how long the making took.
    fn again(&mut self) -> impl Future<Output = Result<Duration>> + Send;
    /// What its driver has counted so far, if it counts.
    fn driver(&self) -> Option<Driver> {
        None
    }
    /// Sends `bytes` on one stream and waits until the server has told how much it read.
    fn bulk(&mut self, bytes: u64) -> impl Future<Output = Result<()>> + Send;
    /// Makes `count` requests with `in_flight` of them open at any time.
    fn requests(&mut self, count: u64, in_flight: usize) -> impl Future<Output = Result<Latencies>> + Send;
    /// The same with replies of [`REPLY_BYTES`], [`blob`].
    fn chunks(&mut self, count: u64, in_flight: usize) -> impl Future<Output = Result<Latencies>> + Send;
    /// Makes `count` requests one at a time, [`PAUSE`] before each, with the highest priority that the stack has, beside a
    /// stream of the same connection that carries `load` to the server until the last reply has come.
    fn urgent(&mut self, count: u64, load: Load) -> impl Future<Output = Result<Latencies>> + Send;
}

/// Before each request of the urgent case.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// How long the bulk of the urgent case runs before the first request.
pub(crate) const RUN_UP: Duration = Duration::from_millis(300);

/// What the bulk stream of the urgent case writes, and when.
pub(crate) struct Writes {
    chunk: Bytes,
    pace: Option<(tokio::time::Interval, usize)>,
}

impl Writes {
    /// For this load, if there is any.
    pub(crate) fn of(load: Load) -> Option<Writes> {
        let pace = match load {
            Load::None => return None,
            Load::Full => None,
            // A millisecond's bytes in each, so that no single write is a burst.
            Load::Paced { bytes_per_second } => {
                let bytes = usize::try_from(bytes_per_second / 1000).unwrap_or(usize::MAX).clamp(1, chunk().len());
                Some((tokio::time::interval(Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64)), bytes))
            }
        };
        Some(Writes { chunk: chunk(), pace })
    }

    /// Waits until it is due.
    pub(crate) async fn next(&mut self) -> Bytes {
        let chunk = match &mut self.pace {
            None => self.chunk.clone(),
            Some((interval, bytes)) => {
                interval.tick().await;
                self.chunk.slice(..*bytes)
            }
        };
        WRITTEN.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        chunk
    }
}

/// Bytes of the bulk of the urgent case so far; a process runs one at a time.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// What the bulk beside urgent requests does meanwhile.
pub(crate) struct Beside {
    at: Instant,
    written: u64,
}

impl Beside {
    /// From the first request on.
    pub(crate) fn begin() -> Beside {
        Beside { at: Instant::now(), written: WRITTEN.load(Ordering::Relaxed) }
    }

    /// MB/s until now.
    pub(crate) fn rate(self) -> f64 {
        let written = WRITTEN.load(Ordering::Relaxed) - self.written;
        written as f64 / 1e6 / self.at.elapsed().as_secs_f64()
    }
}

/// Paced requests for stacks whose request is an async call, beside `load` if there is one.
pub(crate) async fn paced<F, Fut>(count: u64, load: Option<JoinHandle<Result<()>>>, one: F) -> Result<Latencies>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    if load.is_some() {
        tokio::time::sleep(RUN_UP).await;
    }
    let (mut times, beside) = (Latencies::with_capacity(count as usize), Beside::begin());
    for _ in 0..count {
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        one().await?;
        times.push(start.elapsed());
    }
    times.beside = beside.rate();
    end_load(load).await?;
    Ok(times)
}

/// Ends the bulk beside which requests were made. It must have run until now.
pub(crate) async fn end_load(load: Option<JoinHandle<Result<()>>>) -> Result<()> {
    let Some(load) = load else {
        return Ok(());
    };
    if load.is_finished() {
        load.await??;
        anyhow::bail!("the bulk has ended before the requests");
    }
    load.abort();
    Ok(())
}

/// Runs a case once.
pub(crate) async fn run<C: Client>(client: &mut C, case: Case) -> Result<Latencies> {
    match case {
        Case::Bulk { bytes } => client.bulk(bytes).await.map(|()| Latencies::default()),
        Case::Requests { count, in_flight } => {
            let times = client.requests(count, in_flight).await?;
            ensure!(times.len() as u64 == count, "{} of {count} requests were answered", times.len());
            Ok(times)
        }
        Case::Chunks { count, in_flight } => {
            let times = within(client.chunks(count, in_flight)).await?;
            ensure!(times.len() as u64 == count, "{} of {count} requests were answered", times.len());
            Ok(times)
        }
        Case::Urgent { count, load } => client.urgent(count, load).await,
        Case::Handshakes { .. } | Case::Idle { .. } => anyhow::bail!("{case} takes more than one client"),
        Case::Burst { bytes, before } => {
            if let Before::Idle { seconds } = before {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            let (mut times, start) = (Latencies::with_capacity(1), Instant::now());
            client.bulk(bytes).await?;
            times.push(start.elapsed());
            Ok(times)
        }
        Case::Flood => anyhow::bail!("the flood case has clients of its own"),
    }
}

/// The same case, small: caches, windows and path MTU settle before the measured part. None for what is measured cold.
pub(crate) fn warm_up(case: Case) -> Option<Case> {
    Some(match case {
        Case::Bulk { bytes } => Case::Bulk { bytes: bytes.min(16 << 20) },
        Case::Burst { before: Before::Nothing, .. } => return None,
        Case::Burst { bytes, .. } => Case::Bulk { bytes: bytes.saturating_mul(8) },
        Case::Requests { count, in_flight } => Case::Requests { count: count.min(2_000).max(in_flight as u64), in_flight },
        Case::Chunks { count, in_flight } => Case::Chunks { count: count.min(32), in_flight },
        // Making its clients is warm-up enough.
        Case::Handshakes { .. } | Case::Idle { .. } => return None,
        Case::Urgent { count, .. } => Case::Urgent { count: count.min(100), load: Load::None },
        Case::Flood => Case::Flood,
    })
}

/// A case with a fixed amount of work has failed when it takes so long.
const CASE_MAX: Duration = Duration::from_secs(120);

/// `work`, given up after [`CASE_MAX`].
pub(crate) async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(CASE_MAX, work).await.with_context(|| format!("not done within {CASE_MAX:?}"))?
}

/// How many connections of the idle case are being made at once.
const CONNECTING: usize = 16;

/// How long idle connections are left alone before they are counted: handshakes are confirmed, and paths probed, after a client has its connection.
const SETTLE: Duration = Duration::from_secs(2);

/// `count` handshakes by all of `clients`, each with one at a time. The clients come back, since their connections are not to end in the measured part.
pub(crate) async fn handshakes<C: Client>(clients: Vec<C>, count: u64) -> Result<(Vec<C>, Latencies)> {
    let mut workers = JoinSet::new();
    let all = clients.len() as u64;
    for (index, mut client) in (0..).zip(clients) {
        let share = count / all + u64::from(index < count % all);
        workers.spawn(async move {
            let mut times = Latencies::with_capacity(share as usize);
            for _ in 0..share {
                times.push(client.again().await?);
            }
            anyhow::Ok((client, times))
        });
    }
    let (mut clients, mut times) = (Vec::new(), Latencies::with_capacity(count as usize));
    while let Some(done) = workers.join_next().await {
        let (client, own) = done??;
        clients.push(client);
        times.merge(own);
    }
    Ok((clients, times))
}

/// `connections` more clients like `first`. (By `&mut`, since not every client is `Sync`.)
pub(crate) async fn idle<C: Client>(first: &mut C, connections: usize) -> Result<Vec<C>> {
    let mut workers = JoinSet::new();
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        if workers.len() >= CONNECTING
            && let Some(client) = workers.join_next().await
        {
            clients.push(client??);
        }
        workers.spawn(first.another());
    }
    while let Some(client) = workers.join_next().await {
        clients.push(client??);
    }
    tokio::time::sleep(SETTLE).await;
    Ok(clients)
}

/// Where servers listen: on loopback, or at the far end of a path (path.py).
pub(crate) fn server_ip() -> IpAddr {
    let far = std::env::var("STRAIT_BENCH_BIND").ok().and_then(|ip| ip.parse().ok());
    far.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Where clients have their sockets.
pub(crate) fn client_ip() -> IpAddr {
    IpAddr::V4(if server_ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED })
}

/// The chunk that the bulk case sends over and over.
pub(crate) fn chunk() -> Bytes {
    (0..CHUNK_BYTES).map(|index| index as u8).collect()
}

/// A reply of the chunks case.
pub(crate) fn blob() -> Bytes {
    static BLOB: LazyLock<Bytes> = LazyLock::new(|| (0..REPLY_BYTES).map(|index| index as u8).collect());
    BLOB.clone()
}

/// What those stacks encrypt with that leave the choice to us.
pub(crate) fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The lengths of the writes of a bulk transfer of `bytes`.
pub(crate) fn writes(bytes: u64) -> impl Iterator<Item = usize> + Send {
    let full = (bytes / CHUNK_BYTES as u64) as usize;
    let rest = (bytes % CHUNK_BYTES as u64) as usize;
    std::iter::repeat_n(CHUNK_BYTES, full).chain((rest > 0).then_some(rest))
}

/// The server's closing word in the bulk case: the count of bytes it read, big endian.
pub(crate) fn check_count(told: &[u8], sent: u64) -> Result<()> {
    let told: [u8; 8] = told.try_into().context("the server's count is not 8 bytes")?;
    let told = u64::from_be_bytes(told);
    ensure!(told == sent, "sent {sent} bytes, the server read {told}");
    Ok(())
}

/// A request body.
pub(crate) const REQUEST: &[u8; MESSAGE_BYTES] = &[0x51; MESSAGE_BYTES];
/// A reply body.
pub(crate) const REPLY: &[u8; MESSAGE_BYTES] = &[0xa2; MESSAGE_BYTES];

/// `in_flight` tasks that each make their share of `count` requests, one after the other.
/// For stacks whose request is an async call; rust-libp2p's is an event and has its own loop.
pub(crate) async fn parallel<F, Fut>(count: u64, in_flight: usize, one: F) -> Result<Latencies>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for index in 0..in_flight as u64 {
        let share = count / in_flight as u64 + u64::from(index < count % in_flight as u64);
        let one = one.clone();
        workers.spawn(async move {
            let mut times = Latencies::with_capacity(share as usize);
            for _ in 0..share {
                let start = Instant::now();
                one().await?;
                times.push(start.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Latencies::with_capacity(count as usize);
    while let Some(times) = workers.join_next().await {
        all.merge(times??);
    }
    Ok(all)
}
