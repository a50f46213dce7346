//! Which provider to ask for which chunk next. Pure: it sees no network and no disk.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::providers::Standing;
use super::window::{Sent, Window};
use crate::exit::Failure;
use crate::tree::Hash;

/// Requests for chunks that somebody else was asked for already, at once, at most (TR-71).
pub(super) const DUPLICATES_MAX: usize = 8;
/// What a chunk is thought to take with a provider that has given none yet.
const UNKNOWN: Duration = Duration::from_secs(1);

/// What is under way, and how well each provider does.
#[derive(Debug)]
pub(super) struct Plan {
    windows: Vec<Window>,
    /// Chunks that are wanted and not here. Bounded by whoever adds them.
    open: BTreeMap<u64, Chunk>,
}

#[derive(Debug)]
struct Chunk {
    hash: Hash,
    asked: Vec<Asked>,
    /// Who has not got it yet. They are asked for it again when nobody else can be.
    refused: Vec<usize>,
    /// Who cannot give it, and why.
    lacking: Vec<(usize, Failure)>,
}

#[derive(Debug)]
struct Asked {
    member: usize,
    sent: Sent,
    /// Ends the request.
    task: Option<AbortHandle>,
}

/// A request to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) member: usize,
    pub(super) index: u64,
    pub(super) hash: Hash,
    /// Somebody else was asked for it already.
    pub(super) duplicate: bool,
}

impl Plan {
    pub(super) fn new(members: usize) -> Plan {
        Plan { windows: vec![Window::default(); members], open: BTreeMap::new() }
    }

    /// A chunk is wanted.
    pub(super) fn add(&mut self, index: u64, hash: Hash) {
        self.open.insert(index, Chunk { hash, asked: Vec::new(), refused: Vec::new(), lacking: Vec::new() });
    }

    /// Chunks that are wanted and not here.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Chunks that could be asked for now, and nobody was.
    pub(super) fn unasked(&self) -> usize {
        self.open.values().filter(|chunk| chunk.asked.is_empty()).count()
    }

    /// Requests that could be made now, of whatever chunks.
    pub(super) fn room(&self, standings: &[Standing]) -> usize {
        (0..self.windows.len()).map(|member| self.room_of(member, standings)).sum()
    }

    fn under_way(&self, member: usize) -> usize {
        self.open.values().flat_map(|chunk| &chunk.asked).filter(|asked| asked.member == member).count()
    }

    fn room_of(&self, member: usize, standings: &[Standing]) -> usize {
        let most = match standings.get(member) {
            Some(Standing::Ready) => self.windows[member].chunks(),
            Some(Standing::Probe) => 1,
            _ => 0,
        };
        most.saturating_sub(self.under_way(member))
    }

    /// The request to make now, if there is one. With `no_more`, no chunk can be added: then what a slow provider still owes is asked
    /// of a quicker one as well.
    pub(super) fn next(&self, standings: &[Standing], no_more: bool, now: Instant) -> Option<Next> {
        let mut free: Vec<usize> = (0..self.windows.len()).filter(|member| self.room_of(*member, standings) > 0).collect();
        free.sort_by_key(|member| self.windows[*member].usual()); // those that gave nothing yet come first, to be measured
        let unasked = free.iter().find_map(|member| self.unasked_for(*member));
        if unasked.is_some() || !no_more {
            return unasked;
        }
        free.iter().find_map(|member| self.duplicate_for(*member, now))
    }

    fn unasked_for(&self, member: usize) -> Option<Next> {
        let fit = |chunk: &Chunk| chunk.asked.is_empty() && !chunk.lacking.iter().any(|(lacks, _)| *lacks == member);
        let all = || self.open.iter().filter(|(_, chunk)| fit(chunk));
        let found = all().find(|(_, chunk)| !chunk.refused.contains(&member)).or_else(|| all().next());
        found.map(|(index, chunk)| Next { member, index: *index, hash: chunk.hash, duplicate: false })
    }

