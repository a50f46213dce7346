//! The one list of cases. Each is what strait and a node of another stack do over a connection that is there already, in both roles.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use libp2p::{Multiaddr, multiaddr::Protocol};
use strait::Node;

use crate::peer::{Peer, bare};
use crate::roles::{self, Role};
use crate::strait_node::{PREFIXED, ToPeer, listen_addr};
use crate::transport::Transport;
use crate::{service, wait};

/// How much is transferred each way.
pub const TRANSFER_BYTES: u64 = 100 << 20;

/// The longest that a case may take. Generous: it only keeps a broken one from hanging.
const CASE_MAX: Duration = Duration::from_secs(180);

/// Several in a row: some stacks keep one stream for all of their pings, so the second one is the harder.
const PINGS: usize = 3;

/// Sizes around the steps of a varint and of a packet, and the largest that is allowed.
const REQUEST_BYTES: [usize; 8] = [0, 1, 127, 128, 1_200, 16_383, 16_384, service::REQUEST_BYTES_MAX];

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Case {
    /// Both learn the other's agent, protocols and addresses.
    Identify,
    /// Both ping, several times.
    Ping,
    /// Both ask, requests and replies of many sizes.
    Request,
    /// Either direction of a stream ends first, and 1 MiB follows in the other; both open such streams.
    HalfClosed,
    /// 100 MiB each way.
    Transfer,
    /// 100 streams open at once, opened by either.
    Parallel,
}

impl Case {
    /// All of them, in the order in which they run.
    pub const ALL: [Case; 6] = [Case::Identify, Case::Ping, Case::Request, Case::HalfClosed, Case::Transfer, Case::Parallel];

    /// What it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Case::Identify => "identify",
            Case::Ping => "ping",
            Case::Request => "requests",
            Case::HalfClosed => "half-closed",
            Case::Transfer => "100 MiB",
            Case::Parallel => "100 streams",
        }
    }
}

/// strait, and a node of another stack that it is connected with.
pub struct Pair<'a> {
    /// One side.
    pub strait: &'a Node,
    /// The other.
    pub peer: &'a dyn Peer,
    /// What connects them.
    pub transport: Transport,
}

impl Pair<'_> {
    /// Tries a case.
    ///
    /// # Errors
    /// What does not work, in words.
    pub async fn run(&self, case: Case) -> Result<(), String> {
        let attempt = async {
            match case {
                Case::Identify => self.identify().await,
                Case::Ping => self.ping().await,
                Case::Request => self.request().await,
                Case::HalfClosed => {
                    self.both(Role::HalfClosed).await?;
                    self.both(Role::LastWord).await
                }
                Case::Transfer => self.both(Role::Transfer { bytes: TRANSFER_BYTES }).await,
                Case::Parallel => self.both(Role::Parallel).await,
            }
        };
        // A wait that was in vain panics, and must not take the other cases with it.
        let attempt = AssertUnwindSafe(attempt).catch_unwind();
        match tokio::time::timeout(CASE_MAX, attempt).await {
            Ok(Ok(result)) => result?,
            Ok(Err(panic)) => return Err(words(&*panic)),
            Err(_) => return Err(format!("it was not over after {CASE_MAX:?}")),
        }
        self.still_connected().await
    }

    /// No case may cost the connection.
    async fn still_connected(&self) -> Result<(), String> {
        let closed = self.peer.closed().await?;
        match (closed, self.strait.is_connected(self.peer.id())) {
            (0, true) => Ok(()),
            (closed, here) => Err(format!("connections closed: {closed}; strait is connected: {here}")),
        }
    }

    async fn identify(&self) -> Result<(), String> {
        let ours = listen_addr(self.strait, self.transport);
        let told = self.peer.identified(self.strait.peer_id()).await?;
        expect(told.agent.starts_with("strait/"), "the agent of strait", &told)?;
        expect(told.listens.iter().any(|address| bare(address) == ours), "strait's address", &told)?;
        expect(
            told.observed.as_ref().is_some_and(|address| self.is_observed(address)),
            "its own address as strait sees it",
            &told,
        )?;
        let spoken = roles::PROTOCOLS.into_iter().chain([service::PREFIXED, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"]);
        for protocol in spoken.clone() {
            expect(told.protocols.iter().any(|told| told == protocol), protocol, &told)?;
        }
        let told = wait::poll("strait to learn of its peer", || self.strait.identified(self.peer.id())).await;
        expect(told.agent == self.peer.agent(), "the peer's agent", &told)?;
        expect(told.addresses.iter().any(|address| bare(address) == self.peer.address()), "the peer's address", &told)?;
        let seen_at = |address: &Multiaddr| match self.transport.is_tcp() {
            true => self.is_observed(address),
            // strait dials from the socket that it listens on.
            false => bare(address) == ours,
        };
        expect(told.observed.as_ref().is_some_and(seen_at), "strait's address as the peer sees it", &told)?;
        for protocol in spoken {
            expect(told.protocols.iter().any(|told| told == protocol), protocol, &told)?;
        }
        Ok(())
    }

    /// On loopback, and of this transport. The port is not that of a listener where the system chose it for a TCP connection.
    fn is_observed(&self, address: &Multiaddr) -> bool {
        let parts: Vec<_> = bare(address).iter().map(|part| part.acquire()).collect();
        match &parts[..] {
            [Protocol::Ip4(ip), Protocol::Tcp(_)] => ip.is_loopback() && self.transport.is_tcp(),
            [Protocol::Ip4(ip), Protocol::Udp(_), Protocol::QuicV1] => ip.is_loopback() && !self.transport.is_tcp(),
            _ => false,
        }
    }

    async fn ping(&self) -> Result<(), String> {
        for _ in 0..PINGS {
            self.strait.ping(self.peer.id()).await.map_err(|error| format!("strait pings: {error}"))?;
            self.peer.ping(self.strait.peer_id()).await.map_err(|error| format!("the peer pings: {error}"))?;
        }
        Ok(())
    }

    async fn request(&self) -> Result<(), String> {
        let requests = REQUEST_BYTES.into_iter().map(|length| service::body(length, 5));
        for request in requests.chain([service::request_for(service::REPLY_BYTES_MAX)]) {
            let length = request.len();
            let reply = self.strait.request(self.peer.id(), &PREFIXED, request.clone()).await;
            let reply = reply.map_err(|error| format!("strait asks, {length} bytes: {error}"))?.into_bytes();
            expect(reply == service::answer(&request), "the right reply to strait", &(length, reply.len()))?;
            let reply = self.peer.ask(self.strait.peer_id(), request.clone()).await;
            let reply = reply.map_err(|error| format!("the peer asks, {length} bytes: {error}"))?;
            expect(reply == service::answer(&request), "the right reply to the peer", &(length, reply.len()))?;
        }
        Ok(())
    }

    /// Both open streams, one after the other.
    async fn both(&self, role: Role) -> Result<(), String> {
        let ours = roles::play(role, &ToPeer(self.strait, self.peer.id())).await;
        ours.map_err(|error| format!("{role:?}, strait opens: {error}"))?;
        let theirs = self.peer.play(self.strait.peer_id(), role).await;
        theirs.map_err(|error| format!("{role:?}, the peer opens: {error}"))
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "a panic".to_owned())
}

fn expect(found: bool, what: &str, there: &dyn std::fmt::Debug) -> Result<(), String> {
    match found {
        true => Ok(()),
        false => Err(format!("{what} is missing in {there:?}")),
    }
}
