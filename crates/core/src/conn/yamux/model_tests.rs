//! Two sessions with two pipes of a few bytes between them, against a model of what streams are: bytes arrive in order, none is
//! invented, all arrive unless somebody gave up, memory is bounded at every step, and it never stands still. Owners do only what events tell
//! them to, so that an event that is not told is a standstill.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::testing::now;
use super::*;
use crate::proto::Priority;
use crate::stream::{Read, StreamPort as _};

/// How an owner ends its direction, or the other's.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Finish,
    /// After so many bytes were written.
    Reset(usize),
}

/// One stream: who opens it, what each side sends and how, whether the acceptor stops reading after so many bytes.
#[derive(Debug, Clone)]
struct Plan {
    opener: usize,
    priority: Priority,
    bytes: [usize; 2],
    ends: [End; 2],
    stop: Option<usize>,
}

/// A direction's bytes.
fn byte(id: u64, from: usize, at: usize) -> u8 {
    let mixed = (at as u64).wrapping_mul(0x9e37_79b9).wrapping_add(id * 77 + from as u64);
    (mixed >> 11) as u8
}

/// A stream's owner on one side.
#[derive(Debug)]
struct Owner {
    plan: usize,
    sent: usize,
    send_over: bool,
    may_write: bool,
    got: usize,
    /// How the peer's direction has ended.
    got_end: Option<Result<(), u64>>,
    stopped: bool,
    may_read: bool,
}

struct Party {
    session: Session,
    owners: BTreeMap<u64, Owner>,
    /// What was taken from the session and the pipe had no room for.
    pending: VecDeque<u8>,
    pipe: VecDeque<u8>,
    to_open: VecDeque<usize>,
    may_open: bool,
}

struct World {
    plans: Vec<Plan>,
    parties: [Party; 2],
    capacity: [usize; 2],
    chunk: usize,
    now: Instant,
    /// Decides every cut and every choice.
    dice: u64,
    moved: bool,
}

