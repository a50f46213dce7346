//! TCP of a simulated node: what `strait`'s driver does with sockets and tasks, with the world's sockets and in the node's turn.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use strait::parts::{
    ACCEPT_REST, ConnId, LINGER, LINGER_READS, PIPE_CHUNK_BYTES_MAX, PIPE_WRITE_BYTES, PipeAction, PipeEnd, PipeEvent, Shared,
};

use crate::tcp::{Failure, News, OutOfDescriptors, Read, Tcp, TcpId};

/// What one turn reads at most, in bytes.
const READ_BYTES_MAX: usize = 2 << 20;
/// What a pipe may keep of one write: its bytes, and the seals and frame headers that come on top, with room to spare.
const KEPT_MAX: usize = 2 * PIPE_WRITE_BYTES;

/// One pipe.
#[derive(Debug)]
struct Pipe {
    socket: TcpId,
    /// It is still being made.
    connecting: bool,
    /// What the socket has not taken.
    kept: Vec<u8>,
    /// The core wants to read.
    reads: bool,
    /// The system has something to read.
    readable: bool,
    /// It waits in `ready`.
    queued: bool,
}

/// A pipe that the core has closed: its last bytes leave, then it is read until the other side has ended too.
#[derive(Debug)]
struct Lingering {
    kept: Vec<u8>,
    finished: bool,
    until: Duration,
    reads_left: usize,
}

/// All pipes of a node.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    /// The port to listen at.
    listen: Option<u16>,
    pipes: BTreeMap<ConnId, Pipe>,
    names: BTreeMap<TcpId, ConnId>,
    lingering: BTreeMap<TcpId, Lingering>,
    /// Pipes that can be read, in turns.
    ready: VecDeque<ConnId>,
    /// Dials that failed in the same instant.
    failed: Vec<ConnId>,
    /// The listener waits until then, for want of descriptors.
    rests_until: Option<Duration>,
}

impl Pipes {
    pub(crate) fn new(listen: Option<u16>) -> Pipes {
        Pipes { listen, ..Pipes::default() }
    }

