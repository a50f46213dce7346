//! TCP of the world, by programs that know nothing of strait: bytes in order whatever the links do, room that ends, and how connections fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strait_sim::check::Flow;
use strait_sim::tcp::{Failure, News, Read};
use strait_sim::{Host, HostId, Link, Tcp, TcpId, Turn, Turned, World, scenario};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What a program does, and what became of it.
#[derive(Debug, Default)]
struct State {
    /// Whom to connect to.
    remote: Option<SocketAddr>,
    socket: Option<TcpId>,
    /// Bytes to be written in all; then the direction is ended.
    total: u64,
    /// The direction is not ended.
    keeps: bool,
    /// Whether it reads.
    reads: bool,
    /// Whether it resets the connection in its next turn.
    resets: bool,
    connected: bool,
    ended: bool,
    failure: Option<Failure>,
    finished: bool,
    /// Writes that were not taken whole.
    partial: u32,
}

/// One end of one connection.
struct Program {
    state: Arc<Mutex<State>>,
    out: Flow,
    into: Flow,
}

impl Program {
    fn write(&self, state: &mut State, tcp: &mut Tcp<'_>, socket: TcpId) {
        while self.out.sent_bytes() < state.total {
            let length = (state.total - self.out.sent_bytes()).min(10_000) as usize;
            let taken = tcp.write(socket, &self.out.next(length));
            self.out.sent(taken);
            if taken < length {
                state.partial += 1;
                return;
            }
        }
        if !state.keeps && !std::mem::replace(&mut state.finished, true) {
            self.out.finished();
            tcp.finish(socket);
        }
    }

    fn read(&self, state: &mut State, tcp: &mut Tcp<'_>, socket: TcpId) {
        loop {
            match tcp.read(socket, 5_000) {
                Read::Bytes(bytes) => self.into.delivered(&bytes),
                Read::Nothing => return,
                Read::End => {
                    if !std::mem::replace(&mut state.ended, true) {
                        self.into.ended();
                    }
                    return;
                }
                Read::Failed(failure) => {
                    self.into.receive_failed();
                    state.failure = Some(failure);
                    state.socket = None;
                    return tcp.close(socket);
                }
            }
        }
    }
}

impl Host for Program {
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned {
        while turn.receive().is_some() {}
        let mut state = self.state.lock().unwrap();
        let mut tcp = turn.tcp();
        tcp.listen(4001);
        if let Some(remote) = state.remote.take() {
            state.socket = Some(tcp.connect(remote).unwrap());
        }
        while let Some(news) = tcp.news() {
            match news {
                News::Incoming => {
                    while let Some((socket, _)) = tcp.accept().unwrap() {
                        state.socket = Some(socket);
                        state.connected = true;
                    }
                }
                News::Connected(_) => state.connected = true,
                News::Readable(_) | News::Writable(_) => {}
            }
        }
        if let Some(socket) = state.socket {
            if std::mem::take(&mut state.resets) {
                state.socket = None;
                tcp.abort(socket);
                return Turned::default();
            }
            if state.connected {
                self.write(&mut state, &mut tcp, socket);
            }
            if state.reads || !state.connected {
                self.read(&mut state, &mut tcp, socket);
            }
        }
        Turned::default()
    }

    fn wake(&self) -> Option<Duration> {
        None
    }

    fn is_asked(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.remote.is_some() || state.resets
    }
}

/// A connection between two hosts.
struct Pair {
    ids: [HostId; 2],
    states: [Arc<Mutex<State>>; 2],
    /// From the first to the second, and back.
    flows: [Flow; 2],
}

impl Pair {
    fn new(world: &mut World, totals: [u64; 2]) -> Pair {
        let flows = [Flow::new("there", 1), Flow::new("back", 2)];
        let states = totals.map(|total| Arc::new(Mutex::new(State { total, reads: true, ..State::default() })));
        let remote = SocketAddr::from(([10, 0, 0, 2], 4001));
        states[0].lock().unwrap().remote = Some(remote);
        let ids = [0, 1].map(|side: usize| {
            let (out, into) = (flows[side].clone(), flows[1 - side].clone());
            world.add(Program { state: states[side].clone(), out, into })
        });
        assert_eq!(world.address(ids[1]), remote);
        Pair { ids, states, flows }
    }

    fn state(&self, side: usize) -> std::sync::MutexGuard<'_, State> {
        self.states[side].lock().unwrap()
    }

    fn finish(&self, world: &mut World) {
        world.run_until(|_| self.flows.iter().all(Flow::is_settled));
        self.flows.iter().for_each(Flow::settle_complete);
    }
}

