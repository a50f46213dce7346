//! The tokio driver: UDP with segmentation offload both ways, batched receives, one task. TCP is in `tcp.rs`.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use strait_core::peers::Question;
use strait_core::peers::scope::{self, Scope};
use strait_core::{DialError, Env, Meta, Multiaddr, PipeAction, SocketId, Transmit, WallClock, tcp_address};

use crate::address::quic_address;
use crate::error::StartError;
use crate::resolver::Resolver;
use crate::runtime::{Lookup, Runtime, Task};
use crate::shared::Shared;
use crate::tcp::Tcp;
use crate::trace::QlogDir;
use crate::turn::{DriverCounters, Ports, Readied, Rest, Turn};
use crate::udp::Udp;

/// Kernel buffers that are asked for: 64 handshakes at once or a burst of bulk overflow the usual 208 KiB. The system may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Messages of one receive call. With offload each may carry many datagrams.
const BATCH: usize = 16;
/// Buffer of one received message: what GRO puts together at most.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Datagrams of one send: the kernel takes 64 KiB at once, which is 44 of the usual size.
const SEGMENTS_MAX: usize = 44;

/// A socket that is full, and was so the last time, is looked at again after this. Its buffer holds more than what leaves meanwhile.
const BLOCKED_REST: Duration = Duration::from_millis(1);

/// tokio as the runtime of a node.
#[derive(Default)]
pub(crate) struct TokioRuntime(Resolver);

impl Runtime for TokioRuntime {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn spawn(&self, task: Task) {
        tokio::spawn(task);
    }

    fn sleep(&self, time: Duration) -> Task {
        Box::pin(tokio::time::sleep(time))
    }

    fn resolve(&self, question: Question) -> Lookup {
        self.0.resolve(question)
    }
}

/// The system's date.
#[derive(Debug)]
struct SystemClock;

impl WallClock for SystemClock {
    fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// Where the secrets of TLS sessions are to go: into the file that `SSLKEYLOGFILE` names, as with other programs (`docs/captures.md`).
fn key_log() -> Option<Arc<dyn rustls::KeyLog>> {
    std::env::var_os("SSLKEYLOGFILE").filter(|path| !path.is_empty())?;
    tracing::warn!("SSLKEYLOGFILE is set: whoever reads that file can read what this node sends and receives");
    Some(Arc::new(rustls::KeyLogFile::new()))
}

/// The surroundings of a node in production.
///
/// # Errors
/// [`StartError::Random`] when the system gives no randomness.
pub fn system_env() -> Result<Env, StartError> {
    let mut crypto = rustls::crypto::ring::default_provider();
    // The cheapest suite first where the processor has AES instructions, which is nearly everywhere; peers may still choose.
    crypto.cipher_suites.sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut seed = [0; 32];
    crypto.secure_random.fill(&mut seed).map_err(|_| StartError::Random)?;
    let wall = Arc::new(SystemClock);
    let traces = QlogDir::named(wall.unix_time());
    Ok(Env { seed, crypto: Arc::new(crypto), wall, key_log: key_log(), traces })
}

/// One UDP socket.
struct Socket {
    io: Arc<Udp>,
    state: UdpSocketState,
    local: SocketAddr,
}

/// The sockets of a node.
pub(crate) struct Sockets {
    sockets: Vec<Socket>,
    buffers: Vec<u8>,
    pub(crate) tcp: Tcp,
    pub(crate) counters: DriverCounters,
    /// Whom they work for, once the driver runs.
    shared: Option<Arc<Shared>>,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

impl Sockets {
    pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Sockets, StartError> {
        let sockets: Result<Vec<Socket>, StartError> = addresses
            .iter()
            .map(|address| open(*address).map_err(|error| StartError::Bind { address: *address, error }))
            .collect();
        let buffers = vec![0; BATCH * MESSAGE_BYTES_MAX];
        let (tcp, counters) = (Tcp::default(), DriverCounters::default());
        Ok(Sockets { sockets: sockets?, buffers, tcp, counters, shared: None, tasks: Vec::new() })
    }

    pub(crate) fn and(mut self, mut other: Sockets) -> Sockets {
        self.sockets.append(&mut other.sockets);
        self
    }

    /// Begins to work for a node.
    fn start(&mut self, shared: &Arc<Shared>) {
        self.tcp.start(shared);
        self.shared = Some(shared.clone());
        let (udp, tcp) = (self.local_addrs(), self.tcp.local_addrs().to_vec());
        let watch = crate::watch::watch(shared.clone(), move || reachable(&udp, &tcp));
        self.tasks.push(tokio::spawn(watch).abort_handle());
        #[cfg(target_os = "linux")]
        for socket in &self.sockets {
            crate::icmp::ask_for_errors(socket.io.socket(), socket.local.is_ipv6());
            let task = tokio::spawn(crate::icmp::read_errors(shared.clone(), socket.io.clone()));
            self.tasks.push(task.abort_handle());
        }
    }

