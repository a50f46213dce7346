//! Deficit round robin: peers are served in turns (Shreedhar and Varghese, 1995).
//!
//! Each member has a deficit in work units. A visit adds one quantum; the member may then be served until its
//! deficit is used up. What a member overdraws is carried over, so that one expensive step is paid back in later rounds. A member
//! with nothing to do leaves the ring and loses what it saved: being idle earns no burst.

use std::collections::VecDeque;

/// A ring of members, named by small numbers (slab indices).
#[derive(Debug)]
pub struct Turns {
    ring: VecDeque<usize>,
    members: Vec<Member>,
    quantum: i64,
    /// Who was returned last and has not been charged. Cleared when it is removed meanwhile.
    serving: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Member {
    deficit: i64,
    queued: bool,
}

impl Turns {
    /// A ring that gives each visit `quantum` work units (at least one).
    pub fn new(quantum: u32) -> Turns {
        Turns { ring: VecDeque::new(), members: Vec::new(), quantum: i64::from(quantum.max(1)), serving: None }
    }

    /// Says that `id` has work. Does nothing when it is in the ring already.
    pub fn activate(&mut self, id: usize) {
        if id >= self.members.len() {
            self.members.resize(id.saturating_add(1), Member::default());
        }
        if let Some(member) = self.members.get_mut(id)
            && !member.queued
        {
            member.queued = true;
            self.ring.push_back(id);
        }
    }

    /// Forgets `id`, with its debt: its number will be used by another.
    pub fn remove(&mut self, id: usize) {
        if self.serving == Some(id) {
            self.serving = None;
        }
        if let Some(member) = self.members.get_mut(id) {
            if member.queued {
                self.ring.retain(|queued| *queued != id);
            }
            *member = Member::default();
        }
    }

    /// Whether nobody has work.
    pub fn is_idle(&self) -> bool {
        self.ring.is_empty()
    }

    /// The next member to serve and the work it may cost now. [`served`](Self::served) must follow.
    ///
    /// Members still in debt are passed over and paid one quantum for it, which ends: each pass pays.
    pub fn pick(&mut self) -> Option<(usize, i64)> {
        loop {
            let id = self.ring.pop_front()?;
            let member = self.members.get_mut(id)?;
            member.deficit = member.deficit.saturating_add(self.quantum).min(self.quantum);
            if member.deficit > 0 {
                self.serving = Some(id);
                return Some((id, member.deficit));
            }
            self.ring.push_back(id);
        }
    }

    /// Charges `cost` to the member that was last returned and puts it at the end of the ring if it has `more` to do. Does nothing
    /// when it was removed during its visit: who has its number next owes nothing.
    pub fn served(&mut self, id: usize, cost: u64, more: bool) {
        if self.serving.take() != Some(id) {
            return;
        }
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let cost = i64::try_from(cost).unwrap_or(i64::MAX);
        member.deficit = member.deficit.saturating_sub(cost);
        if more {
            self.ring.push_back(id);
        } else {
            member.queued = false;
            // Debt stays: leaving the ring must not be a way out of it.
            member.deficit = member.deficit.min(0);
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
        turns.served(3, 0, false);
        turns.activate(3);
        assert_eq!(turns.pick(), Some((3, 10)), "no savings");
        turns.served(3, 35, false);
        turns.activate(3);
        turns.activate(4);
        assert_eq!(turns.pick().map(|(id, _)| id), Some(4), "3 is 25 in debt");
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
