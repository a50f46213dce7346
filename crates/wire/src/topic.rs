//! Frames of the topic protocol (`docs/specs/topics.md`): a subscriber asks for a topic, its publisher tells what has changed.
//!
//! Each frame is length-prefixed ([`crate::framing`]); what is here are the bodies. Decoders borrow from their input and allocate nothing.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::{framing, varint};

/// The longest name of a topic, in bytes (TP-03).
pub const NAME_BYTES_MAX: usize = 140;
/// The longest prefix that may be asked for, in bytes (TP-03).
pub const PREFIX_BYTES_MAX: usize = 255;
/// The longest body of a frame that a subscriber sends (TP-03): a name, a prefix, five numbers.
pub const ASK_BYTES_MAX: usize = 512;
/// A publisher's frame without key and value is at most so long (TP-04).
pub const TELL_OVERHEAD_MAX: usize = 48;

const SUBSCRIBE: u8 = 0x11;
const CREDIT: u8 = 0x12;
const HELLO: u8 = 0x01;
const REFUSED: u8 = 0x02;
const BEGIN: u8 = 0x03;
const PUT: u8 = 0x04;
const DELETE: u8 = 0x05;
const WHOLE: u8 = 0x06;
const SAID: u8 = 0x07;
const GAP: u8 = 0x08;

/// What a topic is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A value for each key; the newest counts.
    Keyed,
    /// Lines, each of which counts.
    Log,
}

/// Why a subscription is not taken (TP-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such topic here.
    Unknown,
    /// This peer has as many subscriptions as it may.
    TooMany,
    /// The topic is of another mode.
    OtherMode,
    /// Another number.
    Other(u8),
}

/// Where a subscriber was when its last connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The epoch that the publisher's Hello had.
    pub epoch: u64,
    /// All up to this version is known; in a log, the number of the next line.
    pub position: u64,
}

/// What a subscriber says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The first frame.
    Subscribe {
        /// What the subscriber takes the topic for.
        mode: Mode,
        /// It wants to be told at most once in so many milliseconds; 0 for as often as can be.
        interval_ms: u64,
        /// The first credit.
        credit: u64,
        /// Where it goes on.
        resume: Option<Resume>,
        /// The topic.
        name: &'a str,
        /// It wants the keys that begin so.
        prefix: &'a [u8],
    },
    /// The publisher may send so many bytes in all.
    Credit {
        /// Since the stream began.
        total: u64,
    },
}

/// What a publisher says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell<'a> {
    /// The first frame, when the subscription is taken.
    Hello {
        /// What the topic is.
        mode: Mode,
        /// Names this state or log among those that its publisher had before.
        epoch: u64,
        /// Where it begins to tell: in a log the number of the next line; else the version after which changes follow, 0 for a snapshot first.
        start: u64,
        /// Keys, or lines, at once.
        keys_max: u64,
        /// Bytes of a key.
        key_bytes_max: u64,
        /// Bytes of a value.
        value_bytes_max: u64,
    },
    /// The first and last frame, when it is not.
    Refused(Refusal),
    /// A snapshot begins.
    Begin,
    /// A key has this value.
    Put {
        /// Of the change.
        version: u64,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// A key is gone.
    Delete {
        /// Of the change.
        version: u64,
        /// The key.
        key: &'a [u8],
    },
    /// The snapshot is whole; what changed after `version` follows.
    Whole {
        /// The version.
        version: u64,
    },
    /// A line of a log.
    Said {
        /// Its number.
        number: u64,
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// So many lines were said that will not be told.
    Gap {
        /// How many.
        lost: u64,
        /// The number of the next line.
        next: u64,
    },
}

/// Bytes are no frame of this protocol. The sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a frame of the topic protocol is malformed: {0}")]
pub struct Malformed(&'static str);

/// Takes a body apart.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// TP-02
    fn number(&mut self) -> Result<u64, Malformed> {
        match varint::decode(self.0) {
            Ok(Some((value, used))) => {
                self.0 = self.0.get(used..).unwrap_or_default();
                Ok(value)
            }
            Ok(None) => Err(Malformed("it ends in a number")),
            Err(_) => Err(Malformed("a number")),
        }
    }

    fn fixed(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.0.split_first_chunk::<8>().ok_or(Malformed("it ends in an epoch"))?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*first))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed("a length"))?;
        let (first, rest) = self.0.split_at_checked(len).ok_or(Malformed("a length past its end"))?;
        self.0 = rest;
        Ok(first)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn mode(&mut self) -> Result<Mode, Malformed> {
        match self.byte()? {
            0 => Ok(Mode::Keyed),
            1 => Ok(Mode::Log),
            _ => Err(Malformed("the mode")),
        }
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes are left over")) }
    }
}