    /// Tells the core of a datagram that the system did not take: there is no way to where it was to go.
    fn unsent(&self, destination: SocketAddr, bytes: &[u8], error: &std::io::Error) {
        use ErrorKind as Kind;
        let no_way = [Kind::NetworkUnreachable, Kind::HostUnreachable, Kind::AddrNotAvailable, Kind::PermissionDenied];
        if no_way.contains(&error.kind())
            && let Some(shared) = &self.shared
        {
            let error = DialError::NoWay(error.to_string());
            shared.ask(|state, now| state.core.handle_undelivered(now, destination, bytes, &error));
        }
    }

    /// Listens for TCP too.
    pub(crate) fn and_tcp(mut self, addresses: &[SocketAddr]) -> Result<Sockets, StartError> {
        self.tcp = Tcp::bind(addresses)?;
        Ok(self)
    }

    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.local).collect()
    }

    /// Where others may reach this node: bound addresses, with those of the interfaces in place of a wildcard.
    pub(crate) fn reachable_addrs(&self) -> Vec<Multiaddr> {
        reachable(&self.local_addrs(), self.tcp.local_addrs())
    }
}

fn reachable(udp: &[SocketAddr], tcp: &[SocketAddr]) -> Vec<Multiaddr> {
    let udp = udp.iter().flat_map(|local| seen_at(*local)).map(quic_address);
    udp.chain(tcp.iter().flat_map(|local| seen_at(*local)).map(tcp_address)).collect()
}

/// The addresses that a bound one stands for.
fn seen_at(local: SocketAddr) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut ips: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).filter(|ip| usable(ip, &local)).collect();
    // Loopback last: it works from this machine only.
    ips.sort_by_key(|ip| (ip.is_loopback(), *ip));
    ips.dedup();
    ips.into_iter().map(|ip| SocketAddr::new(ip, local.port())).collect()
}

/// Whether an interface's address can stand for a wildcard: of the socket's family, of a host, and not link-local, which needs a zone.
fn usable(ip: &IpAddr, local: &SocketAddr) -> bool {
    let scope = scope::of(*ip);
    ip.is_ipv4() == local.is_ipv4() && scope.is_host() && scope != Scope::Link
}

fn open(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Best effort: the system's own maximum holds.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let io = Arc::new(Udp::new(socket.into())?);
    let local = io.local_addr()?;
    Ok(Socket { io, state, local })
}

impl Ports for Sockets {
    fn receive(&mut self, take: &mut dyn FnMut(Meta, BytesMut)) -> bool {
        let mut more = false;
        for (number, socket) in self.sockets.iter().enumerate() {
            let mut metas = [RecvMeta::default(); BATCH];
            let mut slices: [IoSliceMut<'_>; BATCH] = {
                let mut parts = self.buffers.chunks_mut(MESSAGE_BYTES_MAX);
                std::array::from_fn(|_| IoSliceMut::new(parts.next().unwrap_or_default()))
            };
            let mut count = 0;
            // A batch that is not full has emptied the socket. Said at once, that saves the call that would only find this out; what comes
            // meanwhile makes the socket ready anew.
            let _ = socket.io.receive(|io| {
                self.counters.receive_calls += 1;
                count = socket.state.recv(io, &mut slices, &mut metas)?;
                if count < BATCH { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            // None: nothing is there, or an error of a single peer (ICMP), which says nothing about the socket.
            more |= count == BATCH;
            for (meta, slice) in metas.iter().zip(&slices).take(count) {
                let bytes = slice.get(..meta.len).unwrap_or_default();
                let about = Meta {
                    socket: SocketId(u8::try_from(number).unwrap_or(0)),
                    remote: unmapped(meta.addr),
                    local_ip: meta.dst_ip,
                    ecn: meta.ecn.map(|ecn| ecn as u8),
                };
                // One copy, so that a datagram that is kept keeps itself and not its 64 KiB neighbourhood.
                self.counters.bytes_copied += bytes.len() as u64;
                bytes.chunks(meta.stride.max(1)).for_each(|datagram| take(about, BytesMut::from(datagram)));
            }
        }
        more
    }

    fn send(&mut self, transmit: &Transmit, bytes: &[u8]) -> bool {
        let Some(socket) = self.sockets.get(usize::from(transmit.socket.0)) else {
            return true;
        };
        let out = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(quinn_udp::EcnCodepoint::from_bits),
            contents: bytes,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let calls = self.counters.send_calls;
        let mut attempt = || {
            socket.io.send(|io| {
                self.counters.send_calls += 1;
                socket.state.try_send(io, &out)
            })
        };
        let sent = match attempt() {
            // It may be about an earlier datagram, to somebody else (ICMP): then this one was not even tried.
            Err(error) if error.kind() != ErrorKind::WouldBlock => attempt(),
            sent => sent,
        };
        match sent {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // Without a call it is only that nobody has looked yet whether there is room.
                self.counters.send_blocked += u64::from(self.counters.send_calls != calls);
                false
            }
            Err(error) => {
                // Unreachable networks and the like: loss, to be felt by the connection that it concerns.
                tracing::debug!(%error, destination = %transmit.destination, "a send failed");
                self.counters.send_errors += 1;
                self.unsent(transmit.destination, bytes, &error);
                true
            }
            Ok(()) => true,
        }
    }

    fn pipe(&mut self, action: &PipeAction, bytes: &[u8]) -> bool {
        self.tcp.act(action, bytes)
    }

    fn segments_max(&self) -> NonZeroUsize {
        let least = self.sockets.iter().map(|socket| socket.state.max_gso_segments()).min().unwrap_or(1);
        NonZeroUsize::new(least.min(SEGMENTS_MAX)).unwrap_or(NonZeroUsize::MIN)
    }
}

/// An IPv4 peer on a dual-stack socket is an IPv4 peer.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Says that nobody drives the node any more, whyever: the node was closed, the runtime is gone, or a bug has ended the driver.
struct Driving(Arc<Shared>);

impl Drop for Driving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(peer = %self.0.peer_id, "the driver has failed, which is a bug; the node has stopped");
        }
        self.0.stopped();
    }
}

