//! What an application may ask for. Typed calls rather than one enum of commands: each has its own result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::Node;
use super::claims::Identity;
use super::machine::Machine;
use super::role::Role;
use super::state::{ConnId, ConnState, Phase, Stream, StreamRef};
use crate::error::{Closed, ConfigError, DialError};
use crate::message::Message;
use crate::peers::Scope;
use crate::proto::{Entry, Priority, Registry, Request, Served, StreamProtocol, check_request, identify, ping, raw, request};
use crate::stream::{Input, StreamMachine};

/// Why a call was not taken. Nothing has changed; what was handed in comes back where it is worth something.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No connection to that peer.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// As many of this protocol are under way with this peer as its definition allows. Wait for one to end.
    #[error("the protocol's window to this peer is full")]
    Window,
    /// The message is larger than the protocol's definition allows.
    #[error("a message of {len} bytes, the protocol allows {max}")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The definition cannot be kept under the node's limits.
    #[error(transparent)]
    Definition(#[from] ConfigError),
    /// The name is not valid any more.
    #[error("that stream or connection is over")]
    Gone,
}

impl Node {
    /// Answers `def` from now on. Returns the protocol's number in [`Event::Request`](super::Event::Request).
    ///
    /// # Errors
    /// [`ConfigError::Protocol`] when the name is taken or malformed, or when its messages can never be granted memory.
    pub fn serve_request(&mut self, def: &'static Request, priority: Priority) -> Result<usize, ConfigError> {
        check_request(def, self.limits())?;
        self.register(Entry { name: def.name, served: Served::Request(def), priority, per_peer_max: def.per_peer_max })
    }

    /// Takes raw streams of `def` from now on. Returns the protocol's number in [`Event::Stream`](super::Event::Stream).
    ///
    /// # Errors
    /// [`ConfigError::Protocol`] when the name is taken or malformed.
    pub fn serve_stream(&mut self, def: &'static StreamProtocol, priority: Priority) -> Result<usize, ConfigError> {
        self.register(Entry { name: def.name, served: Served::Stream(def), priority, per_peer_max: def.per_peer_max.max(1) })
    }

    pub(super) fn register(&mut self, entry: Entry) -> Result<usize, ConfigError> {
        let mut registry: Registry = (*self.registry).clone();
        let number = registry.add(entry)?;
        self.registry = Arc::new(registry);
        self.push_identity();
        Ok(number)
    }

    /// Whether there is an established connection to `peer`.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// What a peer has said of itself, once it has.
    pub fn identity(&self, peer: &PeerId) -> Option<Arc<Identity>> {
        let slots = self.peers.get(peer)?;
        slots.iter().rev().find_map(|slot| self.conn(*slot)?.identity.clone())
    }

    /// The address at which a peer is reached now, and the smoothed round-trip time.
    pub fn path(&self, peer: &PeerId) -> Option<(Multiaddr, Duration)> {
        let conn = self.conn(self.slot_of(peer)?)?;
        Some((conn.address(), conn.quic.rtt()))
    }

    /// Where this node is bound: addresses of its interfaces, none a wildcard. [`peers::own`](crate::peers::own) says who is told which.
    pub fn set_addresses(&mut self, bound: Vec<Multiaddr>) {
        let date = self.date();
        if self.own.set_bound(bound, date) {
            self.book.set_local(self.own.local_ips());
            self.push_identity();
        }
    }

    /// Where its operator declares it to be reached, in place of where it is bound: [checked](crate::peers::own::check_declared) ones.
    pub fn set_declared(&mut self, declared: Vec<Multiaddr>) {
        let date = self.date();
        if self.own.set_declared(declared, date) {
            self.push_identity();
        }
    }

    /// All addresses that may be told to somebody, such as in a ticket: declared ones if there are any, bound ones otherwise.
    pub fn told_addresses(&self) -> Vec<Multiaddr> {
        self.own.told().to_vec()
    }

