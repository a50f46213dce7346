//! The subscriber's side: what comes from a publisher is checked, and where to go on is known at any time.

use bytes::Bytes;
use strait_wire::topic::{Malformed, Mode, Refusal, Resume, TELL_OVERHEAD_MAX, Tell};

use super::Bounds;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// A snapshot begins. What is not [`Put`](Update::Put) before it is [`Whole`](Update::Whole) is not there any more.
    Begin,
    /// A key has this value.
    Put {
        /// The key.
        key: Bytes,
        /// The encoded value.
        value: Bytes,
    },
    /// A key is gone.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// The snapshot is whole.
    Whole,
    /// A line of a log.
    Said {
        /// The key.
        key: Bytes,
        /// The encoded value.
        value: Bytes,
    },
    /// So many lines of a log were said that will never be told.
    Gap {
        /// How many, of any key.
        lost: u64,
    },
    /// On a new stream it goes on where it was.
    Resumed,
    /// The publisher has begun its log anew: how much of the old one was not told is not known.
    Anew,
}

/// Why a subscription cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The publisher has refused it.
    #[error("the publisher has refused it: {}", refusal_words(.0))]
    Refused(Refusal),
    /// The topic there is not what it is taken for here.
    #[error(
        "the publisher's definition allows a {what} of {theirs}, and the one here {ours}; use the same definition at both sides"
    )]
    OtherBounds {
        /// Which number.
        what: &'static str,
        /// The publisher's.
        theirs: u64,
        /// That of the definition here.
        ours: u64,
    },
    /// The publisher broke the protocol.
    #[error("the publisher broke the topic protocol: {0}")]
    Broken(&'static str),
    /// The publisher sent what is no frame.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

fn refusal_words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Unknown => "it has no topic of this name; is the name right, and was it published already?".to_owned(),
        Refusal::TooMany => "this node has as many subscriptions there as it may; end some".to_owned(),
        Refusal::OtherMode => "its topic of this name is of another mode (keyed values or a log)".to_owned(),
        Refusal::Other(code) => format!("its reason has the number {code}, which this version does not know"),
    }
}

/// Follows one topic over any number of connections, one after the other.
#[derive(Debug)]
pub struct Follower {
    mode: Mode,
    bounds: Bounds,
    filtered: bool,
    epoch: Option<u64>,
    greeted: bool,
    at: At,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Start,
    Snapshot,
    /// All changes up to this version are known.
    Changes(u64),
    /// The number of the next line.
    Line(u64),
}

impl Follower {
    /// For a topic of this definition; `filtered` says whether a prefix is asked for.
    pub fn new(mode: Mode, bounds: Bounds, filtered: bool) -> Follower {
        Follower { mode, bounds, filtered, epoch: None, greeted: false, at: At::Start }
    }

    /// A new stream to the publisher begins. Where to go on there, which its Subscribe frame is to carry.
    pub fn connect(&mut self) -> Option<Resume> {
        let position = match self.at {
            At::Changes(position) | At::Line(position) => Some(position),
            At::Start | At::Snapshot => None,
        };
        self.greeted = false;
        self.epoch.zip(position).map(|(epoch, position)| Resume { epoch, position })
    }

    /// The longest body of a frame that may come, in bytes.
    pub fn frame_bytes_max(&self) -> usize {
        TELL_OVERHEAD_MAX.saturating_add(self.bounds.key_bytes_max).saturating_add(self.bounds.value_bytes_max)
    }

    /// Whether everything is known that the publisher had when its last snapshot began.
    pub fn is_live(&self) -> bool {
        matches!(self.at, At::Changes(_) | At::Line(_))
    }

    /// Takes the body of a frame. `None`: it is of no interest to the application.
    ///
    /// # Errors
    /// [`FollowError`]: the stream is to be given up. What was known stays known.
    pub fn hear(&mut self, body: &Bytes) -> Result<Option<Update>, FollowError> {
        let told = Tell::decode(body)?;
        match told {
            Tell::Refused(refusal) if !self.greeted => Err(FollowError::Refused(refusal)),
            Tell::Hello { mode, epoch, start, keys_max, key_bytes_max, value_bytes_max } if !self.greeted => {
                if mode != self.mode {
                    return Err(FollowError::Refused(Refusal::OtherMode));
                }
                self.fits("number of keys", keys_max, self.bounds.keys_max)?;
                self.fits("key", key_bytes_max, self.bounds.key_bytes_max)?;
                self.fits("value", value_bytes_max, self.bounds.value_bytes_max)?;
                self.greet(epoch, start)
            }
            _ if !self.greeted => Err(FollowError::Broken("its first frame is no Hello")),
            Tell::Begin | Tell::Put { .. } | Tell::Delete { .. } | Tell::Whole { .. } if self.mode == Mode::Keyed => {
                self.hear_change(body, told).map(Some)
            }
            Tell::Said { .. } | Tell::Gap { .. } if self.mode == Mode::Log => self.hear_line(body, told).map(Some),
            _ => Err(FollowError::Broken("a frame of another mode, or a second Hello")),
        }
    }

