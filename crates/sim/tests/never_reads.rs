//! An app that does not read slows its sender down, and nobody else.

mod common;

use std::time::Duration;

use common::{PIPE, drain, over_each, pair, serve_echo, upload};
use strait::{Limits, Priority, Stream};
use strait_sim::Link;
use strait_sim::check::Flow;

#[test]
fn an_app_that_never_reads() {
    over_each("an_app_that_never_reads", 2, |world, over| {
        world.net().set_default(Link::new(Duration::from_millis(10)));
        let (a, b) = pair(world, over);
        serve_echo(&b);
        b.serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
            let _kept = stream;
            std::future::pending::<()>().await;
        })
        .expect("a fresh protocol");
        let flow = Flow::new("unread", 1);
        upload(world, &a, &b, &flow, 256 << 20);
        world.run_for(Duration::from_secs(10));
        let stuck_at = flow.sent_bytes();
        let limits = Limits::default();
        let most = limits.receive_window_max + limits.send_window_max;
        assert!(stuck_at <= most, "the sender was not slowed: {stuck_at} bytes");
        for index in 0..20 {
            let asked = a.request(b.peer_id(), &common::ECHO, common::body(index, 50_000));
            let reply = world.block_on(asked);
            assert!(reply.is_ok(), "beside the unread stream: {reply:?}");
        }
        assert_eq!(flow.sent_bytes(), stuck_at);
        // The audit after each turn has shown that memory stayed granted and below the budget.
    });
}

#[test]
fn an_app_that_reads_late() {
    over_each("an_app_that_reads_late", 2, |world, over| {
        let (a, b) = pair(world, over);
        let (flow, clock) = (Flow::new("late", 1), world.clock());
        let read = flow.clone();
        b.serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
            clock.sleep(Duration::from_secs(60)).await;
            let (_send, receive) = stream.split();
            drain(receive, &read).await;
        })
        .expect("a fresh protocol");
        upload(world, &a, &b, &flow, 24 << 20);
        world.run_for(Duration::from_secs(59));
        assert_eq!(flow.delivered_bytes(), 0);
        world.run_until(|_| flow.is_settled());
        flow.settle_complete();
    });
}
