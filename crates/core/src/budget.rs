//! The ledger: no grant, no buffer.
//!
//! A [`Ledger`] holds the node's budget. Each connection opens one [`Account`] in it, which sets its floor
//! aside at once, so that what a peer was promised can never be taken by others. A stream draws [`Grant`]s from
//! its connection's account. At any time
//!
//! * held bytes <= granted bytes (each owner keeps what it allocates under its grants),
//! * granted bytes of an account <= its ceiling,
//! * the sum over accounts of max(floor, granted without spare) + spare <= budget, and what accounts have above their floors leaves room for the
//!   floors of those that are yet to come, as far as room is [kept](Ledger::keep) for them.
//!
//! Spare bytes are those that only make an account faster: wider windows, a longer queue. They never come out of its floor, or a
//! connection that was busy would have used up by itself what it was promised for its messages.
//!
//! Sums are kept in atomics only because a node is moved between threads; nothing here waits or spins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A node's memory budget, in bytes of allocated memory.
#[derive(Debug, Clone)]
pub struct Ledger {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    budget: u64,
    /// Sum over accounts of max(floor, granted - spare) + spare.
    committed: AtomicU64,
    /// Room for floors that are yet to be set aside: what is granted above floors leaves it alone.
    kept: AtomicU64,
    refused: AtomicU64,
    /// Counts returns, so that whoever was refused can tell that it is worth asking again.
    returns: AtomicU64,
}

impl Pool {
    /// Commits `bytes` if that leaves `leave`.
    fn commit(&self, bytes: u64, leave: u64) -> bool {
        let fits = |sum: u64| sum.checked_add(bytes).filter(|sum| *sum <= self.budget.saturating_sub(leave));
        self.committed.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.committed.fetch_sub(bytes, Relaxed);
        self.returns.fetch_add(1, Relaxed);
    }
}

impl Ledger {
    /// A ledger over `budget` bytes.
    pub fn new(budget: u64) -> Ledger {
        Ledger {
            pool: Arc::new(Pool {
                budget,
                committed: AtomicU64::new(0),
                kept: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                returns: AtomicU64::new(0),
            }),
        }
    }

    /// Keeps so much room for the floors of accounts that are yet to be opened.
    pub fn keep(&self, bytes: u64) {
        self.pool.kept.store(bytes, Relaxed);
    }

    /// The configured budget, in bytes.
    pub fn budget(&self) -> u64 {
        self.pool.budget
    }

    /// What is promised or granted now, in bytes; never above the budget.
    pub fn committed(&self) -> u64 {
        self.pool.committed.load(Relaxed)
    }

    /// How many grants were refused since the start.
    pub fn refused(&self) -> u64 {
        self.pool.refused.load(Relaxed)
    }

    /// A number that changes whenever something was given back.
    pub fn returns(&self) -> u64 {
        self.pool.returns.load(Relaxed)
    }

    /// Opens an account with `floor` bytes set aside for it and at most `max` bytes granted at once.
    ///
    /// Returns `None`, and changes nothing, when the floor does not fit the budget any more or is above `max`.
    pub fn open(&self, floor: u64, max: u64) -> Option<Arc<Account>> {
        if floor > max || !self.pool.commit(floor, 0) {
            self.pool.refused.fetch_add(1, Relaxed);
            return None;
        }
        let kept = self.pool.kept.fetch_update(Relaxed, Relaxed, |kept| Some(kept.saturating_sub(floor))).unwrap_or(0).min(floor);
        Some(Arc::new(Account {
            pool: self.pool.clone(),
            floor,
            max,
            kept,
            granted: AtomicU64::new(0),
            spare: AtomicU64::new(0),
        }))
    }
}

/// One connection's part of the ledger. Its floor returns to the node when the account and all of its grants are gone.
#[derive(Debug)]
pub struct Account {
    pool: Arc<Pool>,
    floor: u64,
    max: u64,
    /// What of its floor came out of the room that was kept for it, and returns to that.
    kept: u64,
    /// With the spare bytes.
    granted: AtomicU64,
    spare: AtomicU64,
}

impl Account {
    /// Bytes granted now.
    pub fn granted(&self) -> u64 {
        self.granted.load(Relaxed)
    }