fn mode_byte(mode: Mode) -> u8 {
    match mode {
        Mode::Keyed => 0,
        Mode::Log => 1,
    }
}

impl<'a> Ask<'a> {
    /// Reads the body of a frame that a subscriber has sent (TP-01).
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(body: &'a [u8]) -> Result<Ask<'a>, Malformed> {
        let mut fields = Fields(body);
        match fields.byte()? {
            SUBSCRIBE => {
                let mode = fields.mode()?;
                let interval_ms = fields.number()?;
                let credit = fields.number()?;
                let resume = match fields.byte()? {
                    0 => None,
                    1 => Some(Resume { epoch: fields.fixed()?, position: fields.number()? }),
                    _ => return Err(Malformed("whether it goes on")),
                };
                let name = fields.bytes()?;
                if name.is_empty() || name.len() > NAME_BYTES_MAX {
                    return Err(Malformed("the length of the name"));
                }
                let name = std::str::from_utf8(name).map_err(|_| Malformed("the name is not UTF-8"))?;
                let prefix = fields.rest();
                if prefix.len() > PREFIX_BYTES_MAX {
                    return Err(Malformed("the length of the prefix"));
                }
                Ok(Ask::Subscribe { mode, interval_ms, credit, resume, name, prefix })
            }
            CREDIT => {
                let total = fields.number()?;
                fields.end()?;
                Ok(Ask::Credit { total })
            }
            _ => Err(Malformed("its kind")),
        }
    }

    /// The whole frame, length included. Numbers above [`varint::VALUE_MAX`] are not to be handed in.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(32);
        match self {
            Ask::Subscribe { mode, interval_ms, credit, resume, name, prefix } => {
                body.put_slice(&[SUBSCRIBE, mode_byte(*mode)]);
                varint::encode(*interval_ms, &mut body);
                varint::encode(*credit, &mut body);
                match resume {
                    None => body.put_u8(0),
                    Some(resume) => {
                        body.put_u8(1);
                        body.put_u64(resume.epoch);
                        varint::encode(resume.position, &mut body);
                    }
                }
                varint::encode(name.len() as u64, &mut body);
                body.put_slice(name.as_bytes());
                body.put_slice(prefix);
            }
            Ask::Credit { total } => {
                body.put_u8(CREDIT);
                varint::encode(*total, &mut body);
            }
        }
        framed(&body)
    }
}

fn framed(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(framing::header_len(body.len()).saturating_add(body.len()));
    framing::put_header(body.len(), &mut out);
    out.put_slice(body);
    out.freeze()
}

