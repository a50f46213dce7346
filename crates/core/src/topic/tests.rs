//! What subscribers see, against everything that was ever published.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use strait_wire::topic::Tell;

const BOUNDS: Bounds = Bounds { keys_max: 8, key_bytes_max: 4, value_bytes_max: 8 };
const PLENTY: u32 = 1000;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn state() -> State<Bytes> {
    State::new(BOUNDS, 1)
}

/// The body of the frame that a step has.
fn body(step: &Step) -> Option<Bytes> {
    let Step::Frame(frame) = step else { return None };
    let (header, len) = strait_wire::framing::frame_len(frame, 1 << 10).expect("a length").expect("all of it");
    assert_eq!(header + len, frame.len());
    Some(frame.slice(header..))
}

/// A subscriber's copy.
struct Copy {
    follower: Follower,
    values: BTreeMap<Bytes, Bytes>,
    /// Those told since a snapshot began.
    fresh: Option<BTreeSet<Bytes>>,
    snapshots: usize,
}

impl Copy {
    fn new() -> Copy {
        Copy::of(&state(), false)
    }

    fn of(state: &State<Bytes>, filtered: bool) -> Copy {
        let mut follower = Follower::new(Mode::Keyed, BOUNDS, filtered);
        assert_eq!(follower.connect(), None);
        let mut copy = Copy { follower, values: BTreeMap::new(), fresh: None, snapshots: 0 };
        copy.greet(state, 0);
        copy
    }

    fn greet(&mut self, state: &State<Bytes>, start: u64) {
        let (keys_max, key_bytes_max, value_bytes_max) = (8, 4, 8);
        let hello = Tell::Hello { mode: Mode::Keyed, epoch: state.epoch(), start, keys_max, key_bytes_max, value_bytes_max };
        let hello = body(&Step::Frame(hello.frame())).expect("a frame");
        assert!(matches!(self.follower.hear(&hello), Ok(None | Some(Update::Resumed))));
    }

    fn apply(&mut self, step: &Step) {
        let Some(body) = body(step) else { return };
        match self.follower.hear(&body).expect("in order").expect("of interest") {
            Update::Begin => self.fresh = Some(BTreeSet::new()),
            Update::Put { key, value } => {
                self.values.insert(key.clone(), value);
                if let Some(fresh) = &mut self.fresh {
                    fresh.insert(key);
                }
            }
            Update::Delete { key } => {
                self.values.remove(&key);
            }
            Update::Whole => {
                let fresh = self.fresh.take().expect("it had begun");
                self.values.retain(|key, _| fresh.contains(key));
                self.snapshots += 1;
            }
            other => panic!("{other:?} of a log"),
        }
    }

    fn follow(&mut self, state: &mut State<Bytes>, cursor: &mut Cursor) {
        loop {
            let step = state.next(cursor, &mut PLENTY.clone());
            self.apply(&step);
            if step == Step::UpToDate {
                return;
            }
        }
    }

    fn is_the_same(&self, state: &State<Bytes>, prefix: &[u8]) {
        let wanted: Vec<_> = state.iter().filter(|(key, _)| key.starts_with(prefix)).collect();
        let found: Vec<_> = self.values.iter().collect();
        assert_eq!(found, wanted);
    }
}

#[test]
fn a_slow_reader_sees_five_and_not_three_four_five() {
    let mut state = state();
    let (mut cursor, mut copy) = (Cursor::new(Bytes::new()), Copy::new());
    copy.follow(&mut state, &mut cursor);
    for value in ["3", "4", "5"] {
        state.put(bytes("h"), bytes(value)).expect("room");
    }
    let step = state.next(&mut cursor, &mut PLENTY.clone());
    assert_eq!(step, Step::Frame(Tell::Put { version: 3, key: b"h", value: b"5" }.frame()));
    assert_eq!(state.next(&mut cursor, &mut PLENTY.clone()), Step::UpToDate);
}

