//! What a node keeps for a connection and for a stream.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use libp2p_identity::PeerId;
use slab::Slab;

use super::admission::Use;
use super::calm::Calm;
use super::claims::Identity;
use super::credit::Credit;
use super::held::Flow;
use super::machine::Machine;
use super::role::Role;
use super::shares::Shares;
use crate::budget::{Account, Grant};
use crate::conn::piped::PipeEnd;
use crate::conn::quic::{Inbound, SocketId};
use crate::conn::transport::Transport;
use crate::error::Closed;
use crate::limits::{ADDRESS_CHANGE_INTERVAL, ADDRESS_CHANGES_MAX, DATAGRAM_OVERHEAD_BYTES, Limits, STREAM_OPENED_WORK};
use crate::peers::Path;
use crate::peers::scope::{self, Scope};
use crate::proto::select::Listener;
use crate::proto::{Priority, Registry, identify, ping};
use crate::report::{Carrier, Counters, Totals};
use crate::stream::{Around, IoState, Moved, StreamIo, Waits};
use crate::trace::Trace;
use crate::wake::Armed;

/// Names a connection for as long as it lives. Names are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Names a stream for as long as it lives. Names are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef {
    pub(super) conn: ConnId,
    pub(super) index: u32,
    pub(super) serial: u32,
}

/// Where a connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// We dial.
    Dialling(PeerId),
    /// A stranger's handshake.
    Greeting,
    /// Established, with a verified identity.
    Open(PeerId),
    /// Over for the application; the transport still says goodbye.
    Closed,
}

/// What has come and waits for its connection's turn.
#[allow(clippy::large_enum_variant, reason = "nearly all are the large one, and a box for each would cost more than the room")]
pub(super) enum Arrived {
    Datagram(Inbound),
    /// Bytes of a pipe.
    Chunk {
        at: Instant,
        data: BytesMut,
    },
}

impl Arrived {
    pub(super) fn at(&self) -> Instant {
        match self {
            Arrived::Datagram(inbound) => inbound.at,
            Arrived::Chunk { at, .. } => *at,
        }
    }

    fn cost(&self) -> u64 {
        let bytes = match self {
            Arrived::Datagram(inbound) => inbound.bytes,
            Arrived::Chunk { data, .. } => data.capacity(),
        };
        (bytes as u64).saturating_add(DATAGRAM_OVERHEAD_BYTES)
    }
}

/// What waits for the connection's turn, bounded.
pub(super) struct Inbox {
    queue: VecDeque<Arrived>,
    bytes: u64,
    grant: Grant,
}

impl Inbox {
    pub(super) fn new(grant: Grant) -> Inbox {
        Inbox { queue: VecDeque::new(), bytes: 0, grant }
    }

    /// Queues what has come. False when it has no room: it is lost.
    pub(super) fn push(&mut self, arrived: Arrived, limits: &Limits) -> bool {
        let cost = arrived.cost();
        let wanted = self.bytes.saturating_add(cost);
        if wanted > self.grant.bytes() {
            // Grown in steps, so that the ledger is not asked for each datagram.
            let more = self.grant.bytes().saturating_add(limits.inbox_bytes_min).max(wanted);
            if more > limits.inbox_bytes_max || !self.grant.resize_spare(more) {
                return false;
            }
        }
        self.bytes = wanted;
        self.queue.push_back(arrived);
        true
    }

    pub(super) fn pop(&mut self, limits: &Limits) -> Option<Arrived> {
        let arrived = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(arrived.cost());
        if self.queue.is_empty() {
            self.grant.shrink(limits.inbox_bytes_min);
        }
        Some(arrived)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When that arrived which has waited the longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(Arrived::at)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn granted(&self) -> u64 {
        self.grant.bytes()
    }

    /// Gives the room of what was here back.
    pub(super) fn rest(&mut self) {
        self.queue.shrink_to_fit();
    }
}

/// A stream.
pub(super) struct Stream {
    pub(super) serial: u32,
    /// The transport's number, once it is open there.
    pub(super) number: Option<u64>,
    pub(super) machine: Machine,
    pub(super) io: IoState,
    pub(super) role: Role,
    pub(super) priority: Priority,
    pub(super) waits: Waits,
    pub(super) queued: bool,
    /// The machine was driven on the open stream: a dialer's proposal is written, and the application's bytes may follow.
    pub(super) begun: bool,
    pub(super) armed: Armed,
    /// An [`Event::Ready`](super::Event::Ready) is on its way.
    pub(super) told_ready: bool,
    /// It was agreed on for several exchanges.
    pub(super) reused: bool,
    /// It is among those whose small writes wait for company until the node sends.
    pub(super) kept_back: bool,
    /// Bytes to be granted when it opens, beside its own.
    pub(super) reserve: u64,
    /// When it has to be open at the latest, once it waits for that.
    pub(super) open_by: Option<(Instant, Duration)>,
    /// Since when it was wanted; of a peer's request, since when it is here whole.
    pub(super) since: Option<Instant>,
}

impl Stream {
    /// Whether it is kept for the next request, of ours or of the peer.
    pub(super) fn rests(&self) -> bool {
        match self.role {
            Role::Resting { .. } => true,
            // Otherwise the next one may be there already.
            Role::Kept { .. } => !self.queued,
            _ => false,
        }
    }

