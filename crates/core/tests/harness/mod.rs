//! Nodes joined by a wire in memory, in virtual time. After every step every node is audited.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

mod pipes;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use strait_core::{Config, Env, Event, Keypair, Limits, Meta, Node, PeerId, SocketId, WallClock};

/// So many calls of `drive` in one instant are a loop that does not end.
const DRIVES_MAX: usize = 20_000;
const SOCKET: SocketId = SocketId(0);

#[derive(Debug)]
struct Date;

impl WallClock for Date {
    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_767_225_600)
    }
}

/// What happens to datagrams on their way, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub drop: u64,
    pub duplicate: u64,
    pub corrupt: u64,
}

pub struct Net {
    pub start: Instant,
    pub now: Instant,
    pub nodes: Vec<Node>,
    /// What the nodes told and no test has taken.
    pub events: Vec<VecDeque<Event>>,
    /// Whose requests are answered with the request itself.
    pub echo: Vec<bool>,
    pub faults: Faults,
    pub latency: Duration,
    pub pipes: pipes::Pipes,
    /// Whether nodes dial each other over pipes.
    over_pipes: bool,
    /// Datagrams that each node sent, or its writes to pipes, with their sizes.
    pub sent: Vec<Vec<usize>>,
    /// The last datagram that each node sent.
    pub last: Vec<Vec<u8>>,
    /// Told which node's code runs next, and `None` when it is the harness's own again.
    pub on_node: fn(Option<usize>),
    seed: u64,
    serial: u64,
    /// By time and number: from, to, bytes.
    wire: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
}

pub fn key(number: usize) -> Keypair {
    let mut secret = [7u8; 32];
    secret[0] = number as u8;
    secret[1] = (number >> 8) as u8;
    Keypair::ed25519_from_bytes(secret).expect("32 bytes")
}

pub fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 4001))
}

fn number_of(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => usize::from(v4.ip().octets()[2]) << 8 | usize::from(v4.ip().octets()[3]),
        SocketAddr::V6(_) => panic!("{address} is not of this test"),
    }
}

impl Net {
    /// Two nodes with the default limits.
    pub fn pair() -> Net {
        Net::new(vec![Limits::default(), Limits::default()])
    }

