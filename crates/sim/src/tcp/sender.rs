//! The sending half: what waits, what is on its way, and when it is sent again.
//!
//! Congestion control as in RFC 5681, but that a loss leaves 0.7 of the window as in RFC 9438; losses are found by selective acknowledgements
//! and the order of sending (RFC 8985), timeouts are as in RFC 6298.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::segment::Kind;

/// Payload of a segment at most: Ethernet, IPv4, TCP with timestamps.
pub(crate) const SEGMENT_BYTES: usize = 1448;
/// Segments of the first flight (RFC 6928).
const FIRST_FLIGHT: u64 = 10;
/// A segment counts as lost when one that was sent so many later has come.
const REORDERED_MAX: u64 = 3;
const TIMEOUT_FIRST: Duration = Duration::from_secs(1);
const TIMEOUT_MIN: Duration = Duration::from_millis(200);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// How long a connection without an acknowledgement is kept: Linux's 15 repetitions.
const GIVE_UP: Duration = Duration::from_secs(924);
/// The same for its first segment: Linux's 6 repetitions.
const GIVE_UP_CONNECTING: Duration = Duration::from_secs(127);

/// What was sent and is not acknowledged.
#[derive(Debug)]
struct Sent {
    seq: u64,
    kind: Kind,
    payload: Bytes,
    at: Duration,
    /// Its number among all transmissions.
    order: u64,
    again: bool,
    selected: bool,
    lost: bool,
}

impl Sent {
    fn length(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.kind != Kind::Data)
    }

    fn flies(&self) -> bool {
        !self.selected && !self.lost
    }
}

/// A piece to be sent.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) seq: u64,
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

/// The sending half of a connection.
#[derive(Debug)]
pub(crate) struct Sender {
    sent: VecDeque<Sent>,
    unsent: BytesMut,
    /// The next control segment: the SYN at first, the FIN when the app has ended.
    control: Option<Kind>,
    ended: bool,
    next: u64,
    acked: u64,
    /// The peer takes bytes up to here.
    edge: u64,
    window: u64,
    threshold: u64,
    /// Until this is acknowledged a loss is the same event.
    recovers_until: u64,
    orders: u64,
    rtt: Option<(Duration, Duration)>,
    backoff: u32,
    timer: Option<Duration>,
    /// Since when nothing was heard though something was to be.
    waits_since: Option<Duration>,
}

impl Sender {
    pub(crate) fn new() -> Sender {
        Sender {
            sent: VecDeque::new(),
            unsent: BytesMut::new(),
            control: Some(Kind::Syn),
            ended: false,
            next: 0,
            acked: 0,
            edge: 1,
            window: FIRST_FLIGHT * SEGMENT_BYTES as u64,
            threshold: u64::MAX,
            recovers_until: 0,
            orders: 0,
            rtt: None,
            backoff: 0,
            timer: None,
            waits_since: None,
        }
    }

    /// Keeps what there is room for, and says how much that was.
    pub(crate) fn write(&mut self, bytes: &[u8], unsent_max: usize, queued_max: usize) -> usize {
        if self.ended {
            return 0;
        }
        let room = unsent_max.saturating_sub(self.unsent.len()).min(queued_max.saturating_sub(self.queued()));
        let taken = room.min(bytes.len());
        self.unsent.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// The app writes nothing more.
    pub(crate) fn finish(&mut self) {
        if !self.ended {
            self.ended = true;
            // Behind a SYN that is not sent yet there is nothing to end.
            if self.control.is_none() {
                self.control = Some(Kind::Fin);
            }
        }
    }

    /// Bytes that were not sent even once.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Bytes that are kept: unsent, or not acknowledged.
    pub(crate) fn queued(&self) -> usize {
        self.unsent.len() + self.sent.iter().map(|sent| sent.payload.len()).sum::<usize>()
    }

    /// Whether the other side has everything, our end of it too.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended && self.control.is_none() && self.unsent.is_empty() && self.sent.is_empty()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.acked > 0
    }

