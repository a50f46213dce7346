//! What the subscriber's side promises whatever a publisher says: the fuzz target `topic_follower` and the replay of its corpus call this.

use bytes::Bytes;
use strait_wire::framing;
use strait_wire::topic::{ASK_BYTES_MAX, Ask, Mode, Refusal, Tell};

use super::{Bounds, Follower, Session, Update, Wish};

const BOUNDS: Bounds = Bounds { keys_max: 8, key_bytes_max: 8, value_bytes_max: 5000 };
const KEYS: [&[u8]; 4] = [b"a", b"ab", b"12345678", b"123456789"];
/// A buffer that grows may be twice as large as what is in it.
const GROWN: usize = 2;

/// One subscriber, and what it has given and was given.
struct Run {
    follower: Follower,
    session: Session,
    wish: Wish<'static>,
    /// Bytes that came on this stream, the most that may, and the largest chunk.
    came: u64,
    credit: u64,
    chunk: usize,
    /// What came last by its number: the version of a change, or the number of the next line.
    at: Option<u64>,
    in_snapshot: bool,
    broken: bool,
}

/// Runs a script. Its first byte says which topic is followed; of each that follows the low half says what happens: 0 to 3 so many bytes come as the
/// byte behind it says, 4 the stream is lost and another is opened, 5 to 15 the publisher says one of its frames, with the byte behind it for a number.
///
/// # Panics
/// When the subscriber's side breaks its word, and never otherwise. For tests.
#[doc(hidden)]
pub fn follower(script: &[u8]) {
    let mut bytes = script.iter().copied();
    let kind = bytes.next().unwrap_or(0);
    let mode = if kind & 1 == 0 { Mode::Keyed } else { Mode::Log };
    let prefix: &[u8] = if kind & 2 == 0 { b"" } else { b"a" };
    let window = u32::from(kind >> 2).saturating_mul(100);
    let wish = Wish { mode, name: "/t", prefix, interval_ms: 0, window, resume: None };
    let (session, first) = Session::new(&wish);
    let mut run = Run {
        follower: Follower::new(mode, BOUNDS, kind & 2 != 0),
        session,
        came: 0,
        credit: credit_of(&first),
        wish,
        chunk: 0,
        at: None,
        in_snapshot: false,
        broken: false,
    };
    while let Some(what) = bytes.next() {
        let number = bytes.next().unwrap_or(0);
        match what & 15 {
            0..=3 => {
                let chunk: Vec<u8> = bytes.by_ref().take(number.into()).collect();
                run.come(&chunk);
            }
            4 => run.connect(),
            what => run.come(&said(what, number)),
        }
    }
}

/// A publisher's frame, by chance the right one.
fn said(what: u8, number: u8) -> Vec<u8> {
    let key = KEYS.get(usize::from(number & 3)).copied().unwrap_or_default();
    let (low, version) = (usize::from(number >> 2), u64::from(number >> 2));
    let value = vec![number; low.saturating_mul(low).saturating_mul(2)];
    let hello = |mode, max: usize| Tell::Hello {
        mode,
        epoch: (number & 1).into(),
        start: version,
        keys_max: 8,
        key_bytes_max: 8,
        value_bytes_max: max as u64,
    };
    let frame = match what {
        5 => hello(Mode::Keyed, 5000).frame(),
        6 => hello(Mode::Log, 5000).frame(),
        7 => hello(Mode::Keyed, 5001).frame(),
        8 => Tell::Refused(Refusal::Unknown).frame(),
        9 => Tell::Begin.frame(),
        10 => Tell::Put { version, key, value: &value }.frame(),
        11 => Tell::Delete { version, key }.frame(),
        12 => Tell::Whole { version }.frame(),
        13 => Tell::Said { number: version, key, value: &value }.frame(),
        14 => Tell::Gap { lost: (number & 3).into(), next: version }.frame(),
        _ => Bytes::from(vec![number; low]),
    };
    frame.to_vec()
}

/// How much may come, as a frame of ours says it.
fn credit_of(frame: &Bytes) -> u64 {
    let body = framing::frame(frame, ASK_BYTES_MAX).ok().flatten().map(|(body, used)| {
        assert_eq!(used, frame.len(), "more than one frame");
        body
    });
    match body.map(Ask::decode) {
        Some(Ok(Ask::Subscribe { credit, .. })) => credit,
        Some(Ok(Ask::Credit { total })) => total,
        other => {
            assert!(other.is_none() && body.is_some(), "a frame that no publisher reads: {other:?}");
            0
        }
    }
}

impl Run {
    fn connect(&mut self) {
        let resume = self.follower.connect();
        let wish = Wish { resume, ..self.wish.clone() };
        let (session, first) = Session::new(&wish);
        (self.session, self.credit, self.came, self.broken) = (session, credit_of(&first), 0, false);
    }

    fn come(&mut self, chunk: &[u8]) {
        if self.broken {
            return;
        }
        self.came = self.came.saturating_add(chunk.len() as u64);
        self.chunk = self.chunk.max(chunk.len());
        self.session.push(chunk);
        let max = self.follower.frame_bytes_max();
        loop {
            let body = match self.session.next(max) {
                Ok(Some(body)) => body,
                Ok(None) => break,
                Err(_) => return self.broken = true,
            };
            assert!(body.len() <= max, "a frame of {} bytes, at most {max} may be", body.len());
            match self.follower.hear(&body) {
                Ok(update) => update.into_iter().for_each(|update| self.check(&body, &update)),
                Err(_) => return self.broken = true,
            }
        }
        let held = self.session.held();
        let most = max.saturating_add(16).saturating_add(self.chunk).saturating_mul(GROWN);
        assert!(held <= most, "{held} bytes are held, at most {most} may be");
        if let Some(frame) = self.session.credit() {
            let (credit, window) = (credit_of(&frame), u64::from(self.wish.window.max(1)));
            assert!(credit > self.credit, "credit that says nothing new");
            assert!(credit <= self.came.saturating_add(window), "credit of {credit} after {} bytes", self.came);
            self.credit = credit;
        }
    }

    fn check(&mut self, body: &Bytes, update: &Update) {
        match update {
            Update::Put { key, value } | Update::Said { key, value } => {
                assert!(key.len() <= BOUNDS.key_bytes_max && value.len() <= BOUNDS.value_bytes_max);
            }
            Update::Delete { key } => assert!(key.len() <= BOUNDS.key_bytes_max),
            Update::Gap { lost } => assert!(*lost > 0),
            Update::Begin => self.in_snapshot = true,
            Update::Resumed => assert!(self.follower.is_live()),
            Update::Whole | Update::Anew => (self.in_snapshot, self.at) = (false, None),
        }
        // What it would go on at only ever moves forward, and changes outside of a snapshot do move it.
        let told = Tell::decode(body).ok();
        let number = match told {
            Some(Tell::Put { version, .. } | Tell::Delete { version, .. }) if !self.in_snapshot => version,
            Some(Tell::Said { number, .. }) => number,
            _ => return,
        };
        assert!(self.at.is_none_or(|at| number > at), "{number} is told after {:?}", self.at);
        assert!(self.follower.is_live(), "a change without a place to go on at");
        self.at = Some(number);
    }
}
