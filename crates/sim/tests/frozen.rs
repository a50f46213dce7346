//! One peer stops, as a process that is stopped: the others go on as before.

mod common;

use std::time::Duration;

use common::{ECHO, connect, over_each, percentile, serve_echo, serve_sink, upload};
use strait_sim::check::Flow;
use strait_sim::{NodeConfig, SimNode, World};

/// Times of 100 requests, one after the other.
fn ask(world: &mut World, from: &SimNode, to: &SimNode) -> Vec<Duration> {
    let mut times = Vec::new();
    for index in 0..100 {
        let begin = world.now();
        let reply = world.block_on(from.request(to.peer_id(), &ECHO, common::body(index, 1000)));
        assert!(reply.is_ok(), "request {index}: {reply:?}");
        times.push(world.now() - begin);
    }
    times
}

#[test]
fn one_frozen_peer() {
    over_each("one_frozen_peer", 2, |world, over| {
        let [hub, other, frozen] = [(); 3].map(|()| world.node(NodeConfig::over(over)));
        serve_echo(&hub);
        connect(world, &hub, &frozen);
        connect(world, &other, &hub);
        let mut before = ask(world, &other, &hub);

        let flow = Flow::new("to the frozen peer", 1);
        serve_sink(&frozen, &flow);
        upload(world, &hub, &frozen, &flow, 16 << 20);
        world.run_until(|_| flow.delivered_bytes() > 1 << 20);
        world.freeze(frozen.id());
        let at = world.now();
        let mut during = ask(world, &other, &hub);
        let (before, during) = (percentile(&mut before, 99), percentile(&mut during, 99));
        assert!(during <= before * 2, "p99 {before:?} before, {during:?} beside a frozen peer");

        // The hub gives it up, once, and has nothing left of it.
        world.run_until(|_| !hub.is_connected(frozen.peer_id()));
        let found_out = world.now() - at;
        assert!(found_out < Duration::from_secs(60), "found out after {found_out:?}");
        world.thaw(frozen.id());
        world.run_until(|_| flow.is_settled());
        flow.settle();
        let mut after = ask(world, &other, &hub);
        assert!(percentile(&mut after, 99) <= before * 2);
    });
}
