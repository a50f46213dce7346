//! Yamux: streams over one ordered pipe of bytes, as a pure state machine. The pipe, its encryption and the clock are the caller's.
//!
//! Sources: <https://github.com/hashicorp/yamux/blob/master/spec.md>, <https://github.com/libp2p/specs/blob/master/yamux/README.md>. The frame
//! headers are [`strait_wire::yamux`]. How the ends of streams map to those of QUIC stands in `port.rs`.
//!
//! # Memory
//!
//! Yamux has a window for each stream and none for the connection: each stream that a peer opens lets it send 256 KiB, asked or not. Three
//! rules bound what that costs.
//!
//! 1. **Reading stops.** When what is unread reaches the receive window `W` ([`Session::set_receive_window`]), counted as allocated,
//!    [`Session::wants_input`] is false and the socket is left alone, until something was consumed or `W` was widened. So at most
//!    `W` and one chunk are held. This is the rule that always holds.
//! 2. **Windows of streams grow only inside of `W`.** What is offered in all is 256 KiB for each open stream, which the protocol implies, and what
//!    streams were given beyond that. The second part grows only while the sum is within `W`, and one stream has at most half of `W`. So growth
//!    never makes reading stop that would not have stopped without it, and the first rule bites only when `W` is below 256 KiB for each open
//!    stream, and readers stall. A window doubles when its reader used half of it within about a round trip, and its rate would
//!    fill the double within the delay that is acceptable (`Limits::delay_max`, or two round trips); it starts at 256 KiB. A stream that is not read is
//!    given nothing: its unread bytes and its credit stay what they are, and when it ends what it was given beyond goes to others.
//! 3. **Streams are accepted on credit.** Beyond [`Session::set_stream_credit`] they wait, unacknowledged, so that a peer that keeps to the ACK
//!    backlog of the specification (256) is slowed and never refused. What comes beyond that is reset. A waiting stream is only a record, and its bytes count in `W`.
//!
//! On the way out, a stream takes only what the peer's credit for it covers, so a peer that reads one stream slowly holds up no other; all together
//! take at most the send window.
//!
//! # Why nothing waits in a circle
//!
//! Let both pipes be full, in both directions.
//!
//! * Whether we read depends on what *our* streams have unread and on `W`: never on what we could send. Whether we send data depends on the pipe and on the peer's
//!   credit; control frames on the pipe alone. So what a full pipe waits for is the other side's reading, and that waits for its readers alone.
//! * Not reading leaves the peer's control frames unread too: credit, pongs, acknowledgements. The credit that waits there is for *our* sending; our
//!   reading goes on without it, and with the first byte consumed below `W` it is read.
//! * Credit is only given for what was consumed, and as a number in a stream's record, so it needs no room while the pipe is full.
//! * If every reader goes on reading, then each side whose input is stopped consumes, reads on, makes room in the pipe, and the other side's writing
//!   goes on. By induction over the bytes in both pipes all are delivered (`model_tests.rs` runs this with pipes of a few bytes).
//! * A reader that waits for its own writing (an echo) can wait in a circle with its peer, as on any transport with bounded memory; within one stream that is the application's.
//!   That it holds up other streams too takes unread bytes up to `W`: [`Session::data_blocked`] counts it, the node widens `W`, and as the last resort
//!   refuses a stream ([`Session::refuse_newest`] for those that nobody has accepted).
//!
//! # Work
//!
//! Each frame costs [`FRAME_WORK`] beside its bytes ([`Session::take_work`]), so that empty frames and those of one byte are paid for. Frames for streams
//! that are over are dropped as they come; nothing is remembered of such streams.

mod control;
pub(super) mod fuzz;
mod port;
mod receive;
mod send;
mod stream;

#[cfg(test)]
mod adversary_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod other_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use strait_wire::yamux::{ACK_BACKLOG, AWAY_PROTOCOL, CONNECTION, Header, HeaderError, INITIAL_WINDOW, Kind};