#[test]
fn a_value_is_encoded_once_for_all_and_only_when_somebody_is_told() {
    let mut state = state();
    for _ in 0..100 {
        state.put(bytes("k"), bytes("v")).expect("room");
    }
    assert_eq!(state.encoded(), 0);
    for _ in 0..50 {
        Copy::new().follow(&mut state, &mut Cursor::new(Bytes::new()));
    }
    assert_eq!(state.encoded(), 1);
}

struct Count(u64);

impl Value for Count {
    fn encoded_len(&self) -> usize {
        8
    }

    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
}

#[test]
fn counters_add() {
    let mut state: State<Count> = State::new(BOUNDS, 1);
    for more in 1..=4 {
        state.merge(bytes("n"), Count(more), |old, new| Count(old.0 + new.0)).expect("room");
    }
    assert_eq!(state.get(b"n").map(|count| count.0), Some(10));
    state.delete(&bytes("n"));
    state.merge(bytes("n"), Count(7), |old, new| Count(old.0 + new.0)).expect("room");
    assert_eq!(state.get(b"n").map(|count| count.0), Some(7), "what was deleted counts no more");
}

#[test]
fn what_is_beyond_the_limits_changes_nothing() {
    let mut state = state();
    let long = PublishError::KeyTooLong { found: 5, max: 4 };
    assert_eq!(state.put(bytes("abcde"), bytes("")), Err(long));
    assert_eq!(state.put(bytes("a"), bytes("123456789")), Err(PublishError::ValueTooLong { found: 9, max: 8 }));
    for key in 0..8 {
        state.put(bytes(&key.to_string()), bytes("v")).expect("room");
    }
    assert_eq!(state.put(bytes("x"), bytes("v")), Err(PublishError::Full { max: 8 }));
    assert_eq!((state.version(), state.held()), (8, 8));
    state.put(bytes("3"), bytes("w")).expect("it is there already");
    state.delete(&bytes("5"));
    state.put(bytes("x"), bytes("v")).expect("what was deleted is forgotten for it");
    assert_eq!(state.held(), 8);
}

#[test]
fn one_look_at_each_of_those_that_it_has_not_asked_for() {
    let mut state = state();
    for key in ["a1", "a2", "a3", "b1"] {
        state.put(bytes(key), bytes("v")).expect("room");
    }
    let mut cursor = state.resume(bytes("b"), Resume { epoch: 1, position: 0 });
    assert_eq!(state.next(&mut cursor, &mut 2), Step::Later);
    let mut looks = 2;
    let last = Step::Frame(Tell::Put { version: 4, key: b"b1", value: b"v" }.frame());
    assert_eq!(state.next(&mut cursor, &mut looks), last, "it goes on where it was");
    assert_eq!(looks, 0);
}

#[test]
fn who_comes_back_to_another_state_begins_anew() {
    let mut state = state();
    state.put(bytes("k"), bytes("v")).expect("room");
    for (epoch, version, begins) in [(1, 1, false), (1, 0, false), (2, 1, true), (1, 2, true)] {
        let mut cursor = state.resume(Bytes::new(), Resume { epoch, position: version });
        let step = state.next(&mut cursor, &mut PLENTY.clone());
        assert_eq!(step == Step::Frame(Tell::Begin.frame()), begins, "epoch {epoch}, version {version}: {step:?}");
    }
}

/// Keys that come and go faster than it reads: it gets whole snapshots all the same, and holds what is there in the end.
#[test]
fn a_reader_slower_than_what_is_forgotten_still_gets_on() {
    let mut state = state();
    let (mut cursor, mut copy) = (Cursor::new(Bytes::new()), Copy::new());
    for round in 0..1000u32 {
        let key = |round: u32| bytes(&format!("{:x}", round % 4096));
        if let Some(old) = round.checked_sub(6) {
            state.delete(&key(old));
        }
        state.put(key(round), bytes("v")).expect("six at once");
        copy.apply(&state.next(&mut cursor, &mut PLENTY.clone()));
        assert!(state.held() <= BOUNDS.keys_max);
    }
    assert!(copy.snapshots > 50, "{}", copy.snapshots);
    copy.follow(&mut state, &mut cursor);
    copy.is_the_same(&state, b"");
}

