//! What the handles of a node and its driver share: the core behind one lock that is never held across an await or a system call.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use strait_core::peers::{Attempt, Source, Unusable};
use strait_core::{
    Closed, Config, ConfigError, ConnId, DialError, Env, Event, Message, Multiaddr, PeerId, PipeEvent, RequestError, StreamError,
    StreamRef,
};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::connect::Waiter;
use crate::error::ConnectError;
use crate::handler::{Handler, Incoming, ReplyFuture, RequestHandler, StreamHandler};
use crate::node::Stop;
use crate::runtime::Runtime;
use crate::stream::Stream;
use crate::turn::DriverCounters;

/// Below so many entries it is not worth looking for those that nobody holds.
const PRUNE_MIN: usize = 256;

/// A node's core, and who waits for what of it.
pub struct Shared {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) peer_id: PeerId,
    pub(crate) since: Instant,
    state: Mutex<State>,
    /// Told after each turn while the node is closing.
    pub(crate) closing: Notify,
    /// Told when this machine's addresses have changed.
    pub(crate) moved: Notify,
    /// How many traces may still be made at once.
    pub(crate) traces: Arc<Semaphore>,
}

pub(crate) struct State {
    pub(crate) core: strait_core::Node,
    pub(crate) requests: BTreeMap<StreamRef, oneshot::Sender<Result<Message, RequestError>>>,
    pub(crate) pings: BTreeMap<StreamRef, oneshot::Sender<Result<Duration, RequestError>>>,
    pub(crate) raw: BTreeMap<StreamRef, RawWait>,
    handlers: BTreeMap<usize, Handler>,
    /// Requests that handlers work on. Dropping the sender ends the work.
    running: BTreeMap<StreamRef, oneshot::Sender<()>>,
    windows: BTreeMap<(PeerId, &'static str), Arc<Semaphore>>,
    /// Who waits for which peer, by numbers that are never used again.
    pub(crate) wanted: BTreeMap<PeerId, BTreeMap<u64, Waiter>>,
    pub(crate) waits: u64,
    prune_at: usize,
    pub(crate) listen_addrs: Vec<Multiaddr>,
    pub(crate) driver: DriverCounters,
    driver_waker: Option<Waker>,
    asked: bool,
    pub(crate) draining: bool,
    pub(crate) shutdown: bool,
    /// Its driver has ended: nothing moves any more.
    pub(crate) stopped: Option<Stop>,
}

/// Who waits for a raw stream, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct RawWait {
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    pub(crate) ended: Option<Option<StreamError>>,
}

/// Work that a turn has found for handlers: to be started without the lock.
pub(crate) struct Start {
    stream: StreamRef,
    work: Work,
}

/// A handler and what it is to be called with. The application's code never runs under the lock.
enum Work {
    Request(RequestHandler, Incoming),
    Stream(StreamHandler, Stream),
}

/// What became of a handler's future.
enum Answer {
    Reply(Option<Message>),
    Withdrawn,
}

impl Shared {
    /// Puts a core behind its lock.
    ///
    /// # Errors
    /// As [`strait_core::Node::new`].
    pub fn new(config: Config, env: Env, runtime: Arc<dyn Runtime>) -> Result<Arc<Shared>, ConfigError> {
        let since = runtime.now();
        let core = strait_core::Node::new(config, env, since)?;
        Ok(Arc::new(Shared {
            peer_id: core.peer_id(),
            since,
            state: Mutex::new(State {
                core,
                requests: BTreeMap::new(),
                pings: BTreeMap::new(),
                raw: BTreeMap::new(),
                handlers: BTreeMap::new(),
                running: BTreeMap::new(),
                windows: BTreeMap::new(),
                wanted: BTreeMap::new(),
                waits: 0,
                prune_at: PRUNE_MIN,
                listen_addrs: Vec::new(),
                driver: DriverCounters::default(),
                driver_waker: None,
                asked: false,
                draining: false,
                shutdown: false,
                stopped: None,
            }),
            closing: Notify::new(),
            moved: Notify::new(),
            traces: Arc::new(Semaphore::new(crate::trace::TRACES_MAX)),
            runtime,
        }))
    }

    /// Takes the lock. A panic under it is a bug of ours that was reported already; what is behind it is still consistent
    /// enough to be closed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`ask`](Self::ask), unless nothing was done.
    pub(crate) fn ask_if<T>(&self, act: impl FnOnce(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        let result = act(&mut state)?;
        run_a_turn(state);
        Some(result)
    }

    /// Does something to the core for a handle, and has the driver run a turn.
    pub(crate) fn ask<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = self.runtime.now();
        let mut state = self.lock();
        let result = act(&mut state, now);
        run_a_turn(state);
        result
    }

