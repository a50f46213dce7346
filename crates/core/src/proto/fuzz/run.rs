//! One machine, driven by a script, and what any machine promises at each step.
//!
//! A script is bytes. The low half of each says what happens, most take the byte behind it as a number:
//!
//! | low half | what happens |
//! |---|---|
//! | 0, 1 | so many bytes of the script come |
//! | 2 | one of the protocol's own messages comes: by chance the right one |
//! | 3 | a message of so many times 16 bytes comes, with its length |
//! | 4 | so many times 64 bytes come, without |
//! | 5 | the peer ends its direction |
//! | 6 | the peer resets it, with the high half as code |
//! | 7 | the peer refuses our bytes, with the high half as code |
//! | 8 | time passes: the number's square in milliseconds, up to 65 s |
//! | 9 | there is room for so many times 16 bytes more |
//! | 10 | others take all memory but so many times 64 bytes; at 0 they give it back |
//! | 11 | the connection's other streams move so many times 256 bytes |
//! | 12, 13 | the application does something |
//! | 14 | what comes from here on comes in pieces of that size |
//! | 15 | nothing |

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use strait_wire::framing;

use crate::budget::{Account, Grant, Ledger};
use crate::limits::Limits;
use crate::proto::pace::deadline;
use crate::stream::memory::Pipe;
use crate::stream::{Around, Input, IoState, Next, Output, StreamIo, StreamMachine};
use crate::topic::Feeds;

/// All that one stream may be granted.
const BUDGET: u64 = 1 << 20;
/// A machine that is told everything that it waits for is through after so many drives.
const ENDGAME_MAX: usize = 64;
/// What is gathered of a header once more when it is kept, and small pieces of a message that have grown by doubling.
const COPIES: u64 = 2;
/// What of the content of buffers may be lost when a stream is reset, after it was copied.
const LOST: u64 = 4 << 10;
/// A message's small pieces lie in a buffer that may be twice as large.
const TAIL: u64 = 2 << 10;

/// A machine with what its tests need to know and do.
pub(super) trait Subject: StreamMachine + Sized {
    /// Bytes that it keeps of what has come; it has to have reserved them.
    fn kept(&self) -> u64 {
        0
    }

    /// The application does something.
    fn act(_run: &mut Run<Self>, _which: u8) {}

    /// The application wants it to end.
    fn leave(run: &mut Run<Self>) {
        run.state.input = Some(Input::Reject(3));
    }
}

/// One machine on one pipe.
pub(super) struct Run<M> {
    pub(super) machine: M,
    pub(super) pipe: Pipe,
    pub(super) state: IoState,
    pub(super) now: Instant,
    pub(super) feeds: Feeds,
    pub(super) said: Vec<Output>,
    pub(super) next: Next,
    /// All that has come, and what the application has read and written of its own accord.
    pub(super) came: Vec<u8>,
    pub(super) read: Vec<u8>,
    pub(super) wrote: Vec<u8>,
    limits: Limits,
    connection: (u64, u64),
    account: Arc<Account>,
    hoard: Option<Grant>,
    phrases: Vec<Vec<u8>>,
    piece: usize,
    /// Where what was said in the last drive begins.
    last: usize,
    drives: usize,
    chunks: usize,
    /// Nothing has happened but that bytes, and their end, have come.
    plain: bool,
}

impl<M: Subject> Run<M> {
    /// A stream that was just opened. `None` never comes about: the ledger has room.
    pub(super) fn new(machine: M, now: Instant, phrases: Vec<Vec<u8>>) -> Option<Run<M>> {
        let account = Ledger::new(BUDGET).open(0, BUDGET)?;
        let grant = account.grant(Limits::streams_cost(1))?;
        Some(Run {
            machine,
            pipe: Pipe { room: usize::MAX, ..Pipe::default() },
            state: IoState::new(grant),
            now,
            feeds: Feeds::default(),
            said: Vec::new(),
            next: Next::PEER,
            came: Vec::new(),
            read: Vec::new(),
            wrote: Vec::new(),
            limits: Limits::default(),
            connection: (0, 0),
            account,
            hoard: None,
            phrases,
            piece: usize::MAX,
            last: 0,
            drives: 0,
            chunks: 0,
            plain: true,
        })
    }

