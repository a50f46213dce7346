//! A node dies without a word: the other side gets one error for each thing, and everything back.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{ECHO, connect, over_each, pair, serve_echo, serve_sink, upload};
use strait_sim::check::Flow;
use strait_sim::{Link, NodeConfig};

#[test]
fn a_crash_is_one_error_for_each() {
    over_each("a_crash_is_one_error_for_each", 3, |world, over| {
        world.net().set_default(Link::new(Duration::from_millis(10)).rate(1_000_000));
        let fresh = world.node(NodeConfig::over(over)).audit().granted;
        let (a, b) = pair(world, over);
        serve_echo(&b);
        // The receiving end is the one that survives.
        let flow = Flow::new("to the survivor", 1);
        serve_sink(&a, &flow);
        upload(world, &b, &a, &flow, 8 << 20);
        world.run_until(|_| flow.delivered_bytes() > 256 << 10);
        let failed = Arc::new(AtomicU64::new(0));
        for index in 0..8 {
            let (api, peer, failed) = (a.api().clone(), b.peer_id(), failed.clone());
            world.spawn(a.id(), async move {
                let body = common::body(index, 200_000);
                let reply = api.request(peer, &ECHO, body).await;
                assert!(reply.is_err(), "request {index} outlived its server");
                failed.fetch_add(1, Ordering::Relaxed);
            });
        }
        world.run_for(Duration::from_millis(30));
        world.crash(b.id());
        world.run_until(|_| flow.is_settled() && failed.load(Ordering::Relaxed) == 8);
        flow.settle();
        world.run_for(Duration::from_secs(60));
        // What is to be told of the crash is held until it is told.
        let _ = a.abuse_rest();
        let audit = a.audit();
        assert_eq!((audit.connections, audit.streams), (0, 0));
        assert_eq!(audit.granted, fresh, "not all grants came back");
    });
}

#[test]
fn a_restarted_node_is_reached_again() {
    over_each("a_restarted_node_is_reached_again", 2, |world, over| {
        let (a, b) = pair(world, over);
        world.crash(b.id());
        world.run_for(Duration::from_secs(1));
        let b = world.restart_node(b);
        serve_echo(&b);
        // The old connection is found to be dead with the next packet, since a node's resets are the same after a restart: a keep-alive at the latest.
        let begin = world.now();
        world.run_until(|_| !a.is_connected(b.peer_id()));
        let took = world.now() - begin;
        assert!(took < Duration::from_secs(12), "{over}: found after {took:?}");
        connect(world, &a, &b);
        let reply = world.block_on(a.request(b.peer_id(), &ECHO, common::body(1, 1000)));
        assert!(reply.is_ok(), "{reply:?}");
    });
}
