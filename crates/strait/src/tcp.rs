//! TCP as pipes: listens, connects, reads and writes. What the bytes mean is the core's business.
//!
//! Each pipe has one task that reads, as long as the core wants more, and one that writes what the socket did not take at once. What waits outside of
//! the ledger is so bounded for each pipe: one read of 24 KiB, and one write of 32 KiB and its seals.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use strait_core::limits::PIPE_CHUNK_BYTES_MAX;
use strait_core::{ConnId, PipeAction, PipeEnd, PipeEvent};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use crate::error::StartError;
use crate::shared::Shared;

/// Unsent bytes above which the socket counts as full: what is urgent waits behind no more than this and what one write added.
pub const UNSENT_BYTES: u32 = 64 << 10;
/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 256;
/// How long nothing is accepted when the system has no descriptors or memory for another connection. Without it the loop would spin.
pub const ACCEPT_REST: Duration = Duration::from_millis(200);
/// How long the system may take to connect; the core's own deadline is shorter.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// A pipe that is closed in order is read on for so long, and so far, until the peer has ended it too: otherwise what has come would have the
/// system send a reset, and that can overtake our last bytes.
pub const LINGER: Duration = Duration::from_secs(2);
/// How long a pipe that is closed may take to have its last bytes leave and to linger. A peer that reads nothing would keep its descriptor for ever.
const GOODBYE: Duration = Duration::from_secs(10);
/// Reads of such a pipe at the most.
pub const LINGER_READS: usize = 64;

/// All TCP of a node.
#[derive(Default)]
pub(crate) struct Tcp {
    listeners: Vec<std::net::TcpListener>,
    local: Vec<SocketAddr>,
    tasks: Vec<AbortHandle>,
    pipes: Pipes,
    rests: Arc<AtomicU64>,
    /// Whom it works for, once it is started.
    shared: Option<Arc<Shared>>,
}

type Pipes = Arc<Mutex<BTreeMap<ConnId, Arc<Pipe>>>>;

