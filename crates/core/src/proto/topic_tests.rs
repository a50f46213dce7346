//! One subscriber at a time, against scripted bytes.

use bytes::BytesMut;
use proptest::prelude::*;
use strait_wire::topic::NAME_BYTES_MAX;

use super::*;
use crate::stream::testing::Bench;
use crate::topic::{FollowError, Follower, Log, Session, State as Keyed, Update, Wish};

const TOPIC: &str = "/app/values/1";
const BOUNDS: Bounds = Bounds { keys_max: 100, key_bytes_max: 8, value_bytes_max: 64 << 10 };
const SECOND: Duration = Duration::from_secs(1);

fn wish() -> Wish<'static> {
    Wish { mode: Mode::Keyed, name: TOPIC, prefix: &[], interval_ms: 0, window: 1 << 20, resume: None }
}

/// A subscriber and its publisher.
struct Both {
    bench: Bench<Teller>,
    topic: TopicId,
    session: Session,
    follower: Follower,
    /// How much of what was told the session has.
    read: usize,
    credits: bool,
}

impl Both {
    fn new(wish: &Wish<'_>) -> Both {
        let mut bench = Bench::new(Teller::new(0));
        let topic = bench.feeds.add(TOPIC, Box::new(Keyed::<Bytes>::new(BOUNDS, 7))).expect("a fresh one");
        let (session, first) = Session::new(wish);
        bench.receive(first);
        let follower = Follower::new(Mode::Keyed, BOUNDS, !wish.prefix.is_empty());
        Both { bench, topic, session, follower, read: 0, credits: true }
    }

    fn put(&mut self, key: &str, value: impl Into<Bytes>) {
        let state: &mut Keyed<Bytes> = self.bench.feeds.typed(self.topic).expect("it is there");
        state.put(Bytes::copy_from_slice(key.as_bytes()), value.into()).expect("room");
    }

    /// What the subscriber hears of all that was told so far.
    fn hear(&mut self) -> Vec<Update> {
        let mut updates = Vec::new();
        loop {
            let max = self.follower.frame_bytes_max();
            while let Some(body) = self.session.next(max).expect("a frame") {
                updates.extend(self.follower.hear(&body).expect("in order"));
            }
            if self.read < self.bench.pipe.outgoing.len() {
                self.session.push(&self.bench.pipe.outgoing[self.read..]);
                self.read = self.bench.pipe.outgoing.len();
                continue;
            }
            match self.session.credit().filter(|_| self.credits) {
                Some(credit) => drop(self.bench.receive(credit)),
                None => return updates,
            }
        }
    }

    fn puts(&mut self) -> Vec<(Bytes, Bytes)> {
        let put = |update| match update {
            Update::Put { key, value } => Some((key, value)),
            _ => None,
        };
        self.hear().into_iter().filter_map(put).collect()
    }
}

fn refusal(bench: &Bench<Teller>) -> FollowError {
    let (mut session, _) = Session::new(&wish());
    session.push(&bench.pipe.outgoing);
    let body = session.next(100).expect("a frame").expect("all of it");
    Follower::new(Mode::Keyed, BOUNDS, false).hear(&body).expect_err("refused")
}

/// TP-10
#[test]
fn a_snapshot_comes_first_and_then_changes() {
    let mut both = Both::new(&wish());
    assert_eq!(both.hear(), [Update::Begin, Update::Whole]);
    assert!(matches!(both.bench.outputs[..], [Output::Subscribed(_), Output::Watching(_)]), "{:?}", both.bench.outputs);
    both.put("k", "1");
    both.put("k", "2");
    both.bench.drive();
    assert_eq!(both.puts(), [("k".into(), "2".into())]);
    both.bench.drive();
    assert_eq!(both.hear(), [], "nothing new");
}