    /// Whether an acknowledgement can be right.
    pub(crate) fn knows(&self, ack: u64) -> bool {
        ack <= self.next
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes an acknowledgement, and says whether bytes have left for good.
    pub(crate) fn acknowledged(&mut self, now: Duration, ack: u64, window: u64, sacks: &[(u64, u64)]) -> bool {
        let edge = ack.saturating_add(window);
        if edge > self.edge && self.sent.is_empty() {
            // What ran was the wait for this.
            (self.timer, self.backoff) = (None, 0);
        }
        self.edge = self.edge.max(edge);
        self.waits_since = None;
        let (mut bytes, mut newest) = (0, 0);
        while let Some(first) = self.sent.front()
            && first.seq + first.length() <= ack
        {
            bytes += if first.selected { 0 } else { first.length() };
            newest = newest.max(first.order);
            if !first.again {
                self.measured(now.saturating_sub(first.at));
            }
            self.sent.pop_front();
        }
        let progress = ack > self.acked;
        self.acked = self.acked.max(ack);
        for sent in &mut self.sent {
            let selected = sacks.iter().any(|(from, to)| *from <= sent.seq && sent.seq + sent.length() <= *to);
            if selected && !sent.selected {
                sent.selected = true;
                sent.lost = false;
                bytes += sent.length();
                newest = newest.max(sent.order);
            }
        }
        self.find_losses(newest);
        if bytes > 0 {
            self.backoff = 0;
            self.grow(bytes);
            self.timer = self.sent.iter().any(|sent| !sent.selected).then(|| now + self.timeout());
        }
        progress
    }

    fn find_losses(&mut self, newest: u64) {
        let flying = self.flying();
        let mut any = false;
        for sent in &mut self.sent {
            if sent.flies() && sent.order + REORDERED_MAX <= newest {
                sent.lost = true;
                any = true;
            }
        }
        if any && self.acked >= self.recovers_until {
            self.threshold = (flying * 7 / 10).max(2 * SEGMENT_BYTES as u64);
            self.window = self.threshold;
            self.recovers_until = self.next;
        }
    }

    fn grow(&mut self, bytes: u64) {
        if self.acked < self.recovers_until {
            return;
        }
        let step = if self.window < self.threshold { bytes } else { (SEGMENT_BYTES as u64 * bytes / self.window).max(1) };
        // Not beyond what is made use of.
        if self.flying() + bytes + step >= self.window / 2 {
            self.window += step;
        }
    }

    fn measured(&mut self, sample: Duration) {
        self.rtt = Some(match self.rtt {
            None => (sample, sample / 2),
            Some((smooth, vary)) => ((smooth * 7 + sample) / 8, (vary * 3 + smooth.abs_diff(sample)) / 4),
        });
    }

    fn timeout(&self) -> Duration {
        let first = self.rtt.map_or(TIMEOUT_FIRST, |(smooth, vary)| smooth + (vary * 4).max(TIMEOUT_MIN / 2));
        (first.max(TIMEOUT_MIN) * (1 << self.backoff.min(10))).min(TIMEOUT_MAX)
    }

    fn flying(&self) -> u64 {
        self.sent.iter().filter(|sent| sent.flies()).map(Sent::length).sum()
    }

    /// The next piece that may be sent now.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Piece> {
        let flying = self.flying();
        if flying > 0 && flying + SEGMENT_BYTES as u64 > self.window {
            return None;
        }
        let piece = match self.again(now) {
            Some(piece) => piece,
            None => self.first_time(now)?,
        };
        self.timer.get_or_insert(now + self.timeout());
        self.waits_since.get_or_insert(now);
        Some(piece)
    }

    fn again(&mut self, now: Duration) -> Option<Piece> {
        let sent = self.sent.iter_mut().find(|sent| sent.lost)?;
        self.orders += 1;
        (sent.lost, sent.again, sent.order, sent.at) = (false, true, self.orders, now);
        Some(Piece { seq: sent.seq, kind: sent.kind, payload: sent.payload.clone() })
    }

    fn first_time(&mut self, now: Duration) -> Option<Piece> {
        let (kind, payload) = match self.control {
            Some(Kind::Syn) => (Kind::Syn, Bytes::new()),
            // Nothing before the other side has answered.
            _ if self.acked == 0 => return None,
            _ if !self.unsent.is_empty() => {
                let room = usize::try_from(self.edge.saturating_sub(self.next)).unwrap_or(usize::MAX);
                let length = self.unsent.len().min(SEGMENT_BYTES).min(room);
                if length == 0 {
                    // A window that opens may be lost on its way: the timer asks for it.
                    self.timer.get_or_insert(now + self.timeout());
                    self.waits_since.get_or_insert(now);
                    return None;
                }
                (Kind::Data, self.unsent.split_to(length).freeze())
            }
            Some(kind) => (kind, Bytes::new()),
            None => return None,
        };
        if kind != Kind::Data {
            self.control = (kind == Kind::Syn && self.ended).then_some(Kind::Fin);
        }
        self.orders += 1;
        let sent = Sent {
            seq: self.next,
            kind,
            payload: payload.clone(),
            at: now,
            order: self.orders,
            again: false,
            selected: false,
            lost: false,
        };
        let seq = self.next;
        self.next += sent.length();
        self.sent.push_back(sent);
        Some(Piece { seq, kind, payload })
    }

    pub(crate) fn timer(&self) -> Option<Duration> {
        self.timer
    }

    /// The timer is due. `Err`: the other side was silent for too long. `Ok(true)`: ask it for a sign of life.
    pub(crate) fn timed_out(&mut self, now: Duration) -> Result<bool, ()> {
        let patience = if self.is_open() { GIVE_UP } else { GIVE_UP_CONNECTING };
        if self.waits_since.is_some_and(|since| now.saturating_sub(since) >= patience) {
            return Err(());
        }
        self.backoff += 1;
        self.timer = None;
        let mut any = false;
        for sent in &mut self.sent {
            any |= !sent.selected;
            sent.lost = !sent.selected;
        }
        if any {
            self.threshold = (self.window * 7 / 10).max(2 * SEGMENT_BYTES as u64);
            self.window = SEGMENT_BYTES as u64;
            self.recovers_until = self.next;
            return Ok(false);
        }
        if !self.unsent.is_empty() {
            self.timer = Some(now + self.timeout());
            return Ok(true);
        }
        self.waits_since = None;
        Ok(false)
    }
}
