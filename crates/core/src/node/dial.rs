//! Connecting: which peers are wanted, against which are there. The races themselves are pure ([`crate::peers::race`]); here their attempts become
//! dials, within the limits of all of them together, and what comes of them is told to the race, the address book and the application.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use libp2p_identity::PeerId;
use slab::Slab;

use super::state::{ConnId, Phase};
use super::{Event, Node};
use crate::conn::quic::SocketId;
use crate::error::{Closed, DialError};
use crate::limits::{DIALS_PER_TURN_MAX, LOOKUPS_MAX, LOST_MAX, RACE_BYTES, RACES_MAX, RESOLUTION_DELAY, REST_BYTES};
use crate::peers::names::{Answer, Found, LookupError, Names};
use crate::peers::race::{Attempt, Entrant, Next, Race, Standing};
use crate::peers::rest::{Lost, Of, Rests};
use crate::peers::{Candidate, Evidence, Way};
use crate::wake::{Armed, Key, Why};

/// Names a look-up. Names are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(u64);

/// A peer that the application wants to be connected to.
struct Wish {
    peer: PeerId,
    race: Race,
    names: Names,
    /// Dials to this peer rest until then, as far as their addresses are only from remotes.
    rests: Option<Instant>,
    armed: Armed,
    queued: bool,
}

/// Whose a dial is.
#[derive(Debug, Clone, Copy)]
enum Dial {
    /// The wish, and the attempt's number in its race.
    Of(usize, u32),
    /// Given up: what becomes of it is told to nobody.
    Lost,
}

/// All wishes of a node, and their dials.
#[derive(Default)]
pub(super) struct Dialling {
    wishes: Slab<Wish>,
    by_peer: BTreeMap<PeerId, usize>,
    dials: BTreeMap<ConnId, Dial>,
    /// How many of these are of a wish.
    running: u32,
    /// Wishes to be looked at.
    ready: VecDeque<usize>,
    /// Wishes that wait for one of the dials or look-ups to end.
    hungry: VecDeque<usize>,
    lookups: BTreeMap<u64, (usize, u32)>,
    lookups_begun: u64,
    rests: Rests,
    lost: Lost,
    lost_armed: Armed,
    /// What the UDP sockets are bound to.
    sockets: Vec<SocketAddr>,
}

impl Dialling {
    fn queue(&mut self, wish: usize) {
        if let Some(found) = self.wishes.get_mut(wish)
            && !found.queued
        {
            found.queued = true;
            self.ready.push_back(wish);
        }
    }

    /// Whether there is something to do now.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many wishes there are, dials under way for them, and look-ups.
    pub(super) fn counts(&self) -> [usize; 3] {
        [self.wishes.len(), usize::try_from(self.running).unwrap_or(usize::MAX), self.lookups.len()]
    }

    /// Bytes that they take at most.
    pub(super) fn held(&self) -> u64 {
        let wishes = (self.wishes.len() as u64).saturating_mul(RACE_BYTES);
        let rests = (self.rests.len() as u64).saturating_add(self.lost.len() as u64);
        wishes.saturating_add(rests.saturating_mul(REST_BYTES))
    }

    /// Lets those try again who waited for a dial or a look-up to end.
    fn feed(&mut self) {
        for wish in std::mem::take(&mut self.hungry) {
            self.queue(wish);
        }
    }

    /// The socket from which an address of its IP version can be reached.
    fn socket_to(&self, remote: SocketAddr) -> Option<SocketId> {
        let family = || self.sockets.iter().enumerate().filter(|(_, local)| local.is_ipv4() == remote.is_ipv4());
        let reaches = |local: &SocketAddr| local.ip().is_unspecified() || local.ip().is_loopback() == remote.ip().is_loopback();
        let at = family().find(|(_, local)| reaches(local)).or_else(|| family().next())?.0;
        u8::try_from(at).ok().map(SocketId)
    }
}

impl Node {
    /// Tells which UDP sockets there are: the first is [`SocketId`] 0, and so on.
    pub fn set_sockets(&mut self, sockets: Vec<SocketAddr>) {
        self.dialling.sockets = sockets;
    }