    /// A chunk that another provider was asked for, and that this one would very likely bring much sooner.
    fn duplicate_for(&self, member: usize, now: Instant) -> Option<Next> {
        let duplicates: usize = self.open.values().map(|chunk| chunk.asked.len().saturating_sub(1)).sum();
        if duplicates >= DUPLICATES_MAX {
            return None;
        }
        let here = self.windows[member].usual().unwrap_or(UNKNOWN);
        let owed = self.open.iter().filter_map(|(index, chunk)| {
            let [asked] = &chunk.asked[..] else { return None };
            let unfit = asked.member == member || chunk.refused.contains(&member);
            (!unfit && !chunk.lacking.iter().any(|(lacks, _)| *lacks == member))
                .then(|| (self.remaining(asked, now), *index, chunk.hash))
        });
        let (remaining, index, hash) = owed.max_by_key(|(remaining, index, _)| (*remaining, *index))?;
        (remaining > here.saturating_mul(2)).then_some(Next { member, index, hash, duplicate: true })
    }

    /// How much longer a request takes: what is usual for its provider, and when that is past, as long again as it took so far.
    fn remaining(&self, asked: &Asked, now: Instant) -> Duration {
        let age = now.saturating_duration_since(asked.sent.at);
        let usual = self.windows[asked.member].usual().unwrap_or_default();
        if age < usual { usual - age } else { age }
    }

    /// Whether there is something that a free provider may be asked for as a duplicate, now or later.
    pub(super) fn may_duplicate(&self, standings: &[Standing]) -> bool {
        let mut free = (0..self.windows.len()).filter(|member| self.room_of(*member, standings) > 0);
        free.any(|member| self.open.values().any(|chunk| matches!(&chunk.asked[..], [asked] if asked.member != member)))
    }

    /// The request was made.
    pub(super) fn asked(&mut self, next: Next, task: Option<AbortHandle>, now: Instant) {
        let sent = self.windows[next.member].sends(now);
        if let Some(chunk) = self.open.get_mut(&next.index) {
            chunk.asked.push(Asked { member: next.member, sent, task });
        }
    }

    /// A chunk came and is right. Ends what others were asked for it, and says who of them was slower; `None` if it was here already.
    pub(super) fn arrived(&mut self, index: u64, member: usize, now: Instant) -> Option<Vec<usize>> {
        let chunk = self.open.remove(&index)?;
        let sent = chunk.asked.iter().find(|asked| asked.member == member).map(|asked| asked.sent);
        let mut slower = Vec::new();
        for other in chunk.asked.iter().filter(|asked| asked.member != member) {
            if let Some(task) = &other.task {
                task.abort();
            }
            if sent.is_some_and(|sent| other.sent.at < sent.at) {
                self.windows[other.member].beaten(other.sent, now);
                slower.push(other.member);
            }
        }
        if let Some(sent) = sent {
            self.windows[member].arrived(sent, now);
        }
        Some(slower)
    }

    fn withdraw(&mut self, index: u64, member: usize) -> Option<&mut Chunk> {
        let chunk = self.open.get_mut(&index)?;
        chunk.asked.retain(|asked| asked.member != member);
        Some(chunk)
    }

    /// The provider did not answer.
    pub(super) fn lost(&mut self, index: u64, member: usize) {
        self.withdraw(index, member);
        self.windows[member].lost();
    }

    /// The provider has not got this chunk yet.
    pub(super) fn refused(&mut self, index: u64, member: usize) {
        if let Some(chunk) = self.withdraw(index, member)
            && !chunk.refused.contains(&member)
        {
            chunk.refused.push(member);
        }
    }

    /// The provider cannot give this chunk, or any.
    pub(super) fn lacks(&mut self, index: u64, member: usize, failure: Failure) {
        if let Some(chunk) = self.withdraw(index, member) {
            chunk.lacking.push((member, failure));
        }
    }

