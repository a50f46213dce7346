//! Urgent bytes overtake bulk that runs at full rate; and bulk gets on beside urgent bytes at full rate.

mod common;

use std::time::Duration;

use common::{ECHO, PIPE, connect, drain, over_each, pair, percentile, serve_echo};
use strait::parts::{PIPE_WRITE_BYTES, UNSENT_BYTES};
use strait::{Idle, Limits, Priority, Stream, StreamProtocol};
use strait_sim::check::Flow;
use strait_sim::{Link, NodeConfig, Over, SimNode, World};

const MS: Duration = Duration::from_millis(1);
/// A link of 8 Mbit/s whose queue adds 32 ms at most: what waits longer waits in the node.
const RATE: u64 = 1_000_000;
const QUEUE_BYTES: u64 = 32 << 10;

/// Streams beside [`PIPE`].
const URGENT: StreamProtocol = StreamProtocol::new("/test/urgent/1", 4, Idle::Never);

fn narrow(world: &mut World) {
    let mut link = Link::new(10 * MS).rate(RATE);
    link.queue_bytes = QUEUE_BYTES;
    world.net().set_default(link);
}

/// Writes to `to` as fast as there is room, for ever; what arrives is checked against `flow`.
fn run_at_full_rate(world: &World, from: &SimNode, to: &SimNode, def: &'static StreamProtocol, priority: Priority, flow: &Flow) {
    write(world, from, to, def, priority, flow, u64::MAX);
}

/// The same until so many bytes are written, and ends the stream then.
fn write(world: &World, from: &SimNode, to: &SimNode, def: &'static StreamProtocol, priority: Priority, flow: &Flow, bytes: u64) {
    let read = flow.clone();
    to.serve_streams(def, priority, async move |stream: Stream| {
        let (_send, receive) = stream.split();
        drain(receive, &read).await;
    })
    .expect("a fresh protocol");
    let (api, peer, flow) = (from.api().clone(), to.peer_id(), flow.clone());
    world.spawn(from.id(), async move {
        let (send, _receive) = api.open_with(peer, def, priority).await.expect("it opens").split();
        common::pump(send, &flow, bytes).await;
    });
}

#[test]
fn urgent_bytes_overtake_bulk_at_full_rate() {
    over_each("urgent_bytes_overtake_bulk_at_full_rate", 2, |world, over| {
        narrow(world);
        // Much may be queued in the node, so that there is something to overtake.
        let limits =
            Limits { send_window_min: 1 << 20, connections_max: 16, handshakes_max: 16, retry_from: 8, ..Limits::default() };
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig { limits: limits.clone(), ..NodeConfig::over(over) }));
        connect(world, &a, &b);
        serve_echo(&b);
        let bulk = Flow::new("bulk", 1);
        run_at_full_rate(world, &a, &b, &PIPE, Priority::Bulk, &bulk);
        world.run_for(Duration::from_secs(5));
        let (before, begin) = (bulk.delivered_bytes(), world.now());
        let waiting = bulk.sent_bytes() - before;
        let mut trips = Vec::new();
        for index in 0..50 {
            world.run_for(37 * MS);
            let asked = world.now();
            let reply = world.block_on(a.request_with(b.peer_id(), &ECHO, Priority::Urgent, common::body(index, 64)));
            assert!(reply.is_ok(), "request {index}: {reply:?}");
            trips.push(world.now() - asked);
        }
        // What was sealed before it, and no more: the kernel's unsent bytes with the write that exceeded them and the one that did not fit;
        // then what is on the link and in its queue. On QUIC the last alone.
        let sealed = if over == Over::Quic { 0 } else { u64::from(UNSENT_BYTES) + 2 * PIPE_WRITE_BYTES as u64 };
        let ahead = sealed + QUEUE_BYTES + RATE / 50;
        // Twice the time that it takes to repair a loss, for the queue in front of the bottleneck drops what does not fit.
        let repair = 2 * (20 * MS + Duration::from_millis(QUEUE_BYTES * 1_000 / RATE));
        let most = 20 * MS + Duration::from_millis(ahead * 1_000 / RATE) + repair;
        let p99 = percentile(&mut trips, 99);
        let bulk_waits = Duration::from_millis(waiting * 1_000 / RATE);
        println!("over {over}: p99 {p99:?} of at most {most:?}, bulk waited {bulk_waits:?}");
        assert!(p99 <= most, "p99 {p99:?}, at most {most:?}: urgent bytes waited behind bulk that was not sealed");
        // Over a pipe most of what waits is sealed already, and a stream takes little more: what is shown there is the bound alone.
        assert!(over != Over::Quic || most < bulk_waits, "bulk waited {bulk_waits:?} only: there was nothing to overtake");
        let rate = (bulk.delivered_bytes() - before) as f64 / (world.now() - begin).as_secs_f64();
        assert!(rate > 0.7 * RATE as f64, "bulk did not run at full rate: {rate}");
    });
}

