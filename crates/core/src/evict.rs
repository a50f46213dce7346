//! Who has to go when every slot is taken and somebody new has proved an identity: one pure function, [`choose_victim`].
//!
//! The idea is Bitcoin Core's (`src/node/eviction.cpp`): protect some by each of several measures that one attacker cannot all fake at
//! once, and evict from what remains. What differs, and why each number is what it is: `docs/admission.md`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Nobody is displaced so soon after it was admitted: time for a slow link to ask for something, and the bound on churn, since a slot
/// changes hands at most once in this time.
pub const SETTLE: Duration = Duration::from_secs(10);
/// Who was of use, or was served, within this time is not idle.
pub const USEFUL_FOR: Duration = Duration::from_secs(60);

/// Eighths of the slots that those being served can be sure of. The last stays in play whatever they do: otherwise squatters who ask
/// for something once a minute could hold all.
const SURE_EIGHTHS: usize = 7;
/// Of these, one each for as many network groups as there is room for,
const GROUP_EIGHTHS: usize = 1;
/// for the shortest round trips,
const NEAR_EIGHTHS: usize = 1;
/// and for those served last. The rest is for those connected longest.
const RECENT_EIGHTHS: usize = 2;

const _: () = assert!(GROUP_EIGHTHS + NEAR_EIGHTHS + RECENT_EIGHTHS < SURE_EIGHTHS && SURE_EIGHTHS < 8);

/// A connection that may be displaced: inbound, and not protected by the application. Times are ages: how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// When its handshake was complete.
    pub admitted: Duration,
    /// When it last gave us something that we had asked for.
    pub gave: Option<Duration>,
    /// When it was last served something that it had asked for.
    pub served: Option<Duration>,
    /// Its round-trip time.
    pub rtt: Duration,
    /// A keyed hash of its network, see [`network_group`]: nobody outside knows which groups are preferred.
    pub group: u64,
}

/// How idle, the idlest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idleness {
    /// Served within [`USEFUL_FOR`].
    Served,
    /// Longer ago.
    Idle,
    /// Nothing was ever exchanged with it: a squatter, or somebody who does not know yet what to ask.
    Never,
}

impl Candidate {
    /// How idle it is.
    pub fn idleness(&self) -> Idleness {
        match (self.served, self.gave) {
            (None, None) => Idleness::Never,
            (Some(ago), _) if ago < USEFUL_FOR => Idleness::Served,
            _ => Idleness::Idle,
        }
    }

    /// Whether it may be displaced at all now: it had its time to settle, and it did not just give us what we wanted.
    pub fn in_play(&self) -> bool {
        self.admitted >= SETTLE && self.gave.is_none_or(|ago| ago >= USEFUL_FOR)
    }

    /// In how long its standing falls next, if nothing happens.
    fn falls_in(&self) -> Duration {
        let rest = |ago: Option<Duration>| ago.map_or(Duration::ZERO, |ago| USEFUL_FOR.saturating_sub(ago));
        match self.in_play() {
            true => rest(self.served),
            false => SETTLE.saturating_sub(self.admitted).max(rest(self.gave)),
        }
    }
}

/// Which of `candidates` gives its place to a newcomer, where there are `slots` in all. `None`: nobody, so the newcomer has to go.
///
/// Costs O(n log n). Holds, whatever the candidates are (property tests below):
/// * nobody goes who is not [in play](Candidate::in_play);
/// * nobody goes who is being served while another is in play that is idle, nor one that is idle for one that never was of use;
/// * with up to seven eighths of the slots being served, none of these goes.
pub fn choose_victim(candidates: &[Candidate], slots: usize) -> Option<usize> {
    let mut left: Vec<(usize, &Candidate)> = candidates.iter().enumerate().filter(|(_, one)| one.in_play()).collect();
    let idlest = left.iter().map(|(_, one)| one.idleness()).max()?;
    left.retain(|(_, one)| one.idleness() == idlest);
    if idlest == Idleness::Served {
        spare(&mut left, slots);
    }
    let mut members: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, one) in &left {
        let count = members.entry(one.group).or_default();
        *count = count.saturating_add(1);
    }
    let size = |one: &Candidate| members.get(&one.group).copied().unwrap_or(0);
    // The youngest of the largest group. The position decides between equals, so that a run repeats.
    left.into_iter().min_by_key(|(at, one)| (Reverse(size(one)), one.admitted, *at)).map(|(at, _)| at)
}

/// In how long it is worth asking again, when nobody could be displaced.
pub fn ask_again_in(candidates: &[Candidate]) -> Duration {
    candidates.iter().map(Candidate::falls_in).min().unwrap_or(SETTLE)
}

/// Takes those out who are sure of their place, by one measure after the other.
fn spare(left: &mut Vec<(usize, &Candidate)>, slots: usize) {
    let eighths = |count: usize| slots.saturating_mul(count) / 8;
    let before = left.len();
    // The oldest of each group to the front, and of these the groups whose hash is the smallest.
    left.sort_by_key(|(_, one)| (one.group, Reverse(one.admitted)));
    let mut last = None;
    let mut groups = eighths(GROUP_EIGHTHS);
    left.retain(|(_, one)| {
        let first = last.replace(one.group) != Some(one.group);
        let spared = first && groups > 0;
        groups = groups.saturating_sub(usize::from(spared));
        !spared
    });
    left.sort_by_key(|(_, one)| one.rtt);
    left.drain(..eighths(NEAR_EIGHTHS).min(left.len()));
    left.sort_by_key(|(_, one)| one.served);
    left.drain(..eighths(RECENT_EIGHTHS).min(left.len()));
    let spared = before.saturating_sub(left.len());
    left.sort_by_key(|(_, one)| Reverse(one.admitted));
    left.drain(..eighths(SURE_EIGHTHS).saturating_sub(spared).min(left.len()));
}

