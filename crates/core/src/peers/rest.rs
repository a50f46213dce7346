//! How long who could not be reached is left alone: per address and per peer, doubled each time, and jittered, so that many nodes that lose the
//! same peer at once do not come back to it at once. For the same reason who was lost is not dialled again in the instant of the loss ([`Lost`]).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use libp2p_identity::PeerId;

use super::target::Way;
use crate::env::Random;
use crate::limits::{LOST_MAX, REDIAL_SPREAD, REST_FIRST, REST_MAX, RESTS_MAX};

/// What is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Of {
    /// An address, whoever is expected there.
    Address(Way, SocketAddr),
    /// A peer, whatever its addresses.
    Peer(PeerId),
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    failures: u32,
    until: Instant,
}

/// All that rest, at most [`RESTS_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Rests(BTreeMap<Of, Rest>);

impl Rests {
    /// Notes that somebody is there who had no room: the shortest wait, however often.
    pub(crate) fn refused(&mut self, now: Instant, of: Of, random: &mut Random) {
        self.reached(of);
        self.failed(now, of, random);
    }

    /// Notes a failure; the wait doubles with each in a row.
    pub(crate) fn failed(&mut self, now: Instant, of: Of, random: &mut Random) {
        if self.0.len() >= RESTS_MAX && !self.0.contains_key(&of) {
            // The one that is over first says the least.
            let first = self.0.iter().min_by_key(|(_, rest)| rest.until).map(|(of, _)| *of);
            first.map(|first| self.0.remove(&first));
        }
        let rest = self.0.entry(of).or_insert(Rest { failures: 0, until: now });
        // A failure long after the wait was over is a new matter.
        if now.saturating_duration_since(rest.until) > REST_MAX.saturating_mul(2) {
            rest.failures = 0;
        }
        let wait = REST_FIRST.saturating_mul(1u32.checked_shl(rest.failures).unwrap_or(u32::MAX)).min(REST_MAX);
        rest.failures = rest.failures.saturating_add(1);
        rest.until = now.checked_add(random.jitter(wait)).unwrap_or(now);
    }

    /// It was reached.
    pub(crate) fn reached(&mut self, of: Of) {
        self.0.remove(&of);
    }

    /// Nothing rests any more.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    /// Until when it rests, if it failed the last time; that may be over.
    pub(crate) fn until(&self, of: Of) -> Option<Instant> {
        self.0.get(&of).map(|rest| rest.until)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Peers whose connection was lost a moment ago, at most [`LOST_MAX`]: each has a time within [`REDIAL_SPREAD`] of that before which it is not dialled,
/// one for all who want it back.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    until: BTreeMap<PeerId, Instant>,
    /// In the order of their losses, with when that of each is over at the latest.
    order: VecDeque<(Instant, PeerId)>,
}

impl Lost {
    /// Notes that the last connection to `peer` was lost. Costs O(log n).
    pub(crate) fn note(&mut self, now: Instant, peer: PeerId, random: &mut Random) {
        self.forget_over(now, LOST_MAX.saturating_sub(1));
        if let (Some(until), Some(over)) = (now.checked_add(random.below(REDIAL_SPREAD)), now.checked_add(REDIAL_SPREAD)) {
            self.until.insert(peer, until);
            self.order.push_back((over, peer));
        }
    }

    /// Forgets those whose time is over, and the first until `most` are left.
    pub(crate) fn forget_over(&mut self, now: Instant, most: usize) {
        while let Some((over, first)) = self.order.front().copied()
            && (over <= now || self.order.len() > most)
        {
            self.order.pop_front();
            // It may have been lost again since.
            if self.until.get(&first).is_some_and(|until| *until <= over) {
                self.until.remove(&first);
            }
        }
    }

    /// When the time of the first is over.
    pub(crate) fn over(&self) -> Option<Instant> {
        self.order.front().map(|(over, _)| *over)
    }

    /// Until when it is not dialled; that may be over.
    pub(crate) fn until(&self, peer: &PeerId) -> Option<Instant> {
        self.until.get(peer).copied()
    }

