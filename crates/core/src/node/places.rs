//! Places of handshakes: who has them, and who gives one up when all are taken and one more comes. Why it is so: `docs/admission.md`.
//!
//! Nothing is known of strangers but how they go about their handshake. Somebody who means it says the next thing a round trip after the last, and
//! is through after a few; who holds a place for its own sake gains nothing by going on. So who was silent longest goes first, nobody who goes on
//! is displaced in the first seconds, and going on for ever does not help.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Node;
use super::admission::CODE_DISPLACED;
use super::state::ConnState;
use crate::abuse::Offence;
use crate::conn::transport::Transport;
use crate::env::Random;
use crate::error::{Closed, DialError};
use crate::evict::network_group;
use crate::limits::{HANDSHAKE_MOVES, HANDSHAKE_SILENT, HANDSHAKE_SILENT_OTHERS, HANDSHAKE_SIMILAR};
use crate::proto::pace::deadline;

/// Who has the places.
#[derive(Default)]
pub(super) struct Places {
    /// By slot: for how long each may be silent. They differ, or those that were taken together would be free together, for whoever knocks most often.
    slots: BTreeMap<usize, Duration>,
    /// Nobody can be displaced before that, as the last look for a newcomer of this kind has shown: who goes on meanwhile can only be so later.
    none_before: BTreeMap<Newcomer, Instant>,
}

/// What it depends on who may be displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Newcomer {
    /// It comes over a pipe, and not over QUIC.
    pipe: bool,
    /// Those who come over the same have less than a quarter of the places.
    few: bool,
}

/// Whether a slot is of a pipe: see [`super::pipes::Pipes`].
fn is_pipe(slot: usize) -> bool {
    slot % 2 == 1
}

impl Places {
    pub(super) fn taken(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn take(&mut self, slot: usize, random: &mut Random) {
        self.slots.insert(slot, random.jitter(HANDSHAKE_SILENT));
        // It may be the first that can be displaced, if it draws less than the others.
        self.none_before.clear();
    }

    fn newcomer(&self, pipe: bool, max: u32) -> Newcomer {
        let own = self.slots.keys().filter(|slot| is_pipe(**slot) == pipe).count();
        Newcomer { pipe, few: u32::try_from(own).unwrap_or(u32::MAX) < max / 4 }
    }

    pub(super) fn free(&mut self, slot: usize) {
        self.slots.remove(&slot);
    }
}

/// A handshake under way, as far as the rule looks at it.
#[derive(Debug, Clone, Copy)]
struct Greeting {
    slot: usize,
    /// When it last went on. What it did later than [`HANDSHAKE_MOVES`] after its beginning does not count.
    moved: Instant,
    /// For how long it may be silent.
    may: Duration,
    group: [u8; 5],
}

impl Greeting {
    fn of(now: Instant, slot: usize, may: Duration, conn: &ConnState) -> Greeting {
        // What has come and was not looked at yet is no silence: it is this node that is slow.
        let heard = if conn.inbox.is_empty() { conn.heard } else { now };
        let moved = heard.min(deadline(conn.since, HANDSHAKE_MOVES));
        Greeting { slot, moved, may, group: network_group(conn.quic.remote().ip()) }
    }

    fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.moved)
    }

    /// When it can be displaced if it does not go on.
    fn falls(&self) -> Instant {
        deadline(self.moved, self.may)
    }
}

/// Who gives up its place: of those silent for about [`HANDSHAKE_SILENT`] the one silent longest; of those silent for about as long, one of the largest
/// network group. `Err`: nobody does before then.
///
/// Costs O(n log n) in the places.
fn choose(now: Instant, all: &[Greeting]) -> Result<usize, Option<Instant>> {
    let in_play = |one: &&Greeting| one.falls() <= now;
    let Some(longest) = all.iter().filter(in_play).map(|one| one.silent(now)).max() else {
        return Err(all.iter().map(Greeting::falls).min());
    };
    let similar = |one: &&Greeting| one.silent(now).saturating_add(HANDSHAKE_SIMILAR) >= longest;
    let similar: Vec<&Greeting> = all.iter().filter(in_play).filter(similar).collect();
    let mut members: BTreeMap<[u8; 5], usize> = BTreeMap::new();
    for one in &similar {
        let count = members.entry(one.group).or_default();
        *count = count.saturating_add(1);
    }
    let size = |one: &Greeting| members.get(&one.group).copied().unwrap_or(0);
    // The slot decides between equals, so that a run repeats.
    let first = similar.into_iter().max_by_key(|one| (size(one), one.silent(now), Reverse(one.slot)));
    first.map(|one| one.slot).ok_or(None)
}

