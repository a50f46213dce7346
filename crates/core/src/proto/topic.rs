//! `/strait/topic/1` (`docs/specs/topics.md`), the publisher's side: tells one subscriber what has changed, as fast as it takes that.
//!
//! Nothing is queued for a subscriber. What it is to be told next is asked of the topic ([`crate::topic`]) when there is room for it: within
//! the credit that it has given, so that not even the transport holds much that is old; within the transport's own windows; and not
//! more often than it has asked for.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use strait_wire::framing;
use strait_wire::topic::{ASK_BYTES_MAX, Ask, Mode, PREFIX_BYTES_MAX, Refusal, Resume, Tell};

use crate::error::{Breach, ConfigError, StreamError};
use crate::limits::{Limits, PIN_BYTES};
use crate::proto::pace::{Direction, Pace, deadline};
use crate::stream::{Next, Output, StreamIo, StreamMachine, Waits};
use crate::topic::{Bounds, Position, Step, TopicId};
use crate::wake::Why;

/// The protocol's name.
pub const NAME: &str = "/strait/topic/1";
/// Subscriptions of one peer at once; one more is refused, since those that there are may never end.
pub const PER_PEER_MAX: u16 = 128;
/// The rarest that a subscriber may ask to be told (TP-22). Who asks for less gets this.
pub const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
/// The code with which a stream is reset when its subscription cannot be taken further.
pub const CODE_BREACH: u32 = 1;

/// So many keys are looked at in one drive, and so many bytes are handed over; then others have their turn.
const LOOKS_PER_DRIVE: u32 = 64;
const BYTES_PER_DRIVE: u64 = 16 << 10;

/// Whether a topic with these numbers can be told to anybody under these limits.
pub(crate) fn check_topic(name: &str, bounds: &Bounds, limits: &Limits) -> Result<(), ConfigError> {
    let refuse = |why: String| Err(ConfigError::Topic { name: name.to_owned(), why });
    if bounds.keys_max == 0 {
        return refuse("keys_max has to be above zero".to_owned());
    }
    let (room, value) = (limits.message_room(), bounds.value_bytes_max as u64);
    let needed = value.saturating_add(bounds.key_bytes_max as u64).saturating_add(Limits::streams_cost(1));
    if needed > room {
        return refuse(format!(
            "a key and a value take {needed} bytes at most, and a connection has {room} beside its windows; split the values, or raise \
             connection_bytes_max to {}",
            limits.room_for(needed)
        ));
    }
    Ok(())
}

/// Tells one subscriber. Its steps are [`Output::Subscribed`], [`Output::Refused`], [`Output::Watching`] and [`Output::More`], its outcome [`Output::Failed`] or
/// [`Output::Quiet`].
#[derive(Debug)]
pub(crate) struct Teller {
    state: State,
    /// Stretches a subscriber's interval by up to an eighth, so that those who have begun together do not stay together.
    stretch: u8,
    pace: Pace,
    /// When the first frame, or the refusal, has to be through.
    until: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Asked,
    Telling(Box<Telling>),
    /// This is the last frame.
    Refusing(Bytes),
}

#[derive(Debug)]
struct Telling {
    topic: TopicId,
    position: Position,
    /// What of the current frame has not left.
    frame: Bytes,
    /// Bytes of frames begun, and how many may be.
    sent: u64,
    credit: u64,
    interval: Duration,
    /// When it may be told again.
    again: Option<Instant>,
    /// When the first was told of what it is being told now.
    began: Option<Instant>,
    /// What large values need beside the stream, reserved before the first of them.
    reserve: u64,
}

/// Why a drive ends.
enum Pause {
    Wait(Waits),
    /// The topic is not published any more (TP-41).
    Over,
}

const PEER: Waits = Waits { peer: true, room: false, app: false, memory: false, open_ended: true };

impl Teller {
    pub(crate) fn new(stretch: u8) -> Teller {
        Teller { state: State::Asked, stretch, pace: Pace::new(Direction::In), until: None }
    }

    /// For a peer that has as many subscriptions as it may.
    pub(crate) fn full() -> Teller {
        let frame = Tell::Refused(Refusal::TooMany).frame();
        Teller { state: State::Refusing(frame), stretch: 0, pace: Pace::new(Direction::Out), until: None }
    }

    fn fail(io: &mut StreamIo<'_>, breach: Breach) -> Next {
        io.reset(CODE_BREACH);
        io.stop(CODE_BREACH);
        io.output(Output::Failed(StreamError::Broken(breach)));
        Next::Done
    }