    /// The most that this account may be granted at once, in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Asks for `bytes`. `None`, with nothing changed but a counter, when they are above the account's ceiling or
    /// the node has no spare bytes above all floors: the caller waits, which is back-pressure.
    pub fn grant(self: &Arc<Account>, bytes: u64) -> Option<Grant> {
        self.take(bytes).then(|| Grant { account: self.clone(), bytes, spare: 0 })
    }

    fn take(&self, bytes: u64) -> bool {
        self.draw(bytes, |account, before| {
            let spare = account.spare.load(Relaxed);
            account.above_floor(before.saturating_sub(spare), before.saturating_add(bytes).saturating_sub(spare))
        })
    }

    fn take_spare(&self, bytes: u64) -> bool {
        let drawn = self.draw(bytes, |_, _| bytes);
        if drawn {
            self.spare.fetch_add(bytes, Relaxed);
        }
        drawn
    }

    /// Grants `bytes` more if the ceiling allows them and the node has what `costs` says of it, given what was granted before.
    fn draw(&self, bytes: u64, costs: impl FnOnce(&Account, u64) -> u64) -> bool {
        let fits = |sum: u64| sum.checked_add(bytes).filter(|sum| *sum <= self.max);
        let Ok(before) = self.granted.fetch_update(Relaxed, Relaxed, fits) else {
            self.pool.refused.fetch_add(1, Relaxed);
            return false;
        };
        // What the floor covers is not asked for a second time.
        let cost = costs(self, before);
        if cost == 0 || self.pool.commit(cost, self.pool.kept.load(Relaxed)) {
            return true;
        }
        self.granted.fetch_sub(bytes, Relaxed);
        self.pool.refused.fetch_add(1, Relaxed);
        false
    }

    /// Takes back `bytes`, of which `spare` were spare.
    fn give_back(&self, bytes: u64, spare: u64) {
        let all_spare = self.spare.fetch_sub(spare, Relaxed);
        let before = self.granted.fetch_sub(bytes, Relaxed).saturating_sub(all_spare);
        let after = before.saturating_sub(bytes.saturating_sub(spare));
        self.pool.release(self.above_floor(after, before).saturating_add(spare));
    }

    /// How much of a growth from `low` to `high` lies above the floor.
    fn above_floor(&self, low: u64, high: u64) -> u64 {
        high.max(self.floor).saturating_sub(low.max(self.floor))
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.pool.kept.fetch_add(self.kept, Relaxed);
        self.pool.release(self.floor);
    }
}

/// Permission to hold so many bytes. Returns them when dropped.
#[must_use = "a grant that is dropped gives its bytes back at once"]
#[derive(Debug)]
pub struct Grant {
    account: Arc<Account>,
    bytes: u64,
    /// How many of them are spare.
    spare: u64,
}

impl Grant {
    /// How many bytes this grant allows.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the grant to `bytes`. Shrinking always succeeds; growing may be refused, and then nothing has changed.
    #[must_use]
    pub fn resize(&mut self, bytes: u64) -> bool {
        self.change(bytes, |account, more| (account.take(more), 0))
    }

    /// The same, and what it grows by is spare: it is not taken from the account's floor.
    #[must_use]
    pub fn resize_spare(&mut self, bytes: u64) -> bool {
        self.change(bytes, |account, more| (account.take_spare(more), more))
    }

