//! The publisher's side of a topic, with a subscriber that believes nothing.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use strait_wire::framing;
use strait_wire::topic::{Ask, Mode, Resume, Tell};

use super::run::{Run, Subject, play};
use crate::limits::PIN_BYTES;
use crate::proto::topic::Teller;
use crate::stream::Output;
use crate::topic::{Bounds, FollowError, Follower, Log, State, TopicId, Update};

const SMALL: Bounds = Bounds { keys_max: 4, key_bytes_max: 4, value_bytes_max: 64 };
const LARGE: Bounds = Bounds { keys_max: 4, key_bytes_max: 4, value_bytes_max: PIN_BYTES + 1000 };
const NAMES: [&str; 3] = ["/t/small", "/t/large", "/t/log"];
const EPOCH: u64 = 7;

impl Subject for Teller {
    fn act(run: &mut Run<Teller>, which: u8) {
        let key = Bytes::copy_from_slice(&[b'a' | (which & 3), which & 4]);
        let wide = usize::from(which);
        let names = &NAMES[..];
        for (number, name) in names.iter().enumerate() {
            let Some(id) = run.feeds.find(name) else {
                continue;
            };
            match (which & 0x38) >> 3 {
                7 => drop(run.feeds.remove(id)),
                6 => {
                    let state = run.feeds.typed::<State<Bytes>>(id);
                    state.and_then(|state| state.delete(&key));
                }
                _ => {
                    let len = if number == 1 { wide.saturating_mul(70) } else { wide & 63 };
                    publish(run, id, key.clone(), Bytes::from(vec![which; len]));
                }
            }
        }
    }
}

fn publish(run: &mut Run<Teller>, id: TopicId, key: Bytes, value: Bytes) {
    if let Some(state) = run.feeds.typed::<State<Bytes>>(id) {
        let _ = state.put(key, value);
    } else if let Some(log) = run.feeds.typed::<Log<Bytes>>(id) {
        let _ = log.say(key, value);
    }
}

fn phrases() -> Vec<Vec<u8>> {
    let subscribe = |mode, name, credit, interval_ms, prefix: &'static [u8], resume| {
        Ask::Subscribe { mode, interval_ms, credit, resume, name, prefix }.frame().to_vec()
    };
    let keyed = |credit, prefix| subscribe(Mode::Keyed, "/t/small", credit, 0, prefix, None);
    let mut all = vec![
        keyed(1 << 20, b""),
        keyed(30, b""),
        keyed(1 << 20, b"a"),
        subscribe(Mode::Keyed, "/t/large", 1 << 20, 0, b"", None),
        subscribe(Mode::Log, "/t/log", 1 << 20, 0, b"", None),
        subscribe(Mode::Log, "/t/log", 1 << 20, 0, b"b", Some(Resume { epoch: EPOCH, position: 1 })),
        subscribe(Mode::Keyed, "/t/small", 1 << 20, 500, b"", Some(Resume { epoch: EPOCH, position: 2 })),
        subscribe(Mode::Log, "/t/small", 9, 0, b"", None),
        subscribe(Mode::Keyed, "/t/none", 9, 0, b"", None),
    ];
    all.extend([40, 100, 1 << 16, u64::MAX].map(|total| Ask::Credit { total }.frame().to_vec()));
    all
}

/// What one subscriber makes of all that it is told.
struct Subscriber {
    follower: Follower,
    values: BTreeMap<Bytes, Bytes>,
    /// Those that were told since a snapshot began.
    fresh: Option<BTreeMap<Bytes, Bytes>>,
}

impl Subscriber {
    fn take(&mut self, update: Update) {
        match update {
            Update::Begin => self.fresh = Some(BTreeMap::new()),
            Update::Put { key, value } => drop(self.fresh.as_mut().unwrap_or(&mut self.values).insert(key, value)),
            Update::Delete { key } => drop(self.fresh.as_mut().unwrap_or(&mut self.values).remove(&key)),
            Update::Whole => self.values = self.fresh.take().unwrap_or_default(),
            Update::Said { .. } | Update::Gap { .. } | Update::Resumed | Update::Anew => {}
        }
    }
}

