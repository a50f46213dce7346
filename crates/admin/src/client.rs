//! Asking an admin port.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The largest answer that is taken: fifty peers and a hundred protocols are some 200 KB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long an answer may take to begin, and so long again to end, beside the time that it goes on for by its nature.
const WITHIN: Duration = Duration::from_secs(10);

/// Asks for a path. Returns the status and the text.
///
/// # Errors
/// Nobody listens there, it is something else, or its answer does not begin within 10 s or end within 10 s more ([`io::ErrorKind::TimedOut`]).
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
/// As for [`get`], with `lasts` more to end in; or `take` has failed.
pub async fn follow(
    address: SocketAddr,
    path: &str,
    lasts: Duration,
    take: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<u16> {
    ask(address, path, Patience { begin: WITHIN, end: WITHIN.saturating_add(lasts) }, take).await
}

/// How long is waited for an answer to begin, and from there for it to end.
struct Patience {
    begin: Duration,
    end: Duration,
}

/// What is said of an answer, or the end of one, that did not come.
fn none_within(what: &str, waited: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no {what} within {} s", waited.as_secs_f64()))
}

async fn ask(
    address: SocketAddr,
    path: &str,
    patience: Patience,
    mut take: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<u16> {
    // It moves the bytes, until this function is left.
    let mut moving = JoinSet::new();
    let begun = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        moving.spawn(connection);
        let request =
            Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok::<_, io::Error>((answer, sender))
    };
    let begun = tokio::time::timeout(patience.begin, begun).await;
    // Without its sender a connection ends.
    let (mut answer, _sender) = begun.map_err(|_| none_within("answer", patience.begin))??;
    let status = answer.status().as_u16();
    let ended = async {
        while let Some(frame) = answer.body_mut().frame().await {
            if let Some(bytes) = frame.map_err(io::Error::other)?.data_ref() {
                take(status, bytes)?;
            }
        }
        Ok(status)
    };
    let ended = tokio::time::timeout(patience.end, ended).await;
    ended.map_err(|_| none_within("end of an answer that has begun", patience.end))?
}

/// A name as it is written in a query (RFC 3986 section 2.1).
pub fn encoded(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    name.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const EVER: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_was_waited_for_and_how_long_is_what_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The system takes the connection, and nobody answers.
        let silent = ask(address, "/", Patience { begin: SHORT, end: EVER }, |_, _| Ok(())).await.unwrap_err();
        assert_eq!((silent.kind(), silent.to_string()), (io::ErrorKind::TimedOut, "no answer within 0.02 s".to_owned()));
        drop(listener.accept().await.unwrap());

        let half = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What answers before it was asked is no HTTP server.
            assert!(stream.read(&mut [0; 1000]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
            std::future::pending::<()>().await;
        };
        let asking = ask(address, "/", Patience { begin: EVER, end: SHORT }, |_, _| Ok(()));
        let told = tokio::select! { told = asking => told.unwrap_err(), () = half => unreachable!() };
        assert_eq!(told.to_string(), "no end of an answer that has begun within 0.02 s");
    }
}
