//! A full node's slots over hours of virtual time: honest peers, attackers, and between them the rule itself. There are no packets and no
//! connections here, only who has a slot, since when, and when it was last served: that is all the rule sees. `sim/tests/slots.rs` does a part
//! of it with whole nodes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use strait_core::Limits;
use strait_core::evict::{Candidate, ask_again_in, choose_victim};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
/// The honest have so long for themselves; then the attack begins.
const QUIET: u64 = 30 * MINUTE;
/// The whole run.
const END: u64 = 150 * MINUTE;
/// An answer within this is one in time.
const IN_TIME: u64 = 10 * SECOND;
/// What an honest peer waits between two attempts to connect, give or take a half.
const RETRY: u64 = 5 * SECOND;
/// Networks that the honest come from, beside the one that half of them share.
const NETWORKS: u64 = 200;
/// The network of those behind one address.
const SHARED: u64 = 7;

/// What attackers do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Attack {
    /// Identities for each honest peer. What has no slot tries again, each twice a minute.
    pub(crate) ratio: u64,
    /// Or so many attempts a second, each with a fresh identity.
    pub(crate) fresh: Option<u64>,
    /// They ask for something so often, from the moment that they are in; `None`: never.
    pub(crate) asks: Option<Duration>,
    /// Their round-trip time in milliseconds.
    pub(crate) rtt: u64,
    /// Each comes from a network of its own; else all from one.
    pub(crate) groups: bool,
    /// They are there before the honest come.
    pub(crate) first: bool,
}

impl Attack {
    /// They connect and do nothing.
    pub(crate) const IDLE: Attack = Attack { ratio: 4, fresh: None, asks: None, rtt: 50, groups: false, first: false };
    /// They ask for something a little more often than once a minute.
    pub(crate) const ASKING: Attack = Attack { asks: Some(Duration::from_secs(50)), ..Attack::IDLE };
    /// The same from next door.
    pub(crate) const NEAR: Attack = Attack { rtt: 1, ..Attack::ASKING };
    /// The same from everywhere.
    pub(crate) const GROUPS: Attack = Attack { groups: true, ..Attack::ASKING };
    /// The best at all that can be had.
    pub(crate) const ALL: Attack = Attack { asks: Some(Duration::from_secs(2)), rtt: 1, groups: true, ..Attack::IDLE };
    /// Fresh identities that do nothing, ten a second.
    pub(crate) const STORM: Attack = Attack { fresh: Some(10), ..Attack::IDLE };
    /// Fresh identities that are the best at all.
    pub(crate) const STORM_ALL: Attack = Attack { fresh: Some(10), ..Attack::ALL };
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// `connections_max`.
    pub(crate) slots: u32,
    pub(crate) attack: Option<Attack>,
}

/// Who somebody is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// There from the beginning, asks three times a minute.
    Resident,
    /// There from the beginning, asks once in five minutes.
    Occasional,
    /// Comes at some time, asks three times a minute for some minutes, and goes.
    Guest {
        until: u64,
    },
    Attacker,
}

struct Agent {
    kind: Kind,
    group: u64,
    rtt: u64,
    seat: Option<usize>,
    /// What it wants now, since when.
    wish: Option<u64>,
    /// For guests: when they came, until they are served first.
    came: Option<u64>,
    /// Displaced since the attack began.
    displaced: bool,
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    agent: usize,
    admitted: u64,
    served: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// It wants something.
    Wish(usize),
    /// An attacker asks again, if it still has the slot that it got at this time.
    Again(usize, u64),
    /// It tries to connect.
    Knock(usize),
    /// What it asked for is there, if it still has the slot that it got at this time.
    Served(usize, u64),
    /// Somebody new comes.
    Guest,
    /// Some attacker tries to connect.
    Attack,
    /// Once a minute, the slots are looked at.
    Look,
}

