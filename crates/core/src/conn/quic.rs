//! QUIC v1 (RFC 9000), through the one file that names the QUIC crate.
//!
//! The crate is quinn-proto: sans-IO, widely used, and its wire is what libp2p peers speak. Its fork noq-proto adds multipath and
//! NAT traversal extensions that libp2p does not know; s2n-quic brings its own I/O. What is overridden here, and why:
//! connection windows (its default is unlimited), the store for connections not yet accepted (each is decided at once here), all sources of
//! randomness and time (determinism), stream credit (granted in steps).

mod cids;
mod lost;
mod packets;
mod port;
mod room;
mod session;
mod vitals;
mod work;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use libp2p_identity::{Keypair, PeerId};
use quic::{ConnectionHandle, ConnectionId, DatagramEvent, Dir, StreamEvent, StreamId, VarInt};
use quinn_proto as quic;
use ring::{hkdf, hmac};

use self::cids::CidMaker;
pub(crate) use self::port::Port;
use self::room::Room;
use self::session::{ClientTls, ServerTls};
pub(crate) use self::vitals::FRAME_NAMES;
use self::work::frames_work;
use super::event::{Blame, ConnEvent, Lost};
use super::tls;
use crate::env::{Env, Random, WallClock};
use crate::error::{Closed, ConfigError, DialError};
use crate::limits::{CRYPTO_BYTES_MAX, DATAGRAM_BYTES_MAX, INITIAL_RTT, Limits, SMALL_FRAME_BYTES, SMALL_FRAME_WORK};

/// Names one of the driver's UDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u8);

/// What is known of a received datagram beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The socket that it came in on.
    pub socket: SocketId,
    /// The sender's address, as far as it can be believed.
    pub remote: SocketAddr,
    /// The local address that it was sent to, where the system tells.
    pub local_ip: Option<IpAddr>,
    /// The two ECN bits (RFC 3168), where the system tells.
    pub ecn: Option<u8>,
}

/// What to send: `size` bytes in the caller's buffer, as one datagram or as several of `segment_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send on.
    pub socket: SocketId,
    /// Where to.
    pub destination: SocketAddr,
    /// The local address to send from.
    pub src_ip: Option<IpAddr>,
    /// The two ECN bits to set.
    pub ecn: Option<u8>,
    /// Bytes in the buffer.
    pub size: usize,
    /// The size of each datagram but the last, when there are several.
    pub segment_size: Option<usize>,
}

fn transmit(socket: SocketId, from: quic::Transmit) -> Transmit {
    Transmit {
        socket,
        destination: from.destination,
        src_ip: from.src_ip,
        ecn: from.ecn.map(|ecn| ecn as u8),
        size: from.size,
        segment_size: from.segment_size,
    }
}

/// A datagram that was routed and waits for its connection's turn.
pub(crate) struct Inbound {
    event: quic::ConnectionEvent,
    pub(crate) meta: Meta,
    pub(crate) at: Instant,
    pub(crate) bytes: usize,
}

/// A first packet of somebody unknown. Has to be decided on at once.
pub(crate) struct Stranger(quic::Incoming);

impl Stranger {
    /// Its address, and whether it was shown that it receives what is sent there.
    pub(crate) fn remote(&self) -> (SocketAddr, bool) {
        (self.0.remote_address(), self.0.remote_address_validated())
    }
}

/// Whose a datagram may be, before anything is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// That of one of our connections, or nobody's.
    Connection,
    /// A client's that has a token of ours, as after a Retry: of a handshake that is under way, or that it begins.
    Returning,
    /// Somebody's of whom nothing is known.
    Stranger,
}

/// Where a datagram belongs.
pub(crate) enum Arrival {
    Nothing,
    /// An answer without a connection is in the buffer.
    Response(Transmit),
    Conn(usize, Inbound),
    Stranger(Stranger),
}

/// The node's slot of a connection: even numbers are the endpoint's.
fn slot(handle: ConnectionHandle) -> usize {
    handle.0.saturating_mul(2)
}

/// So many different jitters for the connections that others begin.
const JITTERS: usize = 64;

/// The node's QUIC endpoint.
pub(crate) struct Quic {
    endpoint: quic::Endpoint,
    server: quic::ServerConfig,
    /// The same with the transport's numbers, by the largest datagram that is tried, each with its own jitter: made as they are needed, and then used in turn.
    servers: BTreeMap<(u16, usize), Arc<quic::ServerConfig>>,
    accepted: usize,
    dialling: Dialling,
    pub(crate) cids: CidMaker,
    listen: bool,
}

struct Dialling {
    certificate: tls::Certificate,
    env: Env,
}

