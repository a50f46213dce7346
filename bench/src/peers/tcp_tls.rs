//! Not a stack but a limit: a TCP connection, TLS through ring with a server certificate only, and the least that lets requests share it.
//! Bulk is the connection itself. Requests are frames of a length, a number and a body. There is no flow control, no stream, no fairness, and
//! nothing is bounded: whoever adds these pays for them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{Client, REPLY, REQUEST, Writes, blob, check_count, chunk, paced, parallel, ring, writes};
use crate::{
    measure::Latencies,
    plan::{CHUNK_BYTES, Case, Load, MESSAGE_BYTES, REPLY_BYTES},
};

/// Length and number of a frame.
const HEADER_BYTES: usize = 8;
/// The number of frames that want no answer: the bulk of the urgent case.
const BULK: u32 = 0;

/// What a client must know.
#[derive(Clone, Serialize, Deserialize)]
struct Address {
    at: SocketAddr,
    certificate: Vec<u8>,
    /// Whether the connection carries frames.
    framed: bool,
}

/// Starts the server; it runs until the process ends.
pub(crate) async fn serve(case: Case) -> Result<(String, JoinHandle<()>)> {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = key.cert.der().clone();
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(ring())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private.into())?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((super::server_ip(), 0)).await?;
    let framed = matches!(case, Case::Requests { .. } | Case::Chunks { .. } | Case::Urgent { .. });
    let address = Address { at: listener.local_addr()?, certificate: certificate.to_vec(), framed };
    let reply = if matches!(case, Case::Chunks { .. }) { blob() } else { Bytes::from_static(REPLY) };
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, reply) = (acceptor.clone(), reply.clone());
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                let stream = acceptor.accept(tcp).await?;
                if framed { answer(stream, &reply).await } else { swallow(stream).await }
            });
        }
    });
    Ok((serde_json::to_string(&address)?, task))
}

/// Transfers one after the other: the length, as many bytes, and back the count.
async fn swallow(mut stream: server::TlsStream<TcpStream>) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length) = stream.read_u64().await {
        let mut count = 0;
        while count < length {
            match stream.read(&mut buffer).await? {
                0 => bail!("it ended early"),
                read => count += read as u64,
            }
        }
        stream.write_u64(count).await?;
        stream.flush().await?;
    }
    Ok(())
}

