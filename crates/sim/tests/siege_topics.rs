//! Topics under attack: an honest subscriber is told in time whatever others ask for, and a subscriber bears any publisher.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::over_each;
use strait::{Change, FollowError, Idle, Mirror, Priority, Stream, StreamProtocol, SubscribeError, Topic};
use strait_core::proto::topic::{NAME, PER_PEER_MAX};
use strait_core::topic::{Mode, Session, Wish};
use strait_sim::{Link, NodeConfig, SimNode, World};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const VALUES: Topic<u16, Vec<u8>> = Topic::latest("/test/values/1", 100, 2, 1024);
/// The protocol as an attacker uses it: without its own limits.
const RAW: StreamProtocol = StreamProtocol::new(NAME, 4096, Idle::Never);

fn wish() -> Wish<'static> {
    Wish { mode: Mode::Keyed, name: "/test/values/1", prefix: &[], interval_ms: 0, window: u32::MAX, resume: None }
}

/// A publisher, an honest subscriber, and attackers that are connected to the publisher.
struct Siege {
    publisher: SimNode,
    values: strait::Publisher<u16, Vec<u8>, strait::Latest>,
    attackers: Vec<SimNode>,
    /// How old values were when the honest one saw them.
    ages: Arc<Mutex<Vec<Duration>>>,
    _honest: SimNode,
}

impl Siege {
    fn new(world: &mut World, over: strait_sim::Over, attackers: usize) -> Siege {
        world.net().set_default(Link::new(10 * MS).rate(20_000_000));
        let publisher = world.node(NodeConfig::over(over));
        let values = publisher.publisher(&VALUES, Priority::Normal).expect("a fresh topic");
        let honest = world.node(NodeConfig::over(over));
        common::connect(world, &honest, &publisher);
        let attackers: Vec<SimNode> = (0..attackers).map(|_| world.node(NodeConfig::over(over))).collect();
        attackers.iter().for_each(|attacker| common::connect(world, attacker, &publisher));
        let ages: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let mut subscription = honest.subscribe(publisher.peer_id(), &VALUES);
        let (seen, clock) = (ages.clone(), world.clock());
        world.spawn(honest.id(), async move {
            loop {
                if let Change::Put(_, value) = subscription.next().await.expect("it goes on") {
                    let at = value[..8].try_into().map(u64::from_be_bytes).expect("eight bytes");
                    let age = clock.now().saturating_sub(Duration::from_micros(at));
                    seen.lock().expect("no panic").push(age);
                }
            }
        });
        Siege { publisher, values, attackers, ages, _honest: honest }
    }

    /// Each key changes ten times a second for so long; then the honest subscriber has to have seen them in time.
    fn publish(&self, world: &mut World, seconds: u64) {
        for round in 0..seconds * 100 {
            for key in 0..10u64 {
                let mut value = vec![7; 1000];
                value[..8].copy_from_slice(&(world.now().as_micros() as u64).to_be_bytes());
                self.values.publish((key * 10 + round % 10) as u16, value).expect("room");
            }
            world.run_for(10 * MS);
        }
        let mut ages = self.ages.lock().expect("no panic").clone();
        assert!(ages.len() as u64 > seconds * 500, "{} values in {seconds} s", ages.len());
        let p99 = common::percentile(&mut ages, 99);
        assert!(p99 < 200 * MS, "p99 {p99:?}");
    }
}

#[test]
fn a_flood_of_subscriptions_has_its_share_and_is_refused_beyond_it() {
    over_each("a_flood_of_subscriptions_has_its_share_and_is_refused_beyond_it", 1, |world, over| {
        let siege = Siege::new(world, over, 2);
        for attacker in &siege.attackers {
            for _ in 0..600 {
                let (api, peer) = (attacker.api().clone(), siege.publisher.peer_id());
                world.spawn(attacker.id(), async move {
                    let Ok(stream) = api.open(peer, &RAW).await else { return };
                    let (mut send, mut receive) = stream.split();
                    let _ = send.write_all(Session::new(&wish()).1).await;
                    // It reads, so that each of its subscriptions wants all there is.
                    while let Ok(Some(_)) = receive.read(64 << 10).await {}
                });
            }
        }
        siege.publish(world, 2);
        let totals = siege.publisher.counters().totals;
        assert!(totals.subscriptions <= 1 + 2 * u64::from(PER_PEER_MAX), "{} were taken", totals.subscriptions);
        assert!(totals.subscriptions_refused > 100, "{} were refused", totals.subscriptions_refused);
    });
}