    /// Why the transfer cannot be completed, if nobody who is left can give one of the chunks.
    pub(super) fn dead(&self, standings: &[Standing]) -> Option<&Failure> {
        self.open.values().find_map(|chunk| {
            let lacks = |member| chunk.lacking.iter().any(|(lacks, _)| *lacks == member);
            let all = standings.iter().enumerate().all(|(member, standing)| *standing == Standing::Out || lacks(member));
            if all { chunk.lacking.first().map(|(_, failure)| failure) } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: [Standing; 2] = [Standing::Ready; 2];
    const SECOND: Duration = Duration::from_secs(1);

    fn plan(chunks: u64) -> (Plan, Instant) {
        let mut plan = Plan::new(2);
        (0..chunks).for_each(|index| plan.add(index, blake3::hash(b"")));
        (plan, Instant::now())
    }

    /// Makes all requests that there are to make, and says of whom for what.
    fn ask(plan: &mut Plan, standings: &[Standing], no_more: bool, now: Instant) -> Vec<(usize, u64)> {
        let mut all = Vec::new();
        while let Some(next) = plan.next(standings, no_more, now) {
            plan.asked(next, None, now);
            all.push((next.member, next.index));
        }
        all
    }

    /// TR-71
    #[test]
    fn what_a_slow_one_owes_is_asked_of_a_quick_one_too_and_the_first_wins() {
        let (mut plan, start) = plan(2);
        let one = [Standing::Ready, Standing::Out];
        assert_eq!(ask(&mut plan, &one, false, start), [(0, 0), (0, 1)]);
        let later = start + 3 * SECOND;
        assert_eq!(ask(&mut plan, &READY, false, later), [], "while there is more to ask for, nothing is asked for twice");
        assert_eq!(ask(&mut plan, &READY, true, start + SECOND), [], "it may still come");
        assert_eq!(ask(&mut plan, &READY, true, later), [(1, 1), (1, 0)]);
        assert_eq!(ask(&mut plan, &READY, true, later + 9 * SECOND), [], "never of more than two");
        assert_eq!(plan.arrived(0, 1, later + SECOND), Some(vec![0]), "the first was slower");
        assert_eq!(plan.arrived(0, 0, later + SECOND), None, "it is here already");
        assert_eq!(plan.arrived(1, 0, later + SECOND), Some(vec![]), "the second was asked later: nothing is held against it");
    }

    /// TR-71
    #[test]
    fn duplicates_are_bounded() {
        let (mut plan, start) = plan(4);
        let (all, late) = ([Standing::Ready; 8], start + 100 * SECOND);
        plan.windows = vec![Window::default(); 8];
        (4..24).for_each(|index| plan.add(index, blake3::hash(b"")));
        let first: Vec<_> = ask(&mut plan, &all, false, start);
        assert_eq!(first.len(), 24, "24 chunks, eight providers with room for four each");
        assert_eq!(ask(&mut plan, &all, true, late).len(), DUPLICATES_MAX);
    }

    #[test]
    fn who_has_not_got_it_is_asked_last_and_who_cannot_give_it_never() {
        let (mut plan, start) = plan(2);
        let one = [Standing::Ready, Standing::Out];
        ask(&mut plan, &one, false, start);
        plan.refused(0, 0);
        plan.refused(1, 0);
        assert_eq!(plan.next(&READY, false, start).map(|next| (next.member, next.index)), Some((0, 0)));
        plan.lacks(0, 0, Failure::bug("changed"));
        assert_eq!(ask(&mut plan, &READY, false, start), [(0, 1), (1, 0)]);
        assert_eq!(plan.dead(&READY), None);
        plan.lacks(0, 1, Failure::bug("changed"));
        assert!(plan.dead(&READY).is_some());
    }

    #[test]
    fn a_probe_is_one_request_and_rests_are_kept() {
        let (mut plan, start) = plan(9);
        let standings = [Standing::Probe, Standing::Later(start + SECOND)];
        assert_eq!(ask(&mut plan, &standings, true, start).len(), 1);
        plan.lost(0, 0);
        assert_eq!(plan.room(&standings), 1);
        assert_eq!(plan.unasked(), 9);
    }
}
