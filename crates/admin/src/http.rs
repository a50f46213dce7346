//! The admin port: plain HTTP for people and programs on the same machine, or wherever its operator lets it be reached. It only tells; nothing can be changed.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use strait::{Node, Of, TraceError};
use strait_core::PeerId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::metrics::{self, Snapshot};
use crate::show;
use crate::trace::{self, Body};

/// Connections at once. What comes beyond is closed at once: whoever holds these without end has them for a minute each.
pub const CONNECTIONS_MAX: usize = 64;
/// A request's head has to be there within this.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// And is at most so long.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A connection lives at most so long; browsers and scrapers make another one.
const LIFETIME: Duration = Duration::from_secs(60);
/// When no connection can be accepted, for want of descriptors, it is tried again after this.
const ACCEPT_REST: Duration = Duration::from_millis(100);

const TRACE: &str = "/trace.sqlog";
const PAGE: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = include_str!("../page/page.js");
const CHARTS: &str = include_str!("../page/charts.js");
/// The page takes nothing from anywhere else, and nothing that a peer says can become code in it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers about one node.
#[derive(Clone)]
pub struct Admin {
    node: Node,
    /// Whether the names that requests call this machine are looked at.
    strict: bool,
}

impl Admin {
    /// Answers about `node`.
    pub fn new(node: Node) -> Admin {
        Admin { node, strict: true }
    }

    /// Listens at an address, for [`serve`](Self::serve).
    ///
    /// # Errors
    /// The port is taken, or the address is not one of this machine's.
    pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Serves whoever connects, [`CONNECTIONS_MAX`] at once, until it is dropped.
    pub async fn serve(mut self, listener: TcpListener) {
        // On a loopback address whatever page a browser of this machine shows could ask in the name of its own host (DNS rebinding).
        self.strict = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut running = JoinSet::new();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            while running.try_join_next().is_some() {}
            if let Ok(place) = places.clone().try_acquire_owned() {
                let admin = self.clone();
                running.spawn(async move {
                    admin.connection(stream).await;
                    drop(place);
                });
            }
        }
    }

    async fn connection(self, stream: TcpStream) {
        let traces = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            let answer = self.answer(&request);
            traces.fetch_or(request.uri().path() == TRACE, Relaxed);
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_BYTES_MAX);
        let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
        // How a connection of somebody else has ended is nothing to tell. A trace lasts for as long as it was asked for.
        if tokio::time::timeout(LIFETIME, serving.as_mut()).await.is_err() && traces.load(Relaxed) {
            let _ = tokio::time::timeout(trace::LASTS_MAX, serving).await;
        }
    }

    /// The answer to one request.
    fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: nothing can be changed here\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        if self.strict && !request.headers().get(HOST).is_none_or(names_this_machine) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this is the admin port of a strait node; ask for it as localhost or by its address\n",
            );
        }
        match request.uri().path() {
            "/metrics" => answer(StatusCode::OK, metrics::CONTENT_TYPE, Snapshot::of(&self.node, self.node.uptime()).encode()),
            "/healthz" => self.health(),
            "/readyz" => self.readiness(),
            "/now.json" => json(show::now(&self.node, self.node.uptime()).to_string()),
            "/explain.json" => self.explain(request.uri().query().unwrap_or_default()),
            TRACE => self.trace(request.uri().query().unwrap_or_default()),
            "/" | "/index.html" => answer(StatusCode::OK, "text/html; charset=utf-8", PAGE),
            "/page.css" => answer(StatusCode::OK, "text/css; charset=utf-8", STYLE),
            "/charts.js" => answer(StatusCode::OK, "text/javascript; charset=utf-8", CHARTS),
            "/page.js" => answer(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /, /metrics, /healthz, /readyz, /now.json, /explain.json and /trace.sqlog\n",
            ),
        }
    }

    fn health(&self) -> Response<Body> {
        match self.node.is_running() {
            true => text(StatusCode::OK, "ok\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "the node has stopped; start the process again\n"),
        }
    }

    fn readiness(&self) -> Response<Body> {
        match self.node.is_running() && !self.node.now().closing {
            true => text(StatusCode::OK, "ready\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "the node is closing: it takes nobody new\n"),
        }
    }

    fn explain(&self, query: &str) -> Response<Body> {
        let Ok(of) = wanted(query) else {
            return text(StatusCode::BAD_REQUEST, "ask for /explain.json, or with ?peer=PEERID, or with ?protocol=NAME\n");
        };
        let explained = match of {
            Of::Node => self.node.explain(),
            Of::Peer(peer) => self.node.explain_peer(peer),
            Of::Protocol(name) => self.node.explain_protocol(&name),
        };
        json(explained.to_json())
    }

    /// Traces a connection for as long as it was asked for. Nothing changes by that but the time that each of its packets takes.
    fn trace(&self, query: &str) -> Response<Body> {
        let Some(wanted) = trace::wanted(query) else {
            return text(StatusCode::BAD_REQUEST, trace::USAGE);
        };
        match self.node.trace(wanted.peer, wanted.bytes_max) {
            Ok(trace) => answer(StatusCode::OK, "application/qlog+json-seq", Body::following(trace, wanted.lasts)),
            Err(TraceError::NotConnected) => text(StatusCode::NOT_FOUND, "this peer is not connected\n"),
            Err(TraceError::TooMany) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "there are too many traces already; end one of them\n")
            }
        }
    }
}

/// What `/explain.json` is asked for.
fn wanted(query: &str) -> Result<Of, ()> {
    match query.split_once('=') {
        None if query.is_empty() => Ok(Of::Node),
        Some(("peer", id)) => id.parse::<PeerId>().map(Of::Peer).map_err(|_| ()),
        Some(("protocol", name)) => decoded(name).map(Of::Protocol).ok_or(()),
        _ => Err(()),
    }
}

/// Percent-encoding (RFC 3986 section 2.1) undone.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

/// Whether a Host header calls this machine by an address, or localhost.
fn names_this_machine(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn json(text: String) -> Response<Body> {
    answer(StatusCode::OK, "application/json", text)
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_name_this_machine() {
        for name in ["127.0.0.1", "127.0.0.1:9464", "[::1]:80", "localhost", "LOCALHOST:1", "10.0.0.7"] {
            assert!(names_this_machine(&HeaderValue::from_str(name).expect("a header")), "{name}");
        }
        for name in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "a:b"] {
            assert!(!names_this_machine(&HeaderValue::from_str(name).expect("a header")), "{name}");
        }
    }

    #[test]
    fn names_of_protocols_come_percent_encoded() {
        assert_eq!(decoded("%2Fstrait%2fchunk/1").as_deref(), Some("/strait/chunk/1"));
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
        assert_eq!(wanted("protocol=%2Fa"), Ok(Of::Protocol("/a".to_owned())));
        assert_eq!((wanted(""), wanted("peer=nobody"), wanted("x")), (Ok(Of::Node), Err(()), Err(())));
    }
}