    /// Tells the node its sockets, and where they are reached from this network: addresses of its interfaces in place of a wildcard. That is what
    /// peers learn, each as far as it holds over the path to them, unless something was [declared](Self::set_declared).
    pub fn set_listening(&self, sockets: Vec<std::net::SocketAddr>, addresses: Vec<Multiaddr>) {
        self.ask(|state, _| {
            state.core.set_sockets(sockets);
            state.set_addresses(addresses);
        });
    }

    /// Tells the node what its links carry, as [`strait_core::Node::set_link_mtu`].
    pub(crate) fn set_link_mtu(&self, bytes: u16) {
        self.lock().core.set_link_mtu(bytes);
    }

    /// Tells the node that this machine's addresses have changed: those in `gone` are no more, as [`strait_core::Node::local_addresses_changed`]. Where it is
    /// reached now, as with [`set_listening`](Self::set_listening), is told too if that is known.
    pub fn local_addresses_changed(&self, gone: &[IpAddr], addresses: Option<Vec<Multiaddr>>) {
        self.ask(|state, now| {
            state.core.local_addresses_changed(now, gone);
            if let Some(addresses) = addresses {
                state.set_addresses(addresses);
            }
        });
        self.moved.notify_waiters();
    }

    /// Declares where the node is reached; [checked](strait_core::peers::own::check_declared) addresses.
    pub fn set_declared(&self, declared: Vec<Multiaddr>) {
        self.ask(|state, _| state.core.set_declared(declared));
    }

    /// Whether a handle has asked for something since [`take_asked`](Self::take_asked).
    pub fn is_asked(&self) -> bool {
        self.lock().asked
    }

    /// Reads and clears the mark that a handle has asked for something.
    pub fn take_asked(&self) -> bool {
        self.lock().take_asked()
    }

    /// Registers the driver to be woken by the next wish of a handle. False when there is one already.
    pub(crate) fn register_driver(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if state.asked {
            return false;
        }
        match &mut state.driver_waker {
            Some(old) => old.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        true
    }

    /// Whether the node was closed and every peer was told, or its driver has ended before.
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        state.stopped.is_some() || (state.shutdown && state.core.is_empty())
    }

    /// The driver has ended, in order or not: whoever waits for anything of this node is told so. Lets go of the handlers: one that holds a handle
    /// of its own node would keep both for ever. Does not ask the core for anything: it may be what has failed.
    pub(crate) fn stopped(&self) {
        let mut state = self.lock();
        state.stopped = Some(if state.shutdown { Stop::Closed } else { Stop::Failed });
        (state.draining, state.shutdown) = (true, true);
        let waiting = (std::mem::take(&mut state.requests), std::mem::take(&mut state.pings), std::mem::take(&mut state.wanted));
        let working = (std::mem::take(&mut state.handlers), std::mem::take(&mut state.running));
        for handler in working.0.values() {
            if let Handler::Packets(waiting) = handler {
                waiting.end();
            }
        }
        let mut wakers = Vec::new();
        for wait in state.raw.values_mut() {
            wait.ended.get_or_insert(Some(StreamError::Lost(Closed::Here("it has stopped"))));
            wakers.extend(wait.reader.take().into_iter().chain(wait.writer.take()));
        }
        drop(state);
        drop((waiting, working));
        wakers.into_iter().for_each(Waker::wake);
        self.closing.notify_waiters();
        self.moved.notify_waiters();
    }

    /// Closes the node now: its last handle is gone.
    pub(crate) fn abandon(&self) {
        self.ask(|state, now| {
            state.shutdown = true;
            state.core.shutdown(now);
        });
    }

    /// A stranger has opened a pipe. Its name, or `None`: close it at once. `named` is told the name before anything is asked of the pipe.
    pub fn accept_pipe(&self, remote: std::net::SocketAddr, named: impl FnOnce(ConnId)) -> Option<ConnId> {
        self.ask(|state, now| {
            let conn = state.core.accept_pipe(now, remote)?;
            named(conn);
            Some(conn)
        })
    }

    /// Tells the core what happened to a pipe. Whether it may be read on, as [`strait_core::Node::handle_pipe`].
    pub fn handle_pipe(&self, conn: ConnId, event: PipeEvent) -> bool {
        self.ask(|state, now| state.core.handle_pipe(now, conn, event))
    }