impl World {
    fn roll(&mut self, below: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.dice >> 33) as usize % below.max(1)
    }

    fn output(&mut self, side: usize) {
        let max = 1 + self.roll(3000);
        let (now, capacity) = (self.now, self.capacity[side]);
        let party = &mut self.parties[side];
        if party.pending.is_empty() {
            let mut out = Vec::new();
            let bytes = party.session.poll_output(now, max, &mut out);
            fuzz::assert_frames(&out);
            party.pending.extend(out.concat());
            self.moved |= bytes > 0;
        }
        let room = capacity.saturating_sub(party.pipe.len()).min(party.pending.len());
        party.pipe.extend(party.pending.drain(..room));
        self.moved |= room > 0;
    }

    fn input(&mut self, side: usize) {
        let cut = 1 + self.roll(self.chunk);
        let cut = cut.min(self.parties[1 - side].pipe.len());
        if cut == 0 || !self.parties[side].session.wants_input() {
            return;
        }
        let chunk: Vec<u8> = self.parties[1 - side].pipe.drain(..cut).collect();
        self.parties[side].session.handle(self.now, chunk.into()).expect("a good peer");
        self.moved = true;
    }

    fn events(&mut self, side: usize) {
        while let Some(event) = self.parties[side].session.poll() {
            self.moved = true;
            let party = &mut self.parties[side];
            match event {
                ConnEvent::Opened => {
                    while let Some(id) = party.session.accept() {
                        let opened = (id as usize - 1) / 2;
                        let theirs = self.plans.iter().enumerate().filter(|(_, plan)| plan.opener != side);
                        let plan = theirs.map(|(number, _)| number).nth(opened).expect("a stream that was planned");
                        party.session.port(id).set_priority(self.plans[plan].priority);
                        party.owners.insert(id, owner(plan));
                    }
                }
                ConnEvent::Available => party.may_open = true,
                ConnEvent::Readable(id) => party.owners.get_mut(&id).into_iter().for_each(|owner| owner.may_read = true),
                ConnEvent::Writable(id) => party.owners.get_mut(&id).into_iter().for_each(|owner| owner.may_write = true),
                ConnEvent::Stopped(id, _) => party.owners.get_mut(&id).into_iter().for_each(|owner| owner.send_over = true),
                ConnEvent::Delivered(id) => assert!(party.owners[&id].send_over),
                other => panic!("{other:?}"),
            }
        }
    }

    fn open(&mut self, side: usize) {
        let party = &mut self.parties[side];
        if let Some(plan) = party.to_open.front().copied().filter(|_| party.may_open) {
            let Some(id) = party.session.open() else {
                party.may_open = false;
                return;
            };
            party.to_open.pop_front();
            party.session.port(id).set_priority(self.plans[plan].priority);
            party.owners.insert(id, owner(plan));
            self.moved = true;
        }
    }

    fn write(&mut self, side: usize, id: u64) {
        let size = 1 + self.roll(6000);
        let party = &mut self.parties[side];
        let owner = party.owners.get_mut(&id).expect("known");
        if !owner.may_write || owner.send_over {
            return;
        }
        let plan = &self.plans[owner.plan];
        let end = plan.ends[side];
        let until = if let End::Reset(at) = end { at.min(plan.bytes[side]) } else { plan.bytes[side] };
        if owner.sent == until {
            let mut port = party.session.port(id);
            match end {
                End::Finish => port.finish(),
                End::Reset(_) => port.reset(5),
            }
            owner.send_over = true;
            self.moved = true;
            return;
        }
        let bytes: Vec<u8> = (owner.sent..until.min(owner.sent + size)).map(|at| byte(id, side, at)).collect();
        let mut chunk = Bytes::from(bytes);
        match party.session.port(id).write(&mut chunk) {
            Ok(0) => owner.may_write = false,
            Ok(taken) => {
                owner.sent += taken;
                self.moved = true;
            }
            Err(_) => owner.send_over = true,
        }
    }

    fn read(&mut self, side: usize, id: u64) {
        let max = 1 + self.roll(8000);
        let party = &mut self.parties[side];
        let owner = party.owners.get_mut(&id).expect("known");
        if !owner.may_read || owner.got_end.is_some() || owner.stopped {
            return;
        }
        let plan = &self.plans[owner.plan];
        if plan.opener != side && plan.stop.is_some_and(|after| owner.got >= after) {
            party.session.port(id).stop(3);
            owner.stopped = true;
            self.moved = true;
            return;
        }
        match party.session.port(id).read(max) {
            Ok(Read::Chunk(chunk)) => {
                for (at, got) in (owner.got..).zip(&chunk) {
                    assert_eq!(*got, byte(id, 1 - side, at), "stream {id}, byte {at}");
                }
                owner.got += chunk.len();
                assert!(owner.got <= plan.bytes[1 - side]);
                self.moved = true;
            }
            Ok(Read::Blocked) => owner.may_read = false,
            Ok(Read::Finished) => owner.got_end = Some(Ok(())),
            Err(code) => owner.got_end = Some(Err(code)),
        }
        self.moved |= owner.got_end.is_some();
    }

    fn step(&mut self, what: usize) {
        let side = what % 2;
        match (what / 2) % 6 {
            0 => self.output(side),
            1 => self.input(side),
            2 => self.events(side),
            3 => self.open(side),
            kind => {
                let count = self.parties[side].owners.len();
                let number = self.roll(count);
                if let Some(id) = self.parties[side].owners.keys().nth(number).copied() {
                    if kind == 4 { self.write(side, id) } else { self.read(side, id) }
                }
            }
        }
        self.check(side);
    }

    fn check(&self, side: usize) {
        let party = &self.parties[side];
        party.session.assert_bounded(self.chunk as u64);
        assert!(party.session.accepted <= party.session.stream_credit);
        assert!(party.session.send_cost <= party.session.send_window);
        assert!(party.session.control.streams.len() <= party.session.streams.len());
    }

    fn is_over(&self) -> bool {
        let through = |owner: &Owner| owner.send_over && (owner.got_end.is_some() || owner.stopped);
        self.parties.iter().all(|party| {
            let empty = party.to_open.is_empty() && party.pending.is_empty() && party.pipe.is_empty();
            empty && party.session.streams.is_empty() && party.owners.values().all(through)
        })
    }

    /// How far owners are, in all.
    fn progress(&self) -> usize {
        let of = |owner: &Owner| owner.sent + owner.got + usize::from(owner.send_over) + usize::from(owner.got_end.is_some());
        self.parties.iter().flat_map(|party| party.owners.values()).map(of).sum()
    }

    /// Does all that can be done, in turn, until everything is through.
    fn finish(&mut self) {
        let (mut still, mut progress) = (0, 0);
        while !self.is_over() {
            self.moved = false;
            for side in 0..2 {
                self.open(side);
                for id in self.parties[side].owners.keys().copied().collect::<Vec<_>>() {
                    self.write(side, id);
                    self.read(side, id);
                }
                self.output(side);
                self.input(side);
                self.events(side);
                self.check(side);
            }
            // Rounds that only move pings are none. The longest frame takes one for each byte through a pipe of one byte, and when nobody
            // wants what is in it no owner gets on meanwhile.
            still = if self.progress() == progress { still + 1 } else { 0 };
            progress = self.progress();
            assert!(still < 3 * FRAME_BYTES_MAX, "it stands still: {:#?}", self.parties.each_ref().map(|party| &party.owners));
            if self.moved {
                continue;
            }
            // Timers: pings, and peers that are told at last that nobody reads.
            self.now += Duration::from_secs(1);
            for party in &mut self.parties {
                if party.session.poll_timeout().is_some_and(|at| self.now >= at) {
                    party.session.handle_timeout(self.now);
                }
                // What nobody has accepted fills the window: here the node widens it.
                if !party.session.wants_input() && !party.session.backlog.is_empty() {
                    party.session.set_receive_window(party.session.receive_window * 2);
                }
            }
        }
    }
}

fn owner(plan: usize) -> Owner {
    Owner { plan, sent: 0, send_over: false, may_write: true, got: 0, got_end: None, stopped: false, may_read: true }
}

