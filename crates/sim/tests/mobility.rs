//! A node really gets another address, over each transport. Over QUIC its connections move with it; over TCP, and where QUIC cannot, the peer is
//! dialled again at once, and what may be done twice is asked again without anybody's help. What may not be done twice is not.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{body, over_each};
use strait::{Closed, Incoming, Message, Priority, Request, RequestError};
use strait_sim::{JoinHandle, Link, NodeConfig, Over, SimNode, World, scenario};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(60);
const TWICE: Request = Request::new("/test/twice/1", 1 << 10, 1 << 10, DEADLINE, 8).idempotent();
const ONCE: Request = Request::new("/test/once/1", 1 << 10, 1 << 10, DEADLINE, 8);

/// How often requests of each kind were worked on.
#[derive(Clone, Default)]
struct Worked {
    twice: Arc<AtomicU64>,
    once: Arc<AtomicU64>,
}

impl Worked {
    fn seen(&self) -> (u64, u64) {
        (self.twice.load(Ordering::Relaxed), self.once.load(Ordering::Relaxed))
    }
}

/// Answers two seconds later, and counts.
fn serve_slowly(world: &World, node: &SimNode, worked: &Worked) {
    for (def, count) in [(&TWICE, &worked.twice), (&ONCE, &worked.once)] {
        let (clock, count) = (world.clock(), count.clone());
        let slow = async move |request: Incoming| {
            count.fetch_add(1, Ordering::Relaxed);
            clock.sleep(2 * SECOND).await;
            request.body
        };
        node.serve(def, Priority::Normal, slow).expect("a fresh protocol");
    }
}

type Asked = JoinHandle<Result<Message, RequestError>>;

/// Asks `b` for both kinds, and waits until it works on them too.
fn ask_both(world: &mut World, a: &SimNode, b: &SimNode, worked: &Worked) -> (Asked, Asked) {
    let ask = |def: &'static Request| {
        let (api, peer) = (a.api().clone(), b.peer_id());
        world.spawn(a.id(), async move { api.request(peer, def, body(7, 100)).await })
    };
    let before = worked.seen();
    let asked = (ask(&TWICE), ask(&ONCE));
    world.run_until(|_| worked.seen() == (before.0 + 1, before.1 + 1));
    asked
}

fn two(world: &mut World, over: Over) -> (SimNode, SimNode, Worked) {
    world.net().set_default(Link::new(15 * MS));
    let [a, b] = [(); 2].map(|()| world.node(NodeConfig::over(over)));
    let worked = Worked::default();
    serve_slowly(world, &b, &worked);
    common::connect(world, &a, &b);
    (a, b, worked)
}

fn reply(asked: &Asked) -> Result<bytes::Bytes, RequestError> {
    asked.take().expect("done").map(Message::into_bytes)
}

/// Whoever asks has another address: over QUIC nothing is lost; over TCP it notices at once.
#[test]
fn who_asks_moves() {
    over_each("who_asks_moves", 3, |world, over| {
        let (mut a, b, worked) = two(world, over);
        let (twice, once) = ask_both(world, &a, &b, &worked);
        let at = world.now();
        world.move_node(&mut a);
        world.run_until(|_| twice.is_finished() && once.is_finished());
        assert_eq!(reply(&twice).expect("asked again"), body(7, 100).into_bytes());
        if over == Over::Quic {
            assert!(reply(&once).is_ok(), "its connection moved");
            assert_eq!(worked.seen(), (1, 1));
            assert_eq!(b.counters().totals.connections_opened, 1);
            // Its peer learns where it is reached now.
            let now_at = a.address();
            let told = |b: &SimNode| b.identified(a.peer_id()).is_some_and(|it| it.addresses.contains(&now_at));
            world.run_until(|_| told(&b));
            return;
        }
        assert_eq!(reply(&once), Err(RequestError::Lost(Closed::Moved)));
        let gap = world.now() - at - 2 * SECOND;
        assert!(gap < SECOND / 2, "a new connection and nothing more: {gap:?}");
        world.run_for(30 * SECOND);
        assert_eq!(worked.seen(), (2, 1), "what must not be done twice is not sent again");
        assert_eq!(a.counters().totals.dials, 2);
    });
}

/// Whoever answers has another address, which the one who asks knows too. The former finds out at once; nothing tells the latter, so the path is silent
/// until the transport gives it up, after the idle timeout at the latest.
#[test]
fn who_answers_moves() {
    over_each("who_answers_moves", 2, |world, over| {
        let (a, mut b, worked) = two(world, over);
        let (twice, once) = ask_both(world, &a, &b, &worked);
        let at = world.now();
        let addresses = world.move_node(&mut b);
        a.add_addresses(b.peer_id(), &addresses);
        world.run_until(|_| b.peers().is_empty());
        assert!(world.now() - at < SECOND, "it knows itself that it can go on from nowhere");
        world.run_until(|_| once.is_finished());
        assert!(matches!(reply(&once), Err(RequestError::Lost(Closed::Silent(_)))));
        assert!(world.now() - at <= 31 * SECOND, "{:?}", world.now() - at);
        world.run_until(|_| twice.is_finished());
        assert_eq!(reply(&twice).expect("asked again"), body(7, 100).into_bytes());
        assert!(world.now() - at < 36 * SECOND, "{:?}", world.now() - at);
        world.run_for(30 * SECOND);
        assert_eq!(worked.seen(), (2, 1), "what must not be done twice is not sent again");
    });
}