/// A key that is the same after a restart with the same identity. So a node that was started again knows the connection ids of its former life and answers
/// them with a stateless reset (RFC 9000 section 10.3.2): its peers learn of the restart with their next packet, and not by 30 seconds of silence. Two nodes
/// must not share an identity anyway; if they do, each can be made to end connections of the other.
fn lasting_key(keypair: &Keypair, purpose: &[u8], random: &mut Random) -> [u8; 32] {
    let fresh = random.seed();
    // An RSA key has no secret to derive from.
    keypair.derive_secret(purpose).unwrap_or(fresh)
}

impl Quic {
    pub(crate) fn new(keypair: &Keypair, env: &Env, random: &mut Random, listen: bool) -> Result<Quic, ConfigError> {
        let identity = |error: String| ConfigError::Identity(error);
        let certificate = tls::Certificate::new(keypair, random.seed()).map_err(|error| identity(error.to_string()))?;
        let mut server_tls = tls::server_config(&certificate, env.crypto.clone(), env.wall.clone())
            .map_err(|error| identity(error.to_string()))?;
        env.log_keys(&mut server_tls.key_log);
        let server_tls = ServerTls::new(server_tls).map_err(|error| identity(error.to_owned()))?;
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&random.seed());
        let mut server = quic::ServerConfig::new(Arc::new(server_tls), Arc::new(token_key));
        let mut tokens = quic::ValidationTokenConfig::default();
        tokens.sent(0);
        server
            .migration(true)
            .max_incoming(1)
            .incoming_buffer_size(0)
            .incoming_buffer_size_total(0)
            .validation_token_config(tokens)
            .time_source(Arc::new(Wall(env.wall.clone())));
        let cids = CidMaker::new(lasting_key(keypair, b"strait connection ids", random), random);
        let reset_key = lasting_key(keypair, b"strait stateless resets", random);
        let mut config = quic::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset_key)));
        let maker = cids.clone();
        config
            .cid_generator(move || Box::new(maker.clone()))
            .rng_seed(Some(random.seed()))
            .supported_versions(vec![session::VERSION]);
        // The bound is a constant that the QUIC crate accepts; its default would do as well.
        let _ = config.max_udp_payload_size(DATAGRAM_BYTES_MAX as u16);
        let endpoint = quic::Endpoint::new(Arc::new(config), listen.then(|| Arc::new(server.clone())), true, None);
        let dialling = Dialling { certificate, env: env.clone() };
        Ok(Quic { endpoint, server, servers: BTreeMap::new(), accepted: 0, dialling, cids, listen })
    }

    /// Whose a datagram may be, by its first bytes.
    pub(crate) fn claim(&self, datagram: &[u8]) -> Claim {
        let Some(first) = datagram.first() else {
            return Claim::Connection;
        };
        if first & 0x80 == 0 {
            return Claim::Connection;
        }
        // Long header: flags, version, length of the destination id, the id (RFC 8999 section 5.1).
        match datagram.get(5) {
            Some(8) if datagram.get(6..14).is_some_and(|id| self.cids.made(id)) => {}
            _ => return Claim::Stranger,
        }
        // The same of the source id, and in an Initial packet the length of a token (RFC 9000 section 17.2.2).
        let token = datagram.get(14).and_then(|length| datagram.get(usize::from(*length).saturating_add(15)));
        if first & 0x30 == 0 && token.is_some_and(|length| *length > 0) { Claim::Returning } else { Claim::Connection }
    }

    pub(crate) fn handle(&mut self, at: Instant, meta: Meta, data: BytesMut, buffer: &mut Vec<u8>) -> Arrival {
        let bytes = data.len();
        let ecn = meta.ecn.and_then(quic::EcnCodepoint::from_bits);
        match self.endpoint.handle(at, meta.remote, meta.local_ip, ecn, data, buffer) {
            None => Arrival::Nothing,
            Some(DatagramEvent::Response(response)) => Arrival::Response(transmit(meta.socket, response)),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                Arrival::Conn(slot(handle), Inbound { event, meta, at, bytes })
            }
            Some(DatagramEvent::NewConnection(incoming)) => Arrival::Stranger(Stranger(incoming)),
        }
    }

    /// Begins a handshake with `wanted`, to whom datagrams of up to `datagram_max` bytes are tried.
    pub(crate) fn dial(
        &mut self,
        now: Instant,
        (remote, datagram_max): (SocketAddr, u16),
        wanted: PeerId,
        limits: &Limits,
        random: &mut Random,
    ) -> Result<(usize, Conn), DialError> {
        let found = Arc::new(OnceLock::new());
        let Dialling { certificate, env } = &self.dialling;
        let bad = |error: String| DialError::BadAddress(error);
        let mut tls = tls::client_config(certificate, Some(wanted), env.crypto.clone(), env.wall.clone(), found.clone())
            .map_err(|error| bad(error.to_string()))?;
        env.log_keys(&mut tls.key_log);
        let tls = ClientTls::new(tls).map_err(|error| bad(error.to_owned()))?;
        let mut config = quic::ClientConfig::new(Arc::new(tls));
        let mut first_id = [0; 16];
        random.fill(&mut first_id);
        config
            .transport_config(Arc::new(transport(limits, datagram_max, random)))
            .token_store(Arc::new(quic::NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&first_id)));
        // The name is never sent (no SNI) and never looked at: identity is the key.
        let (handle, inner) = self.endpoint.connect(now, config, remote, "libp2p").map_err(|error| bad(error.to_string()))?;
        Ok((slot(handle), Conn::new(handle, inner, Some((wanted, found)), limits)))
    }

    /// Begins a handshake with a stranger, to whom datagrams of up to `datagram_max` bytes are tried. `Err` may leave an answer in the buffer.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        (stranger, datagram_max): (Stranger, u16),
        limits: &Limits,
        random: &mut Random,
        buffer: &mut Vec<u8>,
    ) -> Result<(usize, Conn), Option<quic::Transmit>> {
        let server = self.next_server(limits, datagram_max, random);
        match self.endpoint.accept(stranger.0, now, buffer, Some(server)) {
            Ok((handle, inner)) => Ok((slot(handle), Conn::new(handle, inner, None, limits))),
            Err(error) => Err(error.response),
        }
    }

    /// What the next stranger's connection runs on. Each kept one of its own, all connections together would have thousands that are as good as equal.
    fn next_server(&mut self, limits: &Limits, datagram_max: u16, random: &mut Random) -> Arc<quic::ServerConfig> {
        let at = self.accepted.checked_rem(JITTERS).unwrap_or(0);
        self.accepted = self.accepted.wrapping_add(1);
        let fresh = || {
            let mut server = self.server.clone();
            server.transport_config(Arc::new(transport(limits, datagram_max, random)));
            Arc::new(server)
        };
        // There are three sizes at a time, one of them that of the largest link, which hardly ever changes.
        if self.servers.len() >= JITTERS.saturating_mul(4) {
            self.servers.clear();
        }
        self.servers.entry((datagram_max, at)).or_insert_with(fresh).clone()
    }

    /// Asks a stranger to prove its address. It must not have proved it before.
    pub(crate) fn retry(&mut self, stranger: Stranger, socket: SocketId, buffer: &mut Vec<u8>) -> Option<Transmit> {
        match self.endpoint.retry(stranger.0, buffer) {
            Ok(answer) => Some(transmit(socket, answer)),
            Err(error) => {
                self.endpoint.ignore(error.into_incoming());
                None
            }
        }
    }

    pub(crate) fn refuse(&mut self, stranger: Stranger, socket: SocketId, buffer: &mut Vec<u8>) -> Transmit {
        transmit(socket, self.endpoint.refuse(stranger.0, buffer))
    }

    pub(crate) fn ignore(&mut self, stranger: Stranger) {
        self.endpoint.ignore(stranger.0);
    }

    /// Takes no strangers any more.
    pub(crate) fn stop_listening(&mut self) {
        self.endpoint.set_server_config(None);
        self.listen = false;
    }

    /// Allocated bytes of what is known of others' certificates.
    pub(crate) fn held(&self) -> u64 {
        self.dialling.certificate.held()
    }

    pub(crate) fn listens(&self) -> bool {
        self.listen
    }

    /// Exchanges what a connection and the endpoint have to tell each other. True when the connection is gone for good
    /// and its number free.
    pub(crate) fn settle(&mut self, conn: &mut Conn) -> bool {
        if conn.failed() {
            self.forget(conn);
            return true;
        }
        while let Some(event) = conn.inner.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(answer) = self.endpoint.handle_event(conn.handle, event) {
                conn.inner.handle_event(answer);
            }
            if drained {
                return true;
            }
        }
        false
    }

    /// Forgets a connection at once, instead of when its end has settled. It is not to be used any more, and its number is free.
    pub(crate) fn forget(&mut self, conn: &mut Conn) {
        self.endpoint.handle_event(conn.handle, quic::EndpointEvent::drained());
    }

    pub(crate) fn answer(socket: SocketId, answer: quic::Transmit) -> Transmit {
        transmit(socket, answer)
    }
}

