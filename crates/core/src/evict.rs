//! Who has to go when every slot is taken and somebody new has proved an identity: one pure function, [`choose_victim`].
//!
//! The idea is Bitcoin Core's (`src/node/eviction.cpp`): protect some by each of several measures that one attacker cannot all fake at
//! once, and evict from what remains. What differs, and why each number is what it is: `docs/admission.md`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Nobody is displaced so soon after it was admitted: time for a slow link to ask for something.
pub const SETTLE: Duration = Duration::from_secs(2);
/// Who gave us what we had asked for within this time is not displaced at all.
pub const GAVE_FOR: Duration = Duration::from_secs(60);
/// Who was served within this time is not idle. Many honest peers ask rarely; an attacker can always ask often.
pub const USEFUL_FOR: Duration = Duration::from_secs(600);

/// Eighths of the slots that those being served can be sure of. The rest goes around whatever they do: otherwise squatters who ask for
/// something now and then could hold all.
const SURE_EIGHTHS: usize = 6;
/// Of these, one each for as many network groups as there is room for,
const GROUP_EIGHTHS: usize = 1;
/// for the shortest round trips,
const NEAR_EIGHTHS: usize = 1;
/// and for those served last. The rest is for those connected longest.
const RECENT_EIGHTHS: usize = 1;

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
        self.admitted >= SETTLE && self.gave.is_none_or(|ago| ago >= GAVE_FOR)
    }

    /// In how long its standing falls next, if nothing happens.
    fn falls_in(&self) -> Duration {
        let rest = |ago: Option<Duration>, whole: Duration| ago.map_or(Duration::ZERO, |ago| whole.saturating_sub(ago));
        match self.in_play() {
            true => rest(self.served, USEFUL_FOR),
            false => SETTLE.saturating_sub(self.admitted).max(rest(self.gave, GAVE_FOR)),
        }
    }
}

/// Which of `candidates`, who have all the slots that strangers can have now, gives its place to a newcomer. `None`: nobody, so the newcomer
/// has to go.
///
/// Costs O(n log n). Holds, whatever the candidates are (property tests below):
/// * nobody goes who is not [in play](Candidate::in_play);
/// * nobody goes who is being served while another is in play that is idle, nor one that is idle for one that never was of use;
/// * with up to six eighths of the candidates being served, none of these goes.
pub fn choose_victim(candidates: &[Candidate]) -> Option<usize> {
    let mut left: Vec<(usize, &Candidate)> = candidates.iter().enumerate().filter(|(_, one)| one.in_play()).collect();
    let idlest = left.iter().map(|(_, one)| one.idleness()).max()?;
    left.retain(|(_, one)| one.idleness() == idlest);
    if idlest == Idleness::Served {
        spare(&mut left, candidates.len());
    }
    let mut members: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, one) in &left {
        let count = members.entry(one.group).or_default();
        *count = count.saturating_add(1);
    }
    let size = |one: &Candidate| members.get(&one.group).copied().unwrap_or(0);
    // Of the largest group, who was idle the longest; of those being served, who has had the longest turn. The position decides between
    // equals, so that a run repeats.
    let waited = |one: &Candidate| match idlest {
        Idleness::Idle => one.served.or(one.gave).unwrap_or(one.admitted),
        Idleness::Served | Idleness::Never => one.admitted,
    };
    left.into_iter().max_by_key(|(at, one)| (size(one), waited(one), Reverse(*at))).map(|(at, _)| at)
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
    fn a_squatter_goes_before_all_others_and_first_who_had_the_longest_time_to_ask() {
        let table = [idle(500), served(90, 5), idle(40), idle(60), served(200, 100)];
        assert_eq!(choose_victim(&table), Some(0));
    }

    #[test]
    fn who_was_of_use_once_goes_after_who_never_was() {
        assert_eq!(choose_victim(&[served(900, 601), idle(9000)]), Some(1));
        assert_eq!(choose_victim(&[served(900, 599), served(900, 601)]), Some(1));
        assert_eq!(choose_victim(&[served(900, 601), served(800, 701), served(9000, 605)]), Some(1), "the idlest");
    }

    #[test]
    fn newcomers_have_their_time_and_who_gives_what_we_want_is_out_of_question() {
        assert_eq!(choose_victim(&[idle(1)]), None);
        assert_eq!(choose_victim(&[idle(2)]), Some(0));
        let giver = Candidate { gave: Some(SECOND * 59), ..idle(1000) };
        assert_eq!(choose_victim(&[giver]), None);
        assert_eq!(ask_again_in(&[giver]), SECOND);
        assert_eq!(ask_again_in(&[giver, idle(0), served(500, 30)]), SECOND);
    }

    #[test]
    fn among_equals_the_largest_group_gives_one() {
        let of = |admitted, group| Candidate { group, ..idle(admitted) };
        assert_eq!(choose_victim(&[of(90, 1), of(40, 2), of(50, 2), of(80, 3)]), Some(2));
    }

    #[test]
    fn beyond_those_who_are_sure_slots_go_around() {
        // Whoever comes is served, and nobody stays for ever but those who are sure.
        let mut table: Vec<Candidate> = (0..64).map(|at| served(1000 - at, 1)).collect();
        let mut turns = Vec::new();
        for _ in 0..160 {
            table.iter_mut().for_each(|one| one.admitted += SECOND);
            if let Some(at) = choose_victim(&table) {
                turns.push(table[at].admitted);
                table[at] = served(0, 1);
            }
        }
        let late = &turns[80..];
        assert!(late.iter().all(|turn| *turn >= SECOND * 12 && *turn <= SECOND * 20), "{late:?}");
    }

    #[test]
    fn squatters_who_keep_asking_cannot_hold_all() {
        let table: Vec<Candidate> = (0..64).map(|at| served(100 + at, 1)).collect();
        assert!(choose_victim(&table).is_some());
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
            while let Some(victim) = choose_victim(&left).filter(|_| left.len() > 57) {
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
        let ago = || proptest::option::of((0u32..1200).prop_map(|s| SECOND * s));
        (0u32..1800, ago(), ago(), 1u32..300, 0u64..6).prop_map(|(admitted, gave, served, rtt, group)| Candidate {
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
            let Some(victim) = choose_victim(&table) else {
                prop_assert!(in_play.len() == busy && busy <= slots * 6 / 8, "somebody could have gone");
                return Ok(());
            };
            let victim = &table[victim];
            prop_assert!(victim.in_play());
            prop_assert!(in_play.iter().all(|one| one.idleness() <= victim.idleness()));
            if victim.idleness() == Idleness::Served {
                prop_assert!(busy > slots * 6 / 8, "{} of {} are served, and one of them goes", busy, slots);
            }
        }

        #[test]
        fn it_is_worth_asking_again_no_sooner_than_told(table in proptest::collection::vec(any(), 1..40)) {
            let wait = ask_again_in(&table);
            if choose_victim(&table).is_none() && wait > Duration::ZERO {
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