async fn answer(mut stream: server::TlsStream<TcpStream>, reply: &Bytes) -> Result<()> {
    let (mut read, mut out) = (BytesMut::with_capacity(CHUNK_BYTES), BytesMut::new());
    loop {
        while let Some((number, body)) = frame(&mut read) {
            if number == BULK {
                continue;
            }
            ensure!(body.len() == MESSAGE_BYTES, "a short request");
            header(&mut out, number, reply.len());
            if reply.len() < CHUNK_BYTES {
                out.extend_from_slice(reply);
                continue;
            }
            stream.write_all(&out.split()).await?;
            stream.write_all(reply).await?;
        }
        // All answers to what came together leave together.
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

fn header(out: &mut BytesMut, number: u32, length: usize) {
    out.put_u32(length as u32);
    out.put_u32(number);
}

/// The next frame, if it has come whole; otherwise there is room for it.
fn frame(read: &mut BytesMut) -> Option<(u32, Bytes)> {
    let length = read.get(..4).map_or(0, |mut length| length.get_u32() as usize);
    let whole = HEADER_BYTES + length;
    if read.len() < whole {
        read.reserve(CHUNK_BYTES.max(whole - read.len()));
        return None;
    }
    read.advance(4);
    let number = read.get_u32();
    Some((number, read.split_to(length).freeze()))
}

type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<Bytes>>>>;

/// A connection that carries frames.
#[derive(Clone)]
struct Mux {
    /// Go first.
    requests: mpsc::Sender<(u32, Bytes)>,
    bulk: mpsc::Sender<(u32, Bytes)>,
    waiting: Waiting,
    next: Arc<AtomicU32>,
}

impl Mux {
    fn new(stream: client::TlsStream<TcpStream>) -> Mux {
        let (requests, first) = mpsc::channel(64);
        let (bulk, second) = mpsc::channel(1);
        let waiting = Waiting::default();
        tokio::spawn(drive(stream, first, second, Arc::clone(&waiting)));
        Mux { requests, bulk, waiting, next: Arc::new(AtomicU32::new(BULK + 1)) }
    }

    async fn request(&self, length: usize) -> Result<()> {
        let number = self.next.fetch_add(1, Relaxed);
        let (answered, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answered);
        self.requests.send((number, Bytes::from_static(REQUEST))).await?;
        ensure!(answer.await?.len() == length, "a short reply");
        Ok(())
    }
}

/// Reads and writes in one task: two would wait for each other's lock on the TLS state, and a busy writer kept a reader out for seconds. Nothing is
/// read while something is written, which goes well as long as answers to that fit into the sockets' buffers.
async fn drive(
    mut stream: client::TlsStream<TcpStream>,
    mut requests: mpsc::Receiver<(u32, Bytes)>,
    mut bulk: mpsc::Receiver<(u32, Bytes)>,
    waiting: Waiting,
) -> Result<()> {
    let (mut read, mut out) = (BytesMut::with_capacity(CHUNK_BYTES), BytesMut::with_capacity(2 * CHUNK_BYTES));
    loop {
        while let Some((number, body)) = frame(&mut read) {
            let answered = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            // It may have been given up.
            let _ = answered.map(|answered| answered.send(body));
        }
        let mut next = tokio::select! {
            biased;
            count = stream.read_buf(&mut read) => {
                if count? == 0 {
                    // Whoever still waits learns of it by the sender that is dropped.
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    return Ok(());
                }
                continue;
            }
            Some(frame) = requests.recv() => Some(frame),
            Some(frame) = bulk.recv() => Some(frame),
            else => return Ok(()),
        };
        // All that is ready leaves together.
        while let Some((number, body)) = next {
            header(&mut out, number, body.len());
            out.extend_from_slice(&body);
            next = if out.len() < CHUNK_BYTES { requests.try_recv().ok() } else { None };
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
    }
}

enum Connection {
    Bare(Box<client::TlsStream<TcpStream>>),
    Framed(Mux),
}

/// A client with one connection.
pub(crate) struct TcpTls {
    connector: TlsConnector,
    address: Address,
    connection: Connection,
}

async fn dial(connector: &TlsConnector, address: &Address) -> Result<Connection> {
    let tcp = TcpStream::connect(address.at).await?;
    tcp.set_nodelay(true)?;
    let stream = connector.connect(ServerName::try_from("localhost")?, tcp).await?;
    Ok(if address.framed { Connection::Framed(Mux::new(stream)) } else { Connection::Bare(Box::new(stream)) })
}

impl TcpTls {
    fn mux(&self) -> Result<Mux> {
        match &self.connection {
            Connection::Framed(mux) => Ok(mux.clone()),
            Connection::Bare(_) => bail!("the server reads no frames"),
        }
    }
}

impl Client for TcpTls {
    async fn connect(address: &str) -> Result<Self> {
        let address: Address = serde_json::from_str(address)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(address.certificate.clone()))?;
        let mut config = rustls::ClientConfig::builder_with_provider(ring())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each handshake of the handshakes case is a whole one.
        config.resumption = rustls::client::Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(config));
        let connection = dial(&connector, &address).await.context("the handshake")?;
        Ok(Self { connector, address, connection })
    }

    fn another(&self) -> impl Future<Output = Result<Self>> + Send + 'static {
        let (connector, address) = (self.connector.clone(), self.address.clone());
        async move {
            let connection = dial(&connector, &address).await?;
            Ok(Self { connector, address, connection })
        }
    }

    async fn again(&mut self) -> Result<Duration> {
        if let Connection::Bare(stream) = &mut self.connection {
            stream.shutdown().await?;
        }
        let start = Instant::now();
        self.connection = dial(&self.connector, &self.address).await?;
        Ok(start.elapsed())
    }

    async fn bulk(&mut self, bytes: u64) -> Result<()> {
        let Connection::Bare(stream) = &mut self.connection else {
            bail!("the server reads frames");
        };
        stream.write_u64(bytes).await?;
        let chunk = chunk();
        for length in writes(bytes) {
            stream.write_all(&chunk[..length]).await?;
        }
        stream.flush().await?;
        check_count(&stream.read_u64().await?.to_be_bytes(), bytes)
    }

    async fn requests(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let mux = self.mux()?;
        parallel(count, in_flight, move || {
            let mux = mux.clone();
            async move { mux.request(MESSAGE_BYTES).await }
        })
        .await
    }

    async fn chunks(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let mux = self.mux()?;
        parallel(count, in_flight, move || {
            let mux = mux.clone();
            async move { mux.request(REPLY_BYTES).await }
        })
        .await
    }

    async fn urgent(&mut self, count: u64, load: Load) -> Result<Latencies> {
        let mux = self.mux()?;
        let load = Writes::of(load).map(|mut writes| {
            let bulk = mux.bulk.clone();
            tokio::spawn(async move {
                loop {
                    bulk.send((BULK, writes.next().await)).await?;
                }
            })
        });
        paced(count, load, || mux.request(MESSAGE_BYTES)).await
    }
}