/// TP-13: each refusal is told, in order, with the frame that says why.
#[test]
fn what_is_not_there_is_refused_in_words() {
    let other = Wish { name: "/app/other/1", ..wish() };
    let log = Wish { mode: Mode::Log, ..wish() };
    for (wish, wanted) in [(other, Refusal::Unknown), (log, Refusal::OtherMode)] {
        let both = Both::new(&wish);
        assert_eq!(refusal(&both.bench), FollowError::Refused(wanted));
        assert!(both.bench.pipe.finished && both.bench.pipe.reset.is_none());
    }
    let mut bench = Bench::new(Teller::full());
    assert_eq!(bench.drive(), Next::Done);
    assert_eq!(refusal(&bench), FollowError::Refused(Refusal::TooMany));
}

/// TP-03, TP-10, TP-12: what is not a subscription ends the stream, at once or, if it stands still, within the progress interval.
#[test]
fn anything_else_than_a_subscription_is_a_breach() {
    let credit = Ask::Credit { total: 5 }.frame();
    let mut garbage = BytesMut::new();
    framing::put_header(3, &mut garbage);
    garbage.extend_from_slice(&[0x11, 9, 9]);
    let mut huge = BytesMut::new();
    framing::put_header(200 << 30, &mut huge);
    for bytes in [credit, garbage.freeze(), huge.freeze()] {
        let mut bench = Bench::new(Teller::new(0));
        assert_eq!(bench.receive(bytes), Next::Done);
        assert!(matches!(bench.only_output(), Output::Failed(StreamError::Broken(_))));
        assert_eq!(bench.pipe.reset, Some(CODE_BREACH));
    }
    let (_, first) = Session::new(&wish());
    let mut bench = Bench::new(Teller::new(0));
    bench.receive(first.slice(..first.len() - 1));
    assert_eq!(bench.wait(bench.limits.progress_interval), Next::Done, "a byte a second is no subscription");
    assert!(matches!(bench.only_output(), Output::Failed(StreamError::Broken(Breach::Slow))));
}

/// TP-14: a second subscription on the same stream.
#[test]
fn after_the_first_frame_only_credit_may_come() {
    let mut both = Both::new(&wish());
    let (_, again) = Session::new(&wish());
    assert_eq!(both.bench.receive(again), Next::Done);
    assert_eq!(both.bench.pipe.reset, Some(CODE_BREACH));
}

/// TP-30: no frame begins without credit, so that a frozen subscriber is told nothing more, whatever changes and whatever the transport takes.
#[test]
fn who_gives_no_credit_is_told_no_more() {
    let mut both = Both::new(&Wish { window: 64, ..wish() });
    both.credits = false;
    for round in 0..1000 {
        both.put(&format!("k{}", round % 50), vec![round as u8; 30]);
        both.bench.drive();
    }
    let told = both.bench.pipe.outgoing.len();
    assert!(told <= 64 + 50, "{told} bytes for 64 of credit: one frame may pass it");
    assert!(both.bench.state.held() < 100);
    // With credit it is told the newest of each, once.
    both.credits = true;
    let mut last = both.puts();
    last.sort();
    last.dedup_by_key(|(key, _)| key.clone());
    assert_eq!(last.len(), 50);
}

/// TP-31
#[test]
fn credit_that_shrinks_changes_nothing() {
    let mut both = Both::new(&wish());
    both.bench.receive(Ask::Credit { total: 1 }.frame());
    both.put("k", "v");
    both.bench.drive();
    assert_eq!(both.puts().len(), 1);
}