/// One pipe.
#[derive(Default)]
struct Pipe {
    stream: OnceLock<TcpStream>,
    out: Mutex<Out>,
    /// The core wants more.
    resume: Notify,
    /// There is something for the writing task.
    write: Notify,
    /// Whoever reads or connects.
    tasks: Mutex<Vec<AbortHandle>>,
    /// Whoever writes.
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the socket has not taken.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    closing: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Tcp {
    fn drop(&mut self) {
        // Pipes that are closing end by themselves.
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Tcp {
    /// Binds and listens. Nothing is accepted before [`start`](Self::start).
    pub(crate) fn bind(addresses: &[SocketAddr]) -> Result<Tcp, StartError> {
        let mut tcp = Tcp::default();
        for address in addresses {
            let listener = listen(*address).map_err(|error| StartError::Bind { address: *address, error })?;
            let local = listener.local_addr().map_err(|error| StartError::Bind { address: *address, error })?;
            tcp.listeners.push(listener);
            tcp.local.push(local);
        }
        Ok(tcp)
    }

    pub(crate) fn local_addrs(&self) -> &[SocketAddr] {
        &self.local
    }

    /// How often a listener had to rest.
    pub(crate) fn rests(&self) -> u64 {
        self.rests.load(Ordering::Relaxed)
    }

    /// Accepts from now on.
    pub(crate) fn start(&mut self, shared: &Arc<Shared>) {
        self.shared = Some(shared.clone());
        for listener in self.listeners.drain(..) {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let task = tokio::spawn(accept(shared.clone(), self.pipes.clone(), self.rests.clone(), listener));
                    self.tasks.push(task.abort_handle());
                }
                Err(error) => tracing::error!(%error, "a TCP listener cannot be used"),
            }
        }
    }

    /// Does what the core asks for. False when a write was not taken whole.
    pub(crate) fn act(&mut self, action: &PipeAction, bytes: &[u8]) -> bool {
        match action {
            PipeAction::Connect { conn, remote } => {
                let (pipe, Some(shared)) = (Arc::new(Pipe::default()), self.shared.clone()) else {
                    return true;
                };
                lock(&self.pipes).insert(*conn, pipe.clone());
                let task = tokio::spawn(connect(shared, pipe.clone(), *conn, *remote));
                lock(&pipe.tasks).push(task.abort_handle());
                true
            }
            PipeAction::Write { conn } => match self.pipe(conn) {
                Some(pipe) => pipe.write(bytes),
                None => true,
            },
            PipeAction::Read { conn } => {
                if let Some(pipe) = self.pipe(conn) {
                    pipe.resume.notify_one();
                }
                true
            }
            PipeAction::Close { conn, now } => {
                if let Some(pipe) = lock(&self.pipes).remove(conn) {
                    pipe.close(*now, GOODBYE);
                }
                true
            }
        }
    }

    fn pipe(&self, conn: &ConnId) -> Option<Arc<Pipe>> {
        lock(&self.pipes).get(conn).cloned()
    }
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A port whose last connections the system still remembers can be used again at once.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

async fn accept(shared: Arc<Shared>, pipes: Pipes, rests: Arc<AtomicU64>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                prepare(&stream);
                let pipe = Arc::new(Pipe::default());
                let _ = pipe.stream.set(stream);
                // The core names it, and is then asked to write only what has the name: so it is known before the lock is let go.
                let admitted = shared.accept_pipe(remote, |conn| drop(lock(&pipes).insert(conn, pipe.clone())));
                if let Some(conn) = admitted {
                    tell_local(&shared, conn, &pipe);
                    pipe.start(&shared, conn);
                }
            }
            // The peer has given up meanwhile: that says nothing of the next.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "no TCP connection can be accepted for now; most likely the limit of open files is reached (ulimit -n)");
                rests.fetch_add(1, Ordering::Relaxed);
                // For a turn, which shows the counter.
                shared.ask(|_, _| ());
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn connect(shared: Arc<Shared>, pipe: Arc<Pipe>, conn: ConnId, remote: SocketAddr) {
    let connecting = async {
        let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.connect(remote).await
    };
    let connected = match tokio::time::timeout(CONNECT_MAX, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Err(PipeEnd::Refused),
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable => {
                PipeEnd::NoWay(error.to_string())
            }
            _ => PipeEnd::Failed(error.to_string()),
        }),
        Err(_) => Err(PipeEnd::NoAnswer(CONNECT_MAX)),
    };
    match connected {
        Ok(stream) => {
            prepare(&stream);
            let _ = pipe.stream.set(stream);
            tell_local(&shared, conn, &pipe);
            pipe.start(&shared, conn);
            shared.handle_pipe(conn, PipeEvent::Connected);
        }
        Err(end) => {
            shared.handle_pipe(conn, PipeEvent::End(end));
        }
    }
}

/// Tells which address of this machine a pipe is bound to, so that it is given up when that is gone.
fn tell_local(shared: &Shared, conn: ConnId, pipe: &Pipe) {
    if let Some(Ok(local)) = pipe.stream.get().map(TcpStream::local_addr) {
        shared.handle_pipe(conn, PipeEvent::Local(local.ip()));
    }
}

/// What each socket needs. Best effort: without it a connection is slower, not wrong.
fn prepare(stream: &TcpStream) {
    // What leaves a turn is all there is: nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
}

impl Pipe {
    /// Starts reading and writing.
    fn start(self: &Arc<Pipe>, shared: &Arc<Shared>, conn: ConnId) {
        let reader = tokio::spawn(read(shared.clone(), self.clone(), conn));
        lock(&self.tasks).push(reader.abort_handle());
        *lock(&self.writer) = Some(tokio::spawn(write(shared.clone(), self.clone(), conn)));
        // It was closed meanwhile.
        if lock(&self.out).closing {
            self.close(false, GOODBYE);
        }
    }

    /// Hands bytes to the socket, and keeps what it does not take. False when something is kept.
    fn write(&self, bytes: &[u8]) -> bool {
        let mut out = lock(&self.out);
        let mut rest = bytes;
        if out.bytes.is_empty()
            && let Some(stream) = self.stream.get()
        {
            while !rest.is_empty() {
                match stream.try_write(rest) {
                    Ok(taken @ 1..) => rest = rest.get(taken..).unwrap_or_default(),
                    // An error is found again by the task that reads.
                    _ => break,
                }
            }
        }
        if rest.is_empty() {
            return true;
        }
        out.bytes.extend_from_slice(rest);
        drop(out);
        self.write.notify_one();
        false
    }