use super::event::{Blame, ConnEvent, Lost};
use crate::error::{Closed, DialError};
use crate::limits::Limits;
use control::Control;
pub(crate) use port::Port;
use receive::{Chunks, Parser};
use send::Lanes;
use stream::{DELIVERED, READABLE, STOPPED, Send, Stream, WRITABLE};

/// Work units of a frame beside its bytes: with its header, 64.
pub(crate) const FRAME_WORK: u64 = 52;
/// A data frame carries at most so much, so that urgent bytes never wait behind more.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// A frame is not begun in less room than this, unless it is the first of its call.
const FRAME_BYTES_MIN: usize = 512;
/// A lane that waits is served when so many bytes of more urgent ones have passed it, and pays for its own with so many times as much: it
/// has a sixteenth.
const FLOOR_SHARE: usize = 15;
const FLOOR_BYTES: usize = FLOOR_SHARE * FRAME_BYTES_MAX;
/// Streams that the peer may have opened beyond its credit: what an honest one has unacknowledged.
const BACKLOG_MAX: usize = ACK_BACKLOG as usize;
/// Distinct pings that may wait for their answers. Others of the ecosystem have one or two under way.
const PONGS_MAX: usize = 16;
/// Refused streams whose reset may wait for the pipe.
const REFUSALS_MAX: usize = 64;
/// Streams that may wait for the peer to end what nobody reads.
const LINGER_MAX: usize = 64;
/// Slices of less than this are copied.
const SLICE_BYTES_MIN: usize = 1 << 10;
/// Buffers that small pieces are copied into are at most so large.
const TAIL_BYTES_MAX: usize = 1 << 10;
/// The largest chunk that should be handed in at once.
const CHUNK_BYTES_MAX: u64 = 64 << 10;
/// Bookkeeping of a chunk that is held in memory, of one piece of it, and of a piece that waits to be sent.
const CHUNK_BYTES: u64 = 128;
const ENTRY_BYTES: u32 = 128;
const SEND_ENTRY_BYTES: u64 = 64;
/// Memory of a stream's record, with its share of the map and of the queues.
const RECORD_BYTES: u64 = 768;
/// A write is not split into pieces of less than this for want of room.
const WRITE_BYTES_MIN: u64 = 1 << 10;
/// Those who wait for room are told when there is so much.
const WAKE_ROOM_BYTES: u64 = 16 << 10;
/// The shortest round trip that windows are sized by.
const RTT_MIN: Duration = Duration::from_millis(10);

/// Which side of the connection this is: the one that dialled is the client, and its streams have odd numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// How the peer broke the rules. The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("a frame for the stream 0, which does not exist")]
    NoStream,
    #[error("it opened a stream with a number of ours")]
    WrongSide,
    #[error("it opened a stream that is open")]
    OpenedTwice,
    #[error("a frame for a stream that was never opened")]
    NeverOpened,
    #[error("more bytes than a stream's window allows")]
    BeyondWindow,
    #[error("more credit than a window can hold")]
    CreditOverflow,
    #[error("bytes behind the end of a stream")]
    AfterEnd,
    #[error("too many pings whose answers it does not take")]
    Pings,
    #[error("too many streams, and it does not take their resets")]
    Opens,
}

/// Events of streams, each stream once.
#[derive(Debug, Default)]
struct Events {
    queue: VecDeque<u32>,
}

impl Events {
    fn raise(&mut self, id: u32, stream: &mut Stream, event: u8) {
        if stream.waiting {
            return;
        }
        if stream.events == 0 {
            self.queue.push_back(id);
        }
        stream.events |= event;
    }
}

/// One multiplexed connection.
#[derive(Debug)]
pub(crate) struct Session {
    side: Side,
    keep_alive: Duration,
    idle_timeout: Duration,
    drain_deadline: Duration,
    delay_max: Duration,
    receive_window: u64,
    send_window: u64,
    stream_credit: usize,