/// TP-22, with the publisher's stretch at its most.
#[test]
fn no_more_often_than_asked_for() {
    let mut both = Both::new(&Wish { interval_ms: 1000, ..wish() });
    both.bench.machine.stretch = 255;
    both.put("a", "1");
    both.bench.drive();
    assert_eq!(both.puts().len(), 0, "the snapshot was this second's");
    both.put("b", "1");
    both.bench.wait(SECOND);
    assert_eq!(both.puts().len(), 2, "both at once");
    both.put("a", "2");
    both.bench.wait(SECOND / 2);
    assert_eq!(both.puts().len(), 0);
    let deadline = both.bench.state.deadline.expect("it wakes by itself");
    assert_eq!(deadline.1, Why::Rate);
    both.bench.now = deadline.0;
    both.bench.drive();
    assert_eq!(both.puts().len(), 1);
    // Long after the last time it is told at once.
    both.bench.wait(SECOND * 100);
    both.put("a", "3");
    both.bench.drive();
    assert_eq!(both.puts().len(), 1);
}

#[test]
fn the_stretch_is_an_eighth_at_most() {
    for (stretch, least, most) in [(0, 1000, 1000), (255, 1100, 1125)] {
        let mut bench = Bench::new(Teller::new(stretch));
        bench.feeds.add(TOPIC, Box::new(Keyed::<Bytes>::new(BOUNDS, 7))).expect("a fresh one");
        let (_, first) = Session::new(&Wish { interval_ms: 1000, ..wish() });
        bench.receive(first);
        let State::Telling(telling) = &bench.machine.state else { panic!("it was taken") };
        let interval = telling.interval.as_millis();
        assert!((least..=most).contains(&interval), "{interval}");
    }
}

/// A large value leaves in pieces, and its memory is granted before.
#[test]
fn a_large_value_waits_for_memory_and_leaves_in_pieces() {
    let mut both = Both::new(&wish());
    assert!(both.bench.state.grant.bytes() >= BOUNDS.value_bytes_max as u64);
    both.bench.pipe.room = 1000;
    both.put("k", vec![9; 64 << 10]);
    let mut drives = 0;
    while both.puts().is_empty() {
        both.bench.pipe.room = 1000;
        both.bench.drive();
        drives += 1;
    }
    assert!(drives > 60, "{drives}");
    let mut bench = Bench::new(Teller::new(0));
    bench.feeds.add(TOPIC, Box::new(Keyed::<Bytes>::new(BOUNDS, 7))).expect("a fresh one");
    let taken = bench.ledger_all_but(10_000);
    let (_, first) = Session::new(&wish());
    assert!(matches!(bench.receive(first), Next::Wait(waits) if waits.memory));
    drop(taken);
    assert!(matches!(bench.drive(), Next::Wait(waits) if waits.app));
}

/// One drive looks at a bounded number of keys and hands over a bounded number of bytes, then lets others have their turn.
#[test]
fn a_drive_is_bounded() {
    let mut both = Both::new(&Wish { prefix: b"z", ..wish() });
    for round in 0..1000 {
        both.put(&format!("k{}", round % 90), "v");
    }
    both.bench.outputs.clear();
    both.bench.drive();
    assert_eq!(both.bench.state.moved.looks, u64::from(LOOKS_PER_DRIVE));
    assert!(matches!(both.bench.outputs[..], [Output::More]));
    both.bench.drive();
    assert!(matches!(both.bench.outputs[..], [Output::More, Output::Watching(_)]), "what it has not asked for costs looks only");
    let mut both = Both::new(&wish());
    (0..20).for_each(|key| both.put(&format!("k{key}"), vec![1; 10_000]));
    let before = both.bench.pipe.outgoing.len();
    both.bench.drive();
    let told = both.bench.pipe.outgoing.len() - before;
    assert!(told < 2 * BYTES_PER_DRIVE as usize, "{told}");
}

/// TP-40, TP-41: either side may end it.
#[test]
fn an_end_of_either_side_is_an_end_in_order() {
    let mut both = Both::new(&wish());
    both.bench.outputs.clear();
    assert_eq!(both.bench.finish(), Next::Done);
    assert!(matches!(both.bench.only_output(), Output::Quiet));
    let mut both = Both::new(&wish());
    both.bench.feeds.remove(both.topic);
    assert_eq!(both.bench.drive(), Next::Done);
    assert!(both.bench.pipe.finished && both.bench.pipe.reset.is_none());
}

