//! One peer floods with valid packets and opens while another's requests go on: the other's p99 at most
//! doubles. Processor time is part of the model (see `strait_sim::Cost`): the node under attack really is
//! busy, and packets wait for it.

mod common;

use std::time::Duration;

use common::{ECHO, PIPE, connect, over_each, percentile, serve_echo};
use strait::{Idle, Message, Priority, Request, Stream, StreamProtocol};
use strait_sim::{Cost, Link, NodeConfig, Over, SimNode, World};

const MS: Duration = Duration::from_millis(1);

/// How many of a kind the attacker has under way at once.
const LANES: u64 = 128;

/// The attacker's own definitions: the same protocols without the window that honest peers keep.
const ECHO_FLOOD: Request = Request::new(ECHO.name, 256 << 10, 256 << 10, Duration::from_secs(10), LANES as u16);
const PIPE_FLOOD: StreamProtocol = StreamProtocol::new(PIPE.name, LANES as u16, Idle::Never);

/// What the attacker sends, each as fast as its connection takes it, for ever.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flood {
    None,
    /// Requests of 4,000 bytes, echoed.
    Requests,
    /// Pings on streams of their own.
    Pings,
    /// Streams that are opened and reset.
    Opens,
    /// Bytes on raw streams, which are read.
    Bulk,
    /// All of these.
    Mixed,
}

fn flood(world: &World, attacker: &SimNode, victim: &SimNode, kind: Flood) {
    let peer = victim.peer_id();
    let does = |other| kind == other || kind == Flood::Mixed;
    let lanes = if kind == Flood::Mixed { LANES / 4 } else { LANES };
    for lane in 0..lanes {
        let api = attacker.api().clone();
        if does(Flood::Requests) {
            world.spawn(attacker.id(), async move {
                while api.request(peer, &ECHO_FLOOD, common::body(lane, 4_000)).await.is_ok() {}
            });
        }
        let api = attacker.api().clone();
        if does(Flood::Pings) {
            world.spawn(attacker.id(), async move { while api.ping(peer).await.is_ok() {} });
        }
        let api = attacker.api().clone();
        let clock = world.clock();
        if does(Flood::Opens) {
            world.spawn(attacker.id(), async move {
                while let Ok(stream) = api.open(peer, &PIPE_FLOOD).await {
                    // Long enough to leave in a packet; then it is reset.
                    clock.sleep(MS / 10).await;
                    drop(stream);
                }
            });
        }
        let api = attacker.api().clone();
        if does(Flood::Bulk) && lane < 8 {
            world.spawn(attacker.id(), async move {
                let (mut send, _receive) = api.open(peer, &PIPE_FLOOD).await.expect("it opens").split();
                while send.write_all(vec![7; 64 << 10]).await.is_ok() {}
            });
        }
    }
}

/// Times of the honest peer's requests, and how busy the victim was meanwhile, from 0.0 to 1.0.
fn measure(world: &mut World, over: Over, kind: Flood, latency: Duration) -> (Vec<Duration>, f64) {
    world.net().set_default(Link::new(latency));
    let [victim, honest, attacker] = [(); 3].map(|()| world.node(NodeConfig::over(over)));
    // The attacker's machine is ten times as fast.
    world.set_cost(attacker.id(), Cost::default().faster(10));
    world.set_cost(victim.id(), Cost::default().slower(2));
    serve_echo(&victim);
    victim
        .serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
            let (_send, mut receive) = stream.split();
            while let Ok(Some(_)) = receive.read(64 << 10).await {}
        })
        .expect("a fresh protocol");
    connect(world, &honest, &victim);
    connect(world, &attacker, &victim);
    flood(world, &attacker, &victim, kind);
    world.run_for(100 * MS);
    let (busy, begin) = (world.busy(victim.id()), world.now());
    let mut times = Vec::new();
    for _ in 0..60 {
        let begin = world.now();
        let body = Message::from(vec![1; 64]);
        let reply = world.block_on(honest.request(victim.peer_id(), &ECHO, body));
        assert!(reply.is_ok(), "{reply:?}");
        times.push(world.now() - begin);
        world.run_for(MS);
    }
    let busy = world.busy(victim.id()) - busy;
    (times, busy.as_secs_f64() / (world.now() - begin).as_secs_f64())
}

/// Fails if the honest peer's p99 more than doubles. Returns how busy the victim was.
fn compare(world: &mut World, over: Over, kind: Flood, latency: Duration) -> f64 {
    let (mut alone, _) = measure(&mut World::new(world.seed()), over, Flood::None, latency);
    let (mut flooded, busy) = measure(world, over, kind, latency);
    let (alone, flooded) = (percentile(&mut alone, 99), percentile(&mut flooded, 99));
    println!("{kind:?} over {over} at {latency:?}: p99 alone {alone:?}, flooded {flooded:?}, victim busy {:.0} %", busy * 100.0);
    assert!(flooded <= alone * 2, "{kind:?}: p99 {alone:?} alone, {flooded:?} under the flood");
    busy
}

#[test]
fn flood_of_requests() {
    over_each("flood_of_requests", 1, |world, over| {
        let busy = compare(world, over, Flood::Requests, 2 * MS);
        assert!(busy > 0.5, "the flood hardly costs the node anything: {busy:.2}");
    });
}

#[test]
fn flood_of_pings() {
    over_each("flood_of_pings", 1, |world, over| {
        compare(world, over, Flood::Pings, 2 * MS);
    });
}

#[test]
fn flood_of_opens() {
    over_each("flood_of_opens", 1, |world, over| {
        compare(world, over, Flood::Opens, 2 * MS);
    });
}

#[test]
fn flood_of_bytes() {
    over_each("flood_of_bytes", 1, |world, over| {
        let busy = compare(world, over, Flood::Bulk, 2 * MS);
        // Over a pipe the bytes that may be unread are fewer than a round trip has room for.
        let wanted = if over == Over::Quic { 0.9 } else { 0.5 };
        assert!(busy > wanted, "the flood does not even keep the node busy: {busy:.2}");
    });
}

#[test]
fn flood_of_everything() {
    over_each("flood_of_everything", 1, |world, over| {
        compare(world, over, Flood::Mixed, 2 * MS);
    });
}