/// Frozen readers cost what the transport holds for them, and nothing for each change.
#[test]
fn frozen_readers_hold_up_nobody() {
    over_each("frozen_readers_hold_up_nobody", 1, |world, over| {
        let siege = Siege::new(world, over, 4);
        for attacker in &siege.attackers {
            for _ in 0..PER_PEER_MAX {
                let (api, peer, clock) = (attacker.api().clone(), siege.publisher.peer_id(), world.clock());
                world.spawn(attacker.id(), async move {
                    let stream = api.open(peer, &RAW).await.expect("it opens");
                    let (mut send, _receive) = stream.split();
                    send.write_all(Session::new(&wish()).1).await.expect("it is written");
                    clock.sleep(1000 * SECOND).await;
                });
            }
        }
        siege.publish(world, 3);
        // Their streams are full by now: what changes from here on wakes the honest one alone.
        let before = siege.publisher.counters().totals;
        siege.publish(world, 3);
        let after = siege.publisher.counters().totals;
        let wakes = after.topic_wakes - before.topic_wakes;
        assert!(wakes <= 2 * 300, "{wakes} wakes for 300 changes");
    });
}

/// Whoever subscribes again and again makes the publisher begin anew each time: that is paid for out of its own share.
#[test]
fn a_storm_of_subscriptions_that_come_back() {
    over_each("a_storm_of_subscriptions_that_come_back", 1, |world, over| {
        let siege = Siege::new(world, over, 3);
        for attacker in &siege.attackers {
            for _ in 0..32 {
                let (api, peer) = (attacker.api().clone(), siege.publisher.peer_id());
                world.spawn(attacker.id(), async move {
                    loop {
                        let Ok(stream) = api.open(peer, &RAW).await else { return };
                        let (mut send, mut receive) = stream.split();
                        let _ = send.write_all(Session::new(&Wish { prefix: &[0, 1], ..wish() }).1).await;
                        let _ = receive.read(64).await;
                        send.reset(0);
                    }
                });
            }
        }
        siege.publish(world, 3);
        let taken = siege.publisher.counters().totals.subscriptions;
        assert!(taken > 2_000, "{taken}: it was no storm");
        // Nothing is left of those that went.
        let audit = siege.publisher.audit();
        assert!(audit.streams < 200, "{} streams", audit.streams);
    });
}

/// One byte a second of the frame that asks, or of credit, on as many streams as there may be.
#[test]
fn a_byte_a_second_is_ended_before_a_subscription_and_harmless_after_it() {
    over_each("a_byte_a_second_is_ended_before_a_subscription_and_harmless_after_it", 1, |world, over| {
        let siege = Siege::new(world, over, 2);
        let ended: Arc<Mutex<usize>> = Arc::default();
        for (number, attacker) in siege.attackers.iter().enumerate() {
            for _ in 0..50 {
                let (api, peer, clock, ended) = (attacker.api().clone(), siege.publisher.peer_id(), world.clock(), ended.clone());
                world.spawn(attacker.id(), async move {
                    let mut stream = api.open(peer, &RAW).await.expect("it opens");
                    let mut slow = Session::new(&Wish { window: 1, ..wish() }).1;
                    if number == 1 {
                        stream.send.write_all(slow).await.expect("it is written");
                        slow = Bytes::from(vec![0x0a; 40]);
                    }
                    for byte in slow {
                        if stream.send.write_all(vec![byte]).await.is_err() {
                            *ended.lock().expect("no panic") += 1;
                            return;
                        }
                        clock.sleep(SECOND).await;
                    }
                });
            }
        }
        siege.publish(world, 20);
        // Garbage in place of credit ends a subscription as soon as it is a whole frame.
        assert_eq!(*ended.lock().expect("no panic"), 100);
    });
}

