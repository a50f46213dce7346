//! A node's address changes in the middle: nothing is lost, and it goes on soon. That is QUIC's; TCP's connections die with an address
//! (`tcp.rs::a_changed_address_ends_a_connection_and_new_ones_work`).

mod common;

use std::time::Duration;

use common::{pair, serve_echo, serve_sink, upload};
use strait_sim::check::Flow;
use strait_sim::{Link, Over, scenario};

const MS: Duration = Duration::from_millis(1);

#[test]
fn rebind_mid_transfer() {
    scenario("rebind_mid_transfer", 3, |world| {
        world.net().set_default(Link::new(15 * MS).rate(2_000_000));
        let (a, b) = pair(world, Over::Quic);
        let flow = Flow::new("upload", 1);
        serve_sink(&b, &flow);
        serve_echo(&b);
        upload(world, &a, &b, &flow, 4 << 20);
        for part in 1..=3_u64 {
            world.run_until(|_| flow.delivered_bytes() >= part * (512 << 10));
            let (before, at) = (flow.delivered_bytes(), world.now());
            world.rebind(a.id());
            // What was under way at the change may still arrive: half a second is far more than that.
            world.run_until(|_| flow.delivered_bytes() > before + (300 << 10));
            let gap = world.now() - at;
            assert!(gap < Duration::from_secs(1), "change {part}: a gap of {gap:?}");
            let reply = world.block_on(a.request(b.peer_id(), &common::ECHO, common::body(part, 100)));
            assert!(reply.is_ok(), "change {part}: {reply:?}");
        }
        world.run_until(|_| flow.is_settled());
        flow.settle_complete();
        assert!(world.net().unroutable() > 0, "packets to the old address vanished");
        let connections = b.counters().totals.connections_opened;
        assert_eq!(connections, 1, "the connection moved, nobody dialled again");
    });
}
