//! quinn or noq, whichever `super` says: the same calls, but for the one that `super::read` stands for.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    read,
    stack::{
        ClientConfig, Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig,
        crypto::rustls::{QuicClientConfig, QuicServerConfig},
    },
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::{
    measure::Latencies,
    peers::{self, Client, REPLY, REQUEST, Serving, Writes, blob, check_count, chunk, paced, parallel, ring, writes},
    plan::{CHUNK_BYTES, Case, Load, MESSAGE_BYTES, REPLY_BYTES},
};

const ALPN: &[u8] = b"strait-bench";

/// What a client must know: where, and the certificate to trust.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Address {
    at: SocketAddr,
    certificate: Vec<u8>,
}

/// Starts the server; it runs until the returned handle is dropped.
pub(crate) async fn serve(case: Case) -> Result<(String, Endpoint)> {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = key.cert.der().clone();
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(ring())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let endpoint = Endpoint::server(config, SocketAddr::from((peers::server_ip(), 0)))?;
    let address = Address { at: endpoint.local_addr()?, certificate: certificate.to_vec() };
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(connection(incoming, case));
        }
    });
    Ok((serde_json::to_string(&address)?, endpoint))
}

async fn connection(incoming: Incoming, case: Case) -> Result<()> {
    let connection = incoming.await?;
    loop {
        let (tx, rx) = connection.accept_bi().await?;
        match case {
            Case::Bulk { .. } | Case::Burst { .. } => tokio::spawn(swallow(tx, rx)),
            Case::Urgent { .. } => tokio::spawn(either(tx, rx)),
            Case::Chunks { .. } => tokio::spawn(answer(tx, rx, blob())),
            _ => tokio::spawn(answer(tx, rx, Bytes::from_static(REPLY))),
        };
    }
}

async fn swallow(mut tx: SendStream, mut rx: RecvStream) -> Result<()> {
    let mut count = 0u64;
    while let Some(chunk) = read(&mut rx, CHUNK_BYTES).await? {
        count += chunk.len() as u64;
    }
    tx.write_all(&count.to_be_bytes()).await?;
    tx.finish()?;
    Ok(())
}

async fn answer(mut tx: SendStream, mut rx: RecvStream, reply: Bytes) -> Result<()> {
    let request = rx.read_to_end(MESSAGE_BYTES).await?;
    ensure!(request.len() == MESSAGE_BYTES, "a short request");
    tx.write_chunk(reply).await?;
    tx.finish()?;
    Ok(())
}

/// What begins as a request does is one.
async fn either(mut tx: SendStream, mut rx: RecvStream) -> Result<()> {
    let first = read(&mut rx, CHUNK_BYTES).await?.context("nothing came")?;
    if first[0] != REQUEST[0] {
        return swallow(tx, rx).await;
    }
    ensure!(first.len() + rx.read_to_end(MESSAGE_BYTES).await?.len() == MESSAGE_BYTES, "a short request");
    tx.write_chunk(Bytes::from_static(REPLY)).await?;
    tx.finish()?;
    Ok(())
}

/// Sends the request on a stream of its own; its reply is what this gives.
async fn ask(connection: &Connection, priority: i32) -> Result<RecvStream> {
    let (mut tx, rx) = connection.open_bi().await?;
    tx.set_priority(priority)?;
    tx.write_chunk(Bytes::from_static(REQUEST)).await?;
    tx.finish()?;
    Ok(rx)
}

/// A client with one connection.
pub(crate) struct Quic {
    connection: Connection,
    endpoint: Endpoint,
    config: ClientConfig,
    address: String,
    at: SocketAddr,
}

impl Serving for Endpoint {}

impl Client for Quic {
    async fn connect(address: &str) -> Result<Self> {
        let Address { at, certificate } = serde_json::from_str(address)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(certificate))?;
        let mut tls = rustls::ClientConfig::builder_with_provider(ring())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        // Each handshake of the handshakes case is a whole one.
        tls.resumption = rustls::client::Resumption::disabled();
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let endpoint = Endpoint::client(SocketAddr::from((peers::client_ip(), 0)))?;
        let connection = endpoint.connect_with(config.clone(), at, "localhost")?.await.context("the handshake")?;
        Ok(Self { connection, endpoint, config, address: address.to_owned(), at })
    }

    fn another(&self) -> impl Future<Output = Result<Self>> + Send + 'static {
        let address = self.address.clone();
        async move { Self::connect(&address).await }
    }

    async fn again(&mut self) -> Result<Duration> {
        self.connection.close(0u32.into(), b"");
        let start = Instant::now();
        self.connection = self.endpoint.connect_with(self.config.clone(), self.at, "localhost")?.await?;
        Ok(start.elapsed())
    }

    async fn bulk(&mut self, bytes: u64) -> Result<()> {
        let (mut tx, mut rx) = self.connection.open_bi().await?;
        let chunk = chunk();
        for length in writes(bytes) {
            tx.write_chunk(chunk.slice(..length)).await?;
        }
        tx.finish()?;
        check_count(&rx.read_to_end(8).await?, bytes)
    }

    async fn requests(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let connection = self.connection.clone();
        parallel(count, in_flight, move || {
            let connection = connection.clone();
            async move {
                let mut rx = ask(&connection, 0).await?;
                let reply = rx.read_to_end(MESSAGE_BYTES).await?;
                ensure!(reply.len() == MESSAGE_BYTES, "a short reply");
                Ok(())
            }
        })
        .await
    }

    async fn chunks(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let connection = self.connection.clone();
        parallel(count, in_flight, move || {
            let connection = connection.clone();
            async move {
                let mut rx = ask(&connection, 0).await?;
                let mut length = 0;
                while let Some(chunk) = read(&mut rx, REPLY_BYTES).await? {
                    length += chunk.len();
                }
                ensure!(length == REPLY_BYTES, "a short reply");
                Ok(())
            }
        })
        .await
    }

    async fn urgent(&mut self, count: u64, load: Load) -> Result<Latencies> {
        let load = Writes::of(load).map(|mut writes| {
            let connection = self.connection.clone();
            tokio::spawn(async move {
                let (mut tx, _rx) = connection.open_bi().await?;
                loop {
                    tx.write_chunk(writes.next().await).await?;
                }
            })
        });
        paced(count, load, || async {
            let mut rx = ask(&self.connection, 1).await?;
            let reply = rx.read_to_end(MESSAGE_BYTES).await?;
            ensure!(reply.len() == MESSAGE_BYTES, "a short reply");
            Ok(())
        })
        .await
    }
}
