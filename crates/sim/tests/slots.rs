//! Slots of a node that has fewer than there are peers, with whole nodes at work: the rule itself runs for hours in `core/tests/slots.rs`.
//! And a thousand peers behind one address.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{ECHO, body, serve_echo};
use strait::Limits;
use strait_sim::{NodeConfig, SimNode, World, scenario};

const SECOND: Duration = Duration::from_secs(1);

/// When a peer was answered.
type Answers = Arc<Mutex<Vec<Duration>>>;

/// A node that others see at this address, for instance that of a NAT.
fn behind(world: &mut World, address: SocketAddr) -> SimNode {
    let node = world.node(NodeConfig::default());
    world.net().bind(node.id(), address);
    node
}

fn network(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(20 + (number / 200) as u8, (number % 200) as u8, 0, 1), 4001))
}

/// Asks again and again, from `from` until `until`, and connects again when it has to; `times` answers are enough.
fn ask(
    world: &World,
    peer: &SimNode,
    server: &SimNode,
    from: Duration,
    until: Duration,
    pause: Duration,
    times: usize,
) -> Answers {
    let answers = Answers::default();
    let (got, api, clock, to, address) = (answers.clone(), peer.api().clone(), world.clock(), server.peer_id(), server.address());
    world.spawn(peer.id(), async move {
        clock.sleep(from.saturating_sub(clock.now())).await;
        api.add_addresses(to, &[address]);
        while clock.now() < until && got.lock().unwrap().len() < times {
            let wait = match api.request(to, &ECHO, body(1, 64)).await {
                Ok(_) => {
                    got.lock().unwrap().push(clock.now());
                    pause
                }
                Err(_) => SECOND / 2,
            };
            clock.sleep(wait).await;
        }
    });
    answers
}

fn server(world: &mut World, slots: u32) -> SimNode {
    let limits = Limits {
        connections_max: slots,
        handshakes_max: slots.min(64),
        retry_from: slots.min(32),
        memory_bytes: 2 << 30,
        ..Limits::default()
    };
    let server = world.node(NodeConfig { limits, ..NodeConfig::default() });
    serve_echo(&server);
    server
}

#[test]
fn a_thousand_peers_behind_one_address_are_served() {
    scenario("a_thousand_peers_behind_one_address_are_served", 1, |world| {
        let server = server(world, 1200);
        let nat = Ipv4Addr::new(198, 51, 100, 7);
        let peers: Vec<_> = (0..1000).map(|port| behind(world, SocketAddr::from((nat, 10_000 + port)))).collect();
        // All come within a second, as when the power is back.
        let all: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(at, peer)| ask(world, peer, &server, SECOND * at as u32 / 1000, 60 * SECOND, SECOND, 1))
            .collect();
        world.run_for(25 * SECOND);
        let answered = all.iter().filter(|answers| !answers.lock().unwrap().is_empty()).count();
        let last = all.iter().filter_map(|answers| answers.lock().unwrap().first().copied()).max();
        let totals = server.counters().totals;
        println!("{answered} answered, the last at {last:?}; {totals:?}");
        assert_eq!((answered, server.peers().len()), (1000, 1000), "all are in and each got its answer");
        assert_eq!(totals.displaced_never_used + totals.displaced_idle + totals.displaced_served + totals.refused_full, 0);
        assert_eq!(server.abuse_rest(), [], "a crowd is no attack");
    });
}

#[test]
fn with_fewer_slots_than_peers_those_behind_one_address_have_their_turns() {
    scenario("with_fewer_slots_than_peers_those_behind_one_address_have_their_turns", 1, |world| {
        let server = server(world, 16);
        let until = 60 * SECOND;
        let mut all = Vec::new();
        for number in 0..24 {
            let nat = SocketAddr::from((Ipv4Addr::new(198, 51, 100, 7), 10_000 + number));
            let address = if number % 2 == 0 { nat } else { network(number.into()) };
            let peer = behind(world, address);
            let answers = ask(world, &peer, &server, SECOND * u32::from(number) / 10, until, SECOND, usize::MAX);
            all.push((peer, answers));
        }
        world.run_for(until);
        let counts: Vec<usize> = all.iter().map(|(_, answers)| answers.lock().unwrap().len()).collect();
        println!("answers, by turns of one behind the address and one elsewhere: {counts:?}; {:?}", server.counters().totals);
        assert!(counts.iter().all(|count| *count >= 4), "each has its turns: {counts:?}");
        assert!(server.counters().totals.displaced_served > 10, "there were slots enough, so nothing was shown");
    });
}

#[test]
fn squatters_who_keep_asking_leave_room_for_newcomers_and_residents() {
    scenario("squatters_who_keep_asking_leave_room_for_newcomers_and_residents", 1, |world| {
        let server = server(world, 24);
        let until = 180 * SECOND;
        let mut peers = Vec::new();
        let mut add = |world: &mut World, from: Duration, pause: Duration| {
            let number = peers.len();
            let peer = behind(world, network(number));
            let answers = ask(world, &peer, &server, from, until, pause, usize::MAX);
            peers.push(peer);
            answers
        };
        let residents: Vec<_> = (0..4).map(|_| add(world, Duration::ZERO, 3 * SECOND)).collect();
        // Twice as many as there are slots, from everywhere, and those without one try again twice a second.
        let squatters: Vec<_> = (0..48).map(|at| add(world, 10 * SECOND + SECOND * at / 20, 5 * SECOND)).collect();
        let newcomers: Vec<_> = (0..6).map(|at| (60 + 20 * at, add(world, SECOND * (60 + 20 * at), SECOND))).collect();
        world.run_for(until);
        for answers in &residents {
            // One every three seconds: who is there longest has never been disturbed.
            assert!(answers.lock().unwrap().len() >= 58, "{:?}", answers.lock().unwrap());
        }
        // Slots change hands at a rate, and whoever knocks first then has the next: who comes takes part in that as all others do. So half are in soon, and
        // whoever has had a minute is in; which of them was lucky depends on the seed.
        let (mut soon, all) = (0, newcomers.len());
        for (came, answers) in &newcomers {
            let first = answers.lock().unwrap().first().copied();
            println!("came at {came} s, answered at {first:?}, {} times", answers.lock().unwrap().len());
            soon += usize::from(first.is_some_and(|first| first <= SECOND * (came + 20)));
            assert!(first.is_some() || SECOND * (came + 60) > until, "never answered");
        }
        assert!(soon * 2 >= all, "{soon} of {all} within 20 s");
        let asked: usize = squatters.iter().map(|answers| answers.lock().unwrap().len()).sum();
        assert!(asked > 100, "the squatters were not there: {asked}");
    });
}
