//! Both sides dial at the same moment: they end with one connection, the same for both, and nothing that was under way is lost.

mod common;

use std::cell::Cell;
use std::time::Duration;

use common::{ECHO, body, serve_echo};
use strait_sim::{JoinHandle, Link, NodeConfig, Over, SimNode, World, rng::Random, scenario};

const MS: Duration = Duration::from_millis(1);
/// Requests of each side, one after the other, from the moment on when it is connected.
const REQUESTS: u64 = 12;

/// Has `from` wait, connect to `to` and ask it things. How many replies were right.
fn asks(world: &World, from: &SimNode, to: &SimNode, after: Duration) -> JoinHandle<u64> {
    let (api, clock) = (from.api().clone(), world.clock());
    let (peer, addresses) = (to.peer_id(), to.addresses().to_vec());
    world.spawn(from.id(), async move {
        clock.sleep(after).await;
        api.connect(peer, &addresses).await.expect("they are there");
        let mut right = 0;
        for index in 0..REQUESTS {
            let reply = api.request(peer, &ECHO, body(index, 20_000)).await.expect("nothing is lost");
            right += u64::from(reply.into_bytes() == body(index, 20_000).into_bytes());
            clock.sleep(20 * MS).await;
        }
        right
    })
}

fn both_dial(name: &str, seeds: u64, over: Over) {
    let merged = Cell::new(0);
    scenario(name, seeds, |world| {
        let mut random = Random::new(world.seed(), "both dial", 0);
        world.net().set_default(Link::new(20 * MS).jitter(5 * MS).loss(0.01).rate(4_000_000));
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig::over(over)));
        serve_echo(&a);
        serve_echo(&b);
        // Within a handshake's time of each other.
        let later = Duration::from_micros(random.below(50_000));
        let (one, other) = (asks(world, &a, &b, 10 * MS), asks(world, &b, &a, 10 * MS + later));
        world.run_until(|_| one.is_finished() && other.is_finished());
        assert_eq!((one.take(), other.take()), (Some(REQUESTS), Some(REQUESTS)));
        world.run_for(Duration::from_secs(60));
        for node in [&a, &b] {
            assert_eq!(node.audit().connections, 1, "one is left, {later:?} apart");
            let totals = node.counters().totals;
            assert!(totals.connections_opened <= 2, "{}", totals.connections_opened);
        }
        // The same one: what one side closes, both have closed.
        a.disconnect(b.peer_id());
        world.run_for(Duration::from_secs(5));
        assert!(!a.is_connected(b.peer_id()) && !b.is_connected(a.peer_id()));
        let two = a.counters().totals.connections_opened == 2;
        merged.set(merged.get() + u64::from(two));
    });
    println!("{over}: two connections in {} of {} runs", merged.get(), 2 * seeds);
    assert!(merged.get() > 0, "in no run there were two connections to choose from: the test proves nothing");
}

#[test]
fn both_dial_over_quic() {
    both_dial("both_dial_over_quic", 30, Over::Quic);
}

#[test]
fn both_dial_over_tls() {
    both_dial("both_dial_over_tls", 20, Over::Tls);
}

#[test]
fn both_dial_over_noise() {
    both_dial("both_dial_over_noise", 20, Over::Noise);
}

/// A process that was restarted dials anew: what is left of its old connection is not chosen, whoever had dialled that.
#[test]
fn what_a_dead_process_left_is_not_chosen() {
    scenario("what_a_dead_process_left_is_not_chosen", 6, |world| {
        let [a, b] = [(); 2].map(|()| world.node(NodeConfig::default()));
        serve_echo(&a);
        serve_echo(&b);
        common::connect(world, &a, &b);
        world.crash(b.id());
        let b = world.restart_node(b);
        serve_echo(&b);
        common::connect(world, &b, &a);
        // For `a` it is established half a round trip later.
        world.run_for(Duration::from_secs(1));
        for (from, to) in [(&a, &b), (&b, &a)] {
            let reply = world.block_on(from.request(to.peer_id(), &ECHO, body(1, 100)));
            assert!(reply.is_ok(), "{reply:?}");
        }
        world.run_for(Duration::from_secs(60));
        assert_eq!((a.audit().connections, b.audit().connections), (1, 1));
    });
}
