//! Deficit round robin: peers are served in turns (Shreedhar and Varghese, 1995), those first who have not had theirs in this round.
//!
//! Each member has a deficit in work units. A round gives it one quantum; it may then be served until its deficit is used up. What a
//! member overdraws is carried over, so that one expensive step is paid back in later rounds.
//!
//! A member with nothing to do keeps its place in the ring, and what is left of its quantum, until its place comes up; then it leaves
//! and loses the rest: being idle earns no burst. Who gets work while some of its quantum is left is served before the ring goes on, as
//! is who was not in the ring at all. So a modest member waits for the one visit that is under way and for others like itself, not
//! for a whole round of greedy ones; and nobody gets more than a quantum a round by it (compare the new queues of RFC 8290 section 4.2).

use std::collections::VecDeque;

/// A ring of members, named by small numbers (slab indices).
#[derive(Debug)]
pub struct Turns {
    ring: VecDeque<usize>,
    /// Members with work and something left of this round's quantum, served before the ring. Each is in the ring, too.
    early: VecDeque<usize>,
    members: Vec<Member>,
    quantum: i64,
    /// How many members have work.
    working: usize,
    /// Who was returned last and has not been charged. Cleared when it is removed meanwhile.
    serving: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Member {
    deficit: i64,
    /// It has a place in the ring.
    placed: bool,
    works: bool,
    early: bool,
}

impl Turns {
    /// A ring that gives each member `quantum` work units a round (at least one).
    pub fn new(quantum: u32) -> Turns {
        Turns {
            ring: VecDeque::new(),
            early: VecDeque::new(),
            members: Vec::new(),
            quantum: i64::from(quantum.max(1)),
            working: 0,
            serving: None,
        }
    }

    /// Says that `id` has work. Does nothing when that is known already.
    pub fn activate(&mut self, id: usize) {
        if id >= self.members.len() {
            self.members.resize(id.saturating_add(1), Member::default());
        }
        let Some(member) = self.members.get_mut(id).filter(|member| !member.works) else {
            return;
        };
        member.works = true;
        self.working = self.working.saturating_add(1);
        if !std::mem::replace(&mut member.placed, true) {
            if member.deficit == 0 {
                member.deficit = self.quantum;
            }
            self.ring.push_back(id);
        }
        if member.deficit > 0 {
            member.early = true;
            self.early.push_back(id);
        }
    }

    /// Forgets `id`, with its debt: its number will be used by another.
    pub fn remove(&mut self, id: usize) {
        if self.serving == Some(id) {
            self.serving = None;
        }
        if let Some(member) = self.members.get_mut(id) {
            if member.placed {
                self.ring.retain(|placed| *placed != id);
            }
            if member.early {
                self.early.retain(|early| *early != id);
            }
            self.working = self.working.saturating_sub(usize::from(member.works));
            *member = Member::default();
        }
    }

    /// Whether nobody has work.
    pub fn is_idle(&self) -> bool {
        self.working == 0
    }

    /// The next member to serve and the work it may cost now. [`served`](Self::served) must follow.
    ///
    /// Members still in debt are passed over and paid one quantum for it, which ends: each pass pays.
    pub fn pick(&mut self) -> Option<(usize, i64)> {
        if let Some(id) = self.early.pop_front() {
            let member = self.members.get_mut(id)?;
            member.early = false;
            self.serving = Some(id);
            return Some((id, member.deficit));
        }
        loop {
            let id = self.ring.pop_front()?;
            let member = self.members.get_mut(id)?;
            if !member.works {
                member.placed = false;
                // Debt stays: leaving the ring must not be a way out of it.
                member.deficit = member.deficit.min(0);
                continue;
            }
            member.deficit = member.deficit.saturating_add(self.quantum).min(self.quantum);
            self.ring.push_back(id);
            if member.deficit > 0 {
                self.serving = Some(id);
                return Some((id, member.deficit));
            }
        }
    }