    /// This node's signed peer record (libp2p RFC 0003) for somebody at the end of a path of scope `path`. `None` when there is nothing to be told.
    pub fn peer_record(&mut self, path: Scope) -> Option<Bytes> {
        self.own.record(&self.config.keypair, path)
    }

    fn date(&self) -> u64 {
        u64::try_from(self.wall.unix_time().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Sends a request. [`Event::Reply`](super::Event::Reply) will follow, exactly once, unless it is [cancelled](Self::cancel).
    ///
    /// # Errors
    /// [`Refused`]: nothing was sent; the request comes back.
    pub fn request(
        &mut self,
        peer: &PeerId,
        def: &'static Request,
        priority: Priority,
        body: Message,
    ) -> Result<StreamRef, (Refused, Message)> {
        if body.len() > def.request_bytes_max {
            return Err((Refused::TooLarge { len: body.len(), max: def.request_bytes_max }, body));
        }
        if !self.checked.is_some_and(|checked| std::ptr::eq(checked, def)) {
            if let Err(error) = check_request(def, self.limits()) {
                return Err((error.into(), body));
            }
            self.checked = Some(def);
        }
        let Some(slot) = self.slot_of(peer) else {
            return Err((Refused::NotConnected(*peer), body));
        };
        if self.window_full(slot, def.name, def.per_peer_max) {
            return Err((Refused::Window, body));
        }
        let bytes = body.len() as u64;
        let counters = self.counters.protocol(def.name);
        counters.sent = counters.sent.saturating_add(1);
        counters.request_bytes_out = counters.request_bytes_out.saturating_add(bytes);
        let body = match self.ask_again(slot, def, priority, body) {
            Ok(stream) => return Ok(stream),
            Err(body) => body,
        };
        let reused = self.conn(slot).is_some_and(|conn| conn.may_reuse(def));
        let machine = Box::new(if reused { request::Client::reusing(def, body) } else { request::Client::new(def, body) });
        match self.open_stream(slot, Role::Client { def }, machine, priority, bytes) {
            Some(stream) => Ok(stream),
            // Adding a stream takes no memory of its own; only a vanished connection ends here.
            None => Err((Refused::NotConnected(*peer), Message::new())),
        }
    }

    /// Pings a peer. [`Event::Pong`](super::Event::Pong) will follow.
    ///
    /// # Errors
    /// [`Refused::NotConnected`].
    pub fn ping(&mut self, peer: &PeerId) -> Result<StreamRef, Refused> {
        let slot = self.slot_of(peer).ok_or(Refused::NotConnected(*peer))?;
        let mut payload = [0; 32];
        self.random.fill(&mut payload);
        let machine = Box::new(ping::Pinger::new(payload));
        self.open_stream(slot, Role::Pinger, machine, Priority::Urgent, 0).ok_or(Refused::Gone)
    }

    /// Opens a raw stream. It may be written at once; the peer's refusal, if any, comes as [`Event::Ended`](super::Event::Ended).
    ///
    /// # Errors
    /// [`Refused::NotConnected`], [`Refused::Window`].
    pub fn open(&mut self, peer: &PeerId, def: &'static StreamProtocol, priority: Priority) -> Result<StreamRef, Refused> {
        let slot = self.slot_of(peer).ok_or(Refused::NotConnected(*peer))?;
        if self.window_full(slot, def.name, def.per_peer_max) {
            return Err(Refused::Window);
        }
        if let Err(error) = strait_wire::multistream::check_name(def.name) {
            return Err(ConfigError::Protocol { name: def.name, why: error.to_string() }.into());
        }
        let counters = self.counters.protocol(def.name);
        counters.sent = counters.sent.saturating_add(1);
        let machine = Box::new(raw::Raw::dial(def));
        self.open_stream(slot, Role::RawOut { def }, machine, priority, 0).ok_or(Refused::Gone)
    }

    /// Answers a request.
    ///
    /// # Errors
    /// [`Refused::Gone`] when the peer has given up meanwhile, [`Refused::TooLarge`] when the reply is above the definition's
    /// limit: then the request is declined.
    pub fn reply(&mut self, stream: StreamRef, reply: Message) -> Result<(), Refused> {
        let max = match self.find_stream(stream).map(|(_, found)| found.role) {
            Some(Role::Server { def, .. }) => def.reply_bytes_max,
            _ => return Err(Refused::Gone),
        };
        let len = reply.len();
        if len > max {
            self.input(stream, Input::Reject(request::CODE_DECLINED))?;
            return Err(Refused::TooLarge { len, max });
        }
        self.input(stream, Input::Reply(reply))
    }

    /// Declines a request: the client sees [`RequestError::Rejected`](crate::RequestError::Rejected).
    ///
    /// # Errors
    /// [`Refused::Gone`].
    pub fn reject(&mut self, stream: StreamRef) -> Result<(), Refused> {
        self.input(stream, Input::Reject(request::CODE_DECLINED))
    }

    fn input(&mut self, name: StreamRef, input: Input) -> Result<(), Refused> {
        let (slot, stream) = self.find_stream(name).ok_or(Refused::Gone)?;
        stream.io.input = Some(input);
        self.stir(slot, name);
        Ok(())
    }

    /// Gives up a request, a ping or a raw stream: no event of it follows.
    pub fn cancel(&mut self, name: StreamRef) {
        let Some((slot, stream)) = self.find_stream(name) else {
            return;
        };
        let number = stream.number;
        if let Some(number) = number
            && let Some(conn) = self.conn_mut(slot)
        {
            use crate::stream::StreamPort as _;
            let mut port = conn.quic.port(number);
            port.reset(0);
            port.stop(0);
        }
        self.remove_stream(slot, usize::try_from(name.index).unwrap_or(usize::MAX));
        self.activate(slot);
    }

    /// Closes all connections to a peer, or gives up dialling it. [`Event::Disconnected`](super::Event::Disconnected) will follow, or
    /// [`Event::Unreachable`](super::Event::Unreachable).
    pub fn disconnect(&mut self, now: Instant, peer: &PeerId) {
        self.unwish(now, Some(peer));
        for slot in 0..self.conns.len() {
            if self.conn(slot).and_then(ConnState::peer) == Some(*peer) {
                self.close_slot(now, slot);
            }
        }
    }

    /// Gives up one connection or dial.
    pub fn close_conn(&mut self, now: Instant, id: ConnId) {
        let slot = usize::try_from(id.slot).unwrap_or(usize::MAX);
        if self.conn(slot).is_some_and(|conn| conn.id == id) {
            self.close_slot(now, slot);
        }
    }

    fn close_slot(&mut self, now: Instant, slot: usize) {
        self.end_conn(now, slot, Closed::Here("asked to"), DialError::Closing);
        self.close_transport(now, slot, 0, "");
    }

    /// Takes no new connections. What is there goes on.
    pub fn stop_listening(&mut self) {
        self.closing = true;
        self.quic.stop_listening();
    }

    /// Whether strangers may connect.
    pub fn is_listening(&self) -> bool {
        self.quic.listens()
    }

    /// Whether any exchange with a peer is under way: a request, a ping or a raw stream, in either direction, a subscription whose topic is over, or bytes of one that is over
    /// and that the peer has not acknowledged. Asking ends the streams that peers keep for their next request: of a stream that goes on nobody tells whether the last reply has arrived.
    pub fn is_busy(&mut self) -> bool {
        self.end_kept();
        let topics = &self.topics;
        let busy = |stream: &Stream| {
            let ours = stream.role.opened().is_some() || stream.role.is_raw();
            // Subscriptions last; but who is told that one is over has to hear it.
            let over = stream.role.topic().is_some_and(|topic| !topics.is_published(topic));
            let theirs = matches!(stream.role, Role::Server { .. } | Role::Kept { .. }) && !stream.rests();
            ours || theirs || over || matches!(stream.role, Role::Pinger | Role::Linger)
        };
        self.conns.iter_mut().flatten().filter(|conn| matches!(conn.phase, Phase::Open(_))).any(|conn| {
            let live = conn.streams.iter().filter(|(_, stream)| stream.number.is_some()).count();
            conn.streams.iter().any(|(_, stream)| busy(stream)) || conn.quic.unacknowledged() > live
        })
    }

    /// Closes everything. The node goes on being driven until [`is_empty`](Self::is_empty), so that peers are told.
    pub fn shutdown(&mut self, now: Instant) {
        self.stop_listening();
        self.unwish(now, None);
        self.forget_lost();
        for slot in 0..self.conns.len() {
            if self.conn(slot).is_some() {
                self.close_slot(now, slot);
            }
        }
    }

    /// Whether no connection is left in any state.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The connection that is used for `peer`: the newest, since its peer has shown life last. An older one may be all that is left of a
    /// process that was restarted.
    pub(super) fn slot_of(&self, peer: &PeerId) -> Option<usize> {
        self.peers.get(peer)?.last().copied()
    }

    fn window_full(&self, slot: usize, name: &'static str, max: u16) -> bool {
        self.conn(slot).is_some_and(|conn| conn.opened.get(name).copied().unwrap_or(0) >= max)
    }

    fn open_stream(
        &mut self,
        slot: usize,
        role: Role,
        machine: Box<dyn StreamMachine>,
        priority: Priority,
        reserve: u64,
    ) -> Option<StreamRef> {
        let conn = self.conn_mut(slot)?;
        let index = conn.add(role, Machine::Protocol(machine), priority, reserve)?;
        let name = conn.stream_ref(index)?;
        conn.opening.push_back((index, name.serial));
        conn.to_open = true;
        self.activate(slot);
        Some(name)
    }

    pub(super) fn ask_identity(&mut self, slot: usize) {
        let _ = self.open_stream(slot, Role::Own, Box::new(identify::Hear::ask()), Priority::Normal, 0);
    }

    /// Tells all peers what has changed about this node.
    fn push_identity(&mut self) {
        self.own_version = self.own_version.saturating_add(1);
        let slots: Vec<usize> = self.peers.values().flatten().copied().collect();
        slots.into_iter().for_each(|slot| self.push_identity_to(slot));
    }

    /// Tells one peer what has changed since it was told last, if it takes that. One that has not been told anything asks by itself; of one that
    /// is not known yet to take it, this is asked again when it has said what it speaks.
    pub(super) fn push_identity_to(&mut self, slot: usize) {
        let version = self.own_version;
        let wants = |conn: &ConnState| {
            let pushes = |identity: &Arc<Identity>| identity.protocols.iter().any(|name| name == identify::PUSH_NAME);
            conn.told_version.is_some_and(|told| told != version) && conn.identity.as_ref().is_some_and(pushes)
        };
        if self.conn(slot).is_some_and(wants) {
            let message = self.own_identity(slot);
            let machine = Box::new(identify::Tell::push(message));
            let _ = self.open_stream(slot, Role::Own, machine, Priority::Normal, 0);
        }
    }

    /// Finds a stream by its name.
    pub(super) fn find_stream(&mut self, name: StreamRef) -> Option<(usize, &mut Stream)> {
        let slot = usize::try_from(name.conn.slot).ok()?;
        let conn = self.conn_mut(slot).filter(|conn| conn.id == name.conn)?;
        let stream = conn.streams.get_mut(usize::try_from(name.index).ok()?)?;
        (stream.serial == name.serial).then_some((slot, stream))
    }

    /// Has a stream driven in the next turn.
    pub(super) fn stir(&mut self, slot: usize, name: StreamRef) {
        if let Some(conn) = self.conn_mut(slot) {
            conn.queue(usize::try_from(name.index).unwrap_or(usize::MAX));
        }
        self.activate(slot);
    }
}