    /// Wants a connection to `peer`: its addresses in the [book](Self::book) are tried in turn until one leads to it. If there is no connection yet,
    /// [`Event::Connected`] of this peer or [`Event::Unreachable`] follows, exactly one, unless [`stop_connecting`](Self::stop_connecting) comes
    /// first. Called again meanwhile it takes up what is new in the book. Who was lost a moment ago, and not by this side, is dialled at some time within
    /// [`REDIAL_SPREAD`](crate::limits::REDIAL_SPREAD) of that.
    ///
    /// # Errors
    /// [`DialError`]: nothing was begun, and no event follows.
    pub fn connect(&mut self, now: Instant, peer: PeerId) -> Result<(), DialError> {
        if self.closing {
            return Err(DialError::Closing);
        }
        if peer == self.peer_id {
            return Err(DialError::Itself);
        }
        if self.is_connected(&peer) {
            return Ok(());
        }
        let wish = match self.dialling.by_peer.get(&peer) {
            Some(wish) => *wish,
            None if self.dialling.wishes.len() >= RACES_MAX => return Err(DialError::Full("as many peers as it dials at once")),
            None => {
                let at_once = usize::try_from(self.config.limits.dials_per_peer_max).unwrap_or(usize::MAX);
                let mut race = Race::new(now, at_once);
                if let Some(until) = self.dialling.lost.until(&peer) {
                    race.hold(until);
                }
                let wish = self.dialling.wishes.insert(Wish {
                    peer,
                    race,
                    names: Names::new(peer),
                    rests: self.dialling.rests.until(Of::Peer(peer)),
                    armed: Armed::default(),
                    queued: false,
                });
                self.dialling.by_peer.insert(peer, wish);
                wish
            }
        };
        self.enter_all(now, wish);
        self.dialling.queue(wish);
        Ok(())
    }

    /// Wants no connection to `peer` any more: what is being dialled is given up, what is connected stays.
    pub fn stop_connecting(&mut self, now: Instant, peer: &PeerId) {
        if let Some(wish) = self.dialling.by_peer.get(peer).copied() {
            self.end_wish(now, wish);
        }
    }

    /// Whether `peer` is being connected to.
    pub fn is_connecting(&self, peer: &PeerId) -> bool {
        self.dialling.by_peer.contains_key(peer)
    }

    /// Takes the answer to [`Event::Lookup`]. One that nobody waits for any more is dropped.
    pub fn handle_lookup(&mut self, now: Instant, id: LookupId, answer: Result<Answer, LookupError>) {
        let Some((wish, number)) = self.dialling.lookups.remove(&id.0) else {
            return;
        };
        self.dialling.feed();
        let Some(found) = self.dialling.wishes.get_mut(wish).map(|wish| wish.names.answered(number, answer)) else {
            return;
        };
        self.enter(now, wish, found, Standing::Unknown);
        self.dialling.queue(wish);
    }

    /// Enters what the book knows.
    fn enter_all(&mut self, now: Instant, wish: usize) {
        let Some(peer) = self.dialling.wishes.get(wish).map(|wish| wish.peer) else {
            return;
        };
        let candidates = self.book.candidates(now, &peer);
        let worked = |candidate: &Candidate| match candidate.evidence {
            Evidence::Worked { at } if candidate.failures == 0 => Some(at),
            _ => None,
        };
        let last = candidates.iter().filter_map(worked).max();
        for candidate in candidates {
            let standing = match worked(&candidate) {
                Some(at) if last == Some(at) => Standing::Last,
                Some(_) => Standing::Worked,
                None if candidate.failures > 0 => Standing::Failed,
                None => Standing::Unknown,
            };
            let told_over = candidate.told_over;
            let Some(wished) = self.dialling.wishes.get_mut(wish) else {
                return;
            };
            let found = wished.names.add(&candidate.address, told_over).into_iter().collect();
            let rests = wished.rests.filter(|_| told_over.is_some());
            self.enter_resting(now, wish, found, standing, rests);
        }
    }

    fn enter(&mut self, now: Instant, wish: usize, found: Vec<Found>, standing: Standing) {
        self.enter_resting(now, wish, found, standing, None);
    }

    /// Enters addresses into a race.
    fn enter_resting(&mut self, now: Instant, wish: usize, found: Vec<Found>, standing: Standing, rests: Option<Instant>) {
        let Dialling { wishes, rests: all, .. } = &mut self.dialling;
        let Some(wish) = wishes.get_mut(wish) else {
            return;
        };
        for found in found {
            match found {
                Found::Host(way, at, given) => {
                    let rested = all.until(Of::Address(way, at));
                    let standing = if rested.is_some() { standing.max(Standing::Failed) } else { standing };
                    let via = (given != way.address(at)).then_some(given);
                    wish.race.add(Entrant { way, at, via, standing, not_before: rested.max(rests) });
                    if wish.names.is_open() && at.is_ipv4() {
                        wish.race.hold(now.checked_add(RESOLUTION_DELAY).unwrap_or(now));
                    }
                }
                Found::Bad(address, error) => wish.race.note(Attempt { address, via: None, took: None, error }),
            }
        }
    }