    /// Charges `cost` to the member that was last returned, and notes whether it has `more` to do. Does nothing
    /// when it was removed during its visit: who has its number next owes nothing.
    pub fn served(&mut self, id: usize, cost: u64, more: bool) {
        if self.serving.take() != Some(id) {
            return;
        }
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        // A visit that cost nothing is still a visit, or the ring might never go on.
        let cost = i64::try_from(cost).unwrap_or(i64::MAX).max(1);
        member.deficit = member.deficit.saturating_sub(cost);
        if !more {
            member.works = false;
            self.working = self.working.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greedy_and_the_modest_get_the_same_share() {
        let mut turns = Turns::new(100);
        turns.activate(0);
        turns.activate(1);
        let mut work = [0u64; 2];
        for _ in 0..1000 {
            let (id, may) = turns.pick().expect("both have work");
            // Member 0 always overdraws by a factor of ten, member 1 never does.
            let cost = if id == 0 { 1000 } else { may as u64 };
            work[id] += cost;
            turns.served(id, cost, true);
        }
        let ratio = work[0] as f64 / work[1] as f64;
        assert!((0.9..1.2).contains(&ratio), "{work:?}");
    }

    #[test]
    fn idle_members_save_nothing_and_keep_their_debt() {
        let mut turns = Turns::new(10);
        turns.activate(3);
        assert_eq!(turns.pick(), Some((3, 10)));
        turns.served(3, 4, false);
        turns.activate(3);
        assert_eq!(turns.pick(), Some((3, 6)), "what is left of this round");
        turns.served(3, 0, false);
        assert_eq!(turns.pick(), None, "the round is over");
        turns.activate(3);
        assert_eq!(turns.pick(), Some((3, 10)), "no savings");
        turns.served(3, 35, false);
        turns.activate(3);
        turns.activate(4);
        assert_eq!(turns.pick().map(|(id, _)| id), Some(4), "3 is 25 in debt");
    }

    #[test]
    fn the_modest_do_not_wait_for_a_round_of_the_greedy() {
        let mut turns = Turns::new(100);
        (0..50).for_each(|id| turns.activate(id));
        for _ in 0..120 {
            let (id, may) = turns.pick().expect("the greedy have work");
            turns.served(id, may as u64, true);
        }
        // A request comes, and in the same round its reply: both before the greedy, as long as a quantum lasts.
        for cost in [60, 60] {
            turns.activate(99);
            assert_eq!(turns.pick().map(|(id, _)| id), Some(99));
            turns.served(99, cost, false);
        }
        turns.activate(99);
        let before = std::iter::from_fn(|| {
            let (id, may) = turns.pick()?;
            turns.served(id, may as u64, true);
            (id != 99).then_some(id)
        });
        assert_eq!(before.count(), 50, "what is beyond the quantum waits for the next round");
    }

    #[test]
    fn coming_and_going_earns_no_more_than_staying() {
        let mut turns = Turns::new(100);
        turns.activate(0);
        turns.activate(1);
        let mut work = [0u64; 2];
        for _ in 0..1000 {
            turns.activate(1);
            let (id, may) = turns.pick().expect("both have work");
            // Member 1 says each time that it is done, and comes back at once.
            let cost = (may as u64).min(if id == 1 { 7 } else { 100 });
            work[id] += cost;
            turns.served(id, cost, id == 0);
        }
        assert!(work[1] <= work[0] + 100, "{work:?}");
    }

    #[test]
    fn a_removed_member_leaves_no_debt_to_the_next_owner_of_its_number() {
        let mut turns = Turns::new(10);
        turns.activate(0);
        let _ = turns.pick();
        turns.served(0, 1_000_000, true);
        turns.remove(0);
        turns.activate(0);
        assert_eq!(turns.pick(), Some((0, 10)));
    }

    #[test]
    fn a_member_that_is_removed_during_its_visit_leaves_nothing_behind() {
        let mut turns = Turns::new(10);
        turns.activate(0);
        let _ = turns.pick();
        turns.remove(0);
        turns.served(0, 1_000_000, true);
        assert!(turns.is_idle());
        turns.activate(0);
        assert_eq!(turns.pick(), Some((0, 10)));
    }
}
