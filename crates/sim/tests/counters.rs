//! Each counter that is exported is moved by something that can happen to a node (principle O2): one that nothing moves is a bug, or counts what
//! cannot be.

mod common;
#[path = "common/siege.rs"]
mod siege;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{ECHO, body, connect, pair, serve_echo, upload};
use siege::{Plan, Weapon};
use strait::{Idle, Incoming, Limits, Message, Node, PacketProtocol, Priority, Request, StreamProtocol, Topic};
use strait_admin::metrics::Snapshot;
use strait_admin::{Shape, catalog};
use strait_adversary::{Attack, PipeAttack};
use strait_core::peers::record;
use strait_core::{Counters, Keypair};
use strait_sim::check::Flow;
use strait_sim::{Link, NodeConfig, Over, SimNode, World};
use strait_wire::identify::Identify;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What no scenario here moves, and why.
const EXCEPT: &[(&str, &str)] = &[
    ("strait_quic_faults", "takes a bug in the QUIC library; core/src/node/fault_tests.rs makes one up"),
    ("strait_driver_accept_rests", "takes a process without file descriptors; strait/tests/descriptors.rs is one"),
    (
        "strait_driver_send_blocked",
        "takes a network card whose queue is full; strait/src/driver/tests.rs has a loopback that is like one",
    ),
];

/// What was counted, by series: a metric with its labels.
#[derive(Default)]
struct Moved(BTreeMap<String, f64>);

impl Moved {
    fn add(&mut self, node: &Node) {
        self.take(Snapshot::of(node, SECOND));
    }

    fn counted(&mut self, counters: Counters) {
        let (driver, now, limits) = Default::default();
        self.take(Snapshot { counters, driver, now, limits, uptime: SECOND });
    }

    fn take(&mut self, snapshot: Snapshot) {
        for line in snapshot.encode().lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            *self.0.entry(series.to_owned()).or_default() += value.parse::<f64>().expect("a number");
        }
    }

    /// The counters of the catalog that have a series which stands at zero. Of protocols one that has moved is enough.
    fn unmoved(&self) -> BTreeSet<String> {
        let counters = catalog().into_iter().filter(|metric| metric.shape == Shape::Counter);
        let stands = |metric: &strait_admin::Metric| {
            let (alone, labelled) = (format!("{}_total", metric.name), format!("{}_total{{", metric.name));
            let series = self.0.iter().filter(|(name, _)| **name == alone || name.starts_with(&labelled));
            let values: Vec<(String, f64)> = series.map(|(name, value)| (name.clone(), *value)).collect();
            match metric.labels.contains(&"protocol") {
                true if values.iter().any(|(_, value)| *value > 0.0) => Vec::new(),
                true => vec![metric.name.clone()],
                false if values.is_empty() => vec![format!("{} is not there", metric.name)],
                false => {
                    values.into_iter().filter(|(_, value)| *value == 0.0).map(|(name, _)| name.replace("_total", "")).collect()
                }
            }
        };
        counters.flat_map(|metric| stands(&metric)).collect()
    }
}

type Scenario = fn(&mut World, &mut Moved);

const SCENARIOS: &[(&str, Scenario)] = &[
    ("work", work),
    ("packets", packets),
    ("topics", topics),
    ("trace", trace),
    ("failures", failures),
    ("dials", dials),
    ("dials that meet", dials_that_meet),
    ("one identity", one_identity),
    ("lies", lies),
    ("slots", slots),
    ("little memory", little_memory),
    ("attacks", attacks),
];

#[test]
fn each_counter_is_moved_by_some_scenario() {
    let mut all = Moved::default();
    for (name, run) in SCENARIOS {
        let mut moved = Moved::default();
        let begun = std::time::Instant::now();
        run(&mut World::new(1), &mut moved);
        let new = moved.0.iter().filter(|(series, value)| **value > 0.0 && !all.0.get(*series).is_some_and(|sum| *sum > 0.0));
        let new = new.filter(|(series, _)| series.contains("_total")).count();
        println!("{name}: {new} series that none before has moved, in {:?}", begun.elapsed());
        moved.0.into_iter().for_each(|(series, value)| *all.0.entry(series).or_default() += value);
    }
    real_sockets(&mut all);
    let wanted: BTreeSet<String> = EXCEPT.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(all.unmoved(), wanted, "left: what nothing has moved; right: what is expected to stand still");
}

