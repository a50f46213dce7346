//! The world: hosts, the network between them, their apps, and virtual time for all of it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::exec::{Clock, Exec, JoinHandle, Spawner};
use crate::host::{Cost, Host, Inbox, POLLS_MAX, Turn};
use crate::names::Names;
use crate::net::{HostId, Net};
use crate::tcp;
use crate::trace::{Entry, Trace};

/// Turns in a row that did nothing and asked for another one at once, before it counts as spinning.
const IDLE_TURNS_MAX: u32 = 1_000;

/// One host with its machine.
struct Slot {
    /// `None` while it is down.
    host: Option<Box<dyn Host>>,
    /// The address that it is bound to.
    address: SocketAddr,
    frozen: bool,
    /// More work is left from the last turn.
    more: bool,
    busy_until: Duration,
    /// Busy time so far.
    busy: Duration,
    idle_turns: u32,
    inbox: Inbox,
    cost: Cost,
}

/// A deterministic world. The same seed and the same calls give the same run, byte for byte.
///
/// Nothing happens between calls: time passes in [`run_for`](World::run_for),
/// [`run_until`](World::run_until) and [`block_on`](World::block_on).
pub struct World {
    seed: u64,
    start: Instant,
    clock: Clock,
    net: Net,
    pub(crate) names: Names,
    exec: Exec,
    slots: Vec<Slot>,
    patience: Duration,
    rebinds: u16,
}

impl World {
    /// A world without hosts.
    #[must_use]
    pub fn new(seed: u64) -> World {
        World::with_trace(seed, Trace::default())
    }

    /// A world that panics at the first datagram that differs from an earlier run, see
    /// [`Trace::expecting`].
    #[must_use]
    pub fn expecting(seed: u64, expected: Arc<[Entry]>) -> World {
        World::with_trace(seed, Trace::expecting(expected))
    }

    fn with_trace(seed: u64, trace: Trace) -> World {
        World {
            seed,
            // An `Instant` can only be had from the system; all that follows are differences to it.
            start: Instant::now(),
            clock: Clock::default(),
            net: Net::new(seed, trace),
            names: Names::default(),
            exec: Exec::default(),
            slots: Vec::new(),
            patience: Duration::from_secs(600),
            rebinds: 0,
        }
    }

    /// The seed of this run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// A clock for apps: time, sleeping, time limits.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// What the world's start is as an `Instant`.
    #[must_use]
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Links and addresses.
    pub fn net(&mut self) -> &mut Net {
        &mut self.net
    }

