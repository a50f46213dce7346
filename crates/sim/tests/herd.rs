//! Nothing synchronises: a hundred nodes that lose the same peer in the same instant do not come back to it in the same instant, and hundreds of
//! connections that began together do not keep alive together.

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use common::{body, connect, over_each};
use strait::{Incoming, Limits, Priority, Request};
use strait_core::limits::{INITIAL_RTT, REDIAL_SPREAD};
use strait_sim::trace::Entry;
use strait_sim::{Cost, NodeConfig, Over, SimNode, World, scenario};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// What counts as the same moment.
const WINDOW: Duration = Duration::from_millis(100);
/// How often the nodes are looked at.
const TICK: Duration = Duration::from_millis(5);
/// Nodes that are connected to one.
const NODES: usize = 100;
/// How long that one is away.
const AWAY: Duration = Duration::from_secs(5);
/// Dials of one node, at the most. The first is soon after the loss; then waits double from a quarter of a second on, so that five more fit into
/// [`AWAY`]; one is for a hub that has more handshakes than places; and one to spare, since waits are jittered.
const DIALS_MAX: u64 = 8;

const TWICE: Request = Request::new("/test/twice/1", 1 << 10, 1 << 10, Duration::from_secs(60), 8).idempotent();
const ONCE: Request = Request::new("/test/once/1", 1 << 10, 1 << 10, Duration::from_secs(60), 8);

/// How the one in the middle, the hub, goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// It says goodbye to all at once, as for an update.
    Farewell,
    /// Its process dies; its system resets the TCP connections of all at once.
    Killed,
    /// Its machine dies without a word.
    Silence,
}

/// How many of `count` are in one window at the most, when each is there with this probability, at most, and for itself: more are there once in a million
/// windows (by the binomial distribution).
fn most(count: usize, share: f64) -> usize {
    let odds = share / (1.0 - share);
    let (mut exactly, mut more) = ((1.0 - share).powi(count as i32), 1.0);
    for there in 0..count {
        more -= exactly;
        if more < 1e-6 {
            return there;
        }
        exactly *= odds * (count - there) as f64 / (there + 1) as f64;
    }
    count
}

/// How much of `spread` one window is: the probability for what is evenly spread over it.
fn share(spread: Duration) -> f64 {
    WINDOW.as_secs_f64() / spread.as_secs_f64()
}

/// How many different ones there are in the fullest window, and when that begins. `seen` is in order of time.
fn fullest<T: Ord + Copy>(seen: &[(Duration, T)]) -> (usize, Duration) {
    let (mut inside, mut first, mut full) = (BTreeMap::<T, usize>::new(), 0, (0, Duration::ZERO));
    for (at, who) in seen {
        *inside.entry(*who).or_default() += 1;
        while seen[first].0 + WINDOW <= *at {
            let gone = seen[first].1;
            *inside.get_mut(&gone).expect("it came in") -= 1;
            inside.retain(|who, count| *who != gone || *count > 0);
            first += 1;
        }
        full = full.max((inside.len(), seen[first].0));
    }
    full
}

#[test]
fn the_fullest_window_is_found() {
    let at = |ms: u32, who: u32| (MS * ms, who);
    let seen = [at(0, 1), at(50, 1), at(90, 2), at(100, 3), at(149, 4), at(150, 5), at(400, 6)];
    assert_eq!(fullest(&seen), (4, 90 * MS), "the first is out when the fifth comes");
    assert_eq!(fullest(&seen[..2]).0, 1, "one that comes twice is one");
    // Of 100 throws of a coin more than 73 are heads once in a million times (2.3 in a million for more than 72).
    assert_eq!((most(100, 0.5), most(100, 0.999)), (73, 100));
}

/// What was sent over the network: when, from where, to where and how many bytes of payload.
fn sent(world: &World) -> impl Iterator<Item = (Duration, SocketAddr, SocketAddr, usize)> {
    world.trace().last(usize::MAX).iter().filter_map(|entry| match entry {
        Entry::Datagram { at, source, destination, length, .. } | Entry::Segment { at, source, destination, length, .. } => {
            Some((*at, *source, *destination, *length))
        }
        Entry::Note { .. } => None,
    })
}

/// Answers after a while.
fn serve(world: &World, hub: &SimNode) {
    for def in [&TWICE, &ONCE] {
        let clock = world.clock();
        let work = async move |request: Incoming| {
            clock.sleep(2 * SECOND).await;
            request.body
        };
        hub.serve(def, Priority::Normal, work).expect("a fresh protocol");
    }
}