fn transport(limits: &Limits, datagram_max: u16, random: &mut Random) -> quic::TransportConfig {
    let mut config = quic::TransportConfig::default();
    let mut discovery = quic::MtuDiscoveryConfig::default();
    discovery.upper_bound(datagram_max);
    let window = |bytes: u64| VarInt::from_u64(bytes).unwrap_or(VarInt::MAX);
    let packets = usize::try_from(limits.packets_bytes).unwrap_or(usize::MAX);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_min))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(window(limits.receive_window_min))
        // Fixed for a connection's life. A part of the largest window, so that some streams that nobody reads leave room for the others.
        .stream_receive_window(window(limits.stream_window()))
        .send_window(limits.send_window_min)
        .crypto_buffer_size(CRYPTO_BYTES_MAX)
        .mtu_discovery_config(Some(discovery))
        // Without it the peer is told that none are taken.
        .datagram_receive_buffer_size(Some(packets).filter(|bytes| *bytes > 0))
        .datagram_send_buffer_size(packets)
        .keep_alive_interval(Some(random.jitter(limits.keep_alive)))
        .max_idle_timeout(quic::IdleTimeout::try_from(limits.idle_timeout).ok())
        // Jittered, as what is not answered is sent again after multiples of it: many who dial a silent node together do not do that together too.
        .initial_rtt(random.jitter(INITIAL_RTT));
    config
}