/// Requests, pings and bulk, both ways of securing a pipe and QUIC, until one side closes.
fn work(world: &mut World, moved: &mut Moved) {
    world.net().set_default(Link::new(10 * MS).rate(20_000_000));
    for over in Over::ALL {
        let (a, b) = pair(world, over);
        serve_echo(&a);
        serve_echo(&b);
        let peer = b.peer_id();
        world.block_on(a.request(peer, &ECHO, body(1, 20_000))).expect("it answers");
        world.block_on(a.ping(peer)).expect("it answers");
        let flow = Flow::new("bulk", 1);
        common::serve_sink(&b, &flow);
        upload(world, &a, &b, &flow, 4 << 20);
        world.run_until(|_| flow.delivered_bytes() == 4 << 20);
        a.disconnect(peer);
        world.run_for(SECOND);
        moved.add(&a);
        moved.add(&b);
    }
}

const POSITIONS: PacketProtocol = PacketProtocol::new("/test/positions/1", 1000, 64);
/// The same with a limit that the other side does not have.
const LARGER: PacketProtocol = PacketProtocol::new("/test/positions/1", 1100, 64);

/// More packets than the link carries, and one that is too large for the other side.
fn packets(world: &mut World, moved: &mut Moved) {
    let (a, b) = pair(world, Over::Quic);
    let _packets = b.serve_packets(&POSITIONS).expect("a fresh protocol");
    world.run_until(|_| a.send_packet(b.peer_id(), &LARGER, &[1; 1100]).is_ok());
    world.run_for(100 * MS);
    world.net().set_both(a.id(), b.id(), Link::new(50 * MS).rate(10_000));
    for _ in 0..500 {
        let _ = a.send_packet(b.peer_id(), &POSITIONS, &[2; 1000]);
    }
    world.run_for(SECOND);
    moved.add(&a);
    moved.add(&b);
}

const VALUES: Topic<u16, Vec<u8>> = Topic::latest("/test/values/1", 100, 2, 1024);
const NO_SUCH: Topic<u16, Vec<u8>> = Topic::latest("/test/none/1", 100, 2, 1024);

fn topics(world: &mut World, moved: &mut Moved) {
    let (a, b) = pair(world, Over::Quic);
    let values = b.publisher(&VALUES, Priority::Normal).expect("a fresh topic");
    let mut subscription = a.subscribe(b.peer_id(), &VALUES);
    let mut refused = a.subscribe(b.peer_id(), &NO_SUCH);
    for round in 0..3 {
        values.publish(round, vec![7; 100]).expect("room");
        world.block_on(subscription.next()).expect("it is told");
    }
    world.block_on(refused.next()).expect_err("there is no such topic");
    moved.add(&b);
}

/// A trace that is as large as it may be at once.
fn trace(world: &mut World, moved: &mut Moved) {
    let (a, b) = pair(world, Over::Quic);
    let _trace = a.trace(b.peer_id(), 1).expect("connected");
    moved.add(&a);
}

const STUCK: Request = Request::new("/test/stuck/1", 1 << 10, 1 << 10, SECOND, 8);

/// Requests that nobody answers or that are given up, and a peer that vanishes.
fn failures(world: &mut World, moved: &mut Moved) {
    for over in [Over::Quic, Over::Tls] {
        let (a, b) = pair(world, over);
        b.serve(&STUCK, Priority::Normal, async move |_: Incoming| std::future::pending::<Message>().await).expect("fresh");
        world.block_on(a.request(b.peer_id(), &STUCK, body(1, 10))).expect_err("nobody answers");
        world.run_for(SECOND);
        world.crash(b.id());
        world.run_for(60 * SECOND);
        moved.add(&a);
        moved.add(&b);
    }
}

