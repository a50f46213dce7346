//! [`Node`]: the handle that applications hold.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use strait_core::peers::{Attempt, Scope};
use strait_core::{
    Counters, Identity, Message, Multiaddr, PeerId, Priority, Refused, Request, RequestError, StreamProtocol, StreamRef,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::builder::Builder;
use crate::error::{ConnectError, OpenError, PingError, ServeError};
use crate::handler::{Handler, Incoming, IntoReply};
use crate::resend::Resend;
use crate::shared::Shared;
use crate::stream::Stream;
use crate::turn::DriverCounters;

/// A running node. Clones are handles to the same one; when the last is dropped, the node closes at once.
#[derive(Clone)]
pub struct Node {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

/// How a node has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It was closed.
    Closed,
    /// Its driver has ended without being told to: a bug in strait, which the log has, or its runtime was shut down.
    Failed,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// Gives up an exchange when the future that waits for it is dropped.
struct CancelOnDrop<'a> {
    shared: &'a Shared,
    stream: Option<StreamRef>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream {
            self.shared.ask(|state, _| {
                state.requests.remove(&stream);
                state.pings.remove(&stream);
                state.core.cancel(stream);
            });
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

impl Node {
    /// How to start one.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A handle to a node that another driver than tokio's runs. For the simulator and for drivers of one's own.
    pub fn from_shared(shared: Arc<Shared>) -> Node {
        Node { handle: Arc::new(Handle { shared }) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// This node's identity.
    pub fn peer_id(&self) -> PeerId {
        self.shared().peer_id
    }

    /// Where this node listens. Addresses of the interfaces where it is bound to all of them. To be told to others take
    /// [`told_addrs`](Self::told_addrs).
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.shared().lock().listen_addrs.clone()
    }

    /// Which addresses of this node may be told to others: those that were [declared](Builder::announce) if there are any, otherwise where it
    /// listens. Each connected peer learns those that hold over the path to it.
    pub fn told_addrs(&self) -> Vec<Multiaddr> {
        self.shared().lock().core.told_addresses()
    }

    /// This node's signed peer record (libp2p RFC 0003), as it is told over a path that reaches so far: in identify, or by other means. `None` when
    /// it has no address that holds over such a path.
    pub fn peer_record(&self, path: Scope) -> Option<bytes::Bytes> {
        self.shared().lock().core.peer_record(path)
    }

    /// Answers the requests of `def` from now on. The handler is called for each request with a clone of what it captured, for at
    /// most `per_peer_max` requests of a peer at once; others wait. If the peer gives up, the handler's future is dropped.
    ///
    /// # Errors
    /// [`ServeError`]: the name is taken or malformed, or the limits of the definition cannot be kept by this node.
    pub fn serve<H, F>(&self, def: &'static Request, priority: Priority, handler: H) -> Result<(), ServeError>
    where
        H: FnOnce(Incoming) -> F + Clone + Send + Sync + 'static,
        F: Future<Output: IntoReply> + Send + 'static,
    {
        let handler = Handler::request(handler);
        self.shared().ask(|state, _| {
            let number = state.core.serve_request(def, priority)?;
            // A clone: when the definition is refused, what the handler captured must not be dropped under the lock.
            state.add_handler(number, handler.clone());
            Ok(())
        })
    }

    /// Takes raw streams of `def` from now on, each with its own call of the handler.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn serve_streams<H, F>(&self, def: &'static StreamProtocol, priority: Priority, handler: H) -> Result<(), ServeError>
    where
        H: FnOnce(Stream) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = Handler::stream(handler);
        self.shared().ask(|state, _| {
            let number = state.core.serve_stream(def, priority)?;
            state.add_handler(number, handler.clone());
            Ok(())
        })
    }

    /// Notes addresses of a peer, best first, for when a request needs a connection. They do not expire; the newest sixteen are kept. What can be
    /// no peer's address is left out.
    pub fn add_addresses(&self, peer: PeerId, addresses: &[Multiaddr]) {
        self.note_addresses(peer, addresses);
    }

    /// The same, saying what was left out and why.
    fn note_addresses(&self, peer: PeerId, addresses: &[Multiaddr]) -> Vec<Attempt> {
        let now = self.shared().runtime.now();
        self.shared().lock().remember(now, peer, addresses)
    }

    /// Connects to a peer, if it is not connected yet. Its addresses, these and those known before, race as in RFC 8305: what worked last first,
    /// QUIC before TCP, the IP versions in turn, the next begun when one does not answer at once; the first that answers with the right
    /// identity is taken. Names (`/dns`, `/dns4`, `/dns6`, `/dnsaddr`) are looked up. All who wait for the same peer share one attempt, and
    /// it is given up when the last of these futures is dropped.
    ///
    /// # Errors
    /// [`ConnectError`] says for each address why it failed. Nothing is left of the attempts.
    pub async fn connect(&self, peer: PeerId, addresses: &[Multiaddr]) -> Result<(), ConnectError> {
        let refused = self.note_addresses(peer, addresses);
        crate::connect::connect(self.shared(), peer).await.map_err(|mut error| {
            error.attempts.extend(refused);
            error
        })
    }

    /// Whether there is a connection to `peer`.
    pub fn is_connected(&self, peer: PeerId) -> bool {
        self.shared().lock().core.is_connected(&peer)
    }

    /// Who is connected.
    pub fn peers(&self) -> std::collections::BTreeSet<PeerId> {
        self.shared().lock().peers()
    }

    /// Closes the connections to a peer.
    pub fn disconnect(&self, peer: PeerId) {
        self.shared().ask(|state, now| state.core.disconnect(now, &peer));
    }

    /// Keeps the connection to a peer, now and whenever there is one: when all slots are taken, no newcomer displaces it.
    ///
    /// # Errors
    /// [`TooManyProtected`](strait_core::TooManyProtected): at most a quarter of the slots can be protected. Nothing has changed.
    pub fn protect(&self, peer: PeerId) -> Result<(), strait_core::TooManyProtected> {
        self.shared().lock().core.protect(peer)
    }

    /// Ends [`protect`](Self::protect).
    pub fn unprotect(&self, peer: PeerId) {
        self.shared().lock().core.unprotect(&peer);
    }

    /// Sends a request and waits for its reply. While `per_peer_max` of the definition are under way to this peer the call waits
    /// its turn. Connects first if needed and possible. Dropping the future gives the request up. If the connection is lost, the peer is dialled again at
    /// once for a request whose definition is [idempotent](Request::idempotent), and it is sent again over the new connection, three times at most; the
    /// caller sees nothing of it. There has to be a connection again within the definition's `deadline`, and all of it ends with
    /// [`Request::total`]. After [`disconnect`](Self::disconnect) nothing is sent again.
    ///
    /// # Errors
    /// [`RequestError`] says what happened and whether the peer may have seen the request: [`RequestError::Lost`] when it may have acted on it or not.
    pub async fn request(&self, peer: PeerId, def: &'static Request, body: impl Into<Message>) -> Result<Message, RequestError> {
        self.request_with(peer, def, Priority::Normal, body.into()).await
    }

    /// As [`request`](Self::request), with a priority among this connection's streams.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_with(
        &self,
        peer: PeerId,
        def: &'static Request,
        priority: Priority,
        mut body: Message,
    ) -> Result<Message, RequestError> {
        // Held until the exchange is over.
        let mut permit = None;
        let mut resend = Resend::new(def, &body);
        // Nearly always there is a connection: whether there is, asking will tell.
        let mut connected = true;
        loop {
            if !std::mem::replace(&mut connected, false) {
                resend.connected(self, peer).await?;
            }
            let sent = self.shared().ask_if(|state| {
                if permit.is_none() {
                    permit = Some(state.window(peer, def.name, def.per_peer_max).try_acquire_owned().ok()?);
                }
                if state.draining {
                    return Some(Err((None, Message::new())));
                }
                let sent = state.core.request(&peer, def, priority, std::mem::take(&mut body));
                Some(sent.map(|stream| (stream, state.wait_for(stream))).map_err(|(refused, body)| (Some(refused), body)))
            });
            let Some(sent) = sent else {
                permit = self.window(peer, def.name, def.per_peer_max).await;
                connected = true;
                continue;
            };
            match sent {
                Ok((stream, reply)) => {
                    let guard = CancelOnDrop { shared: self.shared(), stream: Some(stream) };
                    resend.sent(self.shared());
                    let reply = async {
                        let mut guard = guard;
                        let result = reply.await;
                        guard.stream = None;
                        result.unwrap_or(Err(RequestError::Closing))
                    };
                    match resend.reply(self.shared(), reply).await {
                        Ok(reply) => return Ok(reply),
                        // The connection is gone, most likely because an address has changed: dialled, and asked again.
                        Err(error) => match resend.failed(self.shared(), &error) {
                            Some(kept) => body = kept,
                            None => return Err(error),
                        },
                    }
                }
                Err((None, _)) => return Err(RequestError::Closing),
                // There is none, or it went away between the two looks: connect.
                Err((Some(Refused::NotConnected(_)), back)) => body = back,
                Err((Some(Refused::TooLarge { len, max }), _)) => return Err(RequestError::TooLarge { len, max }),
                Err((Some(Refused::Definition(error)), _)) => return Err(error.into()),
                // The window is kept by the permit: a place that the core has not freed yet will be in a moment.
                Err((Some(_), back)) => {
                    body = back;
                    self.shared().runtime.sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// Opens a raw stream. It can be written at once; whether the peer takes it shows at the first read or write after its answer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, peer: PeerId, def: &'static StreamProtocol) -> Result<Stream, OpenError> {
        self.open_with(peer, def, Priority::Normal).await
    }

    /// As [`open`](Self::open), with a priority among this connection's streams.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(&self, peer: PeerId, def: &'static StreamProtocol, priority: Priority) -> Result<Stream, OpenError> {
        let permit = self.window(peer, def.name, def.per_peer_max).await;
        loop {
            crate::connect::connect(self.shared(), peer).await?;
            let shared = self.shared();
            let opened = shared.ask(|state, _| {
                if state.draining {
                    return Err(None);
                }
                let stream = state.core.open(&peer, def, priority).map_err(Some)?;
                state.raw.insert(stream, crate::shared::RawWait::default());
                Ok(stream)
            });
            match opened {
                Ok(stream) => return Ok(Stream::new(shared.clone(), stream, peer, permit)),
                Err(None) => return Err(OpenError::Closing),
                Err(Some(Refused::Definition(error))) => return Err(error.into()),
                // Gone meanwhile, or a stream whose handle is dropped and whose end is still on its way: look again.
                Err(Some(_)) => shared.runtime.sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Measures a round trip.
    ///
    /// # Errors
    /// [`PingError`].
    pub async fn ping(&self, peer: PeerId) -> Result<Duration, PingError> {
        crate::connect::connect(self.shared(), peer).await?;
        let sent = self.shared().ask(|state, _| {
            let stream = state.core.ping(&peer).ok().filter(|_| state.stopped.is_none())?;
            let (sender, receiver) = oneshot::channel();
            state.pings.insert(stream, sender);
            Some((stream, receiver))
        });
        let Some((stream, pong)) = sent else {
            return Err(PingError::Echo(RequestError::Closing));
        };
        let mut guard = CancelOnDrop { shared: self.shared(), stream: Some(stream) };
        let result = pong.await;
        guard.stream = None;
        Ok(result.unwrap_or(Err(RequestError::Closing))?)
    }

    /// What a peer has said of itself, once it has.
    pub fn identified(&self, peer: PeerId) -> Option<Arc<Identity>> {
        self.shared().lock().core.identity(&peer)
    }

    /// Where a peer is reached now, and the smoothed round-trip time.
    pub fn path(&self, peer: PeerId) -> Option<(Multiaddr, Duration)> {
        self.shared().lock().core.path(&peer)
    }

    /// All counters of the core.
    pub fn counters(&self) -> Counters {
        self.shared().counters()
    }

    /// Evidence of abuse, for firewalls: who did what, how often and when (`docs/abuse-feed.md`). Ask about once a second: most of the time there
    /// is nothing, and each record is told once, at the end of an interval of the limits' `abuse_interval`. However many attackers there are,
    /// an interval has at most three times `abuse_names_max` records, and one for each kind of [`Offence`](strait_core::Offence) beside. Who
    /// never asks loses nothing but that.
    pub fn abuse(&self) -> Vec<strait_core::AbuseRecord> {
        let now = self.shared().runtime.now();
        self.shared().lock().core.abuse(now)
    }

    /// As [`abuse`](Self::abuse), with those of the interval that is not over: for the last time that it is asked.
    pub fn abuse_rest(&self) -> Vec<strait_core::AbuseRecord> {
        let now = self.shared().runtime.now();
        self.shared().lock().core.abuse_rest(now)
    }

    /// What there is now, in numbers. The time is in proportion to the connections.
    pub fn now(&self) -> strait_core::Now {
        self.shared().lock().core.now()
    }

    /// What there is to say of a peer, if it is connected.
    pub fn peer_now(&self, peer: PeerId) -> Option<strait_core::PeerNow> {
        let now = self.shared().runtime.now();
        self.shared().lock().core.peer_now(now, &peer)
    }

    /// How long ago it was made.
    pub fn uptime(&self) -> Duration {
        self.shared().runtime.now().saturating_duration_since(self.shared().since)
    }

    /// The limits that it keeps to.
    pub fn limits(&self) -> strait_core::Limits {
        self.shared().lock().core.limits().clone()
    }

    /// Whether its driver still runs: [`stopped`](Self::stopped), without waiting.
    pub fn is_running(&self) -> bool {
        !self.shared().is_finished()
    }

    /// What the driver has done.
    pub fn driver_counters(&self) -> DriverCounters {
        self.shared().lock().driver
    }

    /// What is held, granted and bounded now; see [`strait_core::Audit`].
    pub fn audit(&self) -> strait_core::Audit {
        self.shared().audit()
    }

    /// Closes in order: takes nothing new, lets what is under way finish for at most the limits' `drain_deadline`, then tells all peers.
    pub async fn close(&self) {
        let shared = self.shared();
        let deadline = shared.ask(|state, _| {
            state.draining = true;
            state.core.stop_listening();
            state.core.limits().drain_deadline
        });
        self.until(deadline, || shared.is_finished() || !shared.lock().core.is_busy()).await;
        shared.abandon();
        self.until(deadline, || shared.is_finished()).await;
    }

    /// Waits until the node has stopped: it was closed, through this handle or another, its runtime is gone, or a bug in strait has ended its driver.
    /// From then on everything that is asked of it fails at once.
    pub async fn stopped(&self) -> Stop {
        let shared = self.shared();
        self.turned(|| shared.is_finished()).await;
        shared.lock().stopped.unwrap_or(Stop::Closed)
    }

    /// Waits until `done`, looked at after each turn of the driver while the node is closing.
    async fn turned(&self, done: impl Fn() -> bool) {
        loop {
            let mut turned = std::pin::pin!(self.shared().closing.notified());
            turned.as_mut().enable();
            if done() {
                return;
            }
            turned.await;
        }
    }

    /// The same, but no longer than `time`.
    async fn until(&self, time: Duration, done: impl Fn() -> bool) {
        let mut sleep = self.shared().runtime.sleep(time);
        let mut turned = std::pin::pin!(self.turned(done));
        std::future::poll_fn(|context| match turned.as_mut().poll(context) {
            std::task::Poll::Pending => sleep.as_mut().poll(context),
            ready => ready,
        })
        .await;
    }

    pub(crate) async fn connected(&self, peer: PeerId) -> Result<(), RequestError> {
        if self.is_connected(peer) {
            return Ok(());
        }
        match crate::connect::connect(self.shared(), peer).await {
            Ok(()) => Ok(()),
            Err(error) if error.attempts.is_empty() && error.error.is_none() => Err(RequestError::NoAddress(peer)),
            Err(error) => Err(RequestError::Dial(error.first_cause())),
        }
    }

    /// A place in the window of a protocol to a peer: first come, first served.
    async fn window(&self, peer: PeerId, name: &'static str, max: u16) -> Option<OwnedSemaphorePermit> {
        let window = self.shared().lock().window(peer, name, max);
        // Never closed, so a permit always comes.
        window.acquire_owned().await.ok()
    }
}
