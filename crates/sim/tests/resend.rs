//! A connection is lost in the middle: requests that may be done twice go on over a new one, the others are told.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{body, over_each};
use strait::{Incoming, Priority, Request, RequestError};
use strait_sim::{NodeConfig, SimNode, World};

const TWICE: Request = Request::new("/test/twice/1", 1 << 10, 1 << 10, Duration::from_secs(60), 8).idempotent();
const ONCE: Request = Request::new("/test/once/1", 1 << 10, 1 << 10, Duration::from_secs(60), 8);

/// Answers after a while, and counts.
fn serve_slowly(world: &World, node: &SimNode, count: &Arc<AtomicU64>) {
    for def in [&TWICE, &ONCE] {
        let (clock, count) = (world.clock(), count.clone());
        let slow = async move |request: Incoming| {
            count.fetch_add(1, Ordering::Relaxed);
            clock.sleep(Duration::from_secs(2)).await;
            request.body
        };
        node.serve(def, Priority::Normal, slow).expect("a fresh protocol");
    }
}

#[test]
fn what_may_be_done_twice_is_sent_again() {
    over_each("what_may_be_done_twice_is_sent_again", 2, |world, over| {
        let count = Arc::<AtomicU64>::default();
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig::over(over)));
        serve_slowly(world, &b, &count);
        common::connect(world, &a, &b);
        let ask = |def: &'static Request| {
            let (api, peer) = (a.api().clone(), b.peer_id());
            world.spawn(a.id(), async move { api.request(peer, def, body(7, 100)).await })
        };
        let (twice, once) = (ask(&TWICE), ask(&ONCE));
        world.run_until(|_| count.load(Ordering::Relaxed) == 2);
        // The process at the other end dies, and another one takes its place.
        world.crash(b.id());
        let b = world.restart_node(b);
        serve_slowly(world, &b, &count);
        world.run_until(|_| twice.is_finished() && once.is_finished());
        let reply = twice.take().expect("done").expect("it was asked again");
        assert_eq!(reply.into_bytes(), body(7, 100).into_bytes());
        assert!(matches!(once.take().expect("done"), Err(RequestError::Lost(_))));
        assert_eq!(count.load(Ordering::Relaxed), 3);
    });
}