    /// The record of all datagrams.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.net.trace
    }

    /// Ends the world and gives its record.
    #[must_use]
    pub fn into_trace(self) -> Trace {
        let World { net, exec, slots, .. } = self;
        // Apps hold handles to nodes: they go first.
        drop(exec);
        drop(slots);
        net.trace
    }

    /// Records something that two runs of one seed must agree on.
    pub fn note(&mut self, text: impl Into<String>) {
        let now = self.now();
        self.net.trace.note(now, text.into());
    }

    /// Most virtual time that one call of [`run_until`](World::run_until) or
    /// [`block_on`](World::block_on) may take; ten minutes unless set. What takes longer panics.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Adds a host at an address of its own (10.0.0.1:4001, 10.0.0.2:4001, ...), with [`Cost::default`].
    ///
    /// # Panics
    /// From the 62,500th host on.
    pub fn add(&mut self, host: impl Host + 'static) -> HostId {
        self.add_at(host, self.next_address())
    }

    /// The same, at an address that nobody has.
    pub fn add_at(&mut self, host: impl Host + 'static, address: SocketAddr) -> HostId {
        let id = HostId(self.slots.len());
        self.net.bind(id, address);
        self.slots.push(Slot {
            host: Some(Box::new(host)),
            address,
            frozen: false,
            more: true,
            busy_until: Duration::ZERO,
            busy: Duration::ZERO,
            idle_turns: 0,
            inbox: Inbox::new(),
            cost: Cost::default(),
        });
        id
    }

    /// The address that the next added host will get.
    #[must_use]
    pub fn next_address(&self) -> SocketAddr {
        default_address(self.slots.len())
    }

    /// The id that the next added host will get.
    #[must_use]
    pub fn next_id(&self) -> HostId {
        HostId(self.slots.len())
    }

    /// The address that a host is bound to. Others may see it at another one: [`Net::address`].
    #[must_use]
    pub fn address(&self, host: HostId) -> SocketAddr {
        self.slots[host.0].address
    }

    /// Sets what a host's processor takes for its work.
    pub fn set_cost(&mut self, host: HostId, cost: Cost) {
        self.slots[host.0].cost = cost;
    }

    /// Sets the size of a host's socket receive buffer in bytes; 4 MiB unless set.
    pub fn set_receive_buffer(&mut self, host: HostId, bytes: usize) {
        self.slots[host.0].inbox.bytes_max = bytes;
    }

    /// How long a host's processor was busy so far.
    #[must_use]
    pub fn busy(&self, host: HostId) -> Duration {
        self.slots[host.0].busy
    }

    /// Datagrams that a host's full receive buffer has dropped so far.
    #[must_use]
    pub fn receive_drops(&self, host: HostId) -> u64 {
        self.slots[host.0].inbox.dropped
    }

    /// Stops a host, as a stopped process: no turn, no app task, and its receive buffer fills up.
    pub fn freeze(&mut self, host: HostId) {
        self.slots[host.0].frozen = true;
        self.exec.freeze(host);
    }

    /// Lets a frozen host go on.
    pub fn thaw(&mut self, host: HostId) {
        self.slots[host.0].frozen = false;
        self.exec.thaw(host);
    }

    /// Kills a host without a word to anybody: its tasks are dropped, and what is under way to it
    /// vanishes.
    pub fn crash(&mut self, host: HostId) {
        self.net.unbind(host);
        self.net.tcp.forget(host);
        self.end_program(host);
    }

    /// Kills a host's program, as `kill -9`: its tasks are dropped, and its system resets its TCP connections.
    pub fn kill(&mut self, host: HostId) {
        let now = self.now();
        self.net.kill_tcp(host, now);
        self.end_program(host);
    }

    fn end_program(&mut self, host: HostId) {
        // First the apps: dropping their handles may still tell the host something, in vain.
        self.exec.kill(host);
        let slot = &mut self.slots[host.0];
        slot.host = None;
        slot.frozen = false;
        slot.inbox.clear();
    }

    /// Puts a new program in the place of a crashed or killed one, at the same address.
    ///
    /// # Panics
    /// If the host is not down.
    pub fn restart(&mut self, host: HostId, program: impl Host + 'static) {
        let now = self.now();
        let slot = &mut self.slots[host.0];
        assert!(slot.host.is_none(), "host {} is still running", host.0);
        slot.host = Some(Box::new(program));
        slot.inbox.clear();
        slot.busy_until = now;
        slot.more = true;
        let address = slot.address;
        self.net.bind(host, address);
    }

    /// Changes the address under which others see a host, as a NAT that forgot its binding. The host is
    /// not told. Returns the new address.
    pub fn rebind(&mut self, host: HostId) -> SocketAddr {
        self.rebinds += 1;
        let ip = Ipv4Addr::new(10, 200, (host.0 / 250) as u8, (host.0 % 250) as u8 + 1);
        let address = SocketAddr::from((ip, 20_000 + self.rebinds));
        self.net.bind(host, address);
        address
    }

    /// Takes a host's address away, as when a network is left: what is under way to it vanishes, and TCP connections that are bound to it say and hear
    /// nothing more. The host's program is not told; for a node see [`World::move_node`]. Returns the address.
    pub fn remove_address(&mut self, host: HostId) -> SocketAddr {
        self.net.take_address(host);
        self.address(host)
    }

    /// Gives a host another address with the same port, as when a network is joined, in place of the one that it had. Its program is not told. Returns
    /// the address.
    pub fn give_address(&mut self, host: HostId) -> SocketAddr {
        self.net.take_address(host);
        self.rebinds += 1;
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 201, 0, 0)) + u32::from(self.rebinds));
        let address = SocketAddr::from((ip, self.slots[host.0].address.port()));
        self.net.bind(host, address);
        self.slots[host.0].address = address;
        address
    }

    /// Spawns tasks that belong to no host.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.exec.spawner()
    }

    /// Spawns tasks that are frozen, and die, with a host.
    #[must_use]
    pub fn spawner_of(&self, host: HostId) -> Spawner {
        self.exec.spawner_of(host)
    }

    /// Spawns a task that is frozen, and dies, with `host`.
    pub fn spawn<F>(&self, host: HostId, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawner_of(host).spawn(future)
    }

    /// Lets the world run for `duration` of virtual time.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now() + duration;
        while self.next_event().is_some_and(|at| at <= end) {
            self.step();
        }
        self.clock.advance(end);
    }

    /// Lets the world run until `done` says so. It is asked after each step.
    ///
    /// # Panics
    /// If that takes longer than the world's patience, or if nothing is left that could happen.
    pub fn run_until(&mut self, mut done: impl FnMut(&mut World) -> bool) {
        let end = self.now().saturating_add(self.patience);
        while !done(self) {
            self.step_before(end);
        }
    }

    /// Lets the world run until `future` ends. It belongs to no host and may borrow.
    ///
    /// # Panics
    /// If that takes longer than the world's patience, or if nothing is left that could happen.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let end = self.now().saturating_add(self.patience);
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(flag.clone());
        let mut future = pin!(future);
        let (mut polls, mut at) = (0, self.now());
        loop {
            if flag.0.swap(false, Ordering::Relaxed) {
                let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(output) = poll {
                    return output;
                }
                polls = if at == self.now() { polls + 1 } else { 0 };
                at = self.now();
                assert!(polls < POLLS_MAX, "livelock: block_on's future wakes itself");
                if flag.0.load(Ordering::Relaxed) {
                    continue;
                }
            }
            self.step_before(end);
        }
    }

    fn step_before(&mut self, end: Duration) {
        let waited = self.patience;
        match self.next_event() {
            None => panic!(
                "deadlock at {:?}: something is waited for, but no datagram is under way, no timer is set \
                 and no task is ready",
                self.now()
            ),
            Some(at) if at > end => {
                panic!("not done after {waited:?} of virtual time, at {:?}", self.now())
            }
            Some(_) => self.step(),
        }
    }

    /// When the next thing happens; `None` if nothing ever will.
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        let now = self.now();
        let tasks = self.exec.is_ready().then_some(now);
        let hosts = self.slots.iter().enumerate().filter_map(|(index, slot)| slot.ready_at(now, self.has_news(index))).min();
        let passive = [self.net.next_event(), self.clock.next_wake()];
        let candidates = [tasks, hosts].into_iter().chain(passive);
        candidates.flatten().min().map(|at| at.max(now))
    }

    /// Goes to the time of the next event and does all that is due then: datagrams arrive, sleepers wake,
    /// ready tasks run, and each host that has something to do takes one turn.
    pub fn step(&mut self) {
        let Some(now) = self.next_event() else {
            return;
        };
        self.clock.advance(now);
        while let Some((host, datagram)) = self.net.receive(now) {
            self.slots[host.0].inbox.push(datagram);
        }
        self.net.tick(now);
        if let Err(livelock) = self.exec.run(POLLS_MAX) {
            panic!("{livelock}");
        }
        for index in 0..self.slots.len() {
            if self.slots[index].ready_at(now, self.has_news(index)).is_some_and(|at| at <= now) {
                self.turn(index, now);
            }
        }
    }

    /// Whether a host's TCP has something for its program.
    fn has_news(&self, index: usize) -> bool {
        self.net.tcp.has_news(HostId(index))
    }

    /// One turn of one host; the processor is busy for as long as it costs, and what it sends leaves then.
    fn turn(&mut self, index: usize, now: Duration) {
        let slot = &mut self.slots[index];
        let Some(host) = &mut slot.host else {
            return;
        };
        let mut turn = Turn {
            start: self.start,
            now,
            address: slot.address,
            inbox: &mut slot.inbox,
            exec: &mut self.exec,
            net: &mut self.net,
            host: HostId(index),
            touched: Vec::new(),
            calls: 0,
            outbox: Vec::new(),
            received: 0,
            polls: 0,
        };
        let turned = host.turn(&mut turn);
        let (received, polls, outbox, touched, calls) = (turn.received, turn.polls, turn.outbox, turn.touched, turn.calls);
        if let Err(broken) = host.check() {
            panic!("host {index} at {now:?}: {broken}");
        }
        let cost = slot.cost.of(received, outbox.len() + calls, turned.work);
        slot.more = turned.more;
        slot.busy_until = now + cost;
        slot.busy += cost;
        let idle = received == 0 && polls == 0 && outbox.is_empty() && calls == 0 && turned.work == 0;
        slot.idle_turns = if idle { slot.idle_turns + 1 } else { 0 };
        let spins = slot.idle_turns > IDLE_TURNS_MAX && (slot.more || host.is_asked() || host.wake().is_some_and(|at| at <= now));
        assert!(
            !spins,
            "host {index} spins at {now:?}: {IDLE_TURNS_MAX} turns did nothing and asked for more at once \
             (more: {}, asked: {}, wake: {:?})",
            slot.more,
            host.is_asked(),
            host.wake(),
        );
        for datagram in outbox {
            self.net.send(now + cost, HostId(index), datagram);
        }
        tcp::settle(&mut self.net, now + cost, touched);
    }
}

impl Slot {
    /// When the host takes its next turn, given that it is `now`, and whether its TCP has something for it.
    fn ready_at(&self, now: Duration, news: bool) -> Option<Duration> {
        let host = self.host.as_ref()?;
        if self.frozen {
            return None;
        }
        let wanted = if self.more || news || !self.inbox.is_empty() || host.is_asked() { now } else { host.wake()? };
        Some(wanted.max(self.busy_until).max(now))
    }
}

fn default_address(index: usize) -> SocketAddr {
    assert!(index < 62_500, "too many hosts");
    let ip = Ipv4Addr::new(10, 0, (index / 250) as u8, (index % 250) as u8 + 1);
    SocketAddr::from((ip, 4001))
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