/// What came of it, from the beginning of the attack on.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    /// Of those who were there before, how many were never displaced. From 0.0 to 1.0.
    pub(crate) residents_kept: f64,
    /// The same of those who ask rarely.
    pub(crate) occasional_kept: f64,
    /// What share of all wishes was answered within ten seconds.
    pub(crate) in_time: f64,
    /// How long newcomers took to be served for the first time, in seconds: median and 95 of 100. Infinite for those who never were.
    pub(crate) newcomer: f64,
    pub(crate) newcomer_p95: f64,
    /// The attackers' share of the slots that strangers can have: mean, and the most at one time.
    pub(crate) attackers: f64,
    pub(crate) attackers_most: f64,
    /// How often a slot changes hands in an hour because of the rule.
    pub(crate) changes: f64,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// About exponentially distributed around this mean, in milliseconds. In whole numbers, so that it is the same on all machines.
    fn exp(&mut self, mean: u64) -> u64 {
        let halvings = u64::from(self.next().trailing_zeros().min(10));
        let unit = mean * 2 / 3;
        halvings * unit + self.below(unit)
    }
}

/// Whether a wish of that time counts: in the attack, and early enough to be answered before the end.
fn counts(at: u64) -> bool {
    (QUIET..END - MINUTE).contains(&at)
}

struct World {
    plan: Plan,
    random: Random,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, What)>>,
    sequence: u64,
    agents: Vec<Agent>,
    /// Attackers without a slot.
    waiting: Vec<usize>,
    seats: Vec<Option<Seat>>,
    shut_until: u64,
    wishes: u64,
    in_time: u64,
    waits: Vec<u64>,
    shares: Vec<f64>,
    changes: u64,
}

/// Runs a plan.
pub(crate) fn run(plan: Plan, seed: u64) -> Outcome {
    let limits = Limits { connections_max: plan.slots, ..Limits::default() };
    // The rest is kept for those that we dial.
    let seats = (plan.slots - limits.outbound_min()) as usize;
    let mut world = World {
        plan,
        random: Random(seed),
        now: 0,
        queue: BinaryHeap::new(),
        sequence: 0,
        agents: Vec::new(),
        waiting: Vec::new(),
        seats: vec![None; seats],
        shut_until: 0,
        wishes: 0,
        in_time: 0,
        waits: Vec::new(),
        shares: Vec::new(),
        changes: 0,
    };
    world.populate(seats);
    while let Some(Reverse((at, _, what))) = world.queue.pop() {
        if at > END {
            break;
        }
        world.now = at;
        world.happen(what);
    }
    world.outcome()
}