    /// Whether what is under way may still take its time (TP-12): each stream alone has to move, and all of them together must not do for one.
    fn goes_on(&mut self, io: &mut StreamIo<'_>) -> bool {
        let within = io.limits().negotiation_deadline;
        let until = *self.until.get_or_insert(deadline(io.now(), within));
        io.wake_at(until, Why::Total);
        self.pace.check(io) && io.now() < until
    }

    /// The first frame (TP-10).
    fn listen(&mut self, io: &mut StreamIo<'_>) -> Result<(), Next> {
        let Some((used, body)) = read(io).map_err(|breach| Teller::fail(io, breach))? else {
            if let Some(code) = io.peer_reset() {
                return Err(Teller::fail(io, Breach::Reset(code)));
            }
            if io.no_more() {
                return Err(Teller::fail(io, Breach::Cut));
            }
            return Err(if self.goes_on(io) { Next::PEER } else { Teller::fail(io, Breach::Slow) });
        };
        let Ok(Ask::Subscribe { mode, interval_ms, credit, resume, name, prefix }) = Ask::decode(&body) else {
            return Err(Teller::fail(io, Breach::Malformed("a subscription")));
        };
        debug_assert!(prefix.len() <= PREFIX_BYTES_MAX);
        io.consume(used);
        let interval = Duration::from_millis(interval_ms).min(INTERVAL_MAX);
        let stretched =
            interval.saturating_add(interval.saturating_mul(self.stretch.into()).checked_div(8 * 256).unwrap_or_default());
        let asked = Asked { mode, name, prefix: Bytes::copy_from_slice(prefix), resume, credit, interval: stretched };
        self.state = match asked.begin(io) {
            Ok(telling) => {
                io.output(Output::Subscribed(telling.topic));
                State::Telling(telling)
            }
            Err(refusal) => {
                io.output(Output::Refused);
                (self.pace, self.until) = (Pace::new(Direction::Out), None);
                State::Refusing(Tell::Refused(refusal).frame())
            }
        };
        Ok(())
    }
}

/// A subscription that was asked for.
struct Asked<'a> {
    mode: Mode,
    name: &'a str,
    prefix: Bytes,
    resume: Option<Resume>,
    credit: u64,
    interval: Duration,
}

impl Asked<'_> {
    /// Takes it, where it was if it comes back (TP-11).
    fn begin(self, io: &mut StreamIo<'_>) -> Result<Box<Telling>, Refusal> {
        let feeds = io.feeds().ok_or(Refusal::Unknown)?;
        let topic = feeds.find(self.name).ok_or(Refusal::Unknown)?;
        let feed = feeds.get(topic).ok_or(Refusal::Unknown)?;
        if feed.mode() != self.mode {
            return Err(Refusal::OtherMode);
        }
        let (bounds, position) = (feed.bounds(), feed.subscribe(self.prefix, self.resume));
        let frame = Tell::Hello {
            mode: self.mode,
            epoch: feed.epoch(),
            start: position.start(),
            keys_max: bounds.keys_max as u64,
            key_bytes_max: bounds.key_bytes_max as u64,
            value_bytes_max: bounds.value_bytes_max as u64,
        }
        .frame();
        let largest = (bounds.value_bytes_max as u64).saturating_add(bounds.key_bytes_max as u64);
        let sent = frame.len() as u64;
        // The transport keeps a large frame whole until its last byte is acknowledged, when its window is long free again.
        let reserve = if largest > PIN_BYTES as u64 { largest } else { 0 };
        let (credit, interval) = (self.credit, self.interval);
        Ok(Box::new(Telling { topic, position, frame, sent, credit, interval, again: None, began: None, reserve }))
    }
}

/// The next frame of a subscriber, once it is there whole: how many bytes it takes, and its body.
fn read(io: &mut StreamIo<'_>) -> Result<Option<(usize, Bytes)>, Breach> {
    // Most frames are a few bytes long: what is there of them is looked at first.
    let Some((header, len)) =
        framing::frame_len(io.peek(strait_wire::varint::BYTES_MAX), ASK_BYTES_MAX).map_err(|error| match error {
            framing::FrameError::TooLong { announced, max } => Breach::TooLarge { len: announced, max: max as u64 },
            framing::FrameError::Length(_) => Breach::Malformed("the length of a frame"),
        })?
    else {
        return Ok(None);
    };
    let used = header.saturating_add(len);
    let Ok(Some(whole)) = io.need(used) else {
        return Ok(None);
    };
    Ok(Some((used, Bytes::copy_from_slice(whole.get(header..).unwrap_or_default()))))
}