/// For a while there is no address at all. What is to be asked again waits for the next one, and no longer than its deadline allows.
#[test]
fn a_gap_between_two_addresses() {
    over_each("a_gap_between_two_addresses", 2, |world, over| {
        let (mut a, b, worked) = two(world, over);
        let (twice, once) = ask_both(world, &a, &b, &worked);
        world.strand_node(&a);
        world.run_for(10 * SECOND);
        assert!(once.is_finished() && !twice.is_finished());
        assert_eq!(reply(&once), Err(RequestError::Lost(Closed::Moved)));
        let at = world.now();
        world.move_node(&mut a);
        world.run_until(|_| twice.is_finished());
        let gap = world.now() - at - 2 * SECOND;
        assert!(gap < SECOND, "dialled as soon as it can be: {gap:?}");
        assert!(reply(&twice).is_ok());
        assert_eq!(worked.seen(), (2, 1));

        let (twice, _) = ask_both(world, &a, &b, &worked);
        let at = world.now();
        world.strand_node(&a);
        world.run_until(|_| twice.is_finished());
        assert!(matches!(reply(&twice), Err(RequestError::Dial(_))));
        let waited = world.now() - at;
        assert!(waited > DEADLINE / 2 && waited <= DEADLINE + 4 * SECOND, "{waited:?}");
        assert!(a.counters().totals.dials < 40, "{}", a.counters().totals.dials);
    });
}

/// A peer that forbids migration, or a network that swallows what comes from the new address: QUIC does not go on, and that is found out in seconds.
#[test]
fn where_quic_cannot_move_it_is_dialled_again() {
    scenario("where_quic_cannot_move_it_is_dialled_again", 3, |world| {
        let (mut a, b, worked) = two(world, Over::Quic);
        let (twice, once) = ask_both(world, &a, &b, &worked);
        let at = world.now();
        world.net().set_up(a.id(), b.id(), false);
        world.move_node(&mut a);
        world.run_until(|_| once.is_finished());
        assert_eq!(reply(&once), Err(RequestError::Lost(Closed::Moved)));
        assert!(world.now() - at < 5 * SECOND, "{:?}", world.now() - at);
        world.net().set_up(a.id(), b.id(), true);
        world.run_until(|_| twice.is_finished());
        assert!(reply(&twice).is_ok());
        assert_eq!(worked.seen(), (2, 1));
    });
}

/// A connection that the peer ends is dialled again at once, three times for one request at most; and what this side has closed itself is not.
#[test]
fn resends_are_bounded() {
    over_each("resends_are_bounded", 2, |world, over| {
        let (a, b, worked) = two(world, over);
        let (twice, _once) = ask_both(world, &a, &b, &worked);
        for round in 2..=4 {
            b.disconnect(a.peer_id());
            world.run_until(|_| worked.seen().0 == round || twice.is_finished());
            assert_eq!(worked.seen(), (round, 1));
        }
        b.disconnect(a.peer_id());
        world.run_until(|_| twice.is_finished());
        assert!(matches!(reply(&twice), Err(RequestError::Lost(_))), "no fifth time");

        common::connect(world, &a, &b);
        let (api, peer) = (a.api().clone(), b.peer_id());
        let asked = world.spawn(a.id(), async move { api.request(peer, &TWICE, body(7, 100)).await });
        world.run_until(|_| worked.seen().0 == 5);
        a.disconnect(b.peer_id());
        world.run_until(|_| asked.is_finished());
        assert!(matches!(reply(&asked), Err(RequestError::Lost(Closed::Here(_)))));
        world.run_for(5 * SECOND);
        assert!(a.peers().is_empty(), "it was told to be disconnected");
    });
}

/// Over TCP each move leaves a connection behind at the peer, until it finds out: that neither keeps the next one out nor loses a request.
#[test]
fn whoever_moves_often_is_not_kept_out() {
    over_each("whoever_moves_often_is_not_kept_out", 2, |world, over| {
        let (mut a, b, worked) = two(world, over);
        for round in 1..=8 {
            let (api, peer) = (a.api().clone(), b.peer_id());
            let asked = world.spawn(a.id(), async move { api.request(peer, &TWICE, body(7, 100)).await });
            world.run_for(SECOND);
            world.move_node(&mut a);
            let at = world.now();
            world.run_until(|_| asked.is_finished());
            assert_eq!(reply(&asked), Ok(body(7, 100).into_bytes()), "move {round}");
            let waited = world.now() - at;
            assert!(waited < 15 * SECOND, "move {round}: {waited:?}");
        }
        assert!(worked.seen().0 <= 8 * 2);
    });
}
