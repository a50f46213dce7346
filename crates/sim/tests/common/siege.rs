//! A siege in virtual time: honest peers at work, and bots that attack the node that serves them.
//!
//! The honest ones are modest: what they ask for is less than their fair share of the node's processor, which is slow, so that the
//! attackers could keep it busy. So whatever those do, the honest must get all of it, and about as fast as without them. That is
//! compared with the same world without bots.
#![allow(dead_code)] // each test file uses a part

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strait::{AbuseRecord, Idle, Incoming, Limits, Message, Offender, Priority, Request, Stream, StreamProtocol};
use strait_adversary::{Attack, Bot, PipeAttack, PipeBot, Target, Told};
use strait_core::limits::{ADDRESS_CHANGES_MAX, ETHERNET_DATAGRAM_BYTES, FRAME_WORK, HANDSHAKE_PACKET_WORK, PACKET_WORK};
use strait_core::{Audit, Counters, Totals};
use strait_sim::{Cost, Host, Link, NodeConfig, Over, SimNode, Turn, Turned, World};

use crate::common::{body, connect, percentile};

#[path = "pipe_bot.rs"]
mod pipe_bot;
use pipe_bot::PipeBotHost;

const MS: Duration = Duration::from_millis(1);
/// So many times slower than usual is the node under attack.
const SLOWER: u32 = 5;
/// Honest peers.
const HONEST: usize = 3;
/// What an honest peer asks for in the large.
const LARGE_BYTES: usize = 16 << 10;

/// What that costs the node at the most, in quanta: its bytes are opened, read, written and acknowledged.
const LARGE_QUANTA: u32 = 3;

/// What the node under attack serves.
pub(crate) const ECHO: Request = Request::new("/test/echo/1", 256 << 10, 256 << 10, Duration::from_secs(10), 8);
pub(crate) const PIPE: StreamProtocol = StreamProtocol::new("/test/pipe/1", 16, Idle::Never);
/// A request whose handler never answers.
pub(crate) const STUCK: Request = Request::new("/test/stuck/1", 256 << 10, 256 << 10, Duration::from_secs(60), 8);
const TARGET: Target = Target { request: ECHO.name, request_bytes_max: ECHO.request_bytes_max, pipe: PIPE.name };

/// What the attackers do, and over what the honest peers come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weapon {
    Datagrams(Attack),
    Pipes(PipeAttack),
}

impl From<Attack> for Weapon {
    fn from(attack: Attack) -> Weapon {
        Weapon::Datagrams(attack)
    }
}

impl From<PipeAttack> for Weapon {
    fn from(attack: PipeAttack) -> Weapon {
        Weapon::Pipes(attack)
    }
}

impl Weapon {
    fn config(self, limits: &Limits) -> NodeConfig {
        let over = if matches!(self, Weapon::Datagrams(_)) { Over::Quic } else { Over::Tls };
        // Whatever attackers propose is there.
        NodeConfig { limits: limits.clone(), pipe_security: None, ..NodeConfig::over(over) }
    }
}

/// One attacker, of either kind.
enum Attacker {
    Datagrams(Arc<Mutex<Bot>>),
    Pipes(Arc<Mutex<PipeBot>>),
}

impl Attacker {
    fn told(&self) -> Told {
        match self {
            Attacker::Datagrams(bot) => bot.lock().unwrap().told().clone(),
            Attacker::Pipes(bot) => bot.lock().unwrap().told().clone(),
        }
    }
}

/// One siege.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) attack: Weapon,
    pub(crate) attackers: usize,
    /// Datagrams per millisecond of all attackers together, at the most.
    pub(crate) rate: usize,
    /// How long is measured.
    pub(crate) window: Duration,
    /// Honest peers ask so many times less often.
    pub(crate) rarely: u32,
    pub(crate) limits: Limits,
    pub(crate) target: Target,
}

impl Plan {
    pub(crate) fn new(attack: impl Into<Weapon>, attackers: usize) -> Plan {
        let attack = attack.into();
        let window = Duration::from_millis(250);
        Plan { attack, attackers, rate: 48, window, rarely: 1, limits: Limits::default(), target: TARGET }
    }

    /// For attacks that take their time: little is sent, and long is watched.
    pub(crate) fn long(attack: impl Into<Weapon>, attackers: usize, window: Duration) -> Plan {
        Plan { window, rarely: 12, ..Plan::new(attack, attackers) }
    }
}

/// What the honest peers got, together.
#[derive(Debug, Default)]
struct Got {
    small: Vec<Duration>,
    large: Vec<Duration>,
    errors: Vec<String>,
}