#[test]
fn bulk_gets_on_beside_urgent_bytes_at_full_rate() {
    for bulk_first in [true, false] {
        over_each("bulk_gets_on_beside_urgent_bytes_at_full_rate", 2, |world, over| {
            narrow(world);
            let (a, b) = pair(world, over);
            let (bulk, urgent) = (Flow::new("bulk", 1), Flow::new("urgent", 2));
            let mut both = [(&PIPE, Priority::Bulk, &bulk), (&URGENT, Priority::Urgent, &urgent)];
            if !bulk_first {
                both.reverse();
            }
            for (def, priority, flow) in both {
                run_at_full_rate(world, &a, &b, def, priority, flow);
                world.run_for(Duration::from_secs(3));
            }
            let before = [bulk.delivered_bytes(), urgent.delivered_bytes()];
            world.run_for(Duration::from_secs(10));
            let [slow, fast] = [bulk.delivered_bytes() - before[0], urgent.delivered_bytes() - before[1]];
            println!("over {over}: {slow} bytes of bulk beside {fast} urgent ones");
            assert!(fast > 8 * slow, "urgent bytes do not go first: {fast} beside {slow} of bulk");
            assert!(slow * 20 > fast, "bulk starves: {slow} bytes beside {fast} urgent ones");
        });
    }
}

#[test]
fn what_was_handed_over_and_ended_arrives_beside_urgent_bytes_at_full_rate() {
    over_each("what_was_handed_over_and_ended_arrives_beside_urgent_bytes_at_full_rate", 2, |world, over| {
        narrow(world);
        let (a, b) = pair(world, over);
        let urgent = Flow::new("urgent", 2);
        run_at_full_rate(world, &a, &b, &URGENT, Priority::Urgent, &urgent);
        let bulk = Flow::new("bulk", 1);
        world.run_for(Duration::from_secs(3));
        write(world, &a, &b, &PIPE, Priority::Bulk, &bulk, 20_000);
        world.run_for(Duration::from_secs(10));
        assert_eq!((bulk.sent_bytes(), bulk.delivered_bytes()), (20_000, 20_000), "the last bytes of an ended stream starve");
    });
}

/// With a queue that holds all of a window and loses nothing, an urgent request waits for all that is under way: half a second here, if that is not kept short.
#[test]
fn while_something_urgent_may_come_the_queue_is_kept_short() {
    over_each("while_something_urgent_may_come_the_queue_is_kept_short", 2, |world, over| {
        if over != Over::Quic {
            return;
        }
        let (rate, latency) = (2_000_000, 5 * MS);
        let mut link = Link::new(latency).rate(rate);
        (link.queue_bytes, link.queue_delay) = (64 << 20, Duration::from_secs(60));
        world.net().set_default(link);
        let (a, b) = pair(world, over);
        serve_echo(&b);
        let bulk = Flow::new("bulk", 1);
        run_at_full_rate(world, &a, &b, &PIPE, Priority::Bulk, &bulk);
        world.run_for(Duration::from_secs(5));
        let under_way = |bulk: &Flow| Duration::from_millis((bulk.sent_bytes() - bulk.delivered_bytes()) * 1_000 / rate);
        let queue = under_way(&bulk);
        let ask = |world: &mut World, index| {
            world.run_for(50 * MS);
            let asked = world.now();
            let reply = world.block_on(a.request_with(b.peer_id(), &ECHO, Priority::Urgent, common::body(index, 64)));
            assert!(reply.is_ok(), "request {index}: {reply:?}");
            world.now() - asked
        };
        let first = ask(world, 0);
        // The queue is what it is until it has drained, and the path is known again a while later.
        let _: Vec<Duration> = (1..100).map(|index| ask(world, index)).collect();
        let (before, begin) = (bulk.delivered_bytes(), world.now());
        let mut trips: Vec<Duration> = (100..200).map(|index| ask(world, index)).collect();
        let moved = (bulk.delivered_bytes() - before) as f64 / (world.now() - begin).as_secs_f64();
        let p99 = percentile(&mut trips, 99);
        // What is under way of bulk takes three round trips; then come the two ways, and as much again for what else takes its time.
        let most = 2 * (6 * latency + 2 * latency);
        println!("bulk had {queue:?} under way; the first took {first:?}, p99 of the later ones is {p99:?} of at most {most:?}");
        assert!(queue > 2 * most, "{queue:?} under way: there is nothing to keep short");
        assert!(p99 <= most, "p99 {p99:?}, at most {most:?}");
        assert!(moved > 0.9 * rate as f64, "bulk beside them is slower than the link: {moved} B/s");
        world.run_for(Duration::from_secs(15));
        assert!(a.api().counters().totals.queues_kept_short > 0, "it is not counted");
        let again = under_way(&bulk);
        assert!(again > queue / 2, "{again:?}, long after the last urgent byte: it was {queue:?}");
    });
}
