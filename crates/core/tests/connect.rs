//! Wanting a connection: how much is dialled at once, for whom, and what ends it early.

mod harness;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use harness::{Net, key};
use strait_core::peers::{Path, Source, Way};
use strait_core::{DialError, Event, Limits, Multiaddr, Node, PeerId};

const MS: Duration = Duration::from_millis(1);

fn peer(number: usize) -> PeerId {
    key(number).public().to_peer_id()
}

/// An address at which nobody is.
fn nobody(peer: usize, number: usize) -> Multiaddr {
    Way::Quic.address(SocketAddr::from(([9, 9, peer as u8, number as u8], 4001)))
}

/// A node alone in a network that swallows everything.
struct Alone {
    node: Node,
    now: Instant,
    events: Vec<Event>,
}

impl Alone {
    fn new(limits: Limits) -> Alone {
        let mut net = Net::new(vec![limits]);
        let mut node = net.nodes.remove(0);
        node.set_sockets(vec![SocketAddr::from(([0, 0, 0, 0], 4001))]);
        Alone { node, now: net.start, events: Vec::new() }
    }

    fn want(&mut self, number: usize, addresses: usize) {
        let addresses: Vec<Multiaddr> = (0..addresses).map(|at| nobody(number, at)).collect();
        self.node.book_mut().add_all(self.now, peer(number), &addresses, Source::Application);
        self.node.connect(self.now, peer(number)).expect("room");
    }

