//! quinn 0.11 with its defaults: 1.25 MB stream window, unlimited connection window, 100 streams,
//! Cubic, system-default socket buffers, GSO and GRO on. TLS through ring, server certificate only.

use std::{net::SocketAddr, sync::Arc};

use ::quinn::{
    ClientConfig, Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::{Client, REPLY, REQUEST, Writes, check_count, chunk, paced, parallel, writes};
use crate::{
    measure::Latencies,
    plan::{CHUNK_BYTES, Case, Load, MESSAGE_BYTES},
};

const ALPN: &[u8] = b"strait-bench";

/// What a client must know: where, and the certificate to trust.
#[derive(Serialize, Deserialize)]
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
    let endpoint = Endpoint::server(config, SocketAddr::from((super::server_ip(), 0)))?;
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
            _ => tokio::spawn(answer(tx, rx)),
        };
    }
}

async fn swallow(mut tx: SendStream, mut rx: RecvStream) -> Result<()> {
    let mut count = 0u64;
    while let Some(chunk) = rx.read_chunk(CHUNK_BYTES, true).await? {
        count += chunk.bytes.len() as u64;
    }
    tx.write_all(&count.to_be_bytes()).await?;
    tx.finish()?;
    Ok(())
}

async fn answer(mut tx: SendStream, mut rx: RecvStream) -> Result<()> {
    let request = rx.read_to_end(MESSAGE_BYTES).await?;
    ensure!(request.len() == MESSAGE_BYTES, "a short request");
    tx.write_chunk(Bytes::from_static(REPLY)).await?;
    tx.finish()?;
    Ok(())
}

/// What begins as a request does is one.
async fn either(mut tx: SendStream, mut rx: RecvStream) -> Result<()> {
    let first = rx.read_chunk(CHUNK_BYTES, true).await?.context("nothing came")?;
    if first.bytes[0] != REQUEST[0] {
        return swallow(tx, rx).await;
    }
    ensure!(first.bytes.len() + rx.read_to_end(MESSAGE_BYTES).await?.len() == MESSAGE_BYTES, "a short request");
    tx.write_chunk(Bytes::from_static(REPLY)).await?;
    tx.finish()?;
    Ok(())
}

/// A client with one connection.
pub(crate) struct Quinn {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Client for Quinn {
    async fn connect(address: &str) -> Result<Self> {
        let address: Address = serde_json::from_str(address)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(address.certificate))?;
        let mut tls = rustls::ClientConfig::builder_with_provider(ring())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut endpoint = Endpoint::client(SocketAddr::from((super::client_ip(), 0)))?;
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(address.at, "localhost")?.await.context("quinn's handshake")?;
        Ok(Self { connection, _endpoint: endpoint })
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
                let (mut tx, mut rx) = connection.open_bi().await?;
                tx.write_chunk(Bytes::from_static(REQUEST)).await?;
                tx.finish()?;
                let reply = rx.read_to_end(MESSAGE_BYTES).await?;
                ensure!(reply.len() == MESSAGE_BYTES, "a short reply");
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
            let (mut tx, mut rx) = self.connection.open_bi().await?;
            tx.set_priority(1)?;
            tx.write_chunk(Bytes::from_static(REQUEST)).await?;
            tx.finish()?;
            let reply = rx.read_to_end(MESSAGE_BYTES).await?;
            ensure!(reply.len() == MESSAGE_BYTES, "a short reply");
            Ok(())
        })
        .await
    }
}

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
