//! A transfer over a bad network: everything arrives, in order, once.

mod common;

use std::time::Duration;

use common::{over_each, pair, serve_echo, serve_sink, upload};
use strait_sim::Link;
use strait_sim::check::Flow;

const MS: Duration = Duration::from_millis(1);

/// 5 % loss; a jitter of many packet distances reorders most of them.
fn rough() -> Link {
    Link::new(20 * MS).jitter(15 * MS).loss(0.05)
}

#[test]
fn transfer_loss() {
    over_each("transfer_loss", 3, |world, over| {
        world.net().set_default(rough());
        let (a, b) = pair(world, over);
        let flow = Flow::new("upload", 1);
        serve_sink(&b, &flow);
        upload(world, &a, &b, &flow, 1 << 20);
        world.run_until(|_| flow.is_settled());
        flow.settle_complete();
        let link = world.net().counters(a.id(), b.id());
        assert!(link.lost * 100 > link.sent * 2, "the loss was real: {link:?}");
    });
}

#[test]
fn transfer_damage() {
    over_each("transfer_damage", 3, |world, over| {
        let damaged = rough().duplicate(0.05).corrupt(0.05);
        world.net().set_default(damaged);
        let (a, b) = pair(world, over);
        let flow = Flow::new("upload", 2);
        serve_sink(&b, &flow);
        upload(world, &a, &b, &flow, 512 << 10);
        world.run_until(|_| flow.is_settled());
        flow.settle_complete();
        let link = world.net().counters(a.id(), b.id());
        assert!(link.corrupted > 0 && link.duplicated > 0, "{link:?}");
    });
}

#[test]
fn requests_loss() {
    over_each("requests_loss", 2, |world, over| {
        world.net().set_default(rough().duplicate(0.02).corrupt(0.02));
        let (a, b) = pair(world, over);
        serve_echo(&b);
        let peer = b.peer_id();
        for index in 0..40 {
            let body = common::body(index, 10_000);
            let wanted = body.clone().into_bytes();
            let reply = world.block_on(a.request(peer, &common::ECHO, body));
            let reply = reply.unwrap_or_else(|error| panic!("request {index}: {error}"));
            assert_eq!(reply.into_bytes(), wanted, "request {index}");
        }
    });
}

#[test]
fn transfer_through_a_bottleneck() {
    over_each("transfer_through_a_bottleneck", 2, |world, over| {
        // 1 MB/s and 40 ms there and back: the transfer takes a little over a second, not many.
        world.net().set_default(Link::new(20 * MS).rate(1_000_000));
        let (a, b) = pair(world, over);
        let flow = Flow::new("upload", 3);
        serve_sink(&b, &flow);
        let begin = world.now();
        upload(world, &a, &b, &flow, 1 << 20);
        world.run_until(|_| flow.is_settled());
        flow.settle_complete();
        let took = world.now() - begin;
        assert!(took > Duration::from_secs(1), "faster than the link: {took:?}");
        assert!(took < Duration::from_secs(3), "the link is not used: {took:?}");
    });
}