/// TP-11: it goes on where it was, without a snapshot.
#[test]
fn a_subscription_that_comes_back_is_told_what_it_missed() {
    let mut both = Both::new(&wish());
    both.put("a", "1");
    both.put("b", "1");
    both.bench.drive();
    both.hear();
    let resume = both.follower.connect();
    assert_eq!(resume, Some(Resume { epoch: 7, position: 2 }));
    both.put("b", "2");
    let mut bench = Bench::new(Teller::new(0));
    std::mem::swap(&mut bench.feeds, &mut both.bench.feeds);
    let (session, first) = Session::new(&Wish { resume, ..wish() });
    bench.receive(first);
    (both.bench, both.session, both.read) = (bench, session, 0);
    assert_eq!(both.hear(), [Update::Resumed, Update::Put { key: "b".into(), value: "2".into() }]);
}

#[test]
fn topics_have_names_of_their_own_and_room_for_their_values() {
    let mut bench = Bench::new(Teller::new(0));
    let mut add = |name: &str| bench.feeds.add(name, Box::new(Log::<Bytes>::new(BOUNDS, 7)));
    add("a").expect("a fresh one");
    for name in ["a", "", &"n".repeat(NAME_BYTES_MAX + 1)] {
        assert!(matches!(add(name), Err(ConfigError::Topic { .. })), "{name}");
    }
    let limits = Limits::default();
    assert!(check_topic("a", &BOUNDS, &limits).is_ok());
    let room = limits.message_room() as usize;
    for bounds in [Bounds { value_bytes_max: room, ..BOUNDS }, Bounds { keys_max: 0, ..BOUNDS }] {
        assert!(matches!(check_topic("a", &bounds, &limits), Err(ConfigError::Topic { .. })), "{bounds:?}");
    }
}

proptest! {
    /// Whatever comes, in whatever pieces: no panic, bounded memory, and one outcome at most.
    #[test]
    fn any_bytes_are_borne(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20), subscribes: bool) {
        let mut bench = Bench::new(Teller::new(0));
        bench.feeds.add(TOPIC, Box::new(Keyed::<Bytes>::new(BOUNDS, 7))).expect("a fresh one");
        if subscribes {
            bench.receive(Session::new(&wish()).1);
        }
        for piece in pieces {
            if bench.receive_some(&piece) == Next::Done {
                break;
            }
        }
        let ends = bench.outputs.iter().filter(|output| matches!(output, Output::Failed(_) | Output::Quiet)).count();
        prop_assert!(ends <= 1);
        prop_assert!(bench.state.held() < 8 << 10);
    }

    /// Whatever a publisher sends: an update or an error, and a frame that does not fit the definition is never kept.
    #[test]
    fn any_publisher_is_borne(bytes in prop::collection::vec(any::<u8>(), 0..400), greets: bool, log: bool) {
        let (mode, bounds) = (if log { Mode::Log } else { Mode::Keyed }, Bounds { keys_max: 4, key_bytes_max: 4, value_bytes_max: 20 });
        let (mut session, _) = Session::new(&Wish { mode, ..wish() });
        let mut follower = Follower::new(mode, bounds, false);
        if greets {
            session.push(&Tell::Hello { mode, epoch: 1, start: 0, keys_max: 4, key_bytes_max: 4, value_bytes_max: 20 }.frame());
        }
        session.push(&bytes);
        while let Ok(Some(body)) = session.next(follower.frame_bytes_max()) {
            prop_assert!(body.len() <= follower.frame_bytes_max());
            let Ok(update) = follower.hear(&body) else { break };
            if let Some(Update::Put { key, value } | Update::Said { key, value }) = update {
                prop_assert!(greets && key.len() <= 4 && value.len() <= 20);
            }
        }
    }
}