#[derive(Debug, Clone)]
enum Act {
    Put(u8, u8),
    Delete(u8),
    Read(usize, u8),
    Reconnect(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    // More keys than fit.
    let act = prop_oneof![
        3 => (0u8..12, any::<u8>()).prop_map(|(key, value)| Act::Put(key, value)),
        2 => (0u8..12).prop_map(Act::Delete),
        4 => (0usize..3, 0u8..6).prop_map(|(reader, times)| Act::Read(reader, times)),
        1 => (0usize..3).prop_map(Act::Reconnect),
    ];
    prop::collection::vec(act, 0..200)
}

/// A key and the prefix that every third of them has.
fn key(number: u8) -> Bytes {
    bytes(&format!("{}{:x}", if number.is_multiple_of(3) { "a" } else { "b" }, number))
}

/// TP-15
#[test]
fn a_publisher_with_a_larger_definition_is_left() {
    let hello = |mode, keys_max, key_bytes_max, value_bytes_max| {
        let hello = Tell::Hello { mode, epoch: 1, start: 0, keys_max, key_bytes_max, value_bytes_max };
        let mut follower = Follower::new(Mode::Keyed, BOUNDS, false);
        follower.hear(&body(&Step::Frame(hello.frame())).expect("a frame"))
    };
    assert_eq!(hello(Mode::Keyed, 8, 4, 8), Ok(None));
    assert_eq!(hello(Mode::Log, 8, 4, 8), Err(FollowError::Refused(Refusal::OtherMode)));
    for numbers in [(9, 4, 8), (8, 5, 8), (8, 4, 9)] {
        let error = hello(Mode::Keyed, numbers.0, numbers.1, numbers.2).expect_err("too large");
        assert!(matches!(error, FollowError::OtherBounds { .. }), "{error}");
    }
}

/// TP-32
#[test]
fn credit_is_given_for_half_of_a_window() {
    let wish = Wish { mode: Mode::Keyed, name: "t", prefix: &[], interval_ms: 0, window: 100, resume: None };
    let (mut session, _) = Session::new(&wish);
    assert_eq!(session.credit(), None);
    let frame = Tell::Whole { version: 1 }.frame();
    let mut given = 0;
    for _ in 0..100 {
        session.push(&frame);
        assert_eq!(session.credit(), None, "what is not taken is not paid back");
        session.next(10).expect("a frame").expect("all of it");
        given += usize::from(session.credit().is_some());
    }
    assert_eq!(given, 300 / 51, "{given}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// TP-20, TP-21, TP-24
    #[test]
    fn whoever_reads_on_ends_with_what_is_there(acts in acts()) {
        let mut state = state();
        let mut said = BTreeMap::new();
        let prefixes: [&[u8]; 3] = [b"", b"a", b"b"];
        let mut readers =
            prefixes.map(|prefix| (Cursor::new(Bytes::from_static(prefix)), Copy::of(&state, !prefix.is_empty())));
        for act in acts {
            match act {
                Act::Put(number, value) => {
                    let value = Bytes::from(vec![value]);
                    if let Ok(version) = state.put(key(number), value.clone()) {
                        said.insert(version, (key(number), Some(value)));
                    }
                }
                Act::Delete(number) => {
                    if let Some(version) = state.delete(&key(number)) {
                        said.insert(version, (key(number), None));
                    }
                }
                Act::Read(reader, times) => {
                    let (cursor, copy) = &mut readers[reader];
                    for _ in 0..times {
                        let step = state.next(cursor, &mut 2);
                        let body = body(&step).unwrap_or_default();
                        match Tell::decode(&body) {
                            Ok(Tell::Put { version, key, value }) => {
                                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                                prop_assert_eq!(&said[&version], &(key, Some(value)));
                            }
                            Ok(Tell::Delete { version, key }) => {
                                prop_assert_eq!(&said[&version], &(Bytes::copy_from_slice(key), None));
                            }
                            _ => {}
                        }
                        copy.apply(&step);
                    }
                }
                Act::Reconnect(reader) => {
                    let (cursor, copy) = &mut readers[reader];
                    let prefix = Bytes::from_static(prefixes[reader]);
                    *cursor = match copy.follower.connect() {
                        Some(at) => state.resume(prefix, at),
                        None => Cursor::new(prefix),
                    };
                    copy.fresh = None;
                    copy.greet(&state, cursor.start());
                }
            }
            prop_assert!(state.held() <= BOUNDS.keys_max);
        }
        for ((cursor, copy), prefix) in readers.iter_mut().zip(prefixes) {
            copy.follow(&mut state, cursor);
            copy.is_the_same(&state, prefix);
        }
    }

    /// TP-23: lines and gaps are everything that was said, once each and in order.
    #[test]
    fn a_log_tells_each_line_or_that_it_is_lost(acts in prop::collection::vec((any::<bool>(), 0u8..6), 0..300)) {
        let mut log: Log<Bytes> = Log::new(BOUNDS, 1);
        let mut reader = log.subscribe(Bytes::new());
        let mut follower = Follower::new(Mode::Log, BOUNDS, false);
        let greet = |follower: &mut Follower, start: u64| {
            let (keys_max, key_bytes_max, value_bytes_max) = (8, 4, 8);
            let hello = Tell::Hello { mode: Mode::Log, epoch: 1, start, keys_max, key_bytes_max, value_bytes_max };
            assert!(matches!(follower.hear(&body(&Step::Frame(hello.frame())).expect("a frame")), Ok(None | Some(Update::Resumed))));
        };
        assert_eq!(follower.connect(), None);
        greet(&mut follower, 0);
        let mut expected = 0u64;
        let mut read = |log: &mut Log<Bytes>, reader: &mut Reader, follower: &mut Follower, times: u8| {
            for _ in 0..times {
                let step = log.next(reader, &mut PLENTY.clone());
                let Some(body) = body(&step) else {
                    assert_eq!((&step, expected), (&Step::UpToDate, log.end()));
                    continue;
                };
                match follower.hear(&body).expect("in order").expect("of interest") {
                    Update::Said { value, .. } => {
                        assert_eq!(&value[..], &expected.to_be_bytes()[..]);
                        expected += 1;
                    }
                    Update::Gap { lost } => expected += lost,
                    other => panic!("{other:?} of a log"),
                }
            }
        };
        for (reconnects, times) in acts {
            let number = log.end();
            let value = Bytes::copy_from_slice(&number.to_be_bytes());
            prop_assert_eq!(log.say(bytes("k"), value), Ok(number));
            prop_assert!(log.held() <= BOUNDS.keys_max);
            if reconnects {
                let at = follower.connect().expect("it is where it was");
                reader = log.resume(Bytes::new(), at);
                greet(&mut follower, reader.next());
            }
            // Now and then it sleeps, and falls behind.
            if times > 3 {
                read(&mut log, &mut reader, &mut follower, times);
            }
        }
        read(&mut log, &mut reader, &mut follower, u8::MAX);
    }
}

#[test]
fn a_log_is_filtered_by_key_and_one_look_is_paid_for_each_line() {
    let mut log: Log<Bytes> = Log::new(BOUNDS, 1);
    for key in ["a", "a", "b"] {
        log.say(bytes(key), bytes("v")).expect("room");
    }
    let mut reader = log.subscribe(bytes("b"));
    assert_eq!(log.next(&mut reader, &mut 1), Step::Later);
    assert_eq!(log.next(&mut reader, &mut 2), Step::Frame(Tell::Said { number: 2, key: b"b", value: b"v" }.frame()));
    assert_eq!(log.next(&mut reader, &mut 0), Step::UpToDate);
    assert_eq!(log.encoded(), 1, "what nobody asked for is not encoded");
    assert_eq!(log.resume(Bytes::new(), Resume { epoch: 2, position: 3 }).next(), 0, "lines of another epoch mean nothing");
}