impl World {
    fn after(&mut self, wait: u64, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + wait, self.sequence, what)));
    }

    fn add(&mut self, kind: Kind) -> usize {
        let (group, rtt) = match (kind, self.plan.attack) {
            (Kind::Attacker, Some(attack)) if attack.groups => (1_000_000 + self.agents.len() as u64, attack.rtt),
            (Kind::Attacker, Some(attack)) => (1_000_000, attack.rtt),
            // Half of the honest share an address.
            _ if self.random.below(2) == 0 => (SHARED, 20 + self.random.below(130)),
            _ => (1_000 + self.random.below(NETWORKS), 20 + self.random.below(130)),
        };
        self.agents.push(Agent { kind, group, rtt, seat: None, wish: None, came: None, displaced: false });
        self.agents.len() - 1
    }

    /// Honest peers for seven tenths of the slots, and attackers.
    fn populate(&mut self, seats: usize) {
        for number in 0..seats * 6 / 10 {
            let kind = if number % 3 < 2 { Kind::Resident } else { Kind::Occasional };
            let agent = self.add(kind);
            let wait = self.random.below(10 * MINUTE);
            let late = if self.plan.attack.is_some_and(|attack| attack.first) { 10 * MINUTE } else { 0 };
            self.after(late + wait, What::Wish(agent));
        }
        self.after(0, What::Guest);
        if let Some(attack) = self.plan.attack {
            let identities = if attack.fresh.is_some() { 0 } else { seats as u64 * 7 / 10 * attack.ratio };
            for _ in 0..identities {
                let agent = self.add(Kind::Attacker);
                self.waiting.push(agent);
            }
            self.after(if attack.first { 0 } else { QUIET }, What::Attack);
        }
        self.after(QUIET, What::Look);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Guest => {
                // About a tenth of the slots are theirs at a time.
                let until = self.now + 5 * MINUTE + self.random.below(5 * MINUTE);
                let agent = self.add(Kind::Guest { until });
                self.agents[agent].came = Some(self.now);
                self.after(0, What::Wish(agent));
                let next = self.random.exp(75 * MINUTE / self.seats.len() as u64);
                self.after(next, What::Guest);
            }
            What::Wish(agent) => self.wish(agent),
            What::Again(agent, admitted) => {
                if self.agents[agent].seat.and_then(|at| self.seats[at]).is_some_and(|seat| seat.admitted == admitted) {
                    self.ask(agent);
                }
            }
            What::Knock(agent) => self.knock(agent),
            What::Served(agent, admitted) => self.served(agent, admitted),
            What::Attack => self.attack(),
            What::Look => {
                let theirs = self.seats.iter().flatten().filter(|seat| self.agents[seat.agent].kind == Kind::Attacker).count();
                self.shares.push(theirs as f64 / self.seats.len() as f64);
                self.after(MINUTE, What::Look);
            }
        }
    }

    fn wish(&mut self, agent: usize) {
        let now = self.now;
        if let Kind::Guest { until } = self.agents[agent].kind
            && now >= until
            && self.agents[agent].came.is_none()
        {
            return self.leave(agent);
        }
        if self.agents[agent].wish.is_none() {
            self.agents[agent].wish = Some(now);
            self.wishes += u64::from(self.agents[agent].kind != Kind::Attacker && counts(now));
        }
        match self.agents[agent].seat {
            Some(_) => self.ask(agent),
            None => self.knock(agent),
        }
    }

    /// A round trip, and it has what it wants.
    fn ask(&mut self, agent: usize) {
        let Some(seat) = self.agents[agent].seat.and_then(|at| self.seats[at]) else {
            return;
        };
        let rtt = self.agents[agent].rtt;
        self.after(rtt, What::Served(agent, seat.admitted));
    }

    fn served(&mut self, agent: usize, admitted: u64) {
        let now = self.now;
        let Some(seat) = self.agents[agent].seat.and_then(|at| self.seats[at].as_mut()) else {
            return;
        };
        if seat.admitted != admitted {
            return;
        }
        seat.served = Some(now);
        let wish = self.agents[agent].wish.take();
        if self.agents[agent].kind == Kind::Attacker {
            let asks = self.plan.attack.and_then(|attack| attack.asks).map_or(END, |asks| asks.as_millis() as u64);
            self.after(asks, What::Again(agent, admitted));
        } else {
            let rarely = self.agents[agent].kind == Kind::Occasional;
            let pause = self.random.exp(if rarely { 5 * MINUTE } else { 20 * SECOND });
            self.after(pause, What::Wish(agent));
            if let Some(came) = self.agents[agent].came.take().filter(|came| *came >= QUIET) {
                self.waits.push(now - came);
            }
            self.in_time += u64::from(wish.is_some_and(|wish| counts(wish) && now - wish <= IN_TIME));
        }
    }

    /// Tries to get a slot.
    fn knock(&mut self, agent: usize) {
        if self.agents[agent].seat.is_some() {
            return;
        }
        if self.find_seat(agent) {
            // The handshake has taken its round trips; now it can ask.
            if self.agents[agent].kind != Kind::Attacker || self.plan.attack.is_some_and(|attack| attack.asks.is_some()) {
                self.ask(agent);
            }
        } else if self.agents[agent].kind != Kind::Attacker {
            let wait = RETRY / 2 + self.random.below(RETRY);
            self.after(wait, What::Knock(agent));
        } else if !self.is_fresh() {
            self.waiting.push(agent);
        }
    }

    fn find_seat(&mut self, agent: usize) -> bool {
        let now = self.now;
        let fresh = Seat { agent, admitted: now, served: None };
        if let Some(free) = self.seats.iter().position(Option::is_none) {
            self.seats[free] = Some(fresh);
            self.agents[agent].seat = Some(free);
            return true;
        }
        if now < self.shut_until {
            return false;
        }
        let candidates: Vec<Candidate> = self.seats.iter().flatten().map(|seat| self.candidate(seat)).collect();
        let Some(victim) = choose_victim(&candidates) else {
            self.shut_until = now + ask_again_in(&candidates).as_millis() as u64;
            return false;
        };
        let Some(old) = self.seats[victim].replace(fresh) else {
            unreachable!("all are taken");
        };
        self.agents[agent].seat = Some(victim);
        self.displaced(old.agent);
        true
    }

    fn candidate(&self, seat: &Seat) -> Candidate {
        let agent = &self.agents[seat.agent];
        let ago = |at: u64| Duration::from_millis(self.now - at);
        Candidate {
            admitted: ago(seat.admitted),
            gave: None,
            served: seat.served.map(ago),
            rtt: Duration::from_millis(agent.rtt),
            // As good as keyed.
            group: Random(agent.group).next(),
        }
    }

    fn displaced(&mut self, agent: usize) {
        self.changes += u64::from(self.now >= QUIET);
        self.agents[agent].seat = None;
        self.agents[agent].displaced |= self.now >= QUIET;
        match self.agents[agent].kind {
            Kind::Attacker if self.is_fresh() => {}
            Kind::Attacker => self.waiting.push(agent),
            // What it was about to get is lost with the connection: it comes again.
            _ if self.agents[agent].wish.is_some() => {
                let wait = RETRY / 2 + self.random.below(RETRY);
                self.after(wait, What::Knock(agent));
            }
            // It learns of it when it wants something.
            _ => {}
        }
    }

    fn leave(&mut self, agent: usize) {
        if let Some(seat) = self.agents[agent].seat.take() {
            self.seats[seat] = None;
            self.shut_until = 0;
        }
    }

    fn is_fresh(&self) -> bool {
        self.plan.attack.is_some_and(|attack| attack.fresh.is_some())
    }

    fn attack(&mut self) {
        if self.is_fresh() {
            let agent = self.add(Kind::Attacker);
            self.knock(agent);
            if self.agents[agent].seat.is_none() {
                // Never seen again.
                self.agents.pop();
            }
        } else if !self.waiting.is_empty() {
            let at = self.random.below(self.waiting.len() as u64) as usize;
            let agent = self.waiting.swap_remove(at);
            self.knock(agent);
        }
        let mean = match self.plan.attack.and_then(|attack| attack.fresh) {
            Some(knocks) => SECOND / knocks,
            None => 30 * SECOND / (self.waiting.len() as u64).max(1),
        };
        let next = self.random.exp(mean.max(2));
        self.after(next, What::Attack);
    }

    fn outcome(mut self) -> Outcome {
        let kept = |kind: Kind| {
            let all: Vec<_> = self.agents.iter().filter(|agent| agent.kind == kind).collect();
            all.iter().filter(|agent| !agent.displaced).count() as f64 / all.len().max(1) as f64
        };
        let (residents_kept, occasional_kept) = (kept(Kind::Resident), kept(Kind::Occasional));
        let never = self.agents.iter().filter(|agent| agent.came.is_some_and(counts));
        self.waits.extend(never.map(|_| u64::MAX));
        self.waits.sort_unstable();
        let at = |percent: usize| match self.waits.get(self.waits.len() * percent / 100) {
            Some(&u64::MAX) => f64::INFINITY,
            Some(wait) => *wait as f64 / SECOND as f64,
            None => 0.0,
        };
        Outcome {
            residents_kept,
            occasional_kept,
            in_time: self.in_time as f64 / self.wishes.max(1) as f64,
            newcomer: at(50),
            newcomer_p95: at(95),
            attackers: self.shares.iter().sum::<f64>() / self.shares.len().max(1) as f64,
            attackers_most: self.shares.iter().copied().fold(0.0, f64::max),
            changes: self.changes as f64 / self.seats.len() as f64 / ((END - QUIET) as f64 / (60 * MINUTE) as f64),
        }
    }
}