    /// Does all there is to do now; what is sent vanishes.
    fn turn(&mut self) {
        let mut buffer = Vec::new();
        self.node.handle_timeout(self.now);
        loop {
            let more = self.node.drive(self.now);
            while self.node.poll_transmit(self.now, NonZeroUsize::MIN, &mut buffer).is_some() {}
            self.events.extend(std::iter::from_fn(|| self.node.poll_event()));
            let audit = self.node.audit();
            assert!(audit.over_cap.is_empty(), "{audit:?}");
            if !more {
                return;
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.turn();
        while let Some((at, _)) = self.node.poll_wake().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.turn();
        }
        self.now = end;
        self.turn();
    }

    fn dialling(&self) -> u64 {
        let totals = &self.node.counters().totals;
        totals.dials - totals.dials_failed - totals.dials_lost
    }

    /// Runs until a wanted peer is given up: what was tried.
    fn unreachable(&mut self, number: usize) -> Vec<DialError> {
        for _ in 0..600 {
            self.run_for(100 * MS);
            let found = self.events.iter().find_map(|event| match event {
                Event::Unreachable { peer: of, attempts, .. } if *of == peer(number) => Some(attempts.clone()),
                _ => None,
            });
            if let Some(attempts) = found {
                self.events.clear();
                return attempts.into_iter().map(|attempt| attempt.error).collect();
            }
        }
        panic!("it is not given up");
    }
}

#[test]
fn so_many_are_dialled_at_once_for_one_peer_and_in_all() {
    let mut alone = Alone::new(Limits::default());
    alone.want(1, 16);
    alone.run_for(3_000 * MS);
    assert_eq!(alone.dialling(), 8, "dials_per_peer_max");
    for number in 2..=20 {
        alone.want(number, 16);
    }
    alone.run_for(3_000 * MS);
    assert_eq!(alone.dialling(), 48, "three quarters of dials_max");
    // Whoever is wanted now does not wait for those who are nowhere to be found.
    for number in 21..=60 {
        alone.want(number, 2);
    }
    alone.run_for(MS);
    assert_eq!(alone.dialling(), 64, "dials_max");
    alone.run_for(Duration::from_secs(120));
    assert_eq!(alone.dialling(), 0);
    let given_up = alone.events.iter().filter(|event| matches!(event, Event::Unreachable { .. })).count();
    assert_eq!(given_up, 60, "each has one outcome");
    assert!(!alone.events.iter().any(|event| matches!(event, Event::DialFailed { .. })));
}

#[test]
fn nobody_else_is_dialled_when_nobody_wants_to_any_more() {
    let mut alone = Alone::new(Limits::default());
    alone.want(1, 4);
    alone.run_for(2_000 * MS);
    assert_eq!(alone.dialling(), 4);
    alone.node.stop_connecting(alone.now, &peer(1));
    alone.run_for(Duration::from_secs(60));
    assert_eq!(alone.dialling(), 0);
    assert!(alone.events.is_empty(), "{:?}", alone.events);
    assert!(alone.node.is_empty());
}

/// Attack 38: a remote that tells ever new addresses of a peer has them dialled less and less often.
#[test]
fn ever_new_addresses_of_remotes_are_dialled_less_and_less() {
    let mut alone = Alone::new(Limits::default());
    let path = Path::to([9, 9, 9, 9].into());
    let begin = alone.now;
    let mut begun = Vec::new();
    for round in 0..8 {
        let fresh: Vec<Multiaddr> = (0..4).map(|at| nobody(100 + round, at)).collect();
        alone.node.book_mut().replace(alone.now, peer(1), &fresh, Source::Identify { path });
        alone.node.connect(alone.now, peer(1)).expect("room");
        let dials = alone.node.counters().totals.dials;
        while alone.node.counters().totals.dials == dials {
            alone.run_for(50 * MS);
        }
        begun.push(alone.now - begin);
        alone.unreachable(1);
    }
    let gaps: Vec<Duration> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let handshake = Limits::default().handshake_deadline;
    assert!(gaps[6] > handshake + 10_000 * MS && gaps[6] > gaps[0] + 8_000 * MS, "{gaps:?}");
    // What the application tells is tried at once.
    let dials = alone.node.counters().totals.dials;
    alone.want(1, 1);
    alone.run_for(MS);
    assert_eq!(alone.node.counters().totals.dials, dials + 1);
}

/// The system says that nothing listens: that ends the dial, if the datagram that it quotes is ours.
#[test]
fn a_closed_port_is_believed_when_what_was_sent_is_quoted() {
    let mut alone = Alone::new(Limits::default());
    alone.want(1, 1);
    let mut buffer = Vec::new();
    alone.node.drive(alone.now);
    let sent = alone.node.poll_transmit(alone.now, NonZeroUsize::MIN, &mut buffer).expect("an Initial");
    let quoted = buffer[..64].to_vec();
    let mut forged = quoted.clone();
    let source_id = 6 + usize::from(quoted[5]) + 1;
    forged[source_id] ^= 1;
    let elsewhere = SocketAddr::from(([9, 9, 1, 77], 4001));
    for (remote, quoted) in [(sent.destination, &forged[..]), (sent.destination, &quoted[..10]), (elsewhere, &quoted[..])] {
        alone.node.handle_undelivered(alone.now, remote, quoted, &DialError::NothingListens);
        alone.run_for(MS);
        assert_eq!(alone.dialling(), 1, "not believed");
    }
    alone.node.handle_undelivered(alone.now, sent.destination, &quoted, &DialError::NothingListens);
    assert_eq!(alone.unreachable(1), [DialError::NothingListens]);
    assert!(alone.node.is_empty() || alone.dialling() == 0);
}

#[test]
fn without_a_socket_of_an_ip_version_its_addresses_fail_at_once() {
    let mut alone = Alone::new(Limits::default());
    let address: Multiaddr = "/ip6/2600::1/udp/4001/quic-v1".parse().expect("a multiaddr");
    alone.node.book_mut().add_all(alone.now, peer(1), &[address], Source::Application);
    alone.node.connect(alone.now, peer(1)).expect("room");
    alone.run_for(MS);
    let Some(Event::Unreachable { attempts, .. }) = alone.events.pop() else {
        panic!("it is given up at once");
    };
    assert!(matches!(&attempts[0].error, DialError::NoWay(why) if why.contains("IPv6")), "{attempts:?}");
}
