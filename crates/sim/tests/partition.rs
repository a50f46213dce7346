//! The network between two nodes is cut, for a short and for a long time.

mod common;

use std::time::Duration;

use common::{connect, over_each, pair, serve_echo, serve_sink, upload};
use strait_sim::Link;
use strait_sim::check::Flow;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_short_partition_loses_nothing() {
    over_each("a_short_partition_loses_nothing", 3, |world, over| {
        world.net().set_default(Link::new(Duration::from_millis(10)).rate(1_000_000));
        let (a, b) = pair(world, over);
        let flow = Flow::new("upload", 1);
        serve_sink(&b, &flow);
        upload(world, &a, &b, &flow, 2 << 20);
        world.run_until(|_| flow.delivered_bytes() > 512 << 10);
        world.net().set_up(a.id(), b.id(), false);
        world.run_for(5 * SECOND);
        let (cut_at, begin) = (flow.delivered_bytes(), world.now());
        assert!(cut_at < 2 << 20);
        world.net().set_up(a.id(), b.id(), true);
        world.run_until(|_| flow.is_settled());
        flow.settle_complete();
        let took = world.now() - begin;
        assert!(took < 15 * SECOND, "it went on only after {took:?}");
    });
}

#[test]
fn a_long_partition_is_one_error_and_connecting_again_works() {
    over_each("a_long_partition_is_one_error_and_connecting_again_works", 2, |world, over| {
        world.net().set_default(Link::new(Duration::from_millis(10)).rate(1_000_000));
        let (a, b) = pair(world, over);
        serve_echo(&b);
        let flow = Flow::new("upload", 1);
        serve_sink(&b, &flow);
        upload(world, &a, &b, &flow, 2 << 20);
        world.run_until(|_| flow.delivered_bytes() > 512 << 10);
        world.net().set_up(a.id(), b.id(), false);
        world.run_for(90 * SECOND);
        assert!(!a.is_connected(b.peer_id()) && !b.is_connected(a.peer_id()));
        flow.settle();
        world.net().set_up(a.id(), b.id(), true);
        connect(world, &a, &b);
        let reply = world.block_on(a.request(b.peer_id(), &common::ECHO, common::body(1, 1000)));
        assert!(reply.is_ok(), "{reply:?}");
    });
}