/// What a siege has come to.
#[derive(Debug)]
pub(crate) struct Report {
    /// Of small requests, which fit a quantum.
    pub(crate) p99: Duration,
    /// The same of large ones, which take a few.
    pub(crate) large: Duration,
    pub(crate) replies: usize,
    pub(crate) errors: Vec<String>,
    /// Of the node under attack: how busy, from 0.0 to 1.0, in the measured time.
    pub(crate) busy: f64,
    pub(crate) told: Vec<Told>,
    /// The node's counters when the measured time began and when it was over.
    pub(crate) before: Totals,
    pub(crate) after: Totals,
    /// Names of protocols among its counters.
    pub(crate) names: usize,
    /// All that it had counted in the end.
    pub(crate) counters: Counters,
    /// The most that it had granted in that time, in bytes.
    pub(crate) granted: u64,
    /// Its tables when that time was over.
    pub(crate) connections: usize,
    pub(crate) streams: usize,
    /// How long a newcomer's connecting took, if it was done in that time.
    pub(crate) newcomer: Option<Duration>,
    /// What the node's abuse feed told in all, and which of that is about honest peers.
    pub(crate) abuse: Vec<AbuseRecord>,
    pub(crate) slander: Vec<AbuseRecord>,
    /// What is left when the attackers have been silent for a minute and the honest have gone.
    pub(crate) left: Audit,
}

/// A bot as a host of the world, with as many addresses as it wants.
struct BotHost {
    bot: Arc<Mutex<Bot>>,
    to: SocketAddr,
    number: usize,
    budget: usize,
    next: Duration,
    silent: Arc<Mutex<bool>>,
}

fn false_address(number: usize, source: u16) -> SocketAddr {
    let [high, low] = source.to_be_bytes();
    SocketAddr::from(([10, 100 + high, low, number as u8], 20_000 + source))
}

impl Host for BotHost {
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned {
        let now = turn.elapsed();
        let silent = *self.silent.lock().unwrap();
        let mut bot = self.bot.lock().unwrap();
        while let Some(datagram) = turn.receive() {
            let source = datagram.destination.port().saturating_sub(20_000);
            if !silent {
                bot.receive(now, source, &datagram.payload);
            }
        }
        if now >= self.next && !silent {
            self.next = now + MS;
            for out in bot.tick(now, self.budget) {
                match out.source {
                    0 => turn.send(self.to, None, out.bytes.into()),
                    source => turn.send_from(false_address(self.number, source), self.to, out.bytes.into()),
                }
            }
        }
        Turned::default()
    }

    fn wake(&self) -> Option<Duration> {
        (!*self.silent.lock().unwrap()).then_some(self.next)
    }
}

/// Requests at a fixed pace, until the time is over: one peer asks for large ones, the others for small ones.
fn work(world: &World, honest: &SimNode, victim: &SimNode, got: &Arc<Mutex<Got>>, until: Duration, pace: Duration, large: bool) {
    let (api, peer, clock, got) = (honest.api().clone(), victim.peer_id(), world.clock(), got.clone());
    let spawner = world.spawner_of(honest.id());
    world.spawn(honest.id(), async move {
        let mut next = clock.now();
        while next < until {
            clock.sleep(next.saturating_sub(clock.now())).await;
            next += pace;
            let (api, clock, got) = (api.clone(), clock.clone(), got.clone());
            spawner.spawn(async move {
                let begin = clock.now();
                let bytes = if large { LARGE_BYTES } else { 64 };
                let reply = api.request(peer, &ECHO, body(begin.as_nanos() as u64, bytes)).await;
                let mut got = got.lock().unwrap();
                match reply {
                    Ok(reply) if reply.len() == bytes && large => got.large.push(clock.now() - begin),
                    Ok(reply) if reply.len() == bytes => got.small.push(clock.now() - begin),
                    Ok(_) => got.errors.push("a reply of another length".to_owned()),
                    Err(error) => got.errors.push(error.to_string()),
                }
            });
        }
    });
}

/// Serves what honest peers and attackers use.
fn serve(victim: &SimNode) {
    victim.serve(&ECHO, Priority::Normal, async move |request: Incoming| request.body).unwrap();
    victim.serve(&STUCK, Priority::Normal, async move |_: Incoming| std::future::pending::<Message>().await).unwrap();
    victim
        .serve_streams(&PIPE, Priority::Normal, async move |stream: Stream| {
            let (_send, mut receive) = stream.split();
            while let Ok(Some(_)) = receive.read(64 << 10).await {}
        })
        .unwrap();
}