impl Telling {
    /// Takes more credit, and nothing else (TP-14). False: the subscriber has finished (TP-40).
    fn hear(&mut self, io: &mut StreamIo<'_>) -> Result<bool, Breach> {
        loop {
            let Some((used, body)) = read(io)? else {
                break;
            };
            let Ok(Ask::Credit { total }) = Ask::decode(&body) else {
                return Err(Breach::Malformed("credit"));
            };
            io.consume(used);
            // Credit never shrinks (TP-31): what is lower is old news.
            self.credit = self.credit.max(total);
        }
        if let Some(code) = io.peer_reset().or(io.peer_stopped()) {
            return Err(Breach::Reset(code));
        }
        Ok(!io.no_more())
    }

    /// Hands over what is left of the current frame. True when all of it is gone.
    fn give(&mut self, io: &mut StreamIo<'_>) -> bool {
        if self.frame.len() <= io.room() {
            let taken = io.write(&self.frame);
            self.frame.advance(taken);
        }
        while !self.frame.is_empty() {
            if io.give(&mut self.frame) == 0 {
                return false;
            }
        }
        self.frame = Bytes::new();
        true
    }

    /// Tells as much as may be told now.
    fn tell(&mut self, io: &mut StreamIo<'_>) -> Pause {
        if self.reserve > 0 && !io.reserve(self.reserve) {
            return Pause::Wait(Waits { memory: true, ..PEER });
        }
        let (mut looks, until) = (LOOKS_PER_DRIVE, self.sent.saturating_add(BYTES_PER_DRIVE));
        loop {
            if !self.give(io) {
                return Pause::Wait(Waits { room: true, ..PEER });
            }
            // TP-30
            if self.sent >= self.credit {
                return Pause::Wait(PEER);
            }
            if let Some(again) = self.again {
                if io.now() < again {
                    io.wake_at(again, Why::Rate);
                    return Pause::Wait(PEER);
                }
                self.again = None;
            }
            if self.sent >= until {
                return Pause::Wait(self.more(io));
            }
            let before = looks;
            let Some(feed) = io.feeds().and_then(|feeds| feeds.get(self.topic)) else {
                return Pause::Over;
            };
            let step = feed.next(&mut self.position, &mut looks);
            io.looked(before.saturating_sub(looks));
            match step {
                Step::Frame(frame) => {
                    self.sent = self.sent.saturating_add(frame.len() as u64);
                    self.frame = frame;
                    io.told();
                    self.began.get_or_insert(io.now());
                }
                Step::Later => return Pause::Wait(self.more(io)),
                Step::UpToDate => {
                    if let Some(began) = self.began.take().filter(|_| !self.interval.is_zero()) {
                        self.again = Some(deadline(began, self.interval));
                    }
                    io.output(Output::Watching(self.topic));
                    return Pause::Wait(Waits { app: true, ..PEER });
                }
            }
        }
    }

    fn more(&self, io: &mut StreamIo<'_>) -> Waits {
        io.output(Output::More);
        PEER
    }
}

impl StreamMachine for Teller {
    fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        if let State::Asked = self.state
            && let Err(next) = self.listen(io)
        {
            return next;
        }
        match &mut self.state {
            State::Telling(telling) => {
                match telling.hear(io) {
                    Ok(true) => {}
                    Ok(false) => {
                        // It has ended its subscription; a frame that is cut says so to nobody.
                        io.reset(0);
                        io.output(Output::Quiet);
                        return Next::Done;
                    }
                    Err(breach) => return Teller::fail(io, breach),
                }
                match telling.tell(io) {
                    Pause::Wait(waits) => return Next::Wait(waits),
                    Pause::Over => {}
                }
                io.finish();
            }
            State::Refusing(frame) => {
                if io.room() >= frame.len() {
                    io.write(frame);
                    io.finish();
                } else if self.goes_on(io) {
                    return Next::ROOM;
                } else {
                    return Teller::fail(io, Breach::Slow);
                }
            }
            State::Asked => return Next::PEER,
        }
        io.stop(0);
        io.output(Output::Quiet);
        Next::Done
    }
}

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