    /// All may be dialled at once.
    pub(crate) fn forget(&mut self) {
        self.until.clear();
        self.order.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The longest that anything rests, its jitter included.
    fn longest() -> Duration {
        REST_MAX * 5 / 4
    }

    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn address(n: u16) -> Of {
        Of::Address(Way::Quic, SocketAddr::from(([9, 0, 0, 1], n)))
    }

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_success() {
        let (mut rests, mut random, mut now) = (Rests::default(), Random::new([1; 32]), start());
        let mut before = Duration::ZERO;
        for _ in 0..12 {
            rests.failed(now, address(1), &mut random);
            let wait = rests.until(address(1)).expect("it rests") - now;
            assert!(wait > before || wait > REST_MAX / 2, "{wait:?} after {before:?}");
            assert!(wait <= longest(), "{wait:?}");
            before = wait;
            now += wait;
        }
        assert!(before > REST_MAX / 2);
        assert_eq!(rests.until(address(2)), None, "others are not concerned");
        rests.reached(address(1));
        rests.failed(now, address(1), &mut random);
        assert!(rests.until(address(1)).expect("it rests") - now < REST_FIRST * 2, "it begins anew");
        for _ in 0..12 {
            rests.refused(now, address(1), &mut random);
            assert!(rests.until(address(1)).expect("it rests") - now < REST_FIRST * 2, "whoever refuses is there");
        }
    }

    /// Nodes that fail together come back spread over half of the wait: the circular mean of their times is near 0, where 1 is in step.
    #[test]
    fn those_who_fail_together_do_not_come_back_together() {
        let begin = start();
        for failures in 1..8u32 {
            let times: Vec<f64> = (0..200u8)
                .map(|node| {
                    let (mut rests, mut random, mut now) = (Rests::default(), Random::new([node; 32]), begin);
                    for _ in 0..failures {
                        rests.failed(now, address(1), &mut random);
                        now = rests.until(address(1)).expect("it rests");
                    }
                    (now - begin).as_secs_f64()
                })
                .collect();
            let last = REST_FIRST.saturating_mul(1 << (failures - 1)).min(REST_MAX).as_secs_f64();
            // A jitter of a quarter each way spreads one wait over half of its length: one turn of the circle.
            let angle = |time: &f64| time / (last / 2.0) * std::f64::consts::TAU;
            let (x, y) = times.iter().fold((0.0, 0.0), |(x, y), time| (x + angle(time).cos(), y + angle(time).sin()));
            let order = (x * x + y * y).sqrt() / 200.0;
            assert!(order < 0.25, "after {failures} failures: {order}");
        }
    }

    fn peer(n: u16) -> PeerId {
        let mut secret = [7; 32];
        secret[..2].copy_from_slice(&n.to_le_bytes());
        libp2p_identity::Keypair::ed25519_from_bytes(secret).expect("32 bytes are a key").public().to_peer_id()
    }

    #[test]
    fn who_is_lost_is_dialled_within_the_spread_and_not_by_all_at_once() {
        let (now, lost) = (start(), peer(0));
        let waits: Vec<Duration> = (0..200u8)
            .map(|node| {
                let (mut losses, mut random) = (Lost::default(), Random::new([node; 32]));
                losses.note(now, lost, &mut random);
                losses.until(&lost).expect("it was lost") - now
            })
            .collect();
        assert!(waits.iter().all(|wait| *wait < REDIAL_SPREAD));
        for quarter in 0..4 {
            let within = |wait: &&Duration| (REDIAL_SPREAD * quarter / 4..REDIAL_SPREAD * (quarter + 1) / 4).contains(*wait);
            let count = waits.iter().filter(within).count();
            assert!((25..75).contains(&count), "{count} of 200 in quarter {quarter}");
        }
    }

    #[test]
    fn losses_are_bounded_and_forgotten_when_they_are_over() {
        let (mut losses, mut random, now) = (Lost::default(), Random::new([1; 32]), start());
        for n in 0..=(LOST_MAX as u16) {
            losses.note(now, peer(n), &mut random);
        }
        assert_eq!(losses.len(), LOST_MAX);
        assert_eq!(losses.until(&peer(0)), None, "the first makes room for the last");
        // Lost again meanwhile: the end of the first loss is not that of the second.
        let again = now + REDIAL_SPREAD - Duration::from_millis(1);
        losses.note(again, peer(1), &mut random);
        let until = losses.until(&peer(1));
        losses.note(now + REDIAL_SPREAD, peer(2), &mut random);
        assert_eq!(losses.len(), 2);
        assert!(until.is_some_and(|until| until > now + REDIAL_SPREAD), "or another seed is needed: {until:?}");
        assert_eq!(losses.until(&peer(1)), until);
        assert_eq!(losses.until(&peer(3)), None);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_what_is_over_first() {
        let (mut rests, mut random, now) = (Rests::default(), Random::new([1; 32]), start());
        for _ in 0..5 {
            rests.failed(now, address(0), &mut random);
        }
        for n in 1..=(RESTS_MAX as u16 + 50) {
            rests.failed(now, address(n), &mut random);
        }
        assert_eq!(rests.len(), RESTS_MAX);
        assert!(rests.until(address(0)).is_some(), "the longest wait stays");
    }
}