/// The date, for the QUIC crate's tokens.
#[derive(Debug)]
struct Wall(Arc<dyn WallClock>);

impl quic::TimeSource for Wall {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(self.0.unix_time()).unwrap_or(UNIX_EPOCH)
    }
}

/// One QUIC connection.
pub(crate) struct Conn {
    handle: ConnectionHandle,
    inner: quic::Connection,
    /// Who was dialled, and who answered instead.
    wanted: Option<(PeerId, Arc<OnceLock<PeerId>>)>,
    idle_timeout: Duration,
    handshake_deadline: Duration,
    /// Work units of the frames received when they were last counted.
    work_in: u64,
    /// STREAM frames received so far.
    stream_frames_in: u64,
    /// The peer's address when something was last sent.
    path: SocketAddr,
    fault: Fault,
    room: Room,
}

const FAULT: &str = "the QUIC library has failed at it, which is a bug; connect again";

/// Whether the QUIC crate has failed at this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It has panicked: it is not called any more for this connection.
    New,
    Told,
}

impl Conn {
    fn new(
        handle: ConnectionHandle,
        inner: quic::Connection,
        wanted: Option<(PeerId, Arc<OnceLock<PeerId>>)>,
        limits: &Limits,
    ) -> Conn {
        let (idle_timeout, handshake_deadline) = (limits.idle_timeout, limits.handshake_deadline);
        let (path, fault) = (inner.remote_address(), Fault::None);
        let (work_in, stream_frames_in, room) = (0, 0, Room::new(limits.send_window_min));
        Conn { handle, inner, wanted, idle_timeout, handshake_deadline, work_in, stream_frames_in, path, fault, room }
    }

