//! TCP of the world: what a host's system does for its programs. Sockets are connected, written, read and closed as real ones are, with
//! partial writes, bounded buffers, half-close, resets, and a queue of connections that wait to be accepted.
//!
//! It is a small TCP of its own, segment by segment over the world's links: so a loss is felt as delay, a bottleneck and its queue are shared
//! with the datagrams of the same hosts, a partition stalls and at last times out, and a crashed, restarted or moved host is found out as on the
//! Internet. Not modelled, since no byte stream shows it: wrapping numbers, delayed acknowledgements, urgent data, simultaneous opens, and the
//! processor time of the system.
//!
//! A host reaches it by [`Turn::tcp`](crate::Turn::tcp).

mod endpoint;
mod glue;
mod receiver;
mod segment;
mod sender;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use endpoint::Endpoint;
pub use glue::Tcp;
pub(crate) use glue::settle;
use segment::Kind;
pub(crate) use segment::{Addressed, Segment};

use crate::net::HostId;

/// Connections that wait to be accepted; further ones go unanswered until there is room, as in Linux.
const BACKLOG: usize = 256;
/// Where the ports of those who dial begin (RFC 6335 section 6).
const FIRST_PORT: u16 = 49_152;

/// A socket of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpId(u64);

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens at that address.
    Refused,
    /// The other side, or the system for it, has reset the connection.
    Reset,
    /// No sign of life for too long.
    TimedOut,
}

/// What reading has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Bytes, in order.
    Bytes(Bytes),
    /// Nothing for now; [`News::Readable`] will tell when that changes.
    Nothing,
    /// The other side has ended its direction, and all before that was read.
    End,
    /// The connection has failed.
    Failed(Failure),
}

/// What the system has to tell a program; each but once, until the program has found that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Connections wait to be accepted: accept until there is none.
    Incoming,
    /// The connection that was asked for is there.
    Connected(TcpId),
    /// Reading gives something: read until there is [`Read::Nothing`].
    Readable(TcpId),
    /// A socket that was found full has room again.
    Writable(TcpId),
}

/// The program has as many sockets as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfDescriptors;

/// Numbers of a host's system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpLimits {
    /// What a socket keeps of what came and was not read, in bytes; the window that the other side is told.
    pub receive_bytes: usize,
    /// What a socket keeps of what was written and not acknowledged, in bytes.
    pub send_bytes: usize,
    /// Of this, how much may be unsent: above it the socket counts as full (`TCP_NOTSENT_LOWAT`).
    pub unsent_bytes: usize,
    /// Sockets that a program may have at once.
    pub descriptors: usize,
}

impl Default for TcpLimits {
    /// 1 MiB and 4 MiB of buffers, as strait sets its sockets, and 1,024 descriptors.
    fn default() -> TcpLimits {
        TcpLimits {
            receive_bytes: 1 << 20,
            send_bytes: 4 << 20,
            unsent_bytes: strait::parts::UNSENT_BYTES as usize,
            descriptors: 1024,
        }
    }
}

/// One host's part.
#[derive(Debug, Default)]
struct System {
    limits: TcpLimits,
    listening: BTreeSet<u16>,
    /// Complete connections that were not accepted yet.
    backlog: VecDeque<TcpId>,
    told_incoming: bool,
    /// The sockets that its program holds.
    held: BTreeSet<TcpId>,
    news: VecDeque<News>,
    next_port: u16,
}

/// All connections of the world.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    systems: BTreeMap<HostId, System>,
    ends: BTreeMap<TcpId, Endpoint>,
    by_address: BTreeMap<(HostId, u16, SocketAddr), TcpId>,
    timers: BTreeSet<(Duration, TcpId)>,
    timer_of: BTreeMap<TcpId, Duration>,
    next: u64,
}

/// What a host's system wants to have sent, for one of its connections.
pub(crate) struct Outgoing {
    pub(crate) host: HostId,
    pub(crate) port: u16,
    pub(crate) remote: SocketAddr,
    pub(crate) segment: Segment,
}

impl Stack {
    fn system(&mut self, host: HostId) -> &mut System {
        self.systems.entry(host).or_default()
    }

    pub(crate) fn limits(&mut self, host: HostId) -> &mut TcpLimits {
        &mut self.system(host).limits
    }