    /// How long it may wait for the peer, or our memory, to have room for it.
    pub(super) fn opening_deadline(&self, limits: &Limits) -> Duration {
        match self.role {
            // As long as the exchange may take: what has all the places now is over by then.
            Role::Client { def } => def.total(limits),
            Role::Pinger => ping::DEADLINE,
            Role::Own => identify::DEADLINE,
            _ => limits.negotiation_deadline,
        }
    }
}

/// How often a peer's address may still change.
#[derive(Debug)]
pub(super) struct Moves {
    left: u32,
    filled: Instant,
}

impl Moves {
    pub(super) fn may(&mut self, now: Instant) -> bool {
        while self.left < ADDRESS_CHANGES_MAX
            && let Some(next) = self.filled.checked_add(ADDRESS_CHANGE_INTERVAL).filter(|next| *next <= now)
        {
            self.left = self.left.saturating_add(1);
            self.filled = next;
        }
        if self.left == ADDRESS_CHANGES_MAX {
            self.filled = now;
        }
        self.left > 0
    }

    /// True when that was the last one for now.
    pub(super) fn moved(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

/// A connection.
pub(super) struct ConnState {
    pub(super) id: ConnId,
    pub(super) quic: Transport,
    pub(super) socket: SocketId,
    /// The address of this machine that it was last seen to use.
    pub(super) local: Option<IpAddr>,
    /// How far the farthest path that it ever had reaches: a path changes with the first packet from elsewhere, before it is proved.
    reach: Scope,
    pub(super) moves: Moves,
    pub(super) phase: Phase,
    pub(super) dialled: bool,
    pub(super) account: Arc<Account>,
    pub(super) credit: Credit,
    pub(super) calm: Calm,
    pub(super) inbox: Inbox,
    /// How a pipe ended whose last bytes still wait.
    pub(super) end: Option<PipeEnd>,
    /// Work units of what was done for it outside of its turn, or cannot be told before: charged in its next.
    pub(super) owed: u64,
    /// Since when a timer of the transport is due.
    pub(super) timer_due: Option<Instant>,
    pub(super) in_strangers_ring: bool,
    pub(super) starved: bool,
    pub(super) streams: Slab<Stream>,
    pub(super) numbers: BTreeMap<u64, usize>,
    serial: u32,
    /// Streams to be driven.
    pub(super) ready: VecDeque<usize>,
    /// Streams of ours that the peer's credit or our memory has no room for yet, by name and in order.
    pub(super) opening: VecDeque<(usize, u32)>,
    /// Some of them came since it was last tried.
    pub(super) to_open: bool,
    /// The peer allows no further stream now; it will say when it does.
    pub(super) no_credit: bool,
    /// How many streams of the peer are worked on, by protocol number.
    pub(super) active: BTreeMap<usize, u16>,
    /// Streams of the peer that wait for that number to fall.
    pub(super) waiting: BTreeMap<usize, VecDeque<(usize, u32)>>,
    /// How many streams of ours there are, by name.
    pub(super) opened: BTreeMap<&'static str, u16>,
    /// Those of them that are kept for the next request; the one that was used last is the last.
    pub(super) resting: Vec<usize>,
    pub(super) transport_armed: Armed,
    pub(super) armed: Armed,
    /// Bytes of datagrams opened.
    pub(super) wire_in: u64,
    /// What of them was not stream bytes, as far as is known: taken when no stream was open.
    pub(super) overhead_in: u64,
    /// Stream bytes consumed.
    pub(super) bytes_in: u64,
    /// Stream bytes handed to the transport.
    pub(super) bytes_out: u64,
    /// How its streams' priorities stand to each other.
    pub(super) shares: Shares,
    /// `bytes_in` when it was last looked at whether streams that wait have jammed it.
    pub(super) jam_mark: u64,
    /// How often the peer had said that it is blocked when that was last acted on.
    pub(super) jam_blocked: u64,
    pub(super) identity: Option<Arc<Identity>>,
    /// Which version of what this node says of itself its peer was told last.
    pub(super) told_version: Option<u64>,
    /// When it began; from the end of the handshake on, when that was.
    pub(super) since: Instant,
    /// When something that its peer has sent was last opened.
    pub(super) heard: Instant,
    /// Another connection waits for this one to show that it is alive.
    pub(super) rival: bool,
    /// It is not used any more; how much had moved on it when that was last looked at.
    pub(super) retired: Option<u64>,
    pub(super) retired_armed: Armed,
    /// When it was moved to another local address, until it is known whether its peer answers there.
    pub(super) moved: Option<Instant>,
    pub(super) moved_armed: Armed,
    /// What it was good for.
    pub(super) usage: Use,
    /// Why this side closed it.
    pub(super) reason: Option<Closed>,
    /// Before its handshake was complete it was shown that its address receives what is sent to it.
    pub(super) proved: bool,
    /// Where its handshake was completed from. Later addresses can be forged: they are believed before they are proved.
    pub(super) home: Option<SocketAddr>,
    /// Its peer has used up all changes of its address, and nobody was told yet.
    pub(super) moved_out: bool,
    pub(super) flow: Flow,
    /// When it was last seen to have a stream.
    pub(super) busy: Instant,
    /// Those who want to know all that happens on it: nearly always nobody.
    pub(super) traces: Vec<Trace>,
}

/// What a new connection starts with.
pub(super) struct Start {
    pub(super) id: ConnId,
    pub(super) quic: Transport,
    pub(super) socket: SocketId,
    pub(super) phase: Phase,
    pub(super) account: Arc<Account>,
    pub(super) credit: Credit,
    pub(super) inbox: Inbox,
    pub(super) now: Instant,
}

impl ConnState {
    pub(super) fn new(start: Start) -> ConnState {
        ConnState {
            id: start.id,
            reach: scope::of(start.quic.remote().ip()),
            quic: start.quic,
            socket: start.socket,
            local: None,
            moves: Moves { left: ADDRESS_CHANGES_MAX, filled: start.now },
            dialled: matches!(start.phase, Phase::Dialling(_)),
            phase: start.phase,
            account: start.account,
            credit: start.credit,
            calm: Calm::new(start.now),
            inbox: start.inbox,
            end: None,
            owed: 0,
            timer_due: None,
            in_strangers_ring: false,
            starved: false,
            streams: Slab::new(),
            numbers: BTreeMap::new(),
            serial: 0,
            ready: VecDeque::new(),
            opening: VecDeque::new(),
            to_open: false,
            no_credit: false,
            active: BTreeMap::new(),
            waiting: BTreeMap::new(),
            opened: BTreeMap::new(),
            resting: Vec::new(),
            transport_armed: Armed::default(),
            armed: Armed::default(),
            wire_in: 0,
            overhead_in: 0,
            bytes_in: 0,
            bytes_out: 0,
            shares: Shares::default(),
            jam_mark: 0,
            jam_blocked: 0,
            identity: None,
            told_version: None,
            since: start.now,
            heard: start.now,
            rival: false,
            retired: None,
            retired_armed: Armed::default(),
            moved: None,
            moved_armed: Armed::default(),
            usage: Use::default(),
            reason: None,
            proved: false,
            home: None,
            moved_out: false,
            flow: Flow::new(start.now),
            busy: start.now,
            traces: Vec::new(),
        }
    }

    /// Takes note of where its peer is seen now.
    pub(super) fn note_path(&mut self) {
        self.reach = self.path().scope;
    }

    /// The path to its peer, as far as what is told over it is concerned.
    pub(super) fn path(&self) -> Path {
        Path::to(self.quic.remote().ip()).at_least(self.reach)
    }

    /// How many streams it has had, waiting ones included, and each exchange on one that is used again.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn is_stranger(&self) -> bool {
        self.phase == Phase::Greeting
    }

    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.phase {
            Phase::Open(peer) | Phase::Dialling(peer) => Some(peer),
            Phase::Greeting | Phase::Closed => None,
        }
    }