/// By name, to nobody, and to somebody who answers over TCP before QUIC was given up.
fn dials(world: &mut World, moved: &mut Moved) {
    world.net().set_default(Link::new(30 * MS));
    let server = world.node(NodeConfig { quic: true, tcp: true, ..NodeConfig::default() });
    let client = world.node(NodeConfig::default());
    let (ip, peer) = (world.address(server.id()).ip(), server.peer_id());
    world.set_name("node.internal", &[ip]);
    let named = "/dns4/node.internal/udp/4001/quic-v1".parse().expect("a multiaddr");
    world.block_on(client.connect(peer, &[named])).expect("it is there");
    client.disconnect(peer);
    world.run_for(SECOND);
    world.net().set_both(client.id(), server.id(), Link::new(30 * MS).without_udp());
    let other = world.node(NodeConfig::default());
    world.net().set_both(other.id(), server.id(), Link::new(30 * MS).without_udp());
    world.block_on(other.connect(peer, server.addresses())).expect("TCP passes");
    world.net().set_up(client.id(), server.id(), false);
    world.block_on(client.connect(peer, server.addresses())).expect_err("nothing passes");
    moved.add(&client);
    moved.add(&other);
}

/// Both sides dial in the same instant, so that there are two connections, and one too many.
fn dials_that_meet(world: &mut World, moved: &mut Moved) {
    world.net().set_default(Link::new(20 * MS));
    let [a, b] = [(); 2].map(|()| world.node(NodeConfig::default()));
    for (from, to) in [(&a, &b), (&b, &a)] {
        let (api, peer, addresses) = (from.api().clone(), to.peer_id(), to.addresses().to_vec());
        world.spawn(from.id(), async move { api.connect(peer, &addresses).await });
    }
    world.run_for(60 * SECOND);
    moved.add(&a);
    moved.add(&b);
}

/// One identity on more machines than it may be connected from.
fn one_identity(world: &mut World, moved: &mut Moved) {
    let server = world.node(NodeConfig::default());
    let keypair = Keypair::ed25519_from_bytes([7; 32]).expect("a key");
    let config = NodeConfig { keypair: Some(keypair), ..NodeConfig::default() };
    let many: Vec<SimNode> = (0..8).map(|_| world.node(config.clone())).collect();
    for node in &many {
        let _ = world.block_on(node.connect(server.peer_id(), server.addresses()));
    }
    world.run_for(SECOND);
    moved.add(&server);
}

/// identify/push, of which the liar writes each byte.
const PUSH: StreamProtocol = StreamProtocol::new("/ipfs/id/push/1.0.0", 8, Idle::Never);

/// What a peer says of itself is no message, has addresses that hold only elsewhere, and records of others.
fn lies(world: &mut World, moved: &mut Moved) {
    let (a, b) = pair(world, Over::Quic);
    let loopback: strait::Multiaddr = "/ip4/127.0.0.1/tcp/22".parse().expect("a multiaddr");
    let other = Keypair::ed25519_from_bytes([9; 32]).expect("a key");
    let forged = record::sign(&other, 1, std::slice::from_ref(&loopback)).expect("it signs");
    let bytes = loopback.to_vec();
    let lie = Identify { listen_addrs: vec![&bytes], signed_peer_record: Some(&forged), ..Identify::default() };
    let mut message = Vec::new();
    lie.encode(&mut message).expect("it fits");
    for message in [message, vec![0xff; 10]] {
        let mut frame = Vec::new();
        strait_wire::framing::put_header(message.len(), &mut frame);
        frame.extend_from_slice(&message);
        let mut stream = world.block_on(a.open(b.peer_id(), &PUSH)).expect("connected").split();
        world.block_on(stream.0.write_all(frame)).expect("it is written");
        let _ = stream.0.finish();
        world.run_for(SECOND);
    }
    moved.add(&b);
}

/// A node with few slots, whose peers do nothing, did something long ago, or are being served; and who comes when all of them are needed.
fn slots(world: &mut World, moved: &mut Moved) {
    let limits = Limits { connections_max: 16, handshakes_max: 16, retry_from: 16, ..Limits::default() };
    let server = world.node(NodeConfig { limits, ..NodeConfig::default() });
    serve_echo(&server);
    let come = |world: &mut World, asks: Duration, until: Duration| {
        let peer = world.node(NodeConfig::default());
        let (api, clock, to, address) = (peer.api().clone(), world.clock(), server.peer_id(), server.address());
        world.spawn(peer.id(), async move {
            while clock.now() < until {
                if api.connect(to, std::slice::from_ref(&address)).await.is_ok() && asks > Duration::ZERO {
                    let _ = api.request(to, &ECHO, body(1, 64)).await;
                }
                clock.sleep(asks.max(SECOND)).await;
            }
        });
        peer
    };
    let minutes = |count: u32| 60 * SECOND * count;
    // Who does nothing goes for who comes and asks.
    let squatters: Vec<_> = (0..16).map(|_| come(world, Duration::ZERO, 2 * SECOND)).collect();
    world.run_for(10 * SECOND);
    let once: Vec<_> = (0..16).map(|_| come(world, minutes(60), minutes(1))).collect();
    world.run_for(minutes(12));
    let until = minutes(16);
    let busy: Vec<_> = (0..24).map(|_| come(world, SECOND, until)).collect();
    world.run_for(minutes(2));
    moved.add(&server);
    drop((squatters, once, busy));
}