#[test]
fn bytes_arrive_in_order_over_a_bad_link() {
    scenario("bytes_arrive_in_order_over_a_bad_link", 8, |world| {
        world.net().set_default(Link::new(20 * MS).jitter(15 * MS).loss(0.05).duplicate(0.05).corrupt(0.02));
        let pair = Pair::new(world, [300_000, 200_000]);
        pair.finish(world);
        let link = world.net().counters(pair.ids[0], pair.ids[1]);
        assert!(link.lost > 0 && link.corrupted > 0 && link.duplicated > 0, "{link:?}");
        world.run_for(100 * SECOND);
        assert_eq!(world.next_event(), None, "nothing is sent when all is said");
    });
}

#[test]
fn a_bottleneck_is_filled_and_not_exceeded() {
    scenario("a_bottleneck_is_filled_and_not_exceeded", 2, |world| {
        world.net().set_default(Link::new(20 * MS).rate(1_000_000));
        let pair = Pair::new(world, [4_000_000, 0]);
        pair.finish(world);
        let took = world.now().as_secs_f64();
        assert!((4.0..6.0).contains(&took), "{took}");
        assert!(pair.state(0).partial > 0, "no write was partial");
    });
}

#[test]
fn who_does_not_read_stops_the_sender_and_nothing_is_lost() {
    scenario("who_does_not_read_stops_the_sender_and_nothing_is_lost", 2, |world| {
        let total = 10 << 20;
        let pair = Pair::new(world, [total, 0]);
        pair.state(1).reads = false;
        world.run_for(60 * SECOND);
        let limits = *world.net().tcp_limits(pair.ids[0]);
        let most = limits.receive_bytes + limits.unsent_bytes;
        let sent = pair.flows[0].sent_bytes();
        assert!(sent <= most as u64, "{sent} bytes were taken, buffers have {most}");
        assert!(world.net().tcp_unsent(pair.ids[0]) <= limits.unsent_bytes);
        pair.state(1).reads = true;
        // Whoever has not read for long has to look by itself: nothing is told twice.
        world.restart_reading(&pair);
        pair.finish(world);
    });
}

/// Has a program that did not read look again.
trait Nudge {
    fn restart_reading(&mut self, pair: &Pair);
}

impl Nudge for World {
    fn restart_reading(&mut self, pair: &Pair) {
        // A datagram from outside gives it a turn.
        let socket = self.raw_socket();
        socket.send(self.address(pair.ids[1]), &b"look"[..]);
    }
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    scenario("one_direction_ends_and_the_other_goes_on", 2, |world| {
        world.net().set_default(Link::new(20 * MS).rate(1_000_000));
        let pair = Pair::new(world, [0, 2_000_000]);
        world.run_until(|_| pair.state(1).ended);
        assert!(pair.flows[1].delivered_bytes() < 1_000_000, "the other direction has just begun");
        pair.finish(world);
    });
}

#[test]
fn a_reset_is_felt_and_is_no_end() {
    scenario("a_reset_is_felt_and_is_no_end", 2, |world| {
        world.net().set_default(Link::new(20 * MS).rate(1_000_000));
        let pair = Pair::new(world, [u64::MAX, 0]);
        world.run_until(|_| pair.flows[0].delivered_bytes() > 100_000);
        pair.state(0).resets = true;
        world.run_until(|_| pair.flows[0].is_settled());
        assert_eq!(pair.state(1).failure, Some(Failure::Reset));
    });
}

#[test]
fn refused_and_no_answer_are_told_apart() {
    scenario("refused_and_no_answer_are_told_apart", 2, |world| {
        let raw = world.raw_socket();
        let dial = |world: &mut World, remote: SocketAddr| {
            let state = Arc::new(Mutex::new(State { remote: Some(remote), ..State::default() }));
            world.add(Program { state: state.clone(), out: Flow::new("out", 1), into: Flow::new("in", 2) });
            let begin = world.now();
            world.run_until(|_| state.lock().unwrap().failure.is_some());
            (state.lock().unwrap().failure.unwrap(), world.now() - begin)
        };
        let (failure, took) = dial(world, raw.address());
        assert_eq!(failure, Failure::Refused);
        assert!(took < 100 * MS, "{took:?}");
        let (failure, took) = dial(world, SocketAddr::from(([10, 9, 9, 9], 1)));
        assert_eq!(failure, Failure::TimedOut);
        assert!((100 * SECOND..300 * SECOND).contains(&took), "{took:?}");
    });
}

#[test]
fn a_listener_that_never_accepts_still_connects() {
    scenario("a_listener_that_never_accepts_still_connects", 1, |world| {
        let raw = world.raw_socket();
        world.net().tcp_listen(raw.id(), 4001);
        let state = Arc::new(Mutex::new(State { remote: Some(raw.address()), ..State::default() }));
        world.add(Program { state: state.clone(), out: Flow::new("out", 1), into: Flow::new("in", 2) });
        world.run_until(|_| state.lock().unwrap().connected);
    });
}