    /// Whether the transport's timers may run: everything that came before they were due has been looked at, so that an
    /// acknowledgement in the queue is not taken for lost. What came later has to wait, or a flood would hold the timers for ever.
    pub(super) fn timers_may_run(&self) -> bool {
        let waits = |due: Instant| self.quic.wants_input() && self.inbox.oldest().is_some_and(|oldest| oldest <= due);
        self.timer_due.is_some_and(|due| !waits(due))
    }

    /// Takes the streams that the peer has opened. Returns the work of it, which the connection's stream credit bounds.
    pub(super) fn accept_streams(&mut self, registry: &Arc<Registry>, totals: &mut Totals) -> u64 {
        // A connection that was closed in this very turn may still tell of streams; nobody would remove them.
        if !matches!(self.phase, Phase::Open(_)) {
            return 0;
        }
        let mut count = 0u64;
        while let Some(number) = self.quic.accept() {
            let listener = Machine::Listener(Listener::new(registry.clone()));
            // The connection's stream credit pays for it.
            if let Some(index) = self.add(Role::Listener, listener, Priority::Normal, 0) {
                if let Some(stream) = self.streams.get_mut(index) {
                    stream.number = Some(number);
                }
                self.numbers.insert(number, index);
                self.queue(index);
            }
            count = count.saturating_add(1);
        }
        totals.streams_in = totals.streams_in.saturating_add(count);
        count.saturating_mul(STREAM_OPENED_WORK)
    }