/// Lets `node` answer subscriptions with these bytes, piece by piece.
fn serve_raw(world: &World, node: &SimNode, pieces: Vec<Bytes>, rest: Duration) {
    let clock = world.clock();
    node.serve_streams(&RAW, Priority::Normal, async move |stream: Stream| {
        let (mut send, mut receive) = stream.split();
        let _ = receive.read(1024).await;
        for piece in pieces {
            if send.write_all(piece).await.is_err() {
                return;
            }
            clock.sleep(rest).await;
        }
        clock.sleep(1000 * SECOND).await;
    })
    .expect("a fresh protocol");
}

fn hello() -> Bytes {
    // Keyed, an epoch, a snapshot first, 100 keys of 2 bytes with 1024 bytes of value.
    let mut hello = vec![15, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 100, 2, 0x80, 8];
    hello[0] = hello.len() as u8 - 1;
    Bytes::from(hello)
}

fn end(world: &mut World, over: strait_sim::Over, pieces: Vec<Bytes>) -> SubscribeError {
    let (a, b) = common::pair(world, over);
    serve_raw(world, &b, pieces, Duration::ZERO);
    let mut mirror = Mirror::new(a.subscribe(b.peer_id(), &VALUES));
    world.block_on(async {
        loop {
            if let Err(error) = mirror.changed().await {
                assert!(mirror.values().len() <= 101, "{} keys", mirror.values().len());
                return error;
            }
        }
    })
}

#[test]
fn a_publisher_that_lies_is_left_with_a_reason() {
    over_each("a_publisher_that_lies_is_left_with_a_reason", 1, |world, over| {
        let begin = Bytes::from_static(&[1, 3]);
        let huge = Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0xa0, 0x06, 4]);
        let error = end(world, over, vec![hello(), begin.clone(), huge]);
        assert!(error.to_string().contains("larger than its definition allows"), "{error}");
        // A snapshot without an end, of more keys than there may be.
        let mut keys = vec![hello(), begin.clone()];
        keys.extend((0..500u16).map(|key| Bytes::from(vec![6, 4, 1, 2, (key >> 8) as u8, key as u8, 0])));
        assert_eq!(end(world, over, keys), SubscribeError::TooManyKeys { max: 100 });
        let long = Bytes::from(vec![7, 4, 1, 3, 1, 1, 1, 0]);
        let error = end(world, over, vec![hello(), begin, long]);
        assert!(matches!(error, SubscribeError::Publisher(FollowError::Broken(_))), "{error}");
        let early = Bytes::from_static(&[6, 4, 1, 2, 0, 1, 0]);
        let error = end(world, over, vec![hello(), early]);
        assert!(error.to_string().contains("a change before a snapshot"), "{error}");
    });
}

/// A publisher that sends a byte a second is waited for, in the memory of one frame; everything else of the connection goes on.
#[test]
fn a_publisher_of_a_byte_a_second_is_waited_for() {
    over_each("a_publisher_of_a_byte_a_second_is_waited_for", 1, |world, over| {
        let (a, b) = common::pair(world, over);
        common::serve_echo(&b);
        let all = [&hello()[..], &[1, 3], &[6, 4, 1, 2, 0, 1, 5], &[2, 6, 1]].concat();
        serve_raw(world, &b, all.into_iter().map(|byte| Bytes::from(vec![byte])).collect(), SECOND);
        let mut mirror = Mirror::new(a.subscribe(b.peer_id(), &VALUES));
        world.block_on(async {
            while !mirror.is_live() {
                mirror.changed().await.expect("it is waited for");
            }
        });
        assert_eq!(mirror.values().get(&1), Some(&vec![5]));
        assert!(world.now() > 20 * SECOND);
        let reply = world.block_on(a.request(b.peer_id(), &common::ECHO, common::body(1, 1000)));
        assert!(reply.is_ok(), "{reply:?}");
    });
}