impl<'a> Tell<'a> {
    /// Reads the body of a frame that a publisher has sent (TP-01).
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(body: &'a [u8]) -> Result<Tell<'a>, Malformed> {
        let mut fields = Fields(body);
        let told = match fields.byte()? {
            HELLO => Tell::Hello {
                mode: fields.mode()?,
                epoch: fields.fixed()?,
                start: fields.number()?,
                keys_max: fields.number()?,
                key_bytes_max: fields.number()?,
                value_bytes_max: fields.number()?,
            },
            REFUSED => Tell::Refused(match fields.byte()? {
                1 => Refusal::Unknown,
                2 => Refusal::TooMany,
                3 => Refusal::OtherMode,
                other => Refusal::Other(other),
            }),
            BEGIN => Tell::Begin,
            PUT => Tell::Put { version: fields.number()?, key: fields.bytes()?, value: fields.rest() },
            DELETE => Tell::Delete { version: fields.number()?, key: fields.rest() },
            WHOLE => Tell::Whole { version: fields.number()? },
            SAID => Tell::Said { number: fields.number()?, key: fields.bytes()?, value: fields.rest() },
            GAP => Tell::Gap { lost: fields.number()?, next: fields.number()? },
            _ => return Err(Malformed("its kind")),
        };
        fields.end()?;
        Ok(told)
    }

    /// The whole frame, length included. Numbers above [`varint::VALUE_MAX`] are not to be handed in.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        match *self {
            Tell::Put { version, key, value } => valued(PUT, version, key, value),
            Tell::Said { number, key, value } => valued(SAID, number, key, value),
            _ => {
                let mut body = BytesMut::with_capacity(TELL_OVERHEAD_MAX);
                self.put_small(&mut body);
                framed(&body)
            }
        }
    }

    fn put_small(&self, body: &mut BytesMut) {
        match *self {
            Tell::Hello { mode, epoch, start, keys_max, key_bytes_max, value_bytes_max } => {
                body.put_slice(&[HELLO, mode_byte(mode)]);
                body.put_u64(epoch);
                [start, keys_max, key_bytes_max, value_bytes_max].into_iter().for_each(|number| varint::encode(number, body));
            }
            Tell::Refused(refusal) => body.put_slice(&[
                REFUSED,
                match refusal {
                    Refusal::Unknown => 1,
                    Refusal::TooMany => 2,
                    Refusal::OtherMode => 3,
                    Refusal::Other(other) => other,
                },
            ]),
            Tell::Begin => body.put_u8(BEGIN),
            Tell::Delete { version, key } => {
                body.put_u8(DELETE);
                varint::encode(version, body);
                body.put_slice(key);
            }
            Tell::Whole { version } => {
                body.put_u8(WHOLE);
                varint::encode(version, body);
            }
            Tell::Gap { lost, next } => {
                body.put_u8(GAP);
                varint::encode(lost, body);
                varint::encode(next, body);
            }
            Tell::Put { .. } | Tell::Said { .. } => {}
        }
    }
}

/// A frame with a key and a value, which may be large: written once, in one piece.
fn valued(kind: u8, number: u64, key: &[u8], value: &[u8]) -> Bytes {
    valued_with(kind, number, key, value.len(), |out| out.put_slice(value))
}

fn valued_with(kind: u8, number: u64, key: &[u8], value_len: usize, value: impl FnOnce(&mut BytesMut)) -> Bytes {
    let fixed = 1usize.saturating_add(varint::encoded_len(number)).saturating_add(varint::encoded_len(key.len() as u64));
    let body = fixed.saturating_add(key.len()).saturating_add(value_len);
    let mut out = BytesMut::with_capacity(framing::header_len(body).saturating_add(body));
    framing::put_header(body, &mut out);
    out.put_u8(kind);
    varint::encode(number, &mut out);
    varint::encode(key.len() as u64, &mut out);
    out.put_slice(key);
    value(&mut out);
    out.freeze()
}

/// The whole frame of a [`Tell::Put`] whose value `value` writes, exactly `value_len` bytes of it.
pub fn put_frame(version: u64, key: &[u8], value_len: usize, value: impl FnOnce(&mut BytesMut)) -> Bytes {
    valued_with(PUT, version, key, value_len, value)
}

