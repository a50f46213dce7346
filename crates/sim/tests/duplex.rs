//! Both directions full at once, in every protocol: progress, never a deadlock.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{ECHO, PIPE, drain, over_each, pair, pump, serve_echo};
use strait::{Priority, Stream};
use strait_sim::check::Flow;
use strait_sim::{Link, SimNode, World};

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