#[test]
fn a_partition_stalls_and_goes_on_and_a_long_one_ends_it() {
    scenario("a_partition_stalls_and_goes_on_and_a_long_one_ends_it", 2, |world| {
        world.net().set_default(Link::new(20 * MS).rate(1_000_000));
        let pair = Pair::new(world, [u64::MAX, 0]);
        pair.state(1).keeps = true;
        let [a, b] = pair.ids;
        world.run_until(|_| pair.flows[0].delivered_bytes() > 100_000);
        world.net().set_up(a, b, false);
        world.run_for(10 * SECOND);
        let stalled = pair.flows[0].delivered_bytes();
        world.net().set_up(a, b, true);
        world.run_for(20 * SECOND);
        assert!(pair.flows[0].delivered_bytes() > stalled + 1_000_000);
        world.net().set_up(a, b, false);
        world.set_patience(2_000 * SECOND);
        // Only who has something to say finds out: the other has no reason to ask.
        world.run_until(|_| pair.state(0).failure.is_some());
        assert_eq!(pair.state(0).failure, Some(Failure::TimedOut));
        assert_eq!(pair.state(1).failure, None);
    });
}

#[test]
fn a_crashed_host_is_found_out_when_it_is_back_and_a_killed_program_at_once() {
    scenario("a_crashed_host_is_found_out_when_it_is_back_and_a_killed_program_at_once", 2, |world| {
        let idle = |world: &mut World| {
            let raw = world.raw_socket();
            world.net().tcp_listen(raw.id(), 4001);
            raw
        };
        for killed in [false, true] {
            let raw = idle(world);
            let state =
                Arc::new(Mutex::new(State { remote: Some(raw.address()), total: u64::MAX, reads: true, ..State::default() }));
            world.add(Program { state: state.clone(), out: Flow::new("out", 1), into: Flow::new("in", 2) });
            world.run_for(SECOND);
            assert!(state.lock().unwrap().connected);
            let failed = |_: &mut World| state.lock().unwrap().failure == Some(Failure::Reset);
            if killed {
                world.kill(raw.id());
            } else {
                world.crash(raw.id());
                world.run_for(10 * SECOND);
                assert_eq!(state.lock().unwrap().failure, None);
                world.restart(raw.id(), Nothing);
            }
            world.run_until(failed);
            assert_eq!(world.net().tcp_open(raw.id()), 0);
        }
    });
}

struct Nothing;

impl Host for Nothing {
    fn turn(&mut self, _: &mut Turn<'_>) -> Turned {
        Turned::default()
    }

    fn wake(&self) -> Option<Duration> {
        None
    }
}

#[test]
fn a_changed_address_ends_a_connection_and_new_ones_work() {
    scenario("a_changed_address_ends_a_connection_and_new_ones_work", 2, |world| {
        let pair = Pair::new(world, [u64::MAX, 0]);
        pair.state(1).keeps = true;
        world.run_until(|_| pair.flows[0].delivered_bytes() > 1_000_000);
        world.rebind(pair.ids[0]);
        // What it sends comes from an address that has no connection: that is answered by a reset.
        world.run_until(|_| pair.state(0).failure.is_some());
        assert_eq!(pair.state(0).failure, Some(Failure::Reset));
        let seen = world.net().address(pair.ids[0]).unwrap();
        let state = Arc::new(Mutex::new(State { remote: Some(seen), ..State::default() }));
        world.add(Program { state: state.clone(), out: Flow::new("out", 1), into: Flow::new("in", 2) });
        world.run_until(|_| state.lock().unwrap().connected);
    });
}

#[test]
fn a_link_without_udp_passes_tcp_and_the_reverse() {
    scenario("a_link_without_udp_passes_tcp_and_the_reverse", 1, |world| {
        world.net().set_default(Link::default().without_udp());
        let pair = Pair::new(world, [100_000, 100_000]);
        pair.finish(world);
        let (a, b) = (world.raw_socket(), world.raw_socket());
        a.send(b.address(), &b"lost"[..]);
        world.run_for(SECOND);
        assert!(b.try_receive().is_none());

        world.net().set_default(Link::default().without_tcp());
        let c = world.raw_socket();
        world.net().tcp_listen(c.id(), 4001);
        b.send(c.address(), &b"passes"[..]);
        let state = Arc::new(Mutex::new(State { remote: Some(c.address()), ..State::default() }));
        world.add(Program { state: state.clone(), out: Flow::new("out", 1), into: Flow::new("in", 2) });
        world.run_for(10 * SECOND);
        assert!(c.try_receive().is_some());
        assert!(!state.lock().unwrap().connected);
    });
}