/// The same for a [`Tell::Said`].
pub fn said_frame(number: u64, key: &[u8], value_len: usize, value: impl FnOnce(&mut BytesMut)) -> Bytes {
    valued_with(SAID, number, key, value_len, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(frame: &[u8]) -> &[u8] {
        let (body, used) = framing::frame(frame, 1 << 20).unwrap().unwrap();
        assert_eq!(used, frame.len());
        body
    }

    fn numbers() -> impl Strategy<Value = u64> {
        0..=varint::VALUE_MAX
    }

    fn modes() -> impl Strategy<Value = Mode> {
        prop_oneof![Just(Mode::Keyed), Just(Mode::Log)]
    }

    /// TP-03: the limits are kept, and what is at them passes.
    #[test]
    fn names_and_prefixes_have_limits() {
        let ask = |name: usize, prefix: usize| {
            let (name, prefix) = ("n".repeat(name), vec![7; prefix]);
            let resume = Some(Resume { epoch: u64::MAX, position: varint::VALUE_MAX });
            let numbers = (varint::VALUE_MAX, varint::VALUE_MAX);
            let ask = Ask::Subscribe {
                mode: Mode::Log,
                interval_ms: numbers.0,
                credit: numbers.1,
                resume,
                name: &name,
                prefix: &prefix,
            };
            let frame = ask.frame();
            let body = body(&frame);
            assert!(name.len() > NAME_BYTES_MAX || prefix.len() > PREFIX_BYTES_MAX || body.len() <= ASK_BYTES_MAX);
            Ask::decode(body).map(|decoded| decoded == ask)
        };
        assert_eq!(ask(NAME_BYTES_MAX, PREFIX_BYTES_MAX), Ok(true));
        assert!(ask(NAME_BYTES_MAX + 1, 0).is_err());
        assert!(ask(0, 0).is_err());
        assert!(ask(1, PREFIX_BYTES_MAX + 1).is_err());
    }

    /// TP-04
    #[test]
    fn what_surrounds_a_value_is_small() {
        let most = varint::VALUE_MAX;
        let numbers = (most, most, most, most);
        let (start, keys_max, key_bytes_max, value_bytes_max) = numbers;
        let hello = Tell::Hello { mode: Mode::Log, epoch: u64::MAX, start, keys_max, key_bytes_max, value_bytes_max };
        let key = vec![1; 1 << 16];
        let put = Tell::Put { version: most, key: &key, value: &[] };
        for (told, beside) in [(hello, 0), (put, key.len()), (Tell::Gap { lost: most, next: most }, 0)] {
            assert!(body(&told.frame()).len() - beside <= TELL_OVERHEAD_MAX, "{told:?}");
        }
    }

    /// TP-01, TP-02
    #[test]
    fn other_kinds_and_other_forms_are_malformed() {
        for body in [&[][..], &[0x13], &[0x12], &[0x12, 0x80], &[0x12, 0x81, 0x00], &[0x12, 1, 1], &[0x11, 2, 0, 0, 0, 1, b'n']] {
            assert!(Ask::decode(body).is_err(), "{body:?}");
        }
        assert!(Ask::decode(&[0x11, 1, 0, 0, 0, 1, b'n']).is_ok());
        assert!(Ask::decode(&[0x11, 1, 0, 0, 0, 1, 0xff]).is_err(), "no UTF-8");
        let most = [0xff; 9];
        for body in [
            &[][..],
            &[0x09],
            &[0x03, 0],
            &[0x06],
            &[0x06, 1, 1],
            &[0x04, 1, 2, 0],
            &[0x01, 0, 1, 2, 3],
            &[&[0x06][..], &most].concat(),
        ] {
            assert!(Tell::decode(body).is_err(), "{body:?}");
        }
        assert!(Tell::decode(&[0x04, 1, 2, 0, 0]).is_ok());
    }

    proptest! {
        #[test]
        fn asks_round_trip(mode in modes(), interval_ms in numbers(), credit in numbers(), at in proptest::option::of((any::<u64>(), numbers())), name in "[a-z/]{1,140}", prefix in proptest::collection::vec(any::<u8>(), 0..255)) {
            let resume = at.map(|(epoch, position)| Resume { epoch, position });
            let ask = Ask::Subscribe { mode, interval_ms, credit, resume, name: &name, prefix: &prefix };
            let frame = ask.frame();
            prop_assert_eq!(Ask::decode(body(&frame)), Ok(ask.clone()));
            let ask = Ask::Credit { total: credit };
            let frame = ask.frame();
            prop_assert_eq!(Ask::decode(body(&frame)), Ok(ask.clone()));
        }

        #[test]
        fn tells_round_trip(mode in modes(), epoch in any::<u64>(), a in numbers(), b in numbers(), c in numbers(), refusal in 4u8.., key in proptest::collection::vec(any::<u8>(), 0..300), value in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (key, value) = (&key[..], &value[..]);
            for told in [
                Tell::Hello { mode, epoch, start: a, keys_max: b, key_bytes_max: c, value_bytes_max: a },
                Tell::Refused(Refusal::Unknown),
                Tell::Refused(Refusal::TooMany),
                Tell::Refused(Refusal::OtherMode),
                Tell::Refused(Refusal::Other(refusal)),
                Tell::Begin,
                Tell::Put { version: a, key, value },
                Tell::Delete { version: a, key },
                Tell::Whole { version: a },
                Tell::Said { number: a, key, value },
                Tell::Gap { lost: a, next: b },
            ] {
                let frame = told.frame();
                prop_assert_eq!(Tell::decode(body(&frame)), Ok(told));
            }
        }

        #[test]
        fn total(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            crate::fuzz_entry::topic(&bytes);
        }
    }
}