/// Requests that wait for memory until they fill the window, which cannot be widened.
fn little_memory(world: &mut World, moved: &mut Moved) {
    const GREEDY: Request = Request::new("/test/greedy/1", 1 << 20, 1 << 20, Duration::from_secs(60), 64);
    let mut limits = Limits { receive_window_max: 64 << 10, send_window_max: 64 << 10, streams_max: 64, ..Limits::default() };
    limits.inbox_bytes_max = limits.inbox_bytes_min;
    (limits.connections_max, limits.handshakes_max, limits.retry_from) = (1, 1, 1);
    limits.memory_bytes = limits.connection_floor() + limits.shared_floor() + (4 << 20);
    limits.connection_bytes_max = limits.connection_floor() + (8 << 20);
    let server = world.node(NodeConfig { limits, ..NodeConfig::default() });
    let clock = world.clock();
    let slow = async move |request: Incoming| {
        clock.sleep(5 * SECOND).await;
        request.body
    };
    server.serve(&GREEDY, Priority::Normal, slow).expect("fresh");
    let client = world.node(NodeConfig::default());
    connect(world, &client, &server);
    for _ in 0..64 {
        let (api, peer) = (client.api().clone(), server.peer_id());
        world.spawn(client.id(), async move { api.request(peer, &GREEDY, body(1, 1 << 20)).await });
    }
    world.run_for(60 * SECOND);
    moved.add(&server);
}

/// Attacks of docs/attacks.md, on a node that serves honest peers: what is dropped, refused, given up and ended.
fn attacks(world: &mut World, moved: &mut Moved) {
    let usual = Limits::default();
    let few_places = Limits { handshakes_max: 16, retry_from: 16, ..usual.clone() };
    let small_inbox = Limits { inbox_bytes_max: usual.inbox_bytes_min, ..usual.clone() };
    // Who has to prove an address, and more of them in one turn than there may be answers.
    let long_turns = Limits { turn_work: 4 << 20, strangers_per_second: 100_000, retry_from: 1, ..usual.clone() };
    let attacks: [(Weapon, usize, &Limits); 9] = [
        (Attack::SpoofedInitials.into(), 48, &few_places),
        (Attack::SpoofedInitials.into(), 480, &long_turns),
        (Attack::EmptyDatagrams.into(), 48, &usual),
        (Attack::Squat.into(), 48, &few_places),
        (Attack::Migration.into(), 48, &usual),
        (Attack::Giant.into(), 48, &usual),
        (Attack::TinyFrames.into(), 48, &usual),
        (Attack::Pings.into(), 48, &small_inbox),
        (PipeAttack::Knock.into(), 48, &usual),
    ];
    for (attack, rate, limits) in attacks {
        let plan = Plan { rate, limits: limits.clone(), ..Plan::new(attack, 16) };
        moved.counted(siege::run(&mut World::new(world.seed()), &plan, true).counters);
    }
}

/// What only real sockets do: system calls, and an address that the system refuses to send to.
fn real_sockets(moved: &mut Moved) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let any = "127.0.0.1:0".parse().expect("an address");
        let server = Node::builder().listen(any).start().await.expect("starts");
        let client = Node::builder().listen(any).start().await.expect("starts");
        client.connect(server.peer_id(), &server.listen_addrs()).await.expect("it is there");
        let elsewhere = "/ip4/192.0.2.1/udp/1/quic-v1".parse().expect("a multiaddr");
        let nobody = Keypair::generate_ed25519().public().to_peer_id();
        let wait = std::pin::pin!(client.connect(nobody, std::slice::from_ref(&elsewhere)));
        let _ = tokio::time::timeout(SECOND, wait).await;
        moved.add(&client);
        moved.add(&server);
    });
}