    /// Looks at the wishes that have something to do: a bounded part of them.
    pub(super) fn drive_wishes(&mut self, now: Instant) {
        let mut begun = 0;
        while begun < DIALS_PER_TURN_MAX {
            let Some(wish) = self.dialling.ready.pop_front() else {
                return;
            };
            if let Some(found) = self.dialling.wishes.get_mut(wish) {
                found.queued = false;
                self.drive_wish(now, wish, &mut begun);
            }
        }
    }

    fn drive_wish(&mut self, now: Instant, wish: usize, begun: &mut usize) {
        self.ask_names(now, wish);
        loop {
            let Some(found) = self.dialling.wishes.get_mut(wish) else {
                return;
            };
            let until = match found.race.next(now, found.names.is_open()) {
                Next::Over => return self.give_up_wish(now, wish),
                Next::Wait(until) => until,
                Next::Begin if self.may_begin(wish) => {
                    *begun = begun.saturating_add(1);
                    if self.begin_attempt(now, wish) {
                        continue;
                    }
                    self.hungry(wish);
                    None
                }
                Next::Begin => {
                    self.hungry(wish);
                    None
                }
            };
            let Some(found) = self.dialling.wishes.get_mut(wish) else {
                return;
            };
            let at = [until, found.names.deadline()].into_iter().flatten().min().map(|at| (at, Why::Dial));
            return self.wakes.set(&mut found.armed, Key::Wish(wish), at);
        }
    }

    fn hungry(&mut self, wish: usize) {
        if !self.dialling.hungry.contains(&wish) {
            self.dialling.hungry.push_back(wish);
        }
    }

    /// Asks what is to be looked up, as far as all look-ups together go.
    fn ask_names(&mut self, now: Instant, wish: usize) {
        let Some(found) = self.dialling.wishes.get_mut(wish) else {
            return;
        };
        let mut bad = found.names.expire(now);
        while self.dialling.lookups.len() < LOOKUPS_MAX
            && let Some((number, question)) = found.names.ask(now, &mut bad)
        {
            self.dialling.lookups_begun = self.dialling.lookups_begun.saturating_add(1);
            let id = self.dialling.lookups_begun;
            self.dialling.lookups.insert(id, (wish, number));
            self.counters.totals.lookups = self.counters.totals.lookups.saturating_add(1);
            self.events.push_back(Event::Lookup { id: LookupId(id), question });
        }
        if found.names.has_questions() {
            self.hungry(wish);
        }
        self.enter(now, wish, bad, Standing::Unknown);
    }

    /// Whether there is room for one more attempt of this wish. The first of each always finds some.
    fn may_begin(&self, wish: usize) -> bool {
        let max = self.config.limits.dials_max;
        let first = self.dialling.wishes.get(wish).is_some_and(|wish| wish.race.running() == 0);
        let max = if first { max } else { max.saturating_sub(max / 4).max(1) };
        self.dialling.running < max
    }

    /// Begins the next attempt. False: there is no room for it now, and there will be when another ends.
    fn begin_attempt(&mut self, now: Instant, wish: usize) -> bool {
        let begun = self.dialling.wishes.get_mut(wish).and_then(|wish| Some((wish.peer, wish.race.begin(now)?)));
        let Some((peer, (number, Entrant { way, at, .. }))) = begun else {
            return true;
        };
        let dialled = match way {
            Way::Tcp => self.dial_pipe(now, at, peer),
            Way::Quic => match self.dialling.socket_to(at) {
                Some(socket) => self.dial(now, socket, at, peer),
                None => Err(DialError::NoWay(format!("it has no UDP socket for IPv{}", if at.is_ipv4() { 4 } else { 6 }))),
            },
        };
        match dialled {
            Ok(conn) => {
                self.dialling.dials.insert(conn, Dial::Of(wish, number));
                self.dialling.running = self.dialling.running.saturating_add(1);
                true
            }
            Err(DialError::Full(_)) if self.dialling.running > 0 => {
                if let Some(wish) = self.dialling.wishes.get_mut(wish) {
                    wish.race.put_back(number, now);
                }
                false
            }
            Err(error) => {
                self.attempt_failed(now, wish, number, error);
                true
            }
        }
    }