/// The part of an address that costs an attacker something to vary, as Bitcoin Core draws it: IPv4 /16, IPv6 /32.
pub fn network_group(address: IpAddr) -> [u8; 5] {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            [4, a, b, 0, 0]
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.octets();
            [6, a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn idle(admitted: u32) -> Candidate {
        Candidate { admitted: SECOND * admitted, gave: None, served: None, rtt: SECOND / 20, group: 1 }
    }

    fn served(admitted: u32, ago: u32) -> Candidate {
        Candidate { served: Some(SECOND * ago), ..idle(admitted) }
    }

    #[test]
    fn a_squatter_goes_before_all_others_and_the_youngest_first() {
        let table = [idle(500), served(90, 5), idle(40), idle(60), served(200, 100)];
        assert_eq!(choose_victim(&table, 5), Some(2));
    }

    #[test]
    fn who_was_of_use_once_goes_after_who_never_was() {
        assert_eq!(choose_victim(&[served(20, 61), idle(9000)], 2), Some(1));
        assert_eq!(choose_victim(&[served(90, 61), served(90, 59)], 2), Some(0));
    }

    #[test]
    fn newcomers_have_their_time_and_who_gives_what_we_want_is_out_of_question() {
        assert_eq!(choose_victim(&[idle(9)], 1), None);
        assert_eq!(choose_victim(&[idle(10)], 1), Some(0));
        let giver = Candidate { gave: Some(SECOND * 59), ..idle(1000) };
        assert_eq!(choose_victim(&[giver], 1), None);
        assert_eq!(ask_again_in(&[giver]), SECOND);
        assert_eq!(ask_again_in(&[giver, idle(8), served(500, 30)]), SECOND);
    }

    #[test]
    fn among_equals_the_largest_group_gives_its_youngest() {
        let of = |admitted, group| Candidate { group, ..idle(admitted) };
        assert_eq!(choose_victim(&[of(20, 1), of(50, 2), of(40, 2), of(30, 3)], 4), Some(2));
    }

    #[test]
    fn squatters_who_keep_asking_cannot_hold_all() {
        let table: Vec<Candidate> = (0..64).map(|at| served(100 + at, 1)).collect();
        assert!(choose_victim(&table, 64).is_some());
    }

    #[test]
    fn each_measure_spares_somebody() {
        // 64 who are served, all alike but for one each that is the best by a single measure: none of these goes, however often it is asked.
        let mut table: Vec<Candidate> = (0..64).map(|_| served(100, 30)).collect();
        table[10].admitted = SECOND * 5000;
        table[20].rtt = SECOND / 1000;
        table[30].served = Some(SECOND);
        table[40].group = 99;
        for special in [10, 20, 30, 40] {
            let mut left = table.clone();
            while let Some(victim) = choose_victim(&left, 64).filter(|_| left.len() > 57) {
                assert_ne!(left[victim], table[special], "{special}");
                left.remove(victim);
            }
        }
    }

    #[test]
    fn groups_are_of_networks() {
        let group = |text: &str| network_group(text.parse().expect("an address"));
        assert_eq!(group("192.0.2.1"), group("192.0.77.1"));
        assert_ne!(group("192.0.2.1"), group("192.1.2.1"));
        assert_eq!(group("::ffff:192.0.2.1"), group("192.0.2.1"), "IPv4 in IPv6 is IPv4");
        assert_eq!(group("2001:db8::1"), group("2001:db8:ffff::1"));
        assert_ne!(group("2001:db8::1"), group("2001:db9::1"));
    }

    fn any() -> impl Strategy<Value = Candidate> {
        let ago = || proptest::option::of((0u32..200).prop_map(|s| SECOND * s));
        (0u32..300, ago(), ago(), 1u32..300, 0u64..6).prop_map(|(admitted, gave, served, rtt, group)| Candidate {
            admitted: SECOND * admitted,
            gave,
            served,
            rtt: Duration::from_millis(rtt.into()),
            group,
        })
    }

    proptest! {
        #[test]
        fn the_promises_hold_for_any_table(table in proptest::collection::vec(any(), 0..80)) {
            let slots = table.len();
            let in_play: Vec<&Candidate> = table.iter().filter(|one| one.in_play()).collect();
            let busy = in_play.iter().filter(|one| one.idleness() == Idleness::Served).count();
            let Some(victim) = choose_victim(&table, slots) else {
                prop_assert!(in_play.len() == busy && busy <= slots * 7 / 8, "somebody could have gone");
                return Ok(());
            };
            let victim = &table[victim];
            prop_assert!(victim.in_play());
            prop_assert!(in_play.iter().all(|one| one.idleness() <= victim.idleness()));
            if victim.idleness() == Idleness::Served {
                prop_assert!(busy > slots * 7 / 8, "{} of {} are served, and one of them goes", busy, slots);
            }
        }

        #[test]
        fn it_is_worth_asking_again_no_sooner_than_told(table in proptest::collection::vec(any(), 1..40)) {
            let wait = ask_again_in(&table);
            if choose_victim(&table, table.len()).is_none() && wait > Duration::ZERO {
                let later = |one: &Candidate| {
                    let more = |ago: Duration| ago + wait - Duration::from_millis(1);
                    Candidate { admitted: more(one.admitted), gave: one.gave.map(more), served: one.served.map(more), ..*one }
                };
                let idler: Vec<Candidate> = table.iter().map(later).collect();
                let fell = idler.iter().zip(&table).any(|(new, old)| new.in_play() && new.idleness() != Idleness::Served && !old.in_play());
                prop_assert!(!fell, "somebody became idle before that");
            }
        }
    }
}
