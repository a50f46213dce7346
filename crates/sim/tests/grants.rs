//! When all connections are closed, all grants are back.

mod common;

use std::time::Duration;

use common::{ECHO, connect, over_each, serve_echo, serve_sink, upload};
use strait_sim::check::Flow;
use strait_sim::{Link, NodeConfig};

#[test]
fn nothing_remains_after_all_connections_closed() {
    over_each("nothing_remains_after_all_connections_closed", 2, |world, over| {
        world.net().set_default(Link::new(Duration::from_millis(5)).loss(0.02));
        let hub = world.node(NodeConfig::over(over));
        let fresh = hub.audit();
        serve_echo(&hub);
        let flow = Flow::new("cut short", 1);
        serve_sink(&hub, &flow);
        let clients: Vec<_> = (0..6).map(|_| world.node(NodeConfig::over(over))).collect();
        for client in &clients {
            connect(world, client, &hub);
            for index in 0..4 {
                let body = common::body(index, 20_000);
                let reply = world.block_on(client.request(hub.peer_id(), &ECHO, body));
                assert!(reply.is_ok(), "{reply:?}");
            }
        }
        // One is in the middle of a transfer when it closes.
        upload(world, &clients[0], &hub, &flow, 64 << 20);
        world.run_until(|_| flow.delivered_bytes() > 1 << 20);
        let during = hub.audit();
        assert_eq!(during.connections, 6);
        assert!(during.granted > fresh.granted, "connections cost something: {during:?}");
        for client in &clients {
            world.block_on(client.close());
        }
        world.run_for(Duration::from_secs(60));
        flow.settle();
        let after = hub.audit();
        assert_eq!((after.connections, after.streams), (0, 0));
        assert_eq!(after.granted, fresh.granted);
        assert_eq!(after.held - after.book, fresh.held, "but what is known of where peers are");
        for client in &clients {
            assert_eq!(client.audit().granted, fresh.granted);
        }
    });
}