    /// What the application sees of the stream.
    pub(super) fn io<T>(&mut self, act: impl FnOnce(&mut StreamIo<'_>) -> T) -> T {
        let (connection_in, connection_out) = self.connection;
        let around = Around { now: self.now, limits: &self.limits, connection_in, connection_out };
        let mut io = StreamIo::new(around, &mut self.pipe, &mut self.state, &mut self.said);
        let result = act(&mut io);
        io.flush();
        result
    }

    /// Runs a script, and then everything that the machine waits for comes about: it has to end. Whatever happened on the way, what it said is
    /// left for its judge.
    pub(super) fn play(&mut self, script: &[u8]) {
        let mut bytes = script.iter().copied();
        if bytes.next().unwrap_or(0) & 1 != 0 {
            (self.pipe.room, self.plain) = (0, false);
        }
        self.drive();
        while self.next != Next::Done {
            let Some(what) = bytes.next() else {
                break;
            };
            self.happens(what, &mut bytes);
            self.drive();
        }
    }

    fn happens(&mut self, what: u8, bytes: &mut impl Iterator<Item = u8>) {
        let code = u64::from(what >> 4);
        self.plain &= !(6..14).contains(&(what & 15));
        match what & 15 {
            5 => self.pipe.incoming_finished = true,
            6 => self.pipe.incoming_reset = Some(code),
            7 => self.refuse(code),
            15 => {}
            what => {
                let number = bytes.next().unwrap_or(0);
                self.happens_so(what, number, bytes);
            }
        }
    }

    fn happens_so(&mut self, what: u8, number: u8, bytes: &mut impl Iterator<Item = u8>) {
        let wide = usize::from(number);
        match what {
            0 | 1 => {
                let come: Vec<u8> = bytes.take(wide).collect();
                self.come(&come);
            }
            2 => {
                let phrase = wide.checked_rem(self.phrases.len()).and_then(|at| self.phrases.get(at)).cloned();
                self.come(&phrase.unwrap_or_default());
            }
            3 => {
                let mut message = Vec::new();
                let len = wide.saturating_mul(16);
                framing::put_header(len, &mut message);
                message.resize(message.len().saturating_add(len), number);
                self.come(&message);
            }
            4 => self.come(&vec![number; wide.saturating_mul(64)]),
            8 => {
                let passed = Duration::from_millis(u64::from(number).saturating_mul(number.into()));
                self.now = deadline(self.now, passed);
            }
            9 => self.pipe.room = self.pipe.room.saturating_add(wide.saturating_mul(16)),
            10 => {
                self.hoard = None;
                let left = BUDGET.saturating_sub(self.account.granted());
                let take = left.saturating_sub(u64::from(number).saturating_mul(64));
                self.hoard = Some(take).filter(|_| number > 0).and_then(|take| self.account.grant(take));
            }
            11 => {
                let moved = u64::from(number).saturating_mul(256);
                self.connection = (self.connection.0.saturating_add(moved), self.connection.1.saturating_add(moved));
            }
            14 => self.piece = wide.max(1),
            _ => M::act(self, number),
        }
    }

    /// Bytes come, unless the peer has ended its direction: the transport sees to that.
    fn come(&mut self, bytes: &[u8]) {
        if self.pipe.incoming_finished || self.pipe.incoming_reset.is_some() {
            return;
        }
        self.came.extend_from_slice(bytes);
        self.connection.0 = self.connection.0.saturating_add(bytes.len() as u64);
        for piece in bytes.chunks(self.piece) {
            self.chunks = self.chunks.saturating_add(1);
            self.pipe.incoming.push_back(Bytes::copy_from_slice(piece));
        }
    }

    fn refuse(&mut self, code: u64) {
        self.pipe.refused = Some(code);
        self.state.peer_stopped.get_or_insert(code);
    }

    /// Drives it, and once more: when nothing has changed it has nothing to do, or it would wait for a word that never comes. Who waits for room may gather a
    /// small write only then, if the transport had taken a part of what was before it: that word comes.
    fn drive(&mut self) {
        self.last = self.said.len();
        self.next = self.drive_once();
        let more = self.just_said().any(|output| matches!(output, Output::More));
        if self.next != Next::Done && !more {
            let (for_room, held) = (matches!(self.next, Next::Wait(waits) if waits.room), self.state.held());
            let seen = (self.next == Next::Done, self.told(), self.pipe.outgoing.len(), self.state.moved.bytes_in);
            self.next = self.drive_once();
            let again = (self.next == Next::Done, self.told(), self.pipe.outgoing.len(), self.state.moved.bytes_in);
            let gathered = for_room && self.state.held() > held;
            assert!(gathered || seen == again, "nothing had changed, and it went on from {seen:?} to {again:?}: {:?}", self.said);
        }
        self.check();
    }

    fn drive_once(&mut self) -> Next {
        self.drives = self.drives.saturating_add(1);
        if self.pipe.is_readable() {
            self.state.stirred();
        }
        let (connection_in, connection_out) = self.connection;
        let around = Around { now: self.now, limits: &self.limits, connection_in, connection_out };
        let mut io = StreamIo::new(around, &mut self.pipe, &mut self.state, &mut self.said).with_feeds(&mut self.feeds);
        let next = self.machine.drive(&mut io);
        io.flush();
        if next == Next::Done {
            self.state.seal(&mut self.pipe);
        }
        next
    }

    /// What it has said when it was driven last.
    pub(super) fn just_said(&self) -> impl Iterator<Item = &Output> {
        self.said.iter().skip(self.last)
    }

    /// How much it has said that is more than a sign of life.
    fn told(&self) -> usize {
        self.said.iter().filter(|output| !matches!(output, Output::Watching(_) | Output::More)).count()
    }

    fn finals(&self) -> usize {
        let step = |output: &&Output| {
            use Output as O;
            !matches!(output, O::Arrived(_) | O::Confirmed | O::Subscribed(_) | O::Refused | O::Watching(_) | O::More | O::Rests)
        };
        // What is before it was no end.
        let rests = self.said.iter().filter(|output| matches!(output, Output::Rests)).count();
        self.said.iter().filter(step).count().saturating_sub(rests)
    }

    fn check(&self) {
        let moved = self.state.moved;
        let base = Limits::streams_cost(1);
        assert!(self.state.held() <= base, "{} bytes are staged, {base} are granted", self.state.held());
        let reserved = self.state.grant.bytes().saturating_sub(base);
        assert!(self.machine.kept() <= reserved.saturating_add(TAIL), "{} bytes kept of {reserved}", self.machine.kept());
        assert!(self.account.granted() <= BUDGET);
        assert!(moved.bytes_in <= self.came.len() as u64, "more was read than has come");
        assert_eq!(moved.bytes_out, self.pipe.outgoing.len() as u64);
        let copied = COPIES.saturating_mul(self.came.len() as u64).saturating_add(moved.bytes_out).saturating_add(LOST);
        assert!(moved.copied <= copied, "{} bytes were copied, of {copied}", moved.copied);
        // A chunk may be taken in parts: a header, what is behind it, and no more than one look for each part.
        let looks =
            self.drives.saturating_mul(8).saturating_add(self.chunks.saturating_mul(2)).saturating_add(self.came.len() / 512);
        assert!(self.pipe.reads <= looks, "{} reads for {} chunks in {} drives", self.pipe.reads, self.chunks, self.drives);
        match self.next {
            Next::Done => {
                assert_eq!(self.finals(), 1, "{:?}", self.said);
                assert!(self.pipe.finished || self.pipe.reset.is_some(), "its own direction is open");
                let heard = self.pipe.incoming_finished || self.pipe.incoming_reset.is_some() || self.pipe.stopped.is_some();
                assert!(heard, "the peer's direction is open");
            }
            Next::Wait(waits) => {
                assert_eq!(self.finals(), 0, "it waits after its outcome: {:?}", self.said);
                let theirs = (waits.peer || waits.room) && !waits.open_ended && !waits.app && !waits.memory;
                assert!(!theirs || self.state.deadline.is_some(), "it waits for ever: {waits:?}");
                // A deadline in the past would be a loop.
                assert!(self.state.deadline.is_none_or(|(at, _)| at > self.now), "{:?}", self.state.deadline);
            }
        }
    }

    /// All that it waits for comes about, one after the other.
    fn end(&mut self) {
        for _ in 0..ENDGAME_MAX {
            let Next::Wait(waits) = self.next else {
                return;
            };
            if waits.room && self.pipe.room < usize::MAX {
                self.pipe.room = usize::MAX;
            } else if waits.memory && self.hoard.is_some() {
                self.hoard = None;
            } else if waits.app && self.pipe.incoming_reset.is_none() {
                M::leave(self);
                self.pipe.incoming_reset = Some(0);
            } else if let Some((at, _)) = self.state.deadline {
                self.now = at;
            } else {
                self.pipe.incoming_reset = Some(0);
                self.refuse(0);
            }
            self.drive();
        }
        assert_eq!(self.next, Next::Done, "it never ends: {:?}", self.state.deadline);
    }

    /// What it has come to, however the bytes were cut.
    fn summary(&self) -> String {
        let mut words = String::new();
        for output in &self.said {
            match output {
                Output::Watching(_) | Output::More => {}
                Output::Arrived(message) => words.push_str(&format!("arrived {:?}; ", whole(message))),
                Output::Reply(Ok(message)) => words.push_str(&format!("reply {:?}; ", whole(message))),
                output => words.push_str(&format!("{output:?}; ")),
            }
        }
        words
    }
}

/// A message's bytes in one piece.
pub(super) fn whole(message: &crate::message::Message) -> Vec<u8> {
    message.chunks().flatten().copied().collect()
}

/// Plays a script with a machine of `make`, has `judge` look at what came of it before and after its end, and sees to it that it does not matter how bytes
/// are cut.
pub(super) fn play<M: Subject>(script: &[u8], make: impl Fn() -> Option<Run<M>>, judge: impl Fn(&Run<M>)) {
    let Some(mut run) = make() else {
        return;
    };
    run.play(script);
    judge(&run);
    if run.plain
        && run.came.len() <= 1024
        && let Some(mut other) = make()
    {
        other.drive();
        for byte in &run.came {
            if other.next == Next::Done {
                break;
            }
            other.come(&[*byte]);
            other.drive();
        }
        if run.pipe.incoming_finished && other.next != Next::Done {
            other.pipe.incoming_finished = true;
            other.drive();
        }
        assert_eq!(run.summary(), other.summary(), "it matters how {} bytes are cut", run.came.len());
        // A reset takes back what has not left yet.
        let took_back = run.pipe.reset.is_some() || other.pipe.reset.is_some();
        assert!(took_back || run.pipe.outgoing == other.pipe.outgoing, "it matters for what is said how bytes are cut");
    }
    run.end();
    judge(&run);
}