    fn close(&self, now: bool, within: Duration) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        let mut out = lock(&self.out);
        out.closing = true;
        if now {
            out.bytes = Vec::new();
        }
        drop(out);
        self.write.notify_one();
        if let Some(writer) = lock(&self.writer).take() {
            let abort = writer.abort_handle();
            tokio::spawn(async move {
                if tokio::time::timeout(within, writer).await.is_err() {
                    abort.abort();
                }
            });
        }
    }
}

async fn read(shared: Arc<Shared>, pipe: Arc<Pipe>, conn: ConnId) {
    let Some(stream) = pipe.stream.get() else {
        return;
    };
    let end = loop {
        if let Err(error) = stream.readable().await {
            break PipeEnd::Failed(error.to_string());
        }
        // Only now: a pipe that is idle holds no buffer.
        let mut chunk = BytesMut::with_capacity(PIPE_CHUNK_BYTES_MAX);
        match stream.try_read_buf(&mut chunk) {
            Ok(0) => break PipeEnd::Eof,
            Ok(bytes) => {
                if bytes < PIPE_CHUNK_BYTES_MAX / 2 {
                    chunk = BytesMut::from(&chunk[..]);
                }
                let goes_on = shared.handle_pipe(conn, PipeEvent::Data(chunk));
                if !goes_on {
                    pipe.resume.notified().await;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break PipeEnd::Reset,
            Err(error) => break PipeEnd::Failed(error.to_string()),
        }
    };
    shared.handle_pipe(conn, PipeEvent::End(end));
}

async fn write(shared: Arc<Shared>, pipe: Arc<Pipe>, conn: ConnId) {
    let Some(stream) = pipe.stream.get() else {
        return;
    };
    loop {
        pipe.write.notified().await;
        let Ok(taken) = flush(stream, &pipe).await else {
            // Nothing more can be sent; the task that reads tells why, unless nobody wants to know any more.
            if lock(&pipe.out).closing {
                return;
            }
            continue;
        };
        if lock(&pipe.out).closing {
            return goodbye(stream).await;
        }
        if taken {
            shared.handle_pipe(conn, PipeEvent::Room);
        }
    }
}

/// Waits until the socket has taken everything. True when there was something.
async fn flush(stream: &TcpStream, pipe: &Pipe) -> std::io::Result<bool> {
    let mut any = false;
    loop {
        {
            let mut out = lock(&pipe.out);
            let taken = match out.bytes.is_empty() {
                true => return Ok(any),
                false => stream.try_write(&out.bytes),
            };
            any = true;
            match taken {
                Ok(bytes) => {
                    out.bytes.drain(..bytes);
                    if out.bytes.is_empty() {
                        out.bytes = Vec::new();
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        stream.writable().await?;
    }
}

/// Says that nothing more comes, and waits a little for the peer to say the same.
async fn goodbye(stream: &TcpStream) {
    if SockRef::from(stream).shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let drained = async {
        let mut scratch = [0; 4096];
        for _ in 0..LINGER_READS {
            if stream.readable().await.is_err() {
                return;
            }
            match stream.try_read(&mut scratch) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Node;

    #[tokio::test]
    async fn a_peer_that_reads_nothing_does_not_keep_a_closed_pipe() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let node = Node::builder().listen(any).start().await.expect("starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (ours, (_theirs, remote)) = (ours.expect("connects"), theirs.expect("accepts"));
        let pipe = Arc::new(Pipe::default());
        prepare(&ours);
        let _ = pipe.stream.set(ours);
        let conn = node.shared().accept_pipe(remote, |_| ()).expect("there is room");
        pipe.start(node.shared(), conn);
        while pipe.write(&[7; 1 << 16]) {}
        pipe.close(false, Duration::ZERO);
        // Whoever still has it: this test alone. It waits for ever if that does not come true.
        while Arc::strong_count(&pipe) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