/// Runs a node until it is closed and all its peers are told.
pub(crate) async fn run(shared: Arc<Shared>, mut sockets: Sockets) {
    let _driving = Driving(shared.clone());
    let mut turn = Turn::new(shared.clone());
    sockets.start(&shared);
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let (mut armed, mut was_blocked): (Option<Instant>, bool) = (None, false);
    let mut busy = false;
    let one_thread = tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread;
    loop {
        let readied = turn.first(&mut sockets);
        let_others_run(readied, busy, one_thread).await;
        let mut rest = turn.second(&mut sockets);
        // Once an ICMP error has come, tokio takes the socket for writable for good: one that stays full is looked at in a moment instead.
        if std::mem::replace(&mut was_blocked, rest.blocked) && rest.blocked {
            rest.blocked = false;
            let soon = Instant::now() + BLOCKED_REST;
            rest.wake = Some(rest.wake.map_or(soon, |wake| wake.min(soon)));
        }
        sockets.counters.accept_rests = sockets.tcp.rests();
        shared.lock().driver = sockets.counters;
        if shared.is_finished() {
            return;
        }
        busy = true;
        if rest.work_left {
            continue;
        }
        if rest.wake != armed
            && let Some(at) = rest.wake
        {
            sleep.as_mut().reset(at.into());
        }
        armed = rest.wake;
        std::future::poll_fn(|context| {
            let ready = poll_wait(context, &shared, &sockets, rest, armed.is_some(), sleep.as_mut());
            busy &= ready.is_ready();
            ready
        })
        .await;
        sockets.counters.wakeups += 1;
    }
}

/// Ready when there is a reason for another turn.
fn poll_wait(
    context: &mut Context<'_>,
    shared: &Shared,
    sockets: &Sockets,
    rest: Rest,
    armed: bool,
    sleep: Pin<&mut tokio::time::Sleep>,
) -> Poll<()> {
    let mut ready = !shared.register_driver(context.waker());
    for socket in &sockets.sockets {
        ready |= socket.io.poll_readable(context);
        ready |= rest.blocked && socket.io.poll_room(context);
    }
    ready |= armed && sleep.poll(context).is_ready();
    if ready { Poll::Ready(()) } else { Poll::Pending }
}

/// Everybody whom a turn has made ready goes first, and so do those who were ready anyway; then all they want leaves together.
async fn let_others_run(readied: Readied, busy: bool, one_thread: bool) {
    match (readied.replies, readied.others) {
        // Here the runtime looks at its sockets, too. Else a driver that never waits would be told of what has come only every so many tasks, and what
        // one peer keeps it busy with would delay all others by several turns.
        _ if busy => tokio::task::yield_now().await,
        (0, 0) => {}
        _ if one_thread => yield_once().await,
        // Any way to wait would wake another thread, which costs more than a turn of its own for what this task may ask for next. There is nothing to send
        // before that: the acknowledgement can wait for it.
        (1, 0) => {}
        // To wait for a single task is cheapest so.
        (0, 1) => tokio::task::yield_now().await,
        // Another thread is woken to help, as it is by so many tasks anyway.
        _ => yield_once().await,
    }
}

/// Goes to the end of the executor's queue.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