    /// TP-15
    fn fits(&self, what: &'static str, theirs: u64, ours: usize) -> Result<(), FollowError> {
        let ours = ours as u64;
        if theirs <= ours { Ok(()) } else { Err(FollowError::OtherBounds { what, theirs, ours }) }
    }

    fn greet(&mut self, epoch: u64, start: u64) -> Result<Option<Update>, FollowError> {
        self.greeted = true;
        let known = self.epoch.replace(epoch);
        match (self.mode, self.at) {
            (Mode::Log, At::Line(next)) if known == Some(epoch) => {
                let right = start == next;
                right
                    .then_some(Some(Update::Resumed))
                    .ok_or(FollowError::Broken("it goes on at another line than it was asked for"))
            }
            (Mode::Log, at) => {
                self.at = At::Line(start);
                Ok(matches!(at, At::Line(_)).then_some(Update::Anew))
            }
            (Mode::Keyed, At::Changes(version)) if known == Some(epoch) && start == version => Ok(Some(Update::Resumed)),
            // A snapshot follows.
            (Mode::Keyed, _) => {
                self.at = At::Start;
                Ok(None)
            }
        }
    }

    fn hear_change(&mut self, body: &Bytes, told: Tell<'_>) -> Result<Update, FollowError> {
        match told {
            Tell::Begin => {
                self.at = At::Snapshot;
                Ok(Update::Begin)
            }
            Tell::Whole { version } => {
                let At::Snapshot = self.at else {
                    return Err(FollowError::Broken("a snapshot ends that did not begin"));
                };
                self.at = At::Changes(version);
                Ok(Update::Whole)
            }
            Tell::Put { version, key, value } => {
                self.fits_frame(key, value)?;
                self.moves_on(version)?;
                Ok(Update::Put { key: body.slice_ref(key), value: body.slice_ref(value) })
            }
            Tell::Delete { version, key } => {
                self.fits_frame(key, &[])?;
                self.moves_on(version)?;
                Ok(Update::Delete { key: body.slice_ref(key) })
            }
            _ => Err(FollowError::Broken("a frame of another mode")),
        }
    }

    fn fits_frame(&self, key: &[u8], value: &[u8]) -> Result<(), FollowError> {
        let fits = key.len() <= self.bounds.key_bytes_max && value.len() <= self.bounds.value_bytes_max;
        if fits { Ok(()) } else { Err(FollowError::Broken("a key or value above the limit of its own Hello")) }
    }

    /// Changes ascend (TP-21); what a snapshot tells does not move on where we are.
    fn moves_on(&mut self, version: u64) -> Result<(), FollowError> {
        match self.at {
            At::Snapshot => Ok(()),
            At::Changes(known) if version > known => {
                self.at = At::Changes(version);
                Ok(())
            }
            At::Changes(_) => Err(FollowError::Broken("an old change")),
            At::Start | At::Line(_) => Err(FollowError::Broken("a change before a snapshot")),
        }
    }

    /// No line is left out without a word (TP-23).
    fn hear_line(&mut self, body: &Bytes, told: Tell<'_>) -> Result<Update, FollowError> {
        let At::Line(expected) = self.at else {
            return Err(FollowError::Broken("a line before a Hello"));
        };
        match told {
            Tell::Said { number, key, value } => {
                self.fits_frame(key, value)?;
                // Who has asked for some keys only does not see every number.
                let right = number == expected || (self.filtered && number > expected);
                if !right {
                    return Err(FollowError::Broken("a line out of order"));
                }
                self.at = At::Line(number.saturating_add(1));
                Ok(Update::Said { key: body.slice_ref(key), value: body.slice_ref(value) })
            }
            Tell::Gap { lost, next } => {
                let sum = expected.saturating_add(lost);
                let right = sum == next || (self.filtered && next > sum);
                if !right || lost == 0 {
                    return Err(FollowError::Broken("a gap that does not add up"));
                }
                self.at = At::Line(next);
                Ok(Update::Gap { lost })
            }
            _ => Err(FollowError::Broken("a frame of another mode")),
        }
    }
}