    fn attempt_failed(&mut self, now: Instant, wish: usize, number: u32, error: DialError) {
        let Dialling { wishes, rests, .. } = &mut self.dialling;
        let Some(wish) = wishes.get_mut(wish) else {
            return;
        };
        // What is this node's own fault says nothing about the address.
        let ours = matches!(error, DialError::Full(_) | DialError::Closing | DialError::NoWay(_));
        let refused = matches!(error, DialError::Refused(_));
        let Some(entrant) = wish.race.failed(now, number, error).filter(|_| !ours) else {
            return;
        };
        let of = Of::Address(entrant.way, entrant.at);
        if refused {
            // It is there, and has no room now: whoever waits ever longer for it never gets in beside those who do not.
            return rests.refused(now, of, &mut self.random);
        }
        rests.failed(now, of, &mut self.random);
        self.book.failed(now, &wish.peer, &entrant.via.unwrap_or_else(|| entrant.way.address(entrant.at)));
    }

    /// A connection that was being dialled has ended: tells the wish that it was for, or the application.
    pub(super) fn dial_ended(&mut self, now: Instant, conn: ConnId, peer: PeerId, error: DialError) {
        let dial = self.dialling.dials.remove(&conn);
        if !matches!(dial, Some(Dial::Lost)) {
            self.counters.totals.dials_failed = self.counters.totals.dials_failed.saturating_add(1);
        }
        match dial {
            None => self.events.push_back(Event::DialFailed { conn, peer, error }),
            Some(Dial::Lost) => {}
            Some(Dial::Of(wish, number)) => {
                self.dialling.running = self.dialling.running.saturating_sub(1);
                self.attempt_failed(now, wish, number, error);
                self.dialling.queue(wish);
                self.dialling.feed();
            }
        }
    }

    /// There is a connection to `peer`, whoever began it: a wish for one is fulfilled, and its other dials are given up.
    ///
    /// They can be, also when the peer has dialled at the same moment: `conn` is established at its side too, or will be when it learns that it is
    /// here, and it is never this call that ends an established one.
    pub(super) fn reached(&mut self, now: Instant, peer: &PeerId, conn: ConnId) {
        if let Some(Dial::Of(wish, number)) = self.dialling.dials.remove(&conn) {
            self.dialling.running = self.dialling.running.saturating_sub(1);
            if let Some(entrant) = self.dialling.wishes.get_mut(wish).and_then(|wish| wish.race.won(number)) {
                self.dialling.rests.reached(Of::Address(entrant.way, entrant.at));
                let given = entrant.via.unwrap_or_else(|| entrant.way.address(entrant.at));
                self.book.worked(now, peer, &given);
            }
        }
        self.dialling.rests.reached(Of::Peer(*peer));
        if let Some(wish) = self.dialling.by_peer.get(peer).copied() {
            self.end_wish(now, wish);
        }
    }

    /// Begins dials again whose address at this end is gone, and those that have heard nothing yet: what they sent may have gone nowhere.
    pub(super) fn restart_dials(&mut self, now: Instant, gone: &[IpAddr]) {
        for conn in self.stranded_dials(self.dialling.dials.keys().copied(), gone) {
            let Some(Dial::Of(wish, number)) = self.dialling.dials.insert(conn, Dial::Lost) else {
                continue;
            };
            self.dialling.running = self.dialling.running.saturating_sub(1);
            self.counters.totals.dials_lost = self.counters.totals.dials_lost.saturating_add(1);
            if let Some(wish) = self.dialling.wishes.get_mut(wish) {
                wish.race.restart(number, now);
            }
            self.dialling.queue(wish);
            self.close_conn(now, conn);
        }
        self.dialling.feed();
    }

    /// The last connection to a peer has ended. Whether others have lost it too is not known, unless it was for a reason of this side's own.
    pub(super) fn lost(&mut self, now: Instant, peer: PeerId, closed: &Closed) {
        if !self.closing && !matches!(closed, Closed::Here(_) | Closed::Moved) {
            self.dialling.lost.note(now, peer, &mut self.random);
            self.arm_lost();
        }
    }

    /// Some were lost so long ago that nobody else dials them for that any more.
    pub(super) fn lost_due(&mut self, now: Instant) {
        self.dialling.lost_armed.fired();
        self.dialling.lost.forget_over(now, LOST_MAX);
        self.arm_lost();
    }

    /// Nothing will be dialled any more.
    pub(super) fn forget_lost(&mut self) {
        self.dialling.lost.forget();
        self.arm_lost();
    }

    fn arm_lost(&mut self) {
        let at = self.dialling.lost.over().map(|at| (at, Why::Housekeeping));
        self.wakes.set(&mut self.dialling.lost_armed, Key::Lost, at);
    }

    /// This machine has other addresses: what could not be reached before may be now.
    pub(super) fn forgive_dials(&mut self, now: Instant) {
        self.dialling.rests.forget();
        self.forget_lost();
        let mut wishes = Vec::new();
        for (at, wish) in &mut self.dialling.wishes {
            wish.rests = None;
            wish.race.forgive(now);
            wishes.push(at);
        }
        wishes.into_iter().for_each(|wish| self.dialling.queue(wish));
    }