    pub(crate) fn has_news(&self, host: HostId) -> bool {
        self.systems.get(&host).is_some_and(|system| !system.news.is_empty())
    }

    pub(crate) fn next_timer(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Sockets that a program holds.
    pub(crate) fn open(&self, host: HostId) -> usize {
        self.systems.get(&host).map_or(0, |system| system.held.len())
    }

    /// The program has let go of a socket.
    pub(crate) fn release(&mut self, host: HostId, id: TcpId) {
        self.system(host).held.remove(&id);
    }

    pub(crate) fn unsent(&self, host: HostId) -> usize {
        self.ends.values().filter(|end| end.host == host).map(|end| end.sender.unsent()).sum()
    }

    fn insert(&mut self, end: Endpoint) -> TcpId {
        let id = TcpId(self.next);
        self.next += 1;
        self.by_address.insert((end.host, end.port, end.remote), id);
        self.ends.insert(id, end);
        id
    }

    fn remove(&mut self, id: TcpId) {
        if let Some(end) = self.ends.remove(&id) {
            self.by_address.remove(&(end.host, end.port, end.remote));
        }
        if let Some(at) = self.timer_of.remove(&id) {
            self.timers.remove(&(at, id));
        }
    }

    /// Forgets all of a host: its power is off.
    pub(crate) fn forget(&mut self, host: HostId) {
        let gone: Vec<_> = self.ends.iter().filter(|(_, end)| end.host == host).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|id| self.remove(id));
        let limits = *self.limits(host);
        self.systems.insert(host, System { limits, ..System::default() });
    }

