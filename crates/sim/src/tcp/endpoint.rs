//! One end of a connection: its two halves, and how it comes and goes (RFC 9293 section 3).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::receiver::Receiver;
use super::segment::{Kind, Segment};
use super::sender::Sender;
use super::{Failure, Read};
use crate::net::HostId;

/// How long the system keeps an end that no app has any more: Linux's time.
const LINGER: Duration = Duration::from_secs(60);

/// One end.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: HostId,
    pub(crate) port: u16,
    pub(crate) remote: SocketAddr,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    /// This side began it.
    dials: bool,
    /// It was offered to the app that listens, or told to the one that dialled.
    pub(crate) told: bool,
    /// It waits to be accepted, or was.
    pub(crate) queued: bool,
    /// The app has let go of it.
    orphan: bool,
    failure: Option<Failure>,
    /// An answer is due though there is nothing else to say.
    answer: bool,
    reset: bool,
    linger: Option<Duration>,
    /// Its address is gone.
    pub(crate) stranded: bool,
    /// The app has found the socket full, and is to be told of room.
    pub(crate) wants_room: bool,
    /// The app was told that there is something to read, and has not yet found that there is not.
    pub(crate) told_readable: bool,
}

impl Endpoint {
    pub(crate) fn new(host: HostId, port: u16, remote: SocketAddr, dials: bool, receive_bytes: usize) -> Endpoint {
        Endpoint {
            host,
            port,
            remote,
            sender: Sender::new(),
            receiver: Receiver::new(receive_bytes),
            dials,
            told: false,
            queued: false,
            orphan: false,
            failure: None,
            answer: false,
            reset: false,
            linger: None,
            stranded: false,
            wants_room: false,
            told_readable: false,
        }
    }

    /// Takes a segment from the other end. Whether bytes of ours have left for good with it.
    pub(crate) fn handle(&mut self, now: Duration, segment: Segment) -> bool {
        if segment.kind == Kind::Reset {
            // Not one from the past; or it answers our SYN.
            if (self.receiver.has_begun() && segment.seq >= self.receiver.next())
                || (!self.receiver.has_begun() && segment.ack == Some(1))
            {
                self.fail(if self.dials && !self.sender.is_open() { Failure::Refused } else { Failure::Reset });
            }
            return false;
        }
        if self.failure.is_some() || segment.ack.is_some_and(|ack| !self.sender.knows(ack)) {
            return false;
        }
        if segment.kind == Kind::Syn {
            self.receiver.begin();
        } else if !self.receiver.has_begun() {
            return false;
        }
        let progress = match segment.ack {
            Some(ack) => self.sender.acknowledged(now, ack, segment.window, &segment.sacks),
            None => false,
        };
        self.answer |= segment.length() > 0 || segment.seq < self.receiver.next();
        if matches!(segment.kind, Kind::Data | Kind::Fin) && segment.length() > 0 {
            if self.orphan && !segment.payload.is_empty() {
                // Nobody will read it.
                self.reset = true;
                self.fail(Failure::Reset);
                return false;
            }
            self.receiver.take(segment.seq, segment.payload, segment.kind == Kind::Fin);
        }
        if self.orphan && self.sender.is_finished() {
            self.linger.get_or_insert(now + LINGER);
        }
        progress
    }

    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// All that is to be sent now.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Segment> {
        if std::mem::take(&mut self.reset) {
            return Some(self.segment(Kind::Reset, self.sender.next(), Bytes::new()));
        }
        if self.failure.is_some() {
            return None;
        }
        // The side that was dialled answers; it does not begin.
        if (self.dials || self.receiver.has_begun())
            && let Some(piece) = self.sender.poll(now)
        {
            return Some(self.segment(piece.kind, piece.seq, piece.payload));
        }
        (self.answer || self.receiver.has_room_to_tell()).then(|| self.segment(Kind::Data, self.sender.next(), Bytes::new()))
    }

    fn segment(&mut self, kind: Kind, seq: u64, payload: Bytes) -> Segment {
        self.answer = false;
        let ack = self.receiver.has_begun().then(|| self.receiver.next());
        let sacks = self.receiver.ranges();
        Segment { kind, seq, ack, window: self.receiver.window(), sacks, payload }
    }

    pub(crate) fn timer(&self) -> Option<Duration> {
        let sending = self.sender.timer().filter(|_| self.failure.is_none());
        [sending, self.linger].into_iter().flatten().min()
    }

    /// A timer is due. What is to be sent at once, beside what [`poll`](Self::poll) gives.
    pub(crate) fn timed_out(&mut self, now: Duration) -> Option<Segment> {
        if self.sender.timer().is_none_or(|at| at > now) || self.failure.is_some() {
            return None;
        }
        match self.sender.timed_out(now) {
            Err(()) => {
                self.fail(Failure::TimedOut);
                None
            }
            // A number from the past has the other side say where it is.
            Ok(true) => Some(self.segment(Kind::Data, self.sender.next().saturating_sub(1), Bytes::new())),
            Ok(false) => None,
        }
    }

    /// Whether both ends know of each other.
    pub(crate) fn is_open(&self) -> bool {
        self.failure.is_none() && self.sender.is_open() && self.receiver.has_begun()
    }

    /// Whether nothing of it is left to do.
    pub(crate) fn is_gone(&self, now: Duration) -> bool {
        let nobodys = self.orphan || !self.is_known();
        nobodys && !self.reset && (self.failure.is_some() || self.linger.is_some_and(|at| at <= now))
    }

    pub(crate) fn dials(&self) -> bool {
        self.dials
    }

    /// Whether the app knows of it: it dialled, or has accepted it.
    pub(crate) fn is_known(&self) -> bool {
        self.dials || self.told
    }

    pub(crate) fn is_orphan(&self) -> bool {
        self.orphan
    }

    /// Whether reading would give something: bytes, the end, or why there is none.
    pub(crate) fn is_readable(&self) -> bool {
        self.receiver.unread() > 0 || self.receiver.has_ended() || self.failure.is_some()
    }

    pub(crate) fn read(&mut self, max: usize) -> Read {
        if let Some(bytes) = self.receiver.read(max) {
            return Read::Bytes(bytes);
        }
        if self.receiver.is_at_end() {
            return Read::End;
        }
        match self.failure {
            Some(failure) => Read::Failed(failure),
            None => Read::Nothing,
        }
    }

    /// The app lets go: what it wrote leaves in order, unless something came that it has not read.
    pub(crate) fn close(&mut self) {
        self.orphan = true;
        if self.receiver.unread() > 0 && self.failure.is_none() {
            return self.abort();
        }
        self.sender.finish();
        if !self.receiver.has_begun() {
            self.fail(Failure::Reset);
        }
    }

    /// The app lets go at once: what waits is lost, and the other side is told so.
    pub(crate) fn abort(&mut self) {
        self.orphan = true;
        self.reset = self.failure.is_none() && self.receiver.has_begun();
        self.fail(Failure::Reset);
    }
}