    fn change(&mut self, bytes: u64, take: impl FnOnce(&Account, u64) -> (bool, u64)) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else {
            self.shrink(bytes);
            return true;
        };
        let (taken, spare) = take(&self.account, more);
        if taken {
            self.bytes = bytes;
            self.spare = self.spare.saturating_add(spare);
        }
        taken
    }

    /// Gives back all that is above `bytes`, spare ones first.
    pub fn shrink(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes).filter(|less| *less > 0) {
            let spare = less.min(self.spare);
            self.account.give_back(less, spare);
            self.bytes = bytes;
            self.spare = self.spare.saturating_sub(spare);
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.account.give_back(self.bytes, self.spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn floors_are_set_aside_and_cannot_be_taken_by_others() {
        let ledger = Ledger::new(100);
        let honest = ledger.open(40, 100).expect("fits");
        let greedy = ledger.open(10, 100).expect("fits");
        let taken = greedy.grant(60).expect("floor of 10 and all 50 spare bytes");
        assert!(greedy.grant(1).is_none(), "the rest is the other's floor");
        let mine = honest.grant(40).expect("the floor is there whatever others took");
        assert_eq!(ledger.committed(), 100);
        assert!(ledger.open(1, 1).is_none(), "no room for one more floor");
        drop((taken, mine, honest, greedy));
        assert_eq!(ledger.committed(), 0);
        assert_eq!(ledger.refused(), 2);
    }

    #[test]
    fn the_ceiling_of_an_account_holds_though_the_node_has_room() {
        let ledger = Ledger::new(1000);
        let account = ledger.open(0, 10).expect("fits");
        let mut grant = account.grant(10).expect("fits");
        assert!(!grant.resize(11));
        assert_eq!(grant.bytes(), 10);
        grant.shrink(4);
        assert_eq!(account.granted(), 4);
    }

    #[test]
    fn a_floor_outlives_the_account_until_its_last_grant_returns() {
        let ledger = Ledger::new(10);
        let account = ledger.open(5, 10).expect("fits");
        let grant = account.grant(1).expect("fits");
        drop(account);
        assert_eq!(ledger.committed(), 5);
        drop(grant);
        assert_eq!(ledger.committed(), 0);
    }

    #[test]
    fn what_is_spare_leaves_the_floor_alone() {
        let ledger = Ledger::new(100);
        let account = ledger.open(40, 100).expect("fits");
        let mut window = account.grant(10).expect("of the floor");
        assert!(window.resize_spare(70), "all 60 bytes above the floor");
        assert!(!window.resize_spare(71), "the rest is the floor");
        let message = account.grant(30).expect("what the floor has beside the window's first 10");
        assert_eq!((ledger.committed(), account.granted()), (100, 100));
        window.shrink(5);
        assert_eq!((ledger.committed(), account.granted()), (40, 35), "spare bytes go first");
        drop((window, message));
        assert_eq!((ledger.committed(), account.granted()), (40, 0));
    }

    #[test]
    fn what_is_kept_for_floors_is_left_to_them() {
        let ledger = Ledger::new(100);
        ledger.keep(80);
        let first = ledger.open(40, 100).expect("a floor");
        let mut window = first.grant(40).expect("the floor");
        assert!(!window.resize_spare(61), "40 are kept for the next");
        assert!(window.resize_spare(60), "what is not kept");
        assert!(first.grant(1).is_none(), "nor may messages have it");
        let second = ledger.open(40, 100).expect("kept for it");
        let own = second.grant(40).expect("its floor");
        drop((own, second));
        assert!(first.grant(1).is_none(), "it is kept again");
        drop((window, first));
        assert_eq!(ledger.committed(), 0);
    }

    proptest! {
        #[test]
        fn sums_hold_whatever_the_order(ops in proptest::collection::vec((0usize..6, 0u64..60), 1..200)) {
            let ledger = Ledger::new(200);
            let accounts: Vec<_> = [(10, 80), (0, 200), (50, 50)].iter()
                .map(|(floor, max)| (*floor, ledger.open(*floor, *max).expect("floors fit"))).collect();
            let mut grants: Vec<(usize, Grant)> = Vec::new();
            for (which, bytes) in ops {
                let at = (bytes as usize).checked_rem(grants.len()).unwrap_or(0);
                match (accounts.get(which), grants.get_mut(at)) {
                    (Some((_, account)), _) => grants.extend(account.grant(bytes).map(|grant| (which, grant))),
                    (None, None) => {}
                    (None, Some((_, grant))) => match which {
                        3 => drop(grants.swap_remove(at)),
                        4 => { let _ = grant.resize(bytes); }
                        _ => { let _ = grant.resize_spare(bytes); }
                    },
                }
                let mut sum = 0;
                for (at, (floor, account)) in accounts.iter().enumerate() {
                    let granted: u64 = grants.iter().filter(|(of, _)| *of == at).map(|(_, grant)| grant.bytes()).sum();
                    prop_assert_eq!(granted, account.granted());
                    prop_assert!(granted <= account.max());
                    let spare: u64 = grants.iter().filter(|(of, _)| *of == at).map(|(_, grant)| grant.spare).sum();
                    sum += (granted - spare).max(*floor) + spare;
                }
                prop_assert_eq!(sum, ledger.committed());
                prop_assert!(sum <= ledger.budget());
            }
        }
    }
}