    /// Whether there is something to do that no news will tell of.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.failed.is_empty()
    }

    /// When there is something to do though nothing happens.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let lingering = self.lingering.values().map(|lingering| lingering.until);
        lingering.chain(self.rests_until).min()
    }

    /// Takes what the system has to tell, and what has come.
    pub(crate) fn receive(&mut self, shared: &Shared, local: IpAddr, mut tcp: Tcp<'_>) {
        if let Some(port) = self.listen {
            tcp.listen(port);
        }
        for conn in std::mem::take(&mut self.failed) {
            shared.handle_pipe(conn, PipeEvent::End(PipeEnd::Failed("too many open files".to_owned())));
        }
        if self.rests_until.is_some_and(|until| until <= tcp.elapsed()) {
            self.rests_until = None;
            self.accept(shared, local, &mut tcp);
        }
        while let Some(news) = tcp.news() {
            match news {
                News::Incoming if self.rests_until.is_none() => self.accept(shared, local, &mut tcp),
                News::Incoming => {}
                News::Connected(socket) => {
                    if let Some(conn) = self.names.get(&socket) {
                        self.pipes.entry(*conn).and_modify(|pipe| pipe.connecting = false);
                        shared.handle_pipe(*conn, PipeEvent::Local(local));
                        shared.handle_pipe(*conn, PipeEvent::Connected);
                    }
                }
                News::Readable(socket) => self.readable(socket, &mut tcp),
                News::Writable(socket) => self.writable(shared, socket, &mut tcp),
            }
        }
        self.linger(&mut tcp);
        self.read(shared, &mut tcp);
    }

    fn accept(&mut self, shared: &Shared, local: IpAddr, tcp: &mut Tcp<'_>) {
        loop {
            match tcp.accept() {
                Ok(Some((socket, remote))) => match shared.accept_pipe(remote, |_| ()) {
                    Some(conn) => {
                        shared.handle_pipe(conn, PipeEvent::Local(local));
                        self.insert(conn, socket, false);
                    }
                    None => tcp.close(socket),
                },
                Ok(None) => return,
                Err(OutOfDescriptors) => {
                    self.rests_until = Some(tcp.elapsed() + ACCEPT_REST);
                    return;
                }
            }
        }
    }

    fn insert(&mut self, conn: ConnId, socket: TcpId, connecting: bool) {
        self.names.insert(socket, conn);
        self.pipes.insert(conn, Pipe { socket, connecting, kept: Vec::new(), reads: true, readable: false, queued: false });
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.reads = true;
            self.enqueue(conn);
        }
    }

    fn enqueue(&mut self, conn: ConnId) {
        if let Some(pipe) = self.pipes.get_mut(&conn)
            && pipe.reads
            && pipe.readable
            && !std::mem::replace(&mut pipe.queued, true)
        {
            self.ready.push_back(conn);
        }
    }

    fn readable(&mut self, socket: TcpId, tcp: &mut Tcp<'_>) {
        let Some(conn) = self.names.get(&socket).copied() else {
            return self.drain(socket, tcp);
        };
        if let Some(pipe) = self.pipes.get_mut(&conn) {
            pipe.readable = true;
        }
        self.enqueue(conn);
    }

    fn writable(&mut self, shared: &Shared, socket: TcpId, tcp: &mut Tcp<'_>) {
        if let Some(lingering) = self.lingering.get_mut(&socket) {
            let taken = tcp.write(socket, &lingering.kept);
            lingering.kept.drain(..taken);
            return;
        }
        let Some(conn) = self.names.get(&socket).copied() else {
            return;
        };
        if let Some(pipe) = self.pipes.get_mut(&conn)
            && !pipe.kept.is_empty()
        {
            let taken = tcp.write(socket, &pipe.kept);
            pipe.kept.drain(..taken);
            if pipe.kept.is_empty() {
                shared.handle_pipe(conn, PipeEvent::Room);
            }
        }
    }

    /// Reads the pipes that can be read, a chunk each in turns.
    fn read(&mut self, shared: &Shared, tcp: &mut Tcp<'_>) {
        let mut bytes = 0;
        while bytes < READ_BYTES_MAX
            && let Some(conn) = self.ready.pop_front()
        {
            let Some(pipe) = self.pipes.get_mut(&conn) else {
                continue;
            };
            pipe.queued = false;
            let end = match tcp.read(pipe.socket, PIPE_CHUNK_BYTES_MAX) {
                Read::Bytes(chunk) => {
                    bytes += chunk.len();
                    pipe.reads = shared.handle_pipe(conn, PipeEvent::Data(BytesMut::from(&chunk[..])));
                    self.enqueue(conn);
                    continue;
                }
                Read::Nothing => {
                    pipe.readable = false;
                    continue;
                }
                Read::End => PipeEnd::Eof,
                Read::Failed(Failure::Refused) => PipeEnd::Refused,
                Read::Failed(Failure::Reset) => PipeEnd::Reset,
                Read::Failed(Failure::TimedOut) => PipeEnd::Failed("connection timed out".to_owned()),
            };
            pipe.readable = false;
            shared.handle_pipe(conn, PipeEvent::End(end));
        }
    }

    /// Does what the core asks for. False when a write was not taken whole.
    pub(crate) fn act(&mut self, action: &PipeAction, bytes: &[u8], mut tcp: Tcp<'_>) -> bool {
        match action {
            PipeAction::Connect { conn, remote } => self.connect(*conn, *remote, &mut tcp),
            PipeAction::Write { conn } => {
                let Some(pipe) = self.pipes.get_mut(conn) else {
                    return true;
                };
                let taken = if pipe.kept.is_empty() { tcp.write(pipe.socket, bytes) } else { 0 };
                pipe.kept.extend_from_slice(&bytes[taken..]);
                assert!(
                    pipe.kept.len() <= KEPT_MAX,
                    "the core writes to a pipe that is full: {} bytes are kept",
                    pipe.kept.len()
                );
                return pipe.kept.is_empty();
            }
            PipeAction::Read { conn } => self.resume(*conn),
            PipeAction::Close { conn, now } => self.close(*conn, *now, &mut tcp),
        }
        true
    }

    fn connect(&mut self, conn: ConnId, remote: SocketAddr, tcp: &mut Tcp<'_>) {
        match tcp.connect(remote) {
            Ok(socket) => self.insert(conn, socket, true),
            Err(OutOfDescriptors) => self.failed.push(conn),
        }
    }

    fn close(&mut self, conn: ConnId, now: bool, tcp: &mut Tcp<'_>) {
        let Some(pipe) = self.pipes.remove(&conn) else {
            return;
        };
        self.names.remove(&pipe.socket);
        if pipe.connecting {
            return tcp.abort(pipe.socket);
        }
        let kept = if now { Vec::new() } else { pipe.kept };
        let until = tcp.elapsed() + LINGER;
        self.lingering.insert(pipe.socket, Lingering { kept, finished: false, until, reads_left: LINGER_READS });
        self.linger(tcp);
    }

    /// Says that nothing more comes once all has left, and waits a little for the other side to say the same.
    fn linger(&mut self, tcp: &mut Tcp<'_>) {
        let mut ready = Vec::new();
        for (socket, lingering) in &mut self.lingering {
            if lingering.kept.is_empty() && !std::mem::replace(&mut lingering.finished, true) {
                tcp.finish(*socket);
                ready.push(*socket);
            }
        }
        ready.into_iter().for_each(|socket| self.drain(socket, tcp));
        let now = tcp.elapsed();
        self.lingering.retain(|socket, lingering| {
            let over = lingering.until <= now;
            match lingering.finished {
                true if over => tcp.close(*socket),
                // Whoever does not take our last words does not get them.
                false if over => tcp.abort(*socket),
                _ => {}
            }
            !over
        });
    }

    /// Reads what nobody wants, up to a bound, and closes what is over.
    fn drain(&mut self, socket: TcpId, tcp: &mut Tcp<'_>) {
        let Some(lingering) = self.lingering.get_mut(&socket) else {
            return;
        };
        loop {
            match tcp.read(socket, 4096) {
                Read::Bytes(_) if lingering.reads_left > 0 => lingering.reads_left -= 1,
                Read::Nothing => return,
                // It said its last word, and so will we.
                Read::End if !lingering.finished => return,
                _ => break,
            }
        }
        self.lingering.remove(&socket);
        tcp.close(socket);
    }
}