/// Has every other node ask once for what is asked again by itself, and the others ask again as soon as they are told of an error.
fn ask(world: &World, nodes: &[SimNode], hub: &SimNode) {
    for (number, node) in nodes.iter().enumerate() {
        let (api, peer, def) = (node.api().clone(), hub.peer_id(), if number % 2 == 0 { &TWICE } else { &ONCE });
        world.spawn(node.id(), async move {
            while let Err(error) = api.request(peer, def, body(7, 100)).await {
                assert!(number % 2 == 1, "what may be asked twice is not told of the loss: {error}");
            }
        });
    }
}

/// Watches nodes that have lost their hub.
struct Watch<'a> {
    nodes: &'a [SimNode],
    /// Dials of each so far.
    dials: Vec<u64>,
    /// Who dialled when, at the latest.
    seen: Vec<(Duration, usize)>,
}

impl<'a> Watch<'a> {
    fn new(nodes: &'a [SimNode]) -> Watch<'a> {
        Watch { nodes, dials: nodes.iter().map(|node| node.counters().totals.dials).collect(), seen: Vec::new() }
    }

    fn tick(&mut self, world: &mut World) {
        world.run_for(TICK);
        for (at, (node, dials)) in self.nodes.iter().zip(&mut self.dials).enumerate() {
            let before = std::mem::replace(dials, node.counters().totals.dials);
            self.seen.extend((before < *dials).then_some((world.now(), at)));
        }
    }
}

/// A hub with its nodes is lost, and comes back after [`AWAY`].
fn lose_the_hub(world: &mut World, over: Over, end: End) {
    let hub = world.node(NodeConfig::over(over));
    let nodes: Vec<SimNode> = (0..NODES).map(|_| world.node(NodeConfig::over(over))).collect();
    serve(world, &hub);
    for node in &nodes {
        connect(world, node, &hub);
    }
    ask(world, &nodes, &hub);
    world.run_for(SECOND);
    let (begin, address) = (world.now(), world.address(hub.id()));
    let mut watch = Watch::new(&nodes);
    let before = watch.dials.clone();
    match end {
        End::Farewell => {
            nodes.iter().for_each(|node| hub.disconnect(node.peer_id()));
            world.run_for(2 * MS);
            world.crash(hub.id());
        }
        End::Killed => world.kill(hub.id()),
        End::Silence => world.crash(hub.id()),
    }
    while world.now() < begin + AWAY {
        watch.tick(world);
    }
    let hub = world.restart_node(hub);
    serve(world, &hub);
    let limits = Limits::default();
    let within = match end {
        // Nothing is noticed before the next keep-alive, which over QUIC is the last thing that the idle timeout counts from.
        End::Silence => limits.keep_alive * 5 / 4 + limits.idle_timeout,
        // What is waited for doubles, so it is about as long as the time before, a quarter more or less.
        End::Farewell | End::Killed => AWAY + AWAY * 5 / 4,
    };
    let all_back = || nodes.iter().all(|node| node.is_connected(hub.peer_id()) && hub.is_connected(node.peer_id()));
    while !all_back() {
        assert!(
            world.now() <= begin + within + SECOND,
            "{over}, {end:?}: not all are back {:?} after the loss",
            world.now() - begin
        );
        watch.tick(world);
    }
    let back = world.now() - begin;
    let dials: Vec<u64> = watch.dials.iter().zip(&before).map(|(now, before)| now - before).collect();
    let (full, at) = fullest(&watch.seen);
    println!(
        "{over}, {end:?}: {} dials, at most {} of one node; {full} of {NODES} within {WINDOW:?}, {:?} after the loss; all are back after {back:?}",
        dials.iter().sum::<u64>(),
        dials.iter().max().expect("there are nodes"),
        at - begin,
    );
    // The first dials are the closest together: what comes later is spread by more.
    assert!(
        full <= most(NODES, share(REDIAL_SPREAD)),
        "{over}, {end:?}: a herd of {full} of {NODES}, {:?} after the loss",
        at - begin
    );
    assert!(dials.iter().all(|dials| *dials <= DIALS_MAX), "{over}, {end:?}: dials of each node: {dials:?}");
    if (over, end) == (Over::Quic, End::Farewell) {
        first_packets_that_are_sent_again(world, begin, address);
    }
}

/// First packets that nobody answers are sent again 3, 9, 21, 45 times the assumed round trip later. A quarter of 21 times that more or less is what
/// spreads them by then, beside the spread of the dials; from then on by more.
fn first_packets_that_are_sent_again(world: &World, begin: Duration, address: SocketAddr) {
    let (later, spread) = (begin + INITIAL_RTT * 15, INITIAL_RTT * 21 / 2);
    let is_one = |(at, _, to, length): &(Duration, SocketAddr, SocketAddr, usize)| {
        (later..begin + AWAY).contains(at) && *to == address && *length >= 1200
    };
    let again: Vec<_> = sent(world).filter(is_one).map(|(at, from, ..)| (at, from)).collect();
    assert!(again.len() > NODES, "nothing is sent again");
    let (full, at) = fullest(&again);
    println!("    {full} of {NODES} send their first packet again within {WINDOW:?}, {:?} after the loss", at - begin);
    assert!(
        full <= most(NODES, share(spread)),
        "a herd of {full} first packets that are sent again, {:?} after the loss",
        at - begin
    );
}

#[test]
fn those_who_lose_the_same_peer_do_not_come_back_together() {
    over_each("those_who_lose_the_same_peer_do_not_come_back_together", 1, |world, over| {
        let ends: &[End] = match over {
            Over::Quic => &[End::Farewell, End::Silence],
            Over::Tls => &[End::Killed],
            Over::Noise => &[End::Farewell, End::Silence],
        };
        for end in ends {
            lose_the_hub(&mut World::new(world.seed()), over, *end);
        }
    });
}

/// Idle connections, so that nothing but keep-alives moves.
#[test]
fn connections_that_began_together_do_not_keep_alive_together() {
    const IDLE: usize = 200;
    for over in [Over::Quic, Over::Noise] {
        scenario("connections_that_began_together_do_not_keep_alive_together", 1, |world| {
            let room = Limits { handshakes_max: 400, retry_from: 400, memory_bytes: 1 << 30, ..Limits::default() };
            let limits = Limits { strangers_per_second: 100_000, ..room };
            let hub = world.node(NodeConfig { limits: limits.clone(), ..NodeConfig::over(over) });
            world.set_cost(hub.id(), Cost::default().faster(100));
            let nodes: Vec<SimNode> = (0..IDLE).map(|_| world.node(NodeConfig::over(over))).collect();
            let (begin, address) = (world.now(), world.address(hub.id()));
            for node in &nodes {
                let (api, peer, at) = (node.api().clone(), hub.peer_id(), hub.address());
                world.spawn(node.id(), async move { api.connect(peer, &[at]).await.expect("there is room") });
            }
            world.run_until(|_| hub.peers().len() == IDLE);
            assert!(world.now() - begin < WINDOW, "they did not begin together: {:?}", world.now() - begin);
            let settled = world.now() + 4 * SECOND;
            world.run_for(3 * 60 * SECOND);
            assert_eq!(hub.peers().len(), IDLE);
            // Each time that something moves again after a while.
            let (mut last, mut moved) = (BTreeMap::new(), Vec::new());
            for (at, from, to, _) in sent(world).filter(|(.., length)| *length > 0) {
                let who = if from == address { to } else { from };
                let before = last.insert(who, at).unwrap_or_default();
                moved.extend((at >= settled && at - before > SECOND).then_some((at, who)));
            }
            let minutes = moved.partition_point(|(at, _)| *at < settled + 120 * SECOND);
            let ((first, at), (later, _)) = (fullest(&moved[..minutes]), fullest(&moved[minutes..]));
            println!(
                "{over}: {} keep-alives; of {IDLE} in one window {first} at first, at {at:?}, and {later} after two minutes",
                moved.len()
            );
            assert!(moved.len() > IDLE * 15, "so few: {}", moved.len());
            // At first both ends draw from half of the interval, later each is anywhere in its own, of which the shortest is three quarters.
            let (half, shortest) = (limits.keep_alive / 2, limits.keep_alive * 3 / 4);
            assert!(first <= most(IDLE, 2.0 * share(half)), "{over}: {first} of {IDLE} connections keep alive together at first");
            assert!(
                later <= most(IDLE, 2.0 * share(shortest)),
                "{over}: {later} of {IDLE} connections keep alive together later"
            );
        });
    }
}