/// Runs a siege; without bots if `attacked` is false.
pub(crate) fn run(world: &mut World, plan: &Plan, attacked: bool) -> Report {
    world.net().set_default(Link::new(5 * MS));
    let victim = world.node(plan.attack.config(&plan.limits));
    let honest: Vec<_> = (0..HONEST).map(|_| world.node(plan.attack.config(&Limits::default()))).collect();
    serve(&victim);
    world.set_cost(victim.id(), Cost::default().slower(SLOWER));
    for peer in &honest {
        world.set_cost(peer.id(), Cost::default().faster(10));
        connect(world, peer, &victim);
    }
    let (mut bots, silent) = (Vec::new(), Arc::new(Mutex::new(false)));
    for number in 0..if attacked { plan.attackers } else { 0 } {
        bots.push(besiege(world, plan, &victim, number, &silent));
    }
    // Time to come up to speed.
    world.run_for(200 * MS);
    let until = world.now() + plan.window;
    let got = Arc::<Mutex<Got>>::default();
    for (number, peer) in honest.iter().enumerate() {
        let large = number == 0;
        let pace = if large { 40 * MS } else { 4 * MS } * plan.rarely;
        work(world, peer, &victim, &got, until, pace, large);
    }
    let newcomer = arrive(world, plan, &victim);
    let (before, busy) = (victim.counters().totals, world.busy(victim.id()));
    let granted = watch(world, &victim, until);
    let (after, busy) = (victim.counters().totals, world.busy(victim.id()) - busy);
    let (audit, names, newcomer) = (victim.audit(), victim.counters().protocols.len(), *newcomer.lock().unwrap());
    world.run_for(100 * MS);
    let told = bots.iter().map(Attacker::told).collect();
    *silent.lock().unwrap() = true;
    // What is on its way arrives, also when it was held up; and who has fallen silent is given up.
    world.run_for(Duration::from_secs(65));
    let honest_at: Vec<_> = honest.iter().map(|peer| (peer.peer_id(), world.address(peer.id()).ip())).collect();
    for peer in &honest {
        assert!(peer.is_connected(victim.peer_id()), "an honest peer has lost its connection");
        world.block_on(peer.close());
    }
    world.run_for(Duration::from_secs(10));
    let abuse = victim.abuse_rest();
    let about = |record: &&AbuseRecord| match record.who {
        Offender::Peer(peer) => honest_at.iter().any(|(honest, _)| *honest == peer),
        Offender::Address(ip) | Offender::Forgeable(ip) => honest_at.iter().any(|(_, honest)| *honest == ip),
        _ => false,
    };
    let slander = abuse.iter().filter(about).copied().collect();
    let mut got = std::mem::take(&mut *got.lock().unwrap());
    Report {
        p99: percentile(&mut got.small, 99),
        large: percentile(&mut got.large, 99),
        replies: got.small.len() + got.large.len(),
        errors: got.errors,
        busy: busy.as_secs_f64() / plan.window.as_secs_f64(),
        told,
        before,
        after,
        names,
        counters: victim.counters(),
        granted,
        connections: audit.connections,
        streams: audit.streams,
        newcomer,
        abuse,
        slander,
        left: victim.audit(),
    }
}

/// Names of protocols among the counters, at the most: those that are served here and libp2p's own.
const NAMES_MAX: usize = 8;

/// A peer that was not there before connects. Tells how long that took.
fn arrive(world: &mut World, plan: &Plan, victim: &SimNode) -> Arc<Mutex<Option<Duration>>> {
    let newcomer = world.node(plan.attack.config(&Limits::default()));
    let (took, begin, clock) = (Arc::<Mutex<Option<Duration>>>::default(), world.now(), world.clock());
    let (told, api, peer, address) = (Arc::clone(&took), newcomer.api().clone(), victim.peer_id(), victim.address());
    world.spawn(newcomer.id(), async move {
        if api.connect(peer, &[address]).await.is_ok() {
            *told.lock().unwrap() = Some(clock.now() - begin);
            // Long enough to be looked at.
            clock.sleep(MS).await;
        }
        api.close().await;
    });
    took
}