    /// A host's program has died, and its system lives: it resets what the program had.
    pub(crate) fn kill(&mut self, host: HostId, now: Duration, out: &mut Vec<Outgoing>) {
        let ids: Vec<_> = self.ends.iter().filter(|(_, end)| end.host == host && !end.is_orphan()).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(end) = self.ends.get_mut(&id) {
                end.abort();
            }
            self.settle(id, now, out);
        }
        let limits = *self.limits(host);
        self.systems.insert(host, System { limits, ..System::default() });
    }

    /// A host's address is gone: what is bound to it says and hears nothing more, and its programs are not told.
    pub(crate) fn strand(&mut self, host: HostId) {
        self.ends.values_mut().filter(|end| end.host == host).for_each(|end| end.stranded = true);
    }

    pub(crate) fn listen(&mut self, host: HostId, port: u16) {
        self.system(host).listening.insert(port);
    }

    pub(crate) fn connect(&mut self, host: HostId, remote: SocketAddr) -> Result<TcpId, OutOfDescriptors> {
        let limits = *self.limits(host);
        if self.open(host) >= limits.descriptors {
            return Err(OutOfDescriptors);
        }
        let port = loop {
            let system = self.system(host);
            let port = system.next_port.max(FIRST_PORT);
            system.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.by_address.contains_key(&(host, port, remote)) {
                break port;
            }
        };
        let id = self.insert(Endpoint::new(host, port, remote, true, limits.receive_bytes));
        self.system(host).held.insert(id);
        Ok(id)
    }

    pub(crate) fn accept(&mut self, host: HostId) -> Result<Option<(TcpId, SocketAddr)>, OutOfDescriptors> {
        if !self.system(host).backlog.is_empty() && self.open(host) >= self.limits(host).descriptors {
            return Err(OutOfDescriptors);
        }
        while let Some(id) = self.system(host).backlog.pop_front() {
            // Those that were reset meanwhile are gone.
            if let Some(end) = self.ends.get_mut(&id) {
                end.told = true;
                let remote = end.remote;
                self.system(host).held.insert(id);
                self.tell(id);
                return Ok(Some((id, remote)));
            }
        }
        self.system(host).told_incoming = false;
        Ok(None)
    }

    pub(crate) fn end(&mut self, id: TcpId) -> Option<&mut Endpoint> {
        self.ends.get_mut(&id)
    }

    /// A segment has arrived at a host's port.
    pub(crate) fn handle(
        &mut self,
        now: Duration,
        host: HostId,
        port: u16,
        remote: SocketAddr,
        segment: Segment,
        out: &mut Vec<Outgoing>,
    ) {
        let id = match self.by_address.get(&(host, port, remote)) {
            Some(id) => *id,
            None => match self.welcome(host, port, remote, &segment) {
                Some(id) => id,
                None => return self.refuse(host, port, remote, &segment, out),
            },
        };
        if let Some(end) = self.ends.get_mut(&id) {
            end.handle(now, segment);
        }
        self.settle(id, now, out);
    }

    /// A connection that somebody wants to make, if one may be made here.
    fn welcome(&mut self, host: HostId, port: u16, remote: SocketAddr, segment: &Segment) -> Option<TcpId> {
        let system = self.system(host);
        let bytes = system.limits.receive_bytes;
        let listens = segment.kind == Kind::Syn && segment.ack.is_none() && system.listening.contains(&port);
        (listens && system.backlog.len() < BACKLOG).then(|| self.insert(Endpoint::new(host, port, remote, false, bytes)))
    }

    /// Answers a segment that belongs to nothing, unless it is itself such an answer, or asks where the backlog is full.
    fn refuse(&mut self, host: HostId, port: u16, remote: SocketAddr, segment: &Segment, out: &mut Vec<Outgoing>) {
        let full = segment.kind == Kind::Syn && self.system(host).listening.contains(&port);
        if segment.kind != Kind::Reset && !full {
            let ack = Some(segment.seq + segment.length());
            let seq = segment.ack.unwrap_or(0);
            let segment = Segment { kind: Kind::Reset, seq, ack, window: 0, sacks: Vec::new(), payload: Bytes::new() };
            out.push(Outgoing { host, port, remote, segment });
        }
    }

    /// Does what follows from a change: sends, sets the timer, tells the program, forgets what is over.
    pub(crate) fn settle(&mut self, id: TcpId, now: Duration, out: &mut Vec<Outgoing>) {
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        let (host, port, remote) = (end.host, end.port, end.remote);
        while let Some(segment) = end.poll(now) {
            if !end.stranded {
                out.push(Outgoing { host, port, remote, segment });
            }
        }
        if end.is_gone(now) {
            return self.remove(id);
        }
        let timer = end.timer();
        self.set_timer(id, timer);
        self.tell(id);
    }

    fn set_timer(&mut self, id: TcpId, timer: Option<Duration>) {
        if self.timer_of.get(&id).copied() == timer {
            return;
        }
        if let Some(old) = self.timer_of.remove(&id) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = timer {
            self.timers.insert((at, id));
            self.timer_of.insert(id, at);
        }
    }

    /// Tells the program what it does not know yet.
    fn tell(&mut self, id: TcpId) {
        let Some(end) = self.ends.get_mut(&id) else {
            return;
        };
        let system = self.systems.entry(end.host).or_default();
        if end.is_orphan() {
            return;
        }
        if !end.told && end.is_open() {
            if end.dials() {
                end.told = true;
                system.news.push_back(News::Connected(id));
            } else if !end.queued {
                end.queued = true;
                system.backlog.push_back(id);
                if !std::mem::replace(&mut system.told_incoming, true) {
                    system.news.push_back(News::Incoming);
                }
            }
        }
        // Nobody knows yet of one that was not accepted.
        if !end.is_known() {
            return;
        }
        if end.is_readable() && !std::mem::replace(&mut end.told_readable, true) {
            system.news.push_back(News::Readable(id));
        }
        let room = end.sender.unsent() <= system.limits.unsent_bytes / 2 && end.sender.queued() < system.limits.send_bytes;
        if end.wants_room && room {
            end.wants_room = false;
            system.news.push_back(News::Writable(id));
        }
    }

    /// Does what is due by `now`.
    pub(crate) fn tick(&mut self, now: Duration, out: &mut Vec<Outgoing>) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.set_timer(id, None);
            let Some(end) = self.ends.get_mut(&id) else {
                continue;
            };
            let segment = end.timed_out(now);
            if let Some(segment) = segment.filter(|_| !end.stranded) {
                out.push(Outgoing { host: end.host, port: end.port, remote: end.remote, segment });
            }
            self.settle(id, now, out);
        }
    }

    pub(crate) fn news(&mut self, host: HostId) -> Option<News> {
        self.system(host).news.pop_front()
    }
}