/// The sizes of everything around.
#[derive(Debug, Clone)]
struct Around {
    receive_window: u64,
    send_window: u64,
    credit: u32,
    capacity: [usize; 2],
    chunk: usize,
    dice: u64,
}

fn run(plans: Vec<Plan>, around: &Around) {
    let limits = Limits {
        receive_window_min: around.receive_window,
        send_window_min: around.send_window,
        streams_min: around.credit,
        ..Limits::default()
    };
    let party = |side: usize| Party {
        session: Session::new(if side == 0 { Side::Client } else { Side::Server }, &limits),
        owners: BTreeMap::new(),
        pending: VecDeque::new(),
        pipe: VecDeque::new(),
        to_open: plans.iter().enumerate().filter(|(_, plan)| plan.opener == side).map(|(number, _)| number).collect(),
        may_open: true,
    };
    let parties = [party(0), party(1)];
    let mut world =
        World { plans, parties, capacity: around.capacity, chunk: around.chunk, now: now(), dice: around.dice, moved: false };
    for _ in 0..2000 {
        let what = world.roll(12);
        world.step(what);
    }
    world.finish();
    let calm = world.plans.iter().all(|plan| plan.ends == [End::Finish; 2]);
    for side in 0..2 {
        let party = &world.parties[side];
        assert!(!calm || party.owners.len() == world.plans.len(), "a stream was never seen");
        assert_eq!((party.session.chunks.cost, party.session.send_cost, party.session.grown), (0, 0, 0));
        for (id, owner) in &party.owners {
            let plan = &world.plans[owner.plan];
            let given_up = plan.ends.iter().any(|end| *end != End::Finish);
            let whole = owner.got == plan.bytes[1 - side];
            match owner.got_end {
                Some(Ok(())) => assert!(whole, "stream {id} ended after {} bytes", owner.got),
                Some(Err(_)) => assert!(given_up, "stream {id} was reset and nobody did"),
                None => assert!(owner.stopped),
            }
        }
    }
}

fn plan(giving_up: bool, bytes_max: usize) -> impl Strategy<Value = Plan> {
    let priority = prop_oneof![Just(Priority::Bulk), Just(Priority::Normal), Just(Priority::Urgent)];
    let end = move || {
        let reset = prop_oneof![4 => Just(None), 1 => (0..bytes_max).prop_map(Some)];
        reset.prop_map(move |at| at.filter(|_| giving_up).map_or(End::Finish, End::Reset))
    };
    let stop = prop_oneof![4 => Just(None), 1 => (0..bytes_max).prop_map(Some)];
    let bytes = prop_oneof![1 => Just(0), 4 => 0..=bytes_max];
    (0..2usize, priority, [bytes.clone(), bytes], [end(), end()], stop).prop_map(move |(opener, priority, bytes, ends, stop)| {
        Plan { opener, priority, bytes, ends, stop: stop.filter(|_| giving_up) }
    })
}

fn around(capacity_max: usize) -> impl Strategy<Value = Around> {
    let capacity = 1..=capacity_max;
    (2048..20_000u64, 4096..20_000u64, 1..5u32, [capacity.clone(), capacity], 1..=2000usize, any::<u64>()).prop_map(
        |(receive_window, send_window, credit, capacity, chunk, dice)| Around {
            receive_window,
            send_window,
            credit,
            capacity,
            chunk,
            dice,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Pipes as small as one byte: everything is delivered.
    #[test]
    fn all_is_delivered(plans in proptest::collection::vec(plan(false, 6_000), 1..8), around in around(64)) {
        run(plans, &around);
    }

    /// Streams are reset and stopped at any point: the others, and the other directions of those that were stopped, are whole.
    #[test]
    fn what_is_given_up_harms_nothing_else(plans in proptest::collection::vec(plan(true, 20_000), 1..12), around in around(3000)) {
        run(plans, &around);
    }
}

/// A case that was found: a long frame that nobody wants, through a pipe of one byte.
#[test]
fn a_frame_that_nobody_wants_passes_a_pipe_of_one_byte() {
    let plan = Plan { opener: 1, priority: Priority::Bulk, bytes: [0, 14_142], ends: [End::Finish; 2], stop: Some(0) };
    let around = Around {
        receive_window: 2048,
        send_window: 4096,
        credit: 1,
        capacity: [1, 144],
        chunk: 1,
        dice: 2_101_930_347_585_691_912,
    };
    run(vec![plan], &around);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Several windows' worth both ways, so that credit has to come and all pipes are full all the time.
    #[test]
    fn credit_comes_through_full_pipes(dice in any::<u64>(), window in 2048..100_000u64) {
        let plan = |opener| Plan { opener, priority: Priority::Normal, bytes: [700_000; 2], ends: [End::Finish; 2], stop: None };
        let around = Around { receive_window: window, send_window: 8192, credit: 4, capacity: [500, 700], chunk: 3000, dice };
        run(vec![plan(0), plan(1), plan(0)], &around);
    }
}