/// How long it takes newcomers to get in, one after the other, when the attackers have had time to take every place. Each asks again as soon as it is told
/// that there is no room. Also the node's counters then.
pub(crate) fn newcomers(world: &mut World, plan: &Plan, count: usize) -> (Vec<Duration>, Totals) {
    world.net().set_default(Link::new(5 * MS));
    let config = |limits: &Limits| NodeConfig { quic: true, ..plan.attack.config(limits) };
    let victim = world.node(config(&plan.limits));
    let silent = Arc::default();
    for number in 0..plan.attackers {
        besiege(world, plan, &victim, number, &silent);
    }
    world.run_for(plan.window);
    let mut took = Vec::new();
    for number in 0..count {
        let (newcomer, begin) = (world.node(config(&Limits::default())), world.now());
        // By turns over QUIC, which comes first, and over TCP.
        let (api, peer, at) = (newcomer.api().clone(), victim.peer_id(), victim.addresses()[number % 2].clone());
        world.block_on(async { while api.connect(peer, std::slice::from_ref(&at)).await.is_err() {} });
        took.push(world.now() - begin);
        world.run_for(50 * MS);
        assert!(newcomer.is_connected(peer), "it was only in for a moment");
    }
    let audit = victim.audit();
    assert!(audit.connections <= count + plan.limits.handshakes_max as usize, "{audit:?}");
    (took, victim.counters().totals)
}

/// Puts one bot into the world.
fn besiege(world: &mut World, plan: &Plan, victim: &SimNode, number: usize, silent: &Arc<Mutex<bool>>) -> Attacker {
    let seed = world.seed() << 16 | number as u64;
    let provider = strait_sim::crypto::provider(seed, 1 << 20);
    let to = world.address(victim.id());
    let budget = plan.rate.div_ceil(plan.attackers.max(1));
    // Not all in the same instant.
    let next = world.now() + MS * number as u32 / 16;
    let attack = match plan.attack {
        Weapon::Datagrams(attack) => attack,
        Weapon::Pipes(attack) => {
            let bot = Arc::new(Mutex::new(PipeBot::new(attack, seed, provider, plan.target)));
            let id = world.add(PipeBotHost::new(bot.clone(), to, budget, next, silent.clone()));
            world.set_cost(id, Cost::default().faster(10));
            return Attacker::Pipes(bot);
        }
    };
    let bot = Arc::new(Mutex::new(Bot::new(attack, seed, provider, plan.target)));
    let host = BotHost { bot: bot.clone(), to, number, budget, next, silent: silent.clone() };
    let id = world.add(host);
    world.set_cost(id, Cost::default().faster(10));
    for source in 1..=1024 {
        world.net().add_address(id, false_address(number, source));
    }
    Attacker::Datagrams(bot)
}

/// Lets the world run and gives the most that the node had granted meanwhile.
fn watch(world: &mut World, victim: &SimNode, until: Duration) -> u64 {
    let mut granted = 0u64;
    while world.now() < until {
        world.run_for((10 * MS).min(until - world.now()));
        let audit = victim.audit();
        assert!(audit.granted <= audit.budget, "{audit:?}");
        granted = granted.max(audit.granted);
    }
    granted
}