    streams: BTreeMap<u32, Stream>,
    /// The number of our next stream; `None` when all are used up.
    next_id: Option<u32>,
    unacknowledged_opens: u32,
    wants_open: bool,
    /// Streams of the peer that nobody has accepted, in order; and how many accepted ones there are.
    backlog: VecDeque<u32>,
    accepted: usize,
    /// Streams whose peer is given time to end, with its end.
    lingering: VecDeque<(Instant, u32)>,

    parser: Parser,
    chunks: Chunks,
    /// What was offered beyond 256 KiB for each stream, and the largest window that any stream ever had.
    grown: u64,
    window_ever: u32,
    stalls: u64,
    refused: u64,
    work: u64,

    lanes: Lanes,
    send_cost: u64,
    wanting: BTreeSet<u32>,
    control: Control,

    events: Events,
    opened: bool,
    available: bool,
    lost: Option<Lost>,
    broken: Option<Broken>,
    /// The code to go away with, and whether that was said.
    closing: Option<u32>,
    said: bool,
    away_by: Option<Instant>,
    now: Option<Instant>,
    heard: Option<Instant>,
    /// Reading was stopped since the timers were last looked at.
    deaf: bool,
}

impl Session {
    /// With the smallest windows and credit of `limits`. `limits.keep_alive` should be jittered: nothing is random in here.
    pub(crate) fn new(side: Side, limits: &Limits) -> Session {
        Session {
            side,
            keep_alive: limits.keep_alive,
            idle_timeout: limits.idle_timeout,
            drain_deadline: limits.drain_deadline,
            delay_max: limits.delay_max,
            receive_window: limits.receive_window_min,
            send_window: limits.send_window_min,
            stream_credit: usize::try_from(limits.streams_min).unwrap_or(usize::MAX),
            streams: BTreeMap::new(),
            next_id: Some(if side == Side::Client { 1 } else { 2 }),
            unacknowledged_opens: 0,
            wants_open: false,
            backlog: VecDeque::new(),
            accepted: 0,
            lingering: VecDeque::new(),
            parser: Parser::default(),
            chunks: Chunks::default(),
            grown: 0,
            window_ever: INITIAL_WINDOW,
            stalls: 0,
            refused: 0,
            work: 0,
            lanes: Lanes::default(),
            send_cost: 0,
            wanting: BTreeSet::new(),
            control: Control::new(),
            events: Events::default(),
            opened: false,
            available: false,
            lost: None,
            broken: None,
            closing: None,
            said: false,
            away_by: None,
            now: None,
            heard: None,
            deaf: false,
        }
    }

    /// Which side this is.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// Whether the pipe may be read. False: what is unread has reached the receive window, or the connection is over.
    pub(crate) fn wants_input(&self) -> bool {
        !self.is_closing() && self.chunks.cost < self.receive_window
    }

    /// What has happened, one at a time; `None` when all was told.
    pub(crate) fn poll(&mut self) -> Option<ConnEvent> {
        if let Some(lost) = self.lost.take() {
            return Some(ConnEvent::Lost(lost));
        }
        if std::mem::take(&mut self.opened) && !self.backlog.is_empty() {
            if self.accepted < self.stream_credit {
                return Some(ConnEvent::Opened);
            }
            // Those that only wait for the peer's end are in the way: it is told by a reset.
            for _ in 0..self.backlog.len() {
                self.end_oldest_lingering();
            }
        }
        if std::mem::take(&mut self.available) {
            return Some(ConnEvent::Available);
        }
        loop {
            let id = self.events.queue.pop_front()?;
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let Some(bit) = [STOPPED, READABLE, WRITABLE, DELIVERED].into_iter().find(|bit| stream.events & bit != 0) else {
                continue;
            };
            stream.events &= !bit;
            let code = if let Send::Refused(code) = stream.send { code } else { 0 };
            if stream.events != 0 {
                self.events.queue.push_front(id);
            }
            self.forget_if_over(id);
            let id = u64::from(id);
            return Some(match bit {
                STOPPED => ConnEvent::Stopped(id, code),
                READABLE => ConnEvent::Readable(id),
                WRITABLE => ConnEvent::Writable(id),
                _ => ConnEvent::Delivered(id),
            });
        }
    }

