//! Both directions full at once, in every protocol: progress, never a deadlock.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{ECHO, PIPE, drain, over_each, pair, pump, serve_echo};
use strait::{Change, Idle, Limits, Priority, Stream, StreamProtocol, Topic};
use strait_sim::check::Flow;
use strait_sim::rng::Random;
use strait_sim::{Link, NodeConfig, SimNode, World};

const MS: Duration = Duration::from_millis(1);

/// A small link, so that everything fills up.
fn tight(world: &mut World) {
    let mut link = Link::new(10 * MS).rate(2_000_000);
    link.queue_bytes = 64 << 10;
    world.net().set_default(link);
}

/// Keeps `asked` requests of `bytes` going at once from `a` to `b`, until `count` are answered.
fn ask(world: &World, a: &SimNode, b: &SimNode, asked: u64, count: u64, bytes: usize) -> Arc<AtomicU64> {
    let done = Arc::new(AtomicU64::new(0));
    for lane in 0..asked {
        let (api, peer, done) = (a.api().clone(), b.peer_id(), done.clone());
        world.spawn(a.id(), async move {
            for index in (lane..count).step_by(asked as usize) {
                let body = common::body(index, bytes);
                let wanted = body.clone().into_bytes();
                let reply = api.request(peer, &ECHO, body).await;
                let reply = reply.unwrap_or_else(|error| panic!("request {index}: {error}"));
                assert_eq!(reply.into_bytes(), wanted, "request {index}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    done
}

#[test]
fn requests_both_ways_at_the_window() {
    over_each("requests_both_ways_at_the_window", 2, |world, over| {
        tight(world);
        let (a, b) = pair(world, over);
        serve_echo(&a);
        serve_echo(&b);
        // Twice as many at once as the window allows, each as large as it may be.
        let there = ask(world, &a, &b, 16, 32, 256 << 10);
        let back = ask(world, &b, &a, 16, 32, 256 << 10);
        world.run_until(|_| [&there, &back].iter().all(|n| n.load(Ordering::Relaxed) == 32));
    });
}

/// Serves streams that are filled in both directions at once.
fn serve_both_ways(node: &SimNode, incoming: &Flow, outgoing: &Flow, total: u64) {
    let (incoming, outgoing) = (incoming.clone(), outgoing.clone());
    let spawner = node.spawner();
    node.serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
        let (send, receive) = stream.split();
        let reader = spawner.spawn(async move { drain(receive, &incoming).await });
        pump(send, &outgoing, total).await;
        reader.await;
    })
    .expect("a fresh protocol");
}

fn open_both_ways(world: &World, from: &SimNode, to: &SimNode, incoming: &Flow, outgoing: &Flow, total: u64) {
    let (api, peer, spawner) = (from.api().clone(), to.peer_id(), from.spawner());
    let (incoming, outgoing) = (incoming.clone(), outgoing.clone());
    world.spawn(from.id(), async move {
        let stream = api.open(peer, &PIPE).await.expect("it opens");
        let (send, receive) = stream.split();
        spawner.spawn(async move { drain(receive, &incoming).await });
        pump(send, &outgoing, total).await;
    });
}

#[test]
fn raw_streams_both_ways_full() {
    over_each("raw_streams_both_ways_full", 2, |world, over| {
        tight(world);
        let (a, b) = pair(world, over);
        let flows: Vec<_> = (0..4).map(|id| Flow::new(&format!("flow {id}"), id)).collect();
        let total = 1 << 20;
        // a opens one to b, b opens one to a, and each is full in both directions.
        serve_both_ways(&b, &flows[0], &flows[1], total);
        serve_both_ways(&a, &flows[2], &flows[3], total);
        open_both_ways(world, &a, &b, &flows[1], &flows[0], total);
        open_both_ways(world, &b, &a, &flows[3], &flows[2], total);
        world.run_until(|_| flows.iter().all(Flow::is_settled));
        flows.iter().for_each(Flow::settle_complete);
    });
}

#[test]
fn a_side_that_writes_all_before_it_reads_does_not_block_the_rest() {
    over_each("a_side_that_writes_all_before_it_reads_does_not_block_the_rest", 2, |world, over| {
        tight(world);
        let (a, b) = pair(world, over);
        serve_echo(&b);
        // On this stream both apps write without ever reading: it is stuck by their own doing, and
        // only it.
        let stuck = Flow::new("stuck", 9);
        let flow = stuck.clone();
        b.serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
            let (send, _receive) = stream.split();
            pump(send, &flow, 64 << 20).await;
        })
        .expect("a fresh protocol");
        common::upload(world, &a, &b, &Flow::new("stuck too", 8), 64 << 20);
        world.run_for(Duration::from_secs(5));
        let at = stuck.sent_bytes();
        world.run_for(Duration::from_secs(20));
        assert_eq!(stuck.sent_bytes(), at, "it is stuck indeed");
        let done = ask(world, &a, &b, 16, 64, 100_000);
        world.run_until(|_| done.load(Ordering::Relaxed) == 64);
    });
}

#[test]
fn pings_both_ways() {
    over_each("pings_both_ways", 2, |world, over| {
        tight(world);
        let (a, b) = pair(world, over);
        let done = Arc::new(AtomicU64::new(0));
        for (from, to) in [(&a, &b), (&b, &a)] {
            for _ in 0..32 {
                let (api, peer, done) = (from.api().clone(), to.peer_id(), done.clone());
                world.spawn(from.id(), async move {
                    let trip = api.ping(peer).await.expect("a pong");
                    assert!(trip >= 20 * MS, "faster than light: {trip:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
        }
        world.run_until(|_| done.load(Ordering::Relaxed) == 64);
    });
}

#[test]
fn identify_both_ways_under_load() {
    over_each("identify_both_ways_under_load", 2, |world, over| {
        tight(world);
        let (a, b) = pair(world, over);
        serve_echo(&a);
        serve_echo(&b);
        let there = ask(world, &a, &b, 8, 8, 256 << 10);
        let back = ask(world, &b, &a, 8, 8, 256 << 10);
        let (peer_a, peer_b) = (a.peer_id(), b.peer_id());
        world.run_until(|_| a.identified(peer_b).is_some() && b.identified(peer_a).is_some());
        world.run_until(|_| [&there, &back].iter().all(|n| n.load(Ordering::Relaxed) == 8));
    });
}

/// Streams whose readers begin late.
const LATE: StreamProtocol = StreamProtocol::new("/test/late/1", 16, Idle::Never);
const LATE_BYTES: usize = 1 << 20;

/// Serves [`LATE`]: after a while that differs from stream to stream all is read and counted.
fn serve_late(world: &World, node: &SimNode, number: u64) -> Arc<AtomicU64> {
    let (counted, clock) = (Arc::new(AtomicU64::new(0)), world.clock());
    let (count, random) = (counted.clone(), Arc::new(Mutex::new(Random::new(world.seed(), "late", number))));
    node.serve_streams(&LATE, Priority::Normal, async move |stream: Stream| {
        let (_send, mut receive) = stream.split();
        let wait = random.lock().expect("no panic").below(20_000);
        clock.sleep(Duration::from_secs(10) + MS * wait as u32).await;
        while let Some(bytes) = receive.read(64 << 10).await.expect("nothing is lost") {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    })
    .expect("a fresh protocol");
    counted
}

/// Nobody reads at first, on either side, so that both stop reading what comes: windows, acknowledgements and pings wait there too. Once
/// readers begin, each in its time, all is delivered, and the connection serves on.
#[test]
fn both_sides_that_read_late_are_no_deadlock() {
    over_each("both_sides_that_read_late_are_no_deadlock", 6, |world, over| {
        tight(world);
        // Windows that are soon full.
        let small = Limits { receive_window_max: 4 << 20, send_window_max: 4 << 20, ..Limits::default() };
        let config = NodeConfig { limits: small, ..NodeConfig::over(over) };
        let (a, b) = (world.node(config.clone()), world.node(config));
        common::connect(world, &a, &b);
        serve_echo(&b);
        let counts = [serve_late(world, &a, 1), serve_late(world, &b, 2)];
        for (from, to) in [(&a, &b), (&b, &a)] {
            for _ in 0..LATE.per_peer_max {
                let (api, peer) = (from.api().clone(), to.peer_id());
                world.spawn(from.id(), async move {
                    let (mut send, _receive) = api.open(peer, &LATE).await.expect("it opens").split();
                    send.write_all(vec![7; LATE_BYTES]).await.expect("nothing is lost");
                    send.finish().expect("it ends");
                });
            }
        }
        let all = LATE_BYTES as u64 * u64::from(LATE.per_peer_max);
        world.run_until(|_| counts.iter().all(|count| count.load(Ordering::Relaxed) == all));
        let reply = world.block_on(a.request(b.peer_id(), &ECHO, common::body(1, 100_000)));
        assert!(reply.is_ok(), "{reply:?}");
    });
}

/// Values that fill a window each time they change.
const VALUES: Topic<u16, Vec<u8>> = Topic::latest("/test/values/1", 64, 2, 32 << 10);

/// Subscribes `node` to the values of `of`, and counts what it is told.
fn subscribe(world: &World, node: &SimNode, of: &SimNode) -> Arc<AtomicU64> {
    let told = Arc::new(AtomicU64::new(0));
    let (api, peer, count) = (node.api().clone(), of.peer_id(), told.clone());
    world.spawn(node.id(), async move {
        let mut subscription = api.subscribe(peer, &VALUES);
        loop {
            if let Change::Put(..) = subscription.next().await.expect("nothing is lost") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    told
}

/// Every protocol at once, each full in both directions: none of them waits for another in a circle.
#[test]
fn all_protocols_full_both_ways() {
    over_each("all_protocols_full_both_ways", 1, |world, over| {
        tight(world);
        let (a, b) = pair(world, over);
        serve_echo(&a);
        serve_echo(&b);
        let values = [&a, &b].map(|node| node.publisher(&VALUES, Priority::Normal).expect("a fresh topic"));
        let told: Vec<_> = (0..4).flat_map(|_| [subscribe(world, &a, &b), subscribe(world, &b, &a)]).collect();
        let flows: Vec<_> = (0..4).map(|id| Flow::new(&format!("flow {id}"), id)).collect();
        serve_both_ways(&b, &flows[0], &flows[1], 1 << 20);
        serve_both_ways(&a, &flows[2], &flows[3], 1 << 20);
        open_both_ways(world, &a, &b, &flows[1], &flows[0], 1 << 20);
        open_both_ways(world, &b, &a, &flows[3], &flows[2], 1 << 20);
        let asked = [ask(world, &a, &b, 16, 32, 256 << 10), ask(world, &b, &a, 16, 32, 256 << 10)];
        let mut round = 0u8;
        while !(flows.iter().all(Flow::is_settled) && asked.iter().all(|done| done.load(Ordering::Relaxed) == 32)) {
            round = round.wrapping_add(1);
            for values in &values {
                (0..32u16).for_each(|key| values.publish(key, vec![round; 32 << 10]).expect("room"));
            }
            let before: Vec<u64> = told.iter().map(|told| told.load(Ordering::Relaxed)).collect();
            // Each of them gets on, whatever the others have to move.
            world.run_until(|_| told.iter().zip(&before).all(|(told, before)| told.load(Ordering::Relaxed) > *before));
        }
        flows.iter().for_each(Flow::settle_complete);
        assert!(round > 3, "{round} rounds: it was over too soon");
        let pong = world.block_on(a.ping(b.peer_id()));
        assert!(pong.is_ok(), "{pong:?}");
    });
}