/// What must hold in every siege. Returns what it came to, for what must hold in this one.
pub(crate) fn withstands(world: &mut World, plan: &Plan) -> Report {
    let attack: &dyn std::fmt::Display = match &plan.attack {
        Weapon::Datagrams(attack) => attack,
        Weapon::Pipes(attack) => attack,
    };
    let name = format!("{attack} x{}", plan.attackers);
    let alone = run(&mut World::new(world.seed()), plan, false);
    let loud = Loud::default();
    let siege = tracing::subscriber::with_default(loud.clone(), || run(world, plan, true));
    // One round of turns: each member of the ring has its quantum once.
    let round = Cost::default().slower(SLOWER).unit * plan.limits.quantum * (plan.attackers + HONEST + 1) as u32;
    tell(&name, &alone, &siege, round);
    assert!(alone.errors.is_empty(), "without an attack: {:?}", alone.errors);
    assert!(siege.sum(|told| told.datagrams) > 0, "{name}: nobody attacked");
    assert_eq!(siege.sum(|told| told.malformed), 0, "{name}: the node has sent what is no QUIC");

    assert_eq!((&alone.slander[..], &siege.slander[..]), (&[][..], &[][..]), "{name}: the abuse feed accuses honest peers");
    assert_eq!(siege.errors, [""; 0], "{name}: errors of honest peers");
    assert!(siege.p99 <= alone.p99 * 2 + round, "{name}: p99 {:?} alone, {:?} besieged", alone.p99, siege.p99);
    let rounds = round * LARGE_QUANTA;
    assert!(siege.large <= alone.large * 2 + rounds, "{name}: large: {:?} alone, {:?} besieged", alone.large, siege.large);
    assert!(siege.replies * 100 >= alone.replies * 95, "{name}: {} replies alone, {} besieged", alone.replies, siege.replies);
    // In proportion to what came; a handshake has its price.
    let handshakes = siege.grown(|totals| totals.handshakes_in);
    // Some of it came before the window, and waited for its turn.
    let datagrams = siege.grown(|totals| totals.datagrams_in + totals.pipe_reads) + siege.sum(|told| told.datagrams);
    let bytes = siege.grown(|totals| totals.datagram_bytes_in + totals.pipe_bytes_in) + siege.sum(|told| told.bytes);
    let most = handshakes * 8 * HANDSHAKE_PACKET_WORK + datagrams * 5 * PACKET_WORK + bytes * (5 + FRAME_WORK);
    assert!(siege.grown(|totals| totals.work) <= most, "{name}: work {} of {most}", siege.grown(|totals| totals.work));
    // Nobody at a false address gets more than RFC 9000 section 8 allows. A change of address may send one challenge to each end of it.
    let astray = siege.sum(|told| told.bytes_astray);
    let seconds = plan.window.as_secs() + 2;
    let moves = (u64::from(ADDRESS_CHANGES_MAX) + 2 * seconds) * siege.sum(|told| told.opened);
    let most = match plan.attack {
        Weapon::Datagrams(Attack::Migration) => 2 * moves * ETHERNET_DATAGRAM_BYTES as u64,
        // The squatters' false addresses are proved.
        Weapon::Datagrams(Attack::Squat) => u64::MAX,
        _ => 3 * siege.sum(|told| told.bytes),
    };
    assert!(astray <= most, "{name}: {astray} bytes went to false addresses, at most {most} may");
    assert_eq!(loud.count(), 0, "{name}: what remotes do is in the log above debug level");
    assert!(siege.names <= NAMES_MAX, "{name}: names of a remote are among the counters");
    let left = (siege.left.connections, siege.left.streams, siege.left.committed);
    let wanted = (0, 0, plan.limits.shared_floor());
    assert_eq!(left, wanted, "{name}: connections, streams and memory that are left when all have gone");
    siege
}

fn tell(name: &str, alone: &Report, siege: &Report, round: Duration) {
    let datagrams = siege.grown(|totals| totals.datagrams_in + totals.pipe_reads);
    println!(
        "{name}: p99 {:?} alone, {:?} besieged, large {:?} and {:?} (round {round:?}); replies {} and {}; busy {:.0} % and {:.0} %; newcomer {:?} and {:?}",
        alone.p99,
        siege.p99,
        alone.large,
        siege.large,
        alone.replies,
        siege.replies,
        alone.busy * 100.0,
        siege.busy * 100.0,
        alone.newcomer,
        siege.newcomer,
    );
    println!(
        "    sent {} datagrams of {} bytes; back {}, astray {}; opened {}, ended {}: {:?}; {} work a datagram; {} MiB granted; \
         {} connections, {} streams; dropped {} full, {} late",
        siege.sum(|told| told.datagrams),
        siege.sum(|told| told.bytes),
        siege.sum(|told| told.bytes_back),
        siege.sum(|told| told.bytes_astray),
        siege.sum(|told| told.opened),
        siege.sum(|told| told.ended),
        siege.told.iter().find_map(|told| told.last.clone()),
        siege.grown(|totals| totals.work) / datagrams.max(1),
        siege.granted >> 20,
        siege.connections,
        siege.streams,
        siege.grown(|totals| totals.dropped_full),
        siege.grown(|totals| totals.dropped_late),
    );
}

impl Report {
    /// Over all bots.
    pub(crate) fn sum(&self, of: impl Fn(&Told) -> u64) -> u64 {
        self.told.iter().map(of).sum()
    }

    /// How much a counter has grown in the measured time.
    pub(crate) fn grown(&self, of: impl Fn(&Totals) -> u64) -> u64 {
        of(&self.after) - of(&self.before)
    }
}

/// The attack by one and by sixteen.
pub(crate) fn by_one_and_by_many(world: &mut World, attack: impl Into<Weapon>) -> [Report; 2] {
    let attack = attack.into();
    let one = withstands(&mut World::new(world.seed()), &Plan::new(attack, 1));
    [one, withstands(world, &Plan::new(attack, 16))]
}

/// Counts what is logged above debug level.
#[derive(Clone, Default)]
struct Loud(Arc<AtomicU64>);

impl Loud {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl tracing::Subscriber for Loud {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.is_event()
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        println!("    logged: {event:?}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}