    /// Opens a stream, which the peer learns of with its first bytes. `None` while 256 of ours are unacknowledged
    /// ([`ConnEvent::Available`] follows), and when the peer takes no more or the connection is over.
    pub(crate) fn open(&mut self) -> Option<u64> {
        if self.is_closing() || self.away_by.is_some() {
            return None;
        }
        if self.unacknowledged_opens >= ACK_BACKLOG {
            self.wants_open = true;
            return None;
        }
        let id = self.next_id?;
        self.next_id = id.checked_add(2);
        self.unacknowledged_opens = self.unacknowledged_opens.saturating_add(1);
        self.streams.insert(id, Stream::ours());
        Some(id.into())
    }

    /// The next stream that the peer has opened, if its credit covers it.
    pub(crate) fn accept(&mut self) -> Option<u64> {
        if self.accepted >= self.stream_credit {
            self.opened = !self.backlog.is_empty();
            return None;
        }
        let id = self.backlog.pop_front()?;
        let stream = self.streams.get_mut(&id)?;
        stream.waiting = false;
        stream.ack = true;
        self.accepted = self.accepted.saturating_add(1);
        self.control_of(id);
        Some(id.into())
    }

    /// Resets the stream that the peer has opened last, of those that nobody has accepted. False when there is none, or when the peer does not
    /// even take resets.
    pub(crate) fn refuse_newest(&mut self) -> bool {
        match self.backlog.back().copied() {
            Some(id) if self.refuse(id).is_ok() => {
                self.forget(id);
                true
            }
            _ => false,
        }
    }

    /// The most that may be unread, in bytes of memory; beyond, [`wants_input`](Self::wants_input) is false.
    pub(crate) fn set_receive_window(&mut self, bytes: u64) {
        self.receive_window = bytes;
    }

    /// The most that all streams together may have handed over and the pipe has not taken, in bytes, bookkeeping included.
    pub(crate) fn set_send_window(&mut self, bytes: u64) {
        self.send_window = bytes;
        self.wake_writers();
    }

    /// How many streams of the peer may be accepted at once.
    pub(crate) fn set_stream_credit(&mut self, count: u32) {
        self.stream_credit = usize::try_from(count).unwrap_or(usize::MAX);
        self.opened |= !self.backlog.is_empty();
    }