    /// Nothing has led to the peer.
    fn give_up_wish(&mut self, now: Instant, wish: usize) {
        let Some(peer) = self.dialling.wishes.get(wish).map(|wish| wish.peer) else {
            return;
        };
        let refused = self.dialling.wishes.get(wish).is_some_and(|wish| wish.race.was_refused());
        match refused {
            true => self.dialling.rests.refused(now, Of::Peer(peer), &mut self.random),
            false => self.dialling.rests.failed(now, Of::Peer(peer), &mut self.random),
        }
        self.tell_unreachable(now, wish, None);
    }

    /// Ends a wish and tells the application what was tried.
    fn tell_unreachable(&mut self, now: Instant, wish: usize, error: Option<DialError>) {
        if let Some(Wish { peer, race, .. }) = self.end_wish(now, wish) {
            self.events.push_back(Event::Unreachable { peer, attempts: race.into_failed(), error });
        }
    }

    /// Ends a wish: its dials are given up, its look-ups not waited for.
    fn end_wish(&mut self, now: Instant, wish: usize) -> Option<Wish> {
        let mut gone = self.dialling.wishes.try_remove(wish)?;
        self.dialling.by_peer.remove(&gone.peer);
        self.wakes.set(&mut gone.armed, Key::Wish(wish), None);
        self.dialling.ready.retain(|queued| *queued != wish);
        self.dialling.hungry.retain(|queued| *queued != wish);
        self.dialling.lookups.retain(|_, (of, _)| *of != wish);
        let mut lost = Vec::new();
        for (conn, dial) in &mut self.dialling.dials {
            if matches!(dial, Dial::Of(of, _) if *of == wish) {
                *dial = Dial::Lost;
                lost.push(*conn);
            }
        }
        let count = u32::try_from(lost.len()).unwrap_or(u32::MAX);
        self.dialling.running = self.dialling.running.saturating_sub(count);
        self.counters.totals.dials_lost = self.counters.totals.dials_lost.saturating_add(count.into());
        lost.into_iter().for_each(|conn| self.close_conn(now, conn));
        self.dialling.feed();
        Some(gone)
    }

    /// Ends the wish for one peer, or for all, because the application has asked for the opposite.
    pub(super) fn unwish(&mut self, now: Instant, peer: Option<&PeerId>) {
        let of = |wish: &Wish| peer.is_none_or(|peer| wish.peer == *peer);
        let wishes: Vec<usize> = self.dialling.wishes.iter().filter(|(_, wish)| of(wish)).map(|(at, _)| at).collect();
        wishes.into_iter().for_each(|wish| self.tell_unreachable(now, wish, Some(DialError::Closing)));
    }

    /// A wish's deadline.
    pub(super) fn wish_due(&mut self, wish: usize) {
        if let Some(found) = self.dialling.wishes.get_mut(wish) {
            found.armed.fired();
            self.dialling.queue(wish);
        }
    }

    /// The system says that a datagram of ours could not be delivered: ICMP, as a rule. `quoted` is how the datagram began. It is believed for a QUIC
    /// handshake of ours, and only if what is quoted is ours: nobody else knows the connection ids in it, so nobody off the path can end dials.
    pub fn handle_undelivered(&mut self, now: Instant, remote: SocketAddr, quoted: &[u8], error: &DialError) {
        if !source_id(quoted).is_some_and(|id| self.quic.cids.made(id)) {
            return;
        }
        let at = |conn: &ConnId| {
            let slot = usize::try_from(conn.slot).ok()?;
            let state = self.conn(slot).filter(|state| state.id == *conn && matches!(state.phase, Phase::Dialling(_)))?;
            (slot % 2 == 0 && state.quic.remote() == remote).then_some(slot)
        };
        let slots: Vec<usize> = self.dialling.dials.keys().filter_map(at).collect();
        for slot in slots {
            self.end_conn(now, slot, Closed::Here("nothing is there"), error.clone());
            self.close_transport(now, slot, 0, "");
        }
    }
}

/// The source id of a long header, if that is what a datagram begins with and the id is as long as ours (RFC 8999 section 5.1).
fn source_id(datagram: &[u8]) -> Option<&[u8]> {
    let theirs = usize::from(*datagram.get(5)?);
    let length = theirs.checked_add(6)?;
    let from = length.checked_add(1)?;
    let long = *datagram.first()? & 0x80 != 0 && *datagram.get(length)? == 8;
    if long { datagram.get(from..from.checked_add(8)?) } else { None }
}
