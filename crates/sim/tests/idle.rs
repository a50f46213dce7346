//! After an idle time the next burst is about as fast as if there had been none: the congestion window, the windows of flow control and the stream credit
//! are still there (RFC 9002 section 7.8 lets a sender keep its window). QUIC only: over TCP the kernel decides, see docs/latency.md.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{PIPE, drain, pair};
use strait::{Priority, Stream};
use strait_sim::check::Flow;
use strait_sim::{Link, Over, SimNode, World, scenario};

const BURST_BYTES: u64 = 512 << 10;

/// Sends a burst and waits until all of it is there. How long that took.
fn burst(world: &mut World, a: &SimNode, b: &SimNode, flows: &Mutex<VecDeque<Flow>>, number: u64) -> Duration {
    let flow = Flow::new("burst", number);
    flows.lock().expect("no panic").push_back(flow.clone());
    let begin = world.now();
    common::upload(world, a, b, &flow, BURST_BYTES);
    world.run_until(|_| flow.is_settled());
    flow.settle_complete();
    world.now() - begin
}

#[test]
fn a_burst_after_an_idle_time_is_as_fast_as_before() {
    scenario("a_burst_after_an_idle_time_is_as_fast_as_before", 4, |world| {
        world.net().set_default(Link::new(Duration::from_millis(20)).rate(4_000_000));
        let (a, b) = pair(world, Over::Quic);
        let flows = Arc::new(Mutex::new(VecDeque::<Flow>::new()));
        let next = flows.clone();
        b.serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
            let flow = next.lock().expect("no panic").pop_front().expect("one for each burst");
            drain(stream.split().1, &flow).await;
        })
        .expect("a fresh protocol");
        let first = burst(world, &a, &b, &flows, 0);
        let mut warm = first;
        for number in 1..8 {
            warm = burst(world, &a, &b, &flows, number);
        }
        let idle = [1, 5, 25].map(|seconds| {
            world.run_for(Duration::from_secs(seconds));
            burst(world, &a, &b, &flows, 8 + seconds)
        });
        println!("first {first:?}, warm {warm:?}, after 1, 5 and 25 s {idle:?}");
        assert!(first > warm * 3 / 2, "a burst from a cold start takes longer, or this shows nothing: {first:?}, {warm:?}");
        let [short, longer, long] = idle;
        assert!(short.max(longer) <= warm * 5 / 4, "{short:?} and {longer:?} after an idle time, {warm:?} before");
        // The curve of CUBIC goes on growing with the time that passed: the burst overshoots once and repairs what it lost, which takes at worst as long
        // as a cold start would (seed 4).
        assert!(long <= first * 9 / 8, "{long:?} after a long idle time, {first:?} from a cold start");
    });
}
