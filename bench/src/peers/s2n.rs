//! s2n-quic 1.91 with its defaults: TLS through s2n-tls and aws-lc, server certificate only, 100 streams, Cubic, its own rings of
//! datagrams before the socket, GSO on.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use s2n_quic::{
    Client as Endpoint, Connection, Server,
    client::Connect,
    connection::Handle,
    stream::{BidirectionalStream, ReceiveStream, SendStream},
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::{Client, REPLY, REQUEST, Writes, blob, check_count, chunk, paced, parallel, writes};
use crate::{
    measure::Latencies,
    plan::{Case, Load, MESSAGE_BYTES, REPLY_BYTES},
};

/// What a client must know: where, and the certificate to trust.
#[derive(Serialize, Deserialize)]
struct Address {
    at: SocketAddr,
    certificate: String,
}

/// Starts the server; it runs until the process ends.
pub(crate) async fn serve(case: Case) -> Result<(String, JoinHandle<()>)> {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, private) = (key.cert.pem(), key.signing_key.serialize_pem());
    let mut server = Server::builder()
        .with_tls((certificate.as_str(), private.as_str()))?
        .with_io(SocketAddr::from((super::server_ip(), 0)))?
        .start()?;
    let address = Address { at: server.local_addr()?, certificate };
    let task = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            tokio::spawn(connection(incoming, case));
        }
    });
    Ok((serde_json::to_string(&address)?, task))
}

async fn connection(mut connection: Connection, case: Case) -> Result<()> {
    while let Some(stream) = connection.accept_bidirectional_stream().await? {
        let (rx, tx) = stream.split();
        match case {
            Case::Bulk { .. } | Case::Burst { .. } => tokio::spawn(swallow(tx, rx)),
            Case::Urgent { .. } => tokio::spawn(either(tx, rx)),
            Case::Chunks { .. } => tokio::spawn(answer(tx, rx, blob())),
            _ => tokio::spawn(answer(tx, rx, Bytes::from_static(REPLY))),
        };
    }
    Ok(())
}

async fn swallow(mut tx: SendStream, mut rx: ReceiveStream) -> Result<()> {
    let count = rest(&mut rx).await? as u64;
    tx.send(Bytes::copy_from_slice(&count.to_be_bytes())).await?;
    Ok(tx.finish()?)
}

async fn answer(mut tx: SendStream, mut rx: ReceiveStream, reply: Bytes) -> Result<()> {
    ensure!(rest(&mut rx).await? == MESSAGE_BYTES, "a short request");
    tx.send(reply).await?;
    Ok(tx.finish()?)
}

/// What begins as a request does is one.
async fn either(mut tx: SendStream, mut rx: ReceiveStream) -> Result<()> {
    let first = rx.receive().await?.context("nothing came")?;
    if first[0] != REQUEST[0] {
        return swallow(tx, rx).await;
    }
    ensure!(first.len() + rest(&mut rx).await? == MESSAGE_BYTES, "a short request");
    tx.send(Bytes::from_static(REPLY)).await?;
    Ok(tx.finish()?)
}

/// How many bytes are left until the end.
async fn rest(rx: &mut ReceiveStream) -> Result<usize> {
    let mut count = 0;
    while let Some(chunk) = rx.receive().await? {
        count += chunk.len();
    }
    Ok(count)
}

/// A client with one connection.
pub(crate) struct S2n {
    endpoint: Endpoint,
    connection: Connection,
    at: SocketAddr,
}

impl S2n {
    async fn dial(endpoint: Endpoint, at: SocketAddr) -> Result<Self> {
        let connection =
            endpoint.connect(Connect::new(at).with_server_name("localhost")).await.context("s2n-quic's handshake")?;
        Ok(Self { endpoint, connection, at })
    }
}

impl Client for S2n {
    async fn connect(address: &str) -> Result<Self> {
        let Address { at, certificate } = serde_json::from_str(address)?;
        let io = SocketAddr::from((super::client_ip(), 0));
        let endpoint = Endpoint::builder().with_tls(certificate.as_str())?.with_io(io)?.start()?;
        Self::dial(endpoint, at).await
    }

    // Each endpoint has 16 MB of rings.
    fn another(&self) -> impl Future<Output = Result<Self>> + Send + 'static {
        Self::dial(self.endpoint.clone(), self.at)
    }

    async fn again(&mut self) -> Result<Duration> {
        self.connection.close(0u32.into());
        let start = Instant::now();
        self.connection = self.endpoint.connect(Connect::new(self.at).with_server_name("localhost")).await?;
        Ok(start.elapsed())
    }

    async fn bulk(&mut self, bytes: u64) -> Result<()> {
        let (mut rx, mut tx) = self.connection.open_bidirectional_stream().await?.split();
        let chunk = chunk();
        for length in writes(bytes) {
            tx.send(chunk.slice(..length)).await?;
        }
        tx.finish()?;
        let mut told = Vec::new();
        while let Some(chunk) = rx.receive().await? {
            told.extend_from_slice(&chunk);
        }
        check_count(&told, bytes)
    }

    async fn requests(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let handle = self.connection.handle();
        parallel(count, in_flight, move || request(handle.clone(), MESSAGE_BYTES)).await
    }

    async fn chunks(&mut self, count: u64, in_flight: usize) -> Result<Latencies> {
        let handle = self.connection.handle();
        parallel(count, in_flight, move || request(handle.clone(), REPLY_BYTES)).await
    }

    async fn urgent(&mut self, count: u64, load: Load) -> Result<Latencies> {
        let load = Writes::of(load).map(|mut writes| {
            let mut handle = self.connection.handle();
            tokio::spawn(async move {
                let mut stream: BidirectionalStream = handle.open_bidirectional_stream().await?;
                loop {
                    stream.send(writes.next().await).await?;
                }
            })
        });
        paced(count, load, || request(self.connection.handle(), MESSAGE_BYTES)).await
    }
}

async fn request(mut handle: Handle, reply: usize) -> Result<()> {
    let (mut rx, mut tx) = handle.open_bidirectional_stream().await?.split();
    tx.send(Bytes::from_static(REQUEST)).await?;
    tx.finish()?;
    ensure!(rest(&mut rx).await? == reply, "a short reply");
    Ok(())
}