/// What was asked for first, and the most credit that was ever given behind it.
fn asked(came: &[u8]) -> Option<(Ask<'_>, u64)> {
    let (first, mut used) = framing::frame(came, came.len()).ok().flatten()?;
    let first = Ask::decode(first).ok()?;
    let Ask::Subscribe { mut credit, .. } = first else {
        return None;
    };
    while let Ok(Some((body, len))) = framing::frame(came.get(used..).unwrap_or_default(), came.len()) {
        match Ask::decode(body) {
            Ok(Ask::Credit { total }) => credit = credit.max(total),
            _ => break,
        }
        used = used.saturating_add(len);
    }
    Some((first, credit))
}

/// A subscriber is told nothing that it did not ask for, within its credit, in order, and when nothing is left to be told it knows everything.
pub fn topic(script: &[u8], now: Instant) {
    let (kind, script) = script.split_first().map_or((0, script), |(kind, rest)| (*kind, rest));
    let make = || {
        let teller = if kind == 255 { Teller::full() } else { Teller::new(kind) };
        let mut run = Run::new(teller, now, phrases())?;
        let [small, large, log] = NAMES;
        run.feeds.add(small, Box::new(State::<Bytes>::new(SMALL, EPOCH))).ok()?;
        run.feeds.add(large, Box::new(State::<Bytes>::new(LARGE, EPOCH))).ok()?;
        run.feeds.add(log, Box::new(Log::<Bytes>::new(SMALL, EPOCH))).ok()?;
        Some(run)
    };
    play(script, make, judge);
}

fn judge(run: &Run<Teller>) {
    let told = &run.pipe.outgoing;
    let Some((Ask::Subscribe { mode, name, prefix, resume, .. }, credit)) = asked(&run.came) else {
        let refused =
            matches!(framing::frame(told, 16), Ok(Some((body, _))) if matches!(Tell::decode(body), Ok(Tell::Refused(_))));
        return assert!(told.is_empty() || refused, "nobody has asked");
    };
    let bounds = if name == "/t/large" { LARGE } else { SMALL };
    let mut subscriber =
        Subscriber { follower: Follower::new(mode, bounds, !prefix.is_empty()), values: BTreeMap::new(), fresh: None };
    let (mut rest, mut frames) = (&told[..], 0usize);
    let max = subscriber.follower.frame_bytes_max();
    while let Ok(Some((body, used))) = framing::frame(rest, max) {
        let begun = told.len().saturating_sub(rest.len()) as u64;
        assert!(frames == 0 || begun < credit, "frame {frames} begins at {begun}, and the credit is {credit}");
        match subscriber.follower.hear(&Bytes::copy_from_slice(body)) {
            Ok(update) => update.into_iter().for_each(|update| subscriber.take(update)),
            // Who says that it comes back and knows nothing is not told from one who does.
            Err(FollowError::Broken("a change before a snapshot")) if resume.is_some() => return,
            Err(error) => {
                let last = matches!(error, FollowError::Refused(_)) && frames == 0 && rest.len() == used;
                assert!(last, "frame {frames}: {error}");
            }
        }
        rest = rest.get(used..).unwrap_or_default();
        frames = frames.saturating_add(1);
    }
    assert!(framing::frame(rest, max).is_ok(), "what is told is no frame");
    knows_everything(run, name, prefix, &subscriber);
}

/// When the last word is that it has been told everything, that is so.
fn knows_everything(run: &Run<Teller>, name: &str, prefix: &[u8], subscriber: &Subscriber) {
    if !run.just_said().any(|output| matches!(output, Output::Watching(_))) {
        return;
    }
    let Some(published) = run.published(name) else {
        return;
    };
    if !subscriber.follower.is_live() {
        return;
    }
    let wanted: BTreeMap<Bytes, Bytes> = published.into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
    assert_eq!(subscriber.values, wanted, "it was told everything, and does not know it");
}

impl Run<Teller> {
    /// What a keyed topic has, unless bytes of it may not have left.
    fn published(&self, name: &str) -> Option<Vec<(Bytes, Bytes)>> {
        let id = self.feeds.find(name)?;
        let state: &State<Bytes> = self.feeds.peek(id)?;
        (self.pipe.room > 0 && self.state.held() == 0)
            .then(|| state.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
