//! Asking an admin port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest answer that is taken: fifty peers and a hundred protocols are some 200 KB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long an answer may take in all.
const WITHIN: Duration = Duration::from_secs(10);

/// Asks for a path. Returns the status and the text.
///
/// # Errors
/// Nobody listens there, it is something else, or it takes longer than 10 s.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    tokio::time::timeout(WITHIN, ask(address, path))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"))?
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
        let text = String::from_utf8(body.into()).map_err(io::Error::other)?;
        Ok((status, text))
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It moves the bytes, and ends when the other side does: then what has come is still read.
        _ = connection => answer.await,
    }
}

/// A name as it is written in a query (RFC 3986 section 2.1).
pub fn encoded(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    name.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