    /// How many streams have not told the pipe how our direction ends: all that are open, and those that ended with bytes still queued.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.streams.values().filter(|stream| !stream.waiting && (!stream.send_over() || stream.reset.is_some())).count()
    }

    /// How many streams the peer has open, accepted or not.
    pub(crate) fn peer_streams(&self) -> u64 {
        self.accepted.saturating_add(self.backlog.len()) as u64
    }

    /// How often reading was stopped because the receive window was full. It stands in for QUIC's DATA_BLOCKED.
    pub(crate) fn data_blocked(&self) -> u64 {
        self.stalls
    }

    /// Bytes that have come and were not read.
    pub(crate) fn unread(&self) -> u64 {
        self.chunks.stored
    }

    /// How many streams of the peer were reset because it had opened too many.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Work units of what was handled since the last call: its bytes, and [`FRAME_WORK`] for each frame.
    pub(crate) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    /// Goes away with this code (0: in order). Everything is dropped at once; one GoAway is left to be sent, which needs no credit. Nothing
    /// is told of this but to the peer.
    pub(crate) fn close(&mut self, code: u32) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(code);
        self.streams = BTreeMap::new();
        self.backlog = VecDeque::new();
        self.lingering = VecDeque::new();
        self.chunks = Chunks::default();
        self.lanes = Lanes::default();
        self.wanting = BTreeSet::new();
        self.control = Control::new();
        self.events = Events::default();
        (self.opened, self.available) = (false, false);
        (self.grown, self.send_cost, self.accepted) = (0, 0, 0);
    }

    /// Whether the last frame was handed out: the pipe can be closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.said
    }

    /// Gives back room that nothing needs now.
    pub(crate) fn rest(&mut self) {
        if self.streams.is_empty() {
            // A map or set that was emptied keeps a node.
            (self.streams, self.wanting) = (BTreeMap::new(), BTreeSet::new());
        }
        self.chunks.rest();
        self.lanes.rest();
        self.control.rest();
        self.backlog.shrink_to_fit();
        self.lingering.shrink_to_fit();
        self.events.queue.shrink_to_fit();
    }

    /// Memory that is held, in bytes.
    pub(crate) fn held(&self) -> u64 {
        let records = (self.streams.len() as u64).saturating_mul(RECORD_BYTES);
        let queues = [self.backlog.capacity(), self.events.queue.capacity(), self.control.entries(), self.lanes.entries()];
        let queues = queues.iter().fold(0usize, |sum, entries| sum.saturating_add(*entries)) as u64;
        let lingering = (self.lingering.capacity() as u64).saturating_mul(size_of::<(Instant, u32)>() as u64);
        let own = (size_of::<Session>() as u64).saturating_add(lingering).saturating_add(queues.saturating_mul(4));
        own.saturating_add(records).saturating_add(self.chunks.cost).saturating_add(self.send_cost)
    }

    /// Whether it is over but for its last word.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    fn write_last(&mut self, out: &mut Vec<Bytes>) -> usize {
        match self.closing.filter(|_| !self.said) {
            Some(code) => {
                self.said = true;
                let header = Header { kind: Kind::GoAway, flags: 0, stream: CONNECTION, length: code }.encode();
                out.push(Bytes::copy_from_slice(&header));
                header.len()
            }
            None => 0,
        }
    }

    fn fail(&mut self, broken: Broken) {
        self.broken = Some(broken);
        let words = format!("yamux: {broken}");
        // What comes here was opened by the secure channel: it is the peer's.
        let lost = Lost { closed: Closed::Broken(words.clone()), dial: DialError::Incompatible(words), breach: Blame::Peer };
        self.lose(lost, AWAY_PROTOCOL);
    }

    fn lose(&mut self, lost: Lost, code: u32) {
        if self.closing.is_none() {
            self.close(code);
            self.lost = Some(lost);
        }
    }

    fn event(&mut self, id: u32, event: u8) {
        if let Some(stream) = self.streams.get_mut(&id) {
            self.events.raise(id, stream, event);
        }
    }

    fn tell_available(&mut self) {
        if self.wants_open && self.unacknowledged_opens < ACK_BACKLOG {
            self.wants_open = false;
            self.available = true;
        }
    }

    fn forget_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(Stream::is_over) {
            self.forget(id);
        }
    }

    /// Removes a record and everything that names it.
    fn forget(&mut self, id: u32) {
        self.drop_outbox(id);
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        self.grown = self.grown.saturating_sub(stream.grown());
        stream.inbox.clear(&mut self.chunks);
        if stream.in_lane {
            self.lanes.remove(id);
        }
        if stream.in_control {
            self.control.streams.retain(|queued| *queued != id);
        }
        if stream.lingers {
            self.lingering.retain(|(_, queued)| *queued != id);
        }
        self.wanting.remove(&id);
        if stream.waiting {
            self.backlog.retain(|queued| *queued != id);
        } else if !self.is_ours(id) {
            self.accepted = self.accepted.saturating_sub(1);
            self.opened |= !self.backlog.is_empty();
        }
        if stream.unacknowledged {
            self.unacknowledged_opens = self.unacknowledged_opens.saturating_sub(1);
            self.tell_available();
        }
        if self.streams.is_empty() && self.away_by.is_some() {
            self.gone_away(0);
        }
    }
}
