//! Many short exchanges on one connection: each leaves nothing behind.

mod common;

use std::time::Duration;

use common::{ECHO, PIPE, over_each, pair, serve_echo};
use strait::{Priority, Stream};
use strait_sim::{SimNode, World};

/// More than a peer may ever have open at once, so that streams that are not given back show.
const MANY: u64 = 600;

/// No stream is left at either end, a while later.
fn nothing_left(world: &mut World, nodes: [&SimNode; 2]) {
    world.run_for(Duration::from_secs(20));
    for node in nodes {
        let audit = node.audit();
        assert_eq!((audit.connections, audit.streams), (1, 0), "{audit:?}");
    }
}

#[test]
fn many_pings_on_one_connection() {
    over_each("many_pings_on_one_connection", 1, |world, over| {
        let (a, b) = pair(world, over);
        for index in 0..MANY {
            let pong = world.block_on(a.ping(b.peer_id()));
            assert!(pong.is_ok(), "ping {index}: {pong:?}");
        }
        nothing_left(world, [&a, &b]);
    });
}

#[test]
fn many_requests_on_one_connection() {
    over_each("many_requests_on_one_connection", 1, |world, over| {
        let (a, b) = pair(world, over);
        serve_echo(&b);
        for index in 0..MANY {
            let reply = world.block_on(a.request(b.peer_id(), &ECHO, common::body(index, 100)));
            assert!(reply.is_ok(), "request {index}: {reply:?}");
        }
        nothing_left(world, [&a, &b]);
    });
}

#[test]
fn requests_given_up_at_any_moment() {
    over_each("requests_given_up_at_any_moment", 2, |world, over| {
        let (a, b) = pair(world, over);
        serve_echo(&b);
        let clock = world.clock();
        for index in 0..MANY {
            // From at once to after the reply: dropping the future gives the request up.
            let patience = Duration::from_micros(index * 50);
            let asked = a.request(b.peer_id(), &ECHO, common::body(index, 3_000));
            let _ = world.block_on(clock.timeout(patience, asked));
        }
        nothing_left(world, [&a, &b]);
        let reply = world.block_on(a.request(b.peer_id(), &ECHO, common::body(1, 100)));
        assert!(reply.is_ok(), "{reply:?}");
    });
}

#[test]
fn streams_opened_and_dropped() {
    over_each("streams_opened_and_dropped", 2, |world, over| {
        let (a, b) = pair(world, over);
        b.serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| drop(stream)).expect("a fresh protocol");
        let clock = world.clock();
        for index in 0..MANY {
            let (opened, pause) = (a.open(b.peer_id(), &PIPE), Duration::from_micros(index % 40 * 1_000));
            world.block_on(async {
                let stream = clock.timeout(Duration::from_secs(5), opened).await;
                let stream = stream.unwrap_or_else(|| panic!("stream {index} does not open"));
                clock.sleep(pause).await;
                drop(stream.expect("it opens"));
            });
        }
        nothing_left(world, [&a, &b]);
    });
}

#[test]
fn handlers_stop_when_their_request_is_given_up() {
    over_each("handlers_stop_when_their_request_is_given_up", 1, |world, over| {
        let (a, b) = pair(world, over);
        let running = std::sync::Arc::new(());
        let (held, clock) = (running.clone(), world.clock());
        b.serve(&ECHO, Priority::Normal, async move |request: strait::Incoming| {
            let _held = held;
            clock.sleep(Duration::from_secs(8)).await;
            request.body
        })
        .expect("a fresh protocol");
        let clock = world.clock();
        let asked = a.request(b.peer_id(), &ECHO, common::body(1, 100));
        let given_up = world.block_on(clock.timeout(Duration::from_secs(1), asked));
        assert!(given_up.is_none());
        world.run_for(Duration::from_secs(1));
        // Ours, and the one that the handler was registered with.
        assert_eq!(std::sync::Arc::strong_count(&running), 2, "the handler goes on for nobody");
    });
}