    /// The same over pipes that are secured as `security` says.
    pub fn over_pipes(limits: Vec<Limits>, security: &'static [&'static str]) -> Net {
        Net::over_pipes_watched(limits, security, |_| {})
    }

    /// The same, with a hook that is told whose code runs.
    pub fn over_pipes_watched(limits: Vec<Limits>, security: &'static [&'static str], on_node: fn(Option<usize>)) -> Net {
        let mut net = Net::watched(limits, on_node);
        net.over_pipes = true;
        net.nodes.iter_mut().for_each(|node| node.set_pipe_security(security));
        net
    }

    pub fn new(limits: Vec<Limits>) -> Net {
        Net::watched(limits, |_| {})
    }

    /// The same, with a hook that is told whose code runs.
    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    pub fn watched(limits: Vec<Limits>, on_node: fn(Option<usize>)) -> Net {
        let start = Instant::now();
        let count = limits.len();
        let mut net = Net {
            start,
            now: start,
            nodes: Vec::new(),
            events: (0..count).map(|_| VecDeque::new()).collect(),
            echo: vec![false; count],
            faults: Faults::default(),
            latency: Duration::from_millis(5),
            pipes: pipes::Pipes::default(),
            over_pipes: false,
            sent: vec![Vec::new(); count],
            last: vec![Vec::new(); count],
            on_node,
            seed: 1,
            serial: 0,
            wire: BTreeMap::new(),
        };
        for (number, limits) in limits.into_iter().enumerate() {
            on_node(Some(number));
            let node = node(number, limits, start);
            on_node(None);
            net.nodes.push(node);
        }
        net
    }

    pub fn is_over_pipes(&self) -> bool {
        self.over_pipes
    }

    pub fn peer(&self, node: usize) -> PeerId {
        self.nodes[node].peer_id()
    }

    pub fn seed(&mut self, seed: u64) {
        self.seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random() % 100 < percent
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    pub fn dial(&mut self, from: usize, to: usize) -> strait_core::ConnId {
        self.dial_as(from, to, self.peer(to))
    }

    /// Dials `to` and wants `peer` there.
    pub fn dial_as(&mut self, from: usize, to: usize, peer: PeerId) -> strait_core::ConnId {
        if self.over_pipes {
            return self.nodes[from].dial_pipe(self.now, address(to), peer).expect("room");
        }
        self.nodes[from].dial(self.now, SOCKET, address(to), peer).expect("room")
    }

    /// Dials and waits until both sides know each other by identify.
    pub fn connect(&mut self, from: usize, to: usize) {
        self.dial(from, to);
        let (a, b) = (self.peer(from), self.peer(to));
        self.until(|net| net.nodes[from].identity(&b).is_some() && net.nodes[to].identity(&a).is_some());
    }

    /// A node's process dies without a word and starts again with the same identity.
    pub fn restart(&mut self, number: usize, limits: Limits) {
        self.reset_pipes(number);
        self.nodes[number] = seeded(number, limits, self.now, number as u8 + 101);
        self.events[number].clear();
    }

    /// Puts a datagram on the wire as if `from` had sent it.
    pub fn inject(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        self.serial += 1;
        self.wire.insert((self.now + self.latency, self.serial), (from, to, bytes));
    }

    fn send(&mut self, from: usize, to: usize, mut bytes: Vec<u8>) {
        self.sent[from].push(bytes.len());
        self.last[from].clone_from(&bytes);
        if self.chance(self.faults.drop) || to >= self.nodes.len() {
            return;
        }
        if self.chance(self.faults.duplicate) {
            self.inject(from, to, bytes.clone());
        }
        if self.chance(self.faults.corrupt) {
            let at = self.random() as usize % bytes.len();
            bytes[at] ^= 1 << (self.random() % 8);
        }
        self.inject(from, to, bytes);
    }

    /// Has one node do all that it can do now.
    pub fn settle(&mut self, node: usize) {
        let mut drives = 0;
        loop {
            (self.on_node)(Some(node));
            let more = self.nodes[node].drive(self.now);
            (self.on_node)(None);
            self.check(node);
            // What the application answers at once is driven before anything is sent.
            let told = self.take_events(node);
            drives += 1;
            assert!(drives < DRIVES_MAX, "node {node} never comes to rest: {:?}", self.nodes[node].counters().totals);
            if more || told {
                continue;
            }
            self.transmit(node);
            self.transmit_pipes(node);
            if !self.take_events(node) && !self.nodes[node].has_work() {
                return;
            }
        }
    }

    fn take_events(&mut self, node: usize) -> bool {
        let mut told = false;
        while let Some(event) = self.nodes[node].poll_event() {
            told = true;
            match event {
                Event::Request { stream, body, .. } if self.echo[node] => {
                    // Whoever asked may be gone again.
                    let _ = self.nodes[node].reply(stream, body);
                }
                event => self.events[node].push_back(event),
            }
        }
        told
    }

    fn transmit(&mut self, node: usize) {
        let mut buffer = Vec::new();
        let max = NonZeroUsize::new(10).expect("not zero");
        loop {
            (self.on_node)(Some(node));
            let transmit = self.nodes[node].poll_transmit(self.now, max, &mut buffer);
            (self.on_node)(None);
            let Some(transmit) = transmit else {
                return;
            };
            assert_eq!(transmit.size, buffer.len());
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in buffer.chunks(segment) {
                self.send(node, number_of(transmit.destination), datagram.to_vec());
            }
        }
    }

    /// Audits one node.
    pub fn check(&self, node: usize) {
        let audit = self.nodes[node].audit();
        assert!(audit.held <= audit.granted.max(audit.committed), "node {node}: {audit:?}");
        assert!(audit.granted <= audit.committed && audit.committed <= audit.budget, "node {node}: {audit:?}");
        assert!(audit.over_cap.is_empty() && audit.waits_without_deadline.is_empty(), "node {node}: {audit:?}");
    }

    /// Goes to the next thing that happens, within `limit`. False when nothing does.
    pub fn step(&mut self, limit: Instant) -> bool {
        for node in 0..self.nodes.len() {
            self.settle(node);
        }
        let wire = self.wire.first_key_value().map(|((at, _), _)| *at);
        let wakes = self.nodes.iter().filter_map(|node| node.poll_wake()).map(|(at, _)| at);
        let Some(next) = wakes.chain(wire).chain(self.pipes_due()).min().filter(|next| *next <= limit) else {
            self.now = limit;
            return false;
        };
        self.now = self.now.max(next);
        while self.wire.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            let (_, (from, to, bytes)) = self.wire.pop_first().expect("just seen");
            self.deliver(from, to, &bytes);
        }
        self.deliver_pipes();
        for node in 0..self.nodes.len() {
            (self.on_node)(Some(node));
            self.nodes[node].handle_timeout(self.now);
            (self.on_node)(None);
        }
        true
    }

    /// Hands a datagram to a node, which is not given a turn.
    pub fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let meta = Meta { socket: SOCKET, remote: address(from), local_ip: None, ecn: None };
        (self.on_node)(Some(to));
        self.nodes[to].handle_datagram(self.now, meta, BytesMut::from(bytes));
        (self.on_node)(None);
        self.check(to);
    }

    /// Runs for a time.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        for node in 0..self.nodes.len() {
            self.settle(node);
        }
    }

    /// Runs until something holds.
    pub fn until(&mut self, mut holds: impl FnMut(&mut Net) -> bool) {
        let end = self.now + Duration::from_secs(300);
        loop {
            for node in 0..self.nodes.len() {
                self.settle(node);
            }
            if holds(self) {
                return;
            }
            assert!(self.step(end), "it never happened; untaken: {:?}", self.events);
        }
    }

    /// Takes the first event of `node` that `wanted` recognises, if it is there.
    pub fn take<T>(&mut self, node: usize, wanted: impl Fn(&Event) -> bool, get: impl Fn(Event) -> T) -> Option<T> {
        let at = self.events[node].iter().position(wanted)?;
        self.events[node].remove(at).map(get)
    }

    /// Runs until `node` tells something that `get` recognises, and takes it.
    pub fn next<T>(&mut self, node: usize, get: impl Fn(&Event) -> Option<T>) -> T {
        let mut found = None;
        self.until(|net| {
            let at = net.events[node].iter().position(|event| get(event).is_some());
            found = at.and_then(|at| net.events[node].remove(at)).and_then(|event| get(&event));
            found.is_some()
        });
        found.expect("just found")
    }

    /// How many events of `node` are of a kind.
    pub fn count(&self, node: usize, kind: impl Fn(&Event) -> bool) -> usize {
        self.events[node].iter().filter(|event| kind(event)).count()
    }

    /// Closes everything and proves that all was given back.
    pub fn close(mut self) {
        self.faults = Faults::default();
        for node in &mut self.nodes {
            node.shutdown(self.now);
        }
        self.until(|net| net.nodes.iter().all(Node::is_empty));
        for node in &self.nodes {
            let audit = node.audit();
            assert_eq!((audit.streams, audit.connections), (0, 0), "{audit:?}");
            assert_eq!(audit.committed, node.limits().shared_floor(), "{audit:?}");
            assert_eq!(node.poll_wake(), None, "no deadline is left of what is gone");
        }
    }
}

fn node(number: usize, limits: Limits, now: Instant) -> Node {
    seeded(number, limits, now, number as u8 + 1)
}

fn seeded(number: usize, limits: Limits, now: Instant, seed: u8) -> Node {
    seeded_with(number, limits, now, [seed; 32])
}

pub fn seeded_with(number: usize, limits: Limits, now: Instant, seed: [u8; 32]) -> Node {
    let config = Config { keypair: key(number), agent: format!("test/{number}"), limits, listen: true };
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let env = Env { seed, crypto, wall: Arc::new(Date), key_log: None, traces: None };
    Node::new(config, env, now).expect("the limits fit")
}