    /// Which ways to secure a pipe are offered, as [`strait_core::Node::set_pipe_security`].
    pub fn set_pipe_security(&self, names: &'static [&'static str]) {
        self.ask(|state, _| state.core.set_pipe_security(names));
    }

    /// The core's audit.
    pub fn audit(&self) -> strait_core::Audit {
        self.lock().core.audit()
    }

    /// All counters of the core.
    pub fn counters(&self) -> strait_core::Counters {
        self.lock().core.counters().clone()
    }

    /// Starts what a turn has found: each future is polled once here, since most answer at once, and spawned only if it waits. Returns how many were.
    pub(crate) fn start(self: &Arc<Shared>, starts: Vec<Start>) -> usize {
        let (mut answers, mut spawned) = (Vec::new(), 0usize);
        for Start { stream, work } in starts {
            match work {
                Work::Stream(handler, incoming) => {
                    if let Some(future) = call(|| handler(incoming)) {
                        spawned = spawned.saturating_add(1);
                        self.runtime.spawn(Box::pin(guarded(future)));
                    }
                }
                Work::Request(handler, incoming) => match call(|| handler(incoming)) {
                    None => answers.push((stream, None)),
                    Some(mut future) => match poll_once(&mut future) {
                        Poll::Ready(reply) => answers.push((stream, reply)),
                        Poll::Pending => {
                            spawned = spawned.saturating_add(1);
                            self.spawn_answer(stream, future);
                        }
                    },
                },
            }
        }
        if !answers.is_empty() {
            let mut state = self.lock();
            answers.into_iter().for_each(|(stream, reply)| state.answer(stream, reply));
        }
        spawned
    }

    fn spawn_answer(self: &Arc<Shared>, stream: StreamRef, mut future: ReplyFuture) {
        let (running, mut withdrawn) = oneshot::channel::<()>();
        self.lock().running.insert(stream, running);
        let shared = self.clone();
        self.runtime.spawn(Box::pin(async move {
            let answer = std::future::poll_fn(|context| {
                if Pin::new(&mut withdrawn).poll(context).is_ready() {
                    return Poll::Ready(Answer::Withdrawn);
                }
                poll_guarded(&mut future, context).map(Answer::Reply)
            })
            .await;
            // What the handler holds goes before its place is given to the next.
            drop(future);
            if let Answer::Reply(reply) = answer {
                shared.ask(|state, _| state.answer(stream, reply));
            }
        }));
    }
}

/// Calls a handler for its future. A panic in it is its application's bug.
fn call<T>(handler: impl FnOnce() -> T) -> Option<T> {
    let called = catch_unwind(AssertUnwindSafe(handler));
    called.map_err(|_| tracing::error!("a handler panicked when it was called; the stream was declined")).ok()
}

/// Polls a handler. A panic in it is its application's bug and declines this one request.
fn poll_guarded(future: &mut ReplyFuture, context: &mut Context<'_>) -> Poll<Option<Message>> {
    match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll,
        Err(_) => {
            tracing::error!("a request handler panicked; the request was declined");
            Poll::Ready(None)
        }
    }
}

fn poll_once(future: &mut ReplyFuture) -> Poll<Option<Message>> {
    poll_guarded(future, &mut Context::from_waker(Waker::noop()))
}

async fn guarded(mut future: Pin<Box<dyn Future<Output = ()> + Send>>) {
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll,
        Err(_) => {
            tracing::error!("a stream handler panicked; the stream was reset");
            Poll::Ready(())
        }
    })
    .await;
}