    /// Tells a pipe of its end, when all that came before has been looked at.
    pub(super) fn end_if_read(&mut self, now: Instant) {
        if self.inbox.is_empty()
            && let Some(end) = self.end.take()
            && let Some(pipe) = self.quic.as_pipe()
        {
            pipe.piped.handle_end(now, end);
        }
    }

    /// Counts what a stream has moved since `before`. Returns its bytes in and out, and the keys of its topic that were looked at.
    pub(super) fn count_moved(&mut self, now: Instant, index: usize, before: Moved, counters: &mut Counters) -> Moved {
        let carrier = self.carrier();
        let Some(stream) = self.streams.get_mut(index) else {
            return Moved::default();
        };
        let moved = stream.io.moved.since(before);
        let priority = stream.priority;
        self.bytes_in = self.bytes_in.saturating_add(moved.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(moved.bytes_out);
        self.usage.note(now, stream.role, moved.bytes_in, moved.bytes_out);
        let totals = &mut counters.totals;
        totals.stream_bytes_in = totals.stream_bytes_in.saturating_add(moved.bytes_in);
        totals.stream_bytes_out = totals.stream_bytes_out.saturating_add(moved.bytes_out);
        let carried = counters.carrier(carrier);
        carried.stream_bytes_in = carried.stream_bytes_in.saturating_add(moved.bytes_in);
        carried.stream_bytes_out = carried.stream_bytes_out.saturating_add(moved.bytes_out);
        let totals = &mut counters.totals;
        totals.bytes_copied = totals.bytes_copied.saturating_add(moved.copied);
        totals.topic_looks = totals.topic_looks.saturating_add(moved.looks);
        totals.topic_frames = totals.topic_frames.saturating_add(moved.told);
        self.share(priority, moved.bytes_out);
        moved
    }

    /// What its streams may look at.
    pub(super) fn around<'a>(&self, now: Instant, limits: &'a Limits) -> Around<'a> {
        Around { now, limits, connection_in: self.wire_in, connection_out: self.bytes_out }
    }

    /// Notes that a stream's small writes wait for company. Its name, the first time.
    pub(super) fn keep_back(&mut self, index: usize) -> Option<StreamRef> {
        let first = !std::mem::replace(&mut self.streams.get_mut(index)?.kept_back, true);
        self.stream_ref(index).filter(|_| first)
    }

    /// Puts what a stream has gathered into the transport, as far as there is room.
    pub(super) fn flush_stream(&mut self, now: Instant, limits: &Limits, index: usize) {
        let around = self.around(now, limits);
        if let Some(stream) = self.streams.get_mut(index)
            && let Some(number) = stream.number
        {
            StreamIo::new(around, &mut self.quic.port(number), &mut stream.io, &mut Vec::new()).flush();
        }
    }

    /// What it runs on.
    pub(super) fn carrier(&self) -> Carrier {
        if self.quic.is_quic() { Carrier::Quic } else { Carrier::Tcp }
    }

    /// Marks a stream to be driven.
    pub(super) fn queue(&mut self, index: usize) {
        if let Some(stream) = self.streams.get_mut(index)
            && !stream.queued
        {
            stream.queued = true;
            self.ready.push_back(index);
        }
    }

    pub(super) fn stream_ref(&self, index: usize) -> Option<StreamRef> {
        let stream = self.streams.get(index)?;
        Some(StreamRef { conn: self.id, index: u32::try_from(index).ok()?, serial: stream.serial })
    }

    /// A number that no stream of it has had.
    pub(super) fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// Adds a stream with a grant of `bytes` of its own (0 where the connection's credit covers it).
    pub(super) fn add(&mut self, role: Role, machine: Machine, priority: Priority, reserve: u64) -> Option<usize> {
        let grant = self.account.grant(0)?;
        let stream = Stream {
            serial: self.next_serial(),
            number: None,
            machine,
            io: IoState::new(grant),
            role,
            priority,
            waits: Waits::default(),
            queued: false,
            begun: false,
            armed: Armed::default(),
            told_ready: false,
            reused: false,
            kept_back: false,
            reserve,
            open_by: None,
            since: None,
        };
        if let Some(name) = role.opened() {
            let count = self.opened.entry(name).or_default();
            *count = count.saturating_add(1);
        }
        Some(self.streams.insert(stream))
    }
}
