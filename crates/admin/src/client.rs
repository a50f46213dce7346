//! Asking an admin port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
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
    let mut body = Vec::new();
    let status = follow(address, path, Duration::ZERO, |_, bytes| {
        if body.len() + bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too large"));
        }
        body.extend_from_slice(bytes);
        Ok(())
    });
    let status = status.await?;
    Ok((status, String::from_utf8(body).map_err(io::Error::other)?))
}

/// Asks for a path and hands over the answer as it comes, with its status: one that goes on for `lasts`. Returns the status.
///
/// # Errors
/// Nobody listens there, it is something else, it takes 10 s longer than that, or `take` has failed.
pub async fn follow(
    address: SocketAddr,
    path: &str,
    lasts: Duration,
    take: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<u16> {
    tokio::time::timeout(WITHIN.saturating_add(lasts), ask(address, path, take))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"))?
}

async fn ask(address: SocketAddr, path: &str, mut take: impl FnMut(u16, &[u8]) -> io::Result<()>) -> io::Result<u16> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let answer = async {
        let mut answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        while let Some(frame) = answer.body_mut().frame().await {
            if let Some(bytes) = frame.map_err(io::Error::other)?.data_ref() {
                take(status, bytes)?;
            }
        }
        Ok(status)
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