    /// Has the QUIC crate do something that a peer may have brought about. Should it panic, which is a bug in it, then this connection ends, and no
    /// other does.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut quic::Connection) -> T) -> Option<T> {
        if self.failed() {
            return None;
        }
        let done = catch_unwind(AssertUnwindSafe(|| act(&mut self.inner)));
        if done.is_err() {
            self.fault = Fault::New;
        }
        done.ok()
    }

    /// Whether the QUIC crate has failed: settled once, it is gone.
    pub(crate) fn failed(&self) -> bool {
        self.fault != Fault::None
    }

    #[cfg(test)]
    pub(crate) fn fail(&mut self) {
        self.guarded(|_| panic!("a fault, for a test"));
    }

    /// Opens and processes a datagram: the part that costs. Returns the work units of the frames that it brought, 0 if there were none but padding.
    pub(crate) fn handle(&mut self, inbound: Inbound) -> u64 {
        let bytes = inbound.bytes as u64;
        self.guarded(|inner| inner.handle_event(inbound.event));
        self.room.look_again();
        let frames = self.inner.stats().frame_rx;
        let all = frames_work(&frames);
        let work = all.saturating_sub(std::mem::replace(&mut self.work_in, all));
        let streams = frames.stream.saturating_sub(std::mem::replace(&mut self.stream_frames_in, frames.stream));
        let are_small = bytes < streams.saturating_mul(SMALL_FRAME_BYTES);
        work.saturating_add(if are_small { streams.saturating_mul(SMALL_FRAME_WORK) } else { 0 })
    }

    /// Runs the timers that are due; all but the first time after the peer's address has changed: the crate keeps the old path's timers, and
    /// relies on something being in flight when they fire. So something is sent on the new path first.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.follow_path() && !self.inner.is_closed() {
            return;
        }
        self.guarded(|inner| inner.handle_timeout(now));
        if self.inner.remote_address() != self.path {
            // It was never there: back to the address before, where perhaps nothing is in flight.
            self.inner.ping();
        }
    }

    /// Whether the peer's address is another than when this was last asked, or something sent.
    fn follow_path(&mut self) -> bool {
        let path = self.inner.remote_address();
        std::mem::replace(&mut self.path, path) != path
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    pub(crate) fn poll(&mut self) -> Option<ConnEvent> {
        if self.fault == Fault::New {
            self.fault = Fault::Told;
            let (closed, dial) = (Closed::Here(FAULT), DialError::Incompatible(FAULT.to_owned()));
            return Some(ConnEvent::Lost(Lost { closed, dial, breach: Blame::Nobody }));
        }
        loop {
            let Some(event) = self.guarded(quic::Connection::poll)? else {
                return self.room.next().map(|id| ConnEvent::Writable(number(id)));
            };
            return Some(match event {
                quic::Event::Connected => ConnEvent::Connected,
                quic::Event::ConnectionLost { reason } => ConnEvent::Lost(self.lost(&reason)),
                quic::Event::Stream(event) => match event {
                    StreamEvent::Opened { dir: Dir::Bi } => ConnEvent::Opened,
                    StreamEvent::Readable { id } => ConnEvent::Readable(number(id)),
                    StreamEvent::Writable { id } if !self.room.may_try(id) => continue,
                    StreamEvent::Writable { id } => ConnEvent::Writable(number(id)),
                    StreamEvent::Stopped { id, error_code } => ConnEvent::Stopped(number(id), error_code.into_inner()),
                    StreamEvent::Finished { id } => ConnEvent::Delivered(number(id)),
                    StreamEvent::Available { dir: Dir::Bi } => ConnEvent::Available,
                    _ => continue,
                },
                quic::Event::DatagramReceived => ConnEvent::Packets,
                _ => continue,
            });
        }
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, socket: SocketId, max: usize, buffer: &mut Vec<u8>) -> Option<Transmit> {
        self.follow_path();
        Some(transmit(socket, self.guarded(|inner| inner.poll_transmit(now, max.max(1), buffer))??))
    }

    pub(crate) fn close(&mut self, now: Instant, code: u32, reason: &'static str) {
        self.inner.close(now, VarInt::from_u32(code), Bytes::from_static(reason.as_bytes()));
    }

    /// The peer's verified identity, once the handshake is complete.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        let identity = self.inner.crypto_session().peer_identity()?;
        identity.downcast().ok().map(|peer| *peer)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    pub(crate) fn mtu(&self) -> u16 {
        self.inner.current_mtu()
    }

    /// How often the peer has said that the connection's window blocks it (DATA_BLOCKED, RFC 9000 section 19.12).
    pub(crate) fn data_blocked(&self) -> u64 {
        self.inner.stats().frame_rx.data_blocked
    }

    pub(crate) fn set_receive_window(&mut self, bytes: u64) {
        self.inner.set_receive_window(VarInt::from_u64(bytes).unwrap_or(VarInt::MAX));
    }

    pub(crate) fn set_stream_credit(&mut self, count: u32) {
        self.inner.set_max_concurrent_streams(Dir::Bi, VarInt::from_u32(count));
    }

    /// How many streams may have bytes of ours that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&mut self) -> usize {
        self.inner.streams().send_streams()
    }

    /// How many streams the peer has open.
    pub(crate) fn peer_streams(&mut self) -> u64 {
        self.inner.streams().remote_open_streams(Dir::Bi)
    }

    /// The local address has changed: go on from the new one.
    pub(crate) fn local_address_changed(&mut self) {
        self.inner.local_address_changed();
    }

    pub(crate) fn open(&mut self) -> Option<u64> {
        self.inner.streams().open(Dir::Bi).map(number)
    }

    pub(crate) fn accept(&mut self) -> Option<u64> {
        self.inner.streams().accept(Dir::Bi).map(number)
    }

    pub(crate) fn port(&mut self, stream: u64) -> Port<'_> {
        let id = StreamId::from(VarInt::from_u64(stream).unwrap_or(VarInt::MAX));
        Port { inner: &mut self.inner, room: &mut self.room, id }
    }
}

fn number(id: StreamId) -> u64 {
    VarInt::from(id).into_inner()
}
