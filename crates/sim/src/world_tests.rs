//! The world with hosts that only count and echo.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::*;
use crate::exec::lock;
use crate::host::Turned;
use crate::link::Link;

const MS: Duration = Duration::from_millis(1);

/// Sends a numbered datagram every 10 ms, `left` times, and notes when an answer comes.
struct Caller {
    to: SocketAddr,
    left: u8,
    next: Duration,
    answers: Arc<Mutex<Vec<(Duration, u8)>>>,
}

impl Host for Caller {
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned {
        while let Some(datagram) = turn.receive() {
            lock(&self.answers).push((turn.elapsed(), datagram.payload[0]));
        }
        while self.left > 0 && self.next <= turn.elapsed() {
            turn.send(self.to, None, Bytes::from(vec![self.left]));
            self.left -= 1;
            self.next += 10 * MS;
        }
        Turned::default()
    }

    fn wake(&self) -> Option<Duration> {
        (self.left > 0).then_some(self.next)
    }
}

struct Echo;

impl Host for Echo {
    fn turn(&mut self, turn: &mut Turn<'_>) -> Turned {
        while let Some(datagram) = turn.receive() {
            turn.send(datagram.source, None, datagram.payload);
        }
        Turned::default()
    }

    fn wake(&self) -> Option<Duration> {
        None
    }
}

/// When which answer came.
type Answers = Arc<Mutex<Vec<(Duration, u8)>>>;

fn world(seed: u64, calls: u8) -> (World, HostId, HostId, Answers) {
    let mut world = World::new(seed);
    let answers = Arc::new(Mutex::new(Vec::new()));
    let echo = world.add(Echo);
    let caller = world.add(Caller { to: world.address(echo), left: calls, next: Duration::ZERO, answers: answers.clone() });
    (world, echo, caller, answers)
}

#[test]
fn time_is_latency_and_processor_time() {
    let (mut world, _, _, answers) = world(1, 1);
    world.run_for(Duration::from_secs(1));
    // There and back 10 ms each; a turn with one datagram in costs 6 us, and so does one out;
    // the echo has both: 7 us.
    let wanted = 20 * MS + Duration::from_micros(6 + 7);
    assert_eq!(*lock(&answers), [(wanted, 1)]);
    assert_eq!(world.now(), Duration::from_secs(1));
    assert_eq!(world.next_event(), None);
}

#[test]
fn a_run_is_the_same_again_and_another_seed_is_not() {
    let digest = |seed| {
        let (mut world, ..) = world(seed, 100);
        world.net().set_default(Link::default().loss(0.2).jitter(30 * MS).duplicate(0.1));
        world.run_for(Duration::from_secs(2));
        world.trace().digest()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn a_frozen_host_answers_late_and_a_crashed_one_never() {
    let (mut frozen, echo, _, answers) = world(1, 3);
    frozen.freeze(echo);
    frozen.run_for(Duration::from_secs(1));
    assert!(lock(&answers).is_empty());
    frozen.thaw(echo);
    frozen.run_for(Duration::from_secs(1));
    assert_eq!(lock(&answers).len(), 3);

    let (mut crashed, echo, _, answers) = world(1, 3);
    crashed.crash(echo);
    crashed.run_for(Duration::from_secs(1));
    crashed.restart(echo, Echo);
    crashed.run_for(Duration::from_secs(1));
    assert!(lock(&answers).is_empty());
}

#[test]
fn a_slow_processor_makes_datagrams_wait_and_a_full_buffer_drops_them() {
    let (mut world, echo, _, answers) = world(1, 10);
    let second = Duration::from_secs(1);
    world.set_cost(echo, Cost { turn: second, ..Cost::default() });
    world.set_receive_buffer(echo, 256 * 5);
    world.run_for(10 * second);
    // All ten come while the first turn, that of the start, keeps it busy; five have room.
    assert_eq!(lock(&answers).len(), 5);
    assert_eq!(world.receive_drops(echo), 5);
}

#[test]
fn a_rebound_host_is_not_reached_at_its_old_address() {
    let (mut world, _, caller, answers) = world(1, 2);
    world.run_for(5 * MS);
    world.rebind(caller);
    world.run_for(Duration::from_secs(1));
    assert_eq!(lock(&answers).len(), 1, "only the answer to the second call");
    assert_eq!(world.net().unroutable(), 1);
}

#[test]
fn block_on_runs_the_world() {
    let (mut world, _, _, answers) = world(1, 3);
    let clock = world.clock();
    let seen = world.block_on(async {
        clock.sleep(25 * MS).await;
        lock(&answers).len()
    });
    assert_eq!(seen, 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn waiting_for_what_never_comes_is_a_deadlock() {
    let (mut world, ..) = world(1, 3);
    world.block_on(std::future::pending::<()>());
}

#[test]
#[should_panic(expected = "spins")]
fn a_host_that_spins_is_found_out() {
    struct Spinner;
    impl Host for Spinner {
        fn turn(&mut self, _: &mut Turn<'_>) -> Turned {
            Turned { work: 0, more: true }
        }
        fn wake(&self) -> Option<Duration> {
            None
        }
    }
    let mut world = World::new(1);
    world.add(Spinner);
    world.run_for(Duration::from_secs(1));
}