impl Node {
    /// Whether there is a place for one more handshake, over a `pipe` or over QUIC, if need be somebody else's, who is gone then. The newcomer has to
    /// have shown that its address receives what is sent to it, or the forged could displace the silent.
    pub(super) fn find_place(&mut self, now: Instant, pipe: bool) -> bool {
        let max = self.config.limits.handshakes_max;
        if self.places.taken() < max {
            return true;
        }
        let newcomer = self.places.newcomer(pipe, max);
        // Nobody goes for somebody who would be refused all the same.
        let refused = self.closing || self.is_shut(now) || self.live > self.greetings_end();
        if refused || self.places.none_before.get(&newcomer).is_some_and(|until| now < *until) {
            return false;
        }
        let of = |(slot, may): (&usize, &Duration)| {
            let may = if newcomer.few && is_pipe(*slot) != pipe { HANDSHAKE_SILENT_OTHERS } else { *may };
            self.conn(*slot).map(|conn| Greeting::of(now, *slot, may, conn))
        };
        let all: Vec<Greeting> = self.places.slots.iter().filter_map(of).collect();
        match choose(now, &all) {
            Ok(slot) => {
                self.displace_greeting(now, slot);
                true
            }
            Err(until) => {
                self.places.none_before.extend(until.map(|until| (newcomer, until)));
                false
            }
        }
    }

    /// Ends a handshake, and keeps nothing of it, not even for saying goodbye: places of those would add up.
    fn displace_greeting(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conn(slot) else {
            return;
        };
        let (remote, proved) = (conn.quic.remote().ip(), conn.proved);
        let bytes = usize::try_from(conn.wire_in).unwrap_or(usize::MAX);
        self.accuse_address(now, remote, proved, Offence::HandshakeStalled, bytes);
        self.counters.totals.displaced_handshakes = self.counters.totals.displaced_handshakes.saturating_add(1);
        self.end_conn(now, slot, Closed::Here("a newcomer needed its place"), DialError::Closing);
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        conn.quic.close(now, CODE_DISPLACED, "displaced: the handshake stood still and its place was needed");
        match &mut conn.quic {
            Transport::Quic(quic) => {
                let mut buffer = Vec::new();
                let told = quic.poll_transmit(now, conn.socket, 1, &mut buffer);
                self.quic.forget(quic);
                if let Some(transmit) = told {
                    self.answer(transmit, buffer);
                }
            }
            Transport::Pipe(pipe) => {
                pipe.piped.abandon();
                self.settle_pipe(slot);
            }
        }
        self.remove_conn(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Silent for so many milliseconds, in these networks, at `now`.
    fn greetings(now: Instant, all: &[(u32, u8)]) -> Vec<Greeting> {
        let one = |(slot, (silent, group)): (usize, &(u32, u8))| Greeting {
            slot,
            moved: now.checked_sub(MS * *silent).expect("later than the first of all instants"),
            may: HANDSHAKE_SILENT,
            group: [4, *group, 0, 0, 0],
        };
        all.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_one_silent_longest_goes_and_nobody_who_goes_on() {
        let now = start() + 60_000 * MS;
        assert_eq!(choose(now, &greetings(now, &[(999, 1), (2_000, 2), (1_500, 3), (0, 4)])), Ok(1));
        let all = greetings(now, &[(999, 1), (400, 1), (0, 1)]);
        assert_eq!(choose(now, &all), Err(Some(now + MS)), "and it is known when somebody can");
        assert_eq!(choose(now, &[]), Err(None));
    }

    #[test]
    fn the_network_decides_between_those_about_as_silent_and_no_others() {
        let now = start() + 60_000 * MS;
        assert_eq!(choose(now, &greetings(now, &[(2_000, 1), (1_900, 2), (1_800, 2)])), Ok(1), "two of one network");
        assert_eq!(choose(now, &greetings(now, &[(2_000, 1), (1_700, 2), (1_700, 2)])), Ok(0), "not so many as to matter");
        assert_eq!(choose(now, &greetings(now, &[(1_200, 1), (900, 2), (900, 2), (0, 2)])), Ok(0), "nor those who go on");
    }
}