/// Has the driver run a turn. It is woken when the state is free.
fn run_a_turn(mut state: MutexGuard<'_, State>) {
    let waker = state.ask();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl State {
    pub(crate) fn ask(&mut self) -> Option<Waker> {
        let first = !std::mem::replace(&mut self.asked, true);
        first.then(|| self.driver_waker.take()).flatten()
    }

    pub(crate) fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// Where the node is reached from this network.
    fn set_addresses(&mut self, addresses: Vec<Multiaddr>) {
        self.core.set_addresses(addresses.clone());
        self.listen_addrs = addresses;
    }

    pub(crate) fn add_handler(&mut self, number: usize, handler: Handler) {
        self.handlers.insert(number, handler);
    }

    /// The window of a protocol to a peer.
    pub(crate) fn window(&mut self, peer: PeerId, name: &'static str, max: u16) -> Arc<Semaphore> {
        self.prune();
        let fresh = || Arc::new(Semaphore::new(usize::from(max.max(1))));
        self.windows.entry((peer, name)).or_insert_with(fresh).clone()
    }

    /// Where the reply to a request will come.
    pub(crate) fn wait_for(&mut self, stream: StreamRef) -> oneshot::Receiver<Result<Message, RequestError>> {
        let (sender, receiver) = oneshot::channel();
        self.requests.insert(stream, sender);
        receiver
    }

    /// Forgets windows that nobody holds, when there are twice as many as after the last time.
    fn prune(&mut self) {
        if self.windows.len() < self.prune_at {
            return;
        }
        self.windows.retain(|_, window| Arc::strong_count(window) > 1);
        self.prune_at = self.windows.len().saturating_mul(2).max(PRUNE_MIN);
    }

    /// Notes what the application tells of a peer's addresses, best first. Returns what cannot be dialled, and why.
    pub(crate) fn remember(&mut self, now: Instant, peer: PeerId, addresses: &[Multiaddr]) -> Vec<Attempt> {
        let mut refused = Vec::new();
        for (address, why) in self.core.book_mut().add_all(now, peer, addresses, Source::Application) {
            let error = match why {
                Unusable::Itself => DialError::Itself,
                Unusable::OtherPeer(found) => DialError::WrongPeer { wanted: peer, found },
                why => DialError::BadAddress(format!("{address}: {why}")),
            };
            refused.push(Attempt { address, via: None, took: None, error });
        }
        refused
    }

    fn answer(&mut self, stream: StreamRef, reply: Option<Message>) {
        self.running.remove(&stream);
        // The peer may have given up meanwhile: then there is nobody to tell.
        let result = match reply {
            Some(reply) => self.core.reply(stream, reply),
            None => self.core.reject(stream),
        };
        if let Err(error @ strait_core::Refused::TooLarge { .. }) = result {
            tracing::error!(%error, "a handler's reply is above its protocol's own limit; the request was declined");
        }
    }

    /// Gives an event to whom it concerns.
    pub(crate) fn dispatch(&mut self, shared: &Arc<Shared>, event: Event, starts: &mut Vec<Start>) {
        match event {
            Event::Reply { stream, result } => {
                if let Some(waiter) = self.requests.remove(&stream) {
                    let _ = waiter.send(result);
                }
            }
            Event::Pong { stream, result } => {
                if let Some(waiter) = self.pings.remove(&stream) {
                    let _ = waiter.send(result);
                }
            }
            Event::Request { stream, peer, protocol, body } => match self.handlers.get(&protocol) {
                Some(Handler::Request(handler)) => {
                    let work = Work::Request(handler.clone(), Incoming { peer, body });
                    starts.push(Start { stream, work });
                }
                _ => drop(self.core.reject(stream)),
            },
            Event::Withdrawn { stream } => {
                drop(self.running.remove(&stream));
                // Given up in the turn that brought it: it is not begun.
                starts.retain(|start| start.stream != stream || matches!(start.work, Work::Stream(..)));
            }
            Event::Stream { stream, peer, protocol } => match self.handlers.get(&protocol) {
                Some(Handler::Stream(handler)) => {
                    self.raw.insert(stream, RawWait::default());
                    let work = Work::Stream(handler.clone(), Stream::new(shared.clone(), stream, peer, None));
                    starts.push(Start { stream, work });
                }
                _ => self.core.cancel(stream),
            },
            Event::Packet { peer, protocol, body } => {
                if let Some(Handler::Packets(waiting)) = self.handlers.get(&protocol) {
                    waiting.push(peer, body);
                }
            }
            Event::Ready { stream } => self.wake_raw(stream),
            Event::Ended { stream, error } => {
                if let Some(wait) = self.raw.get_mut(&stream) {
                    wait.ended = Some(error);
                }
                self.wake_raw(stream);
            }
            Event::Connected { peer, dialled, .. } => {
                tracing::debug!(%peer, dialled, "connected");
                self.tell_wanted(&peer, &Ok(()));
            }
            Event::Unreachable { peer, attempts, error } => {
                self.tell_wanted(&peer, &Err(ConnectError { peer, attempts, error: error.map(Box::new) }));
            }
            Event::Lookup { id, question } => {
                let (shared, answer) = (shared.clone(), shared.runtime.resolve(question));
                shared.runtime.clone().spawn(Box::pin(async move {
                    let answer = answer.await;
                    shared.ask(|state, now| state.core.handle_lookup(now, id, answer));
                }));
            }
            Event::Disconnected { peer, reason, .. } => self.disconnected(peer, &reason),
            _ => {}
        }
    }

    fn wake_raw(&mut self, stream: StreamRef) {
        if let Some(wait) = self.raw.get_mut(&stream) {
            wait.reader.take().into_iter().chain(wait.writer.take()).for_each(Waker::wake);
        }
    }

    fn disconnected(&mut self, peer: PeerId, reason: &Closed) {
        tracing::debug!(%peer, %reason, "disconnected");
    }

    /// The peers that are connected.
    pub(crate) fn peers(&self) -> BTreeSet<PeerId> {
        self.core.peers().collect()
    }
}
