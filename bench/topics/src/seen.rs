//! What subscribers have seen. Each value says which change it is and when it was made, by the machine's monotone clock, which all processes share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Buckets of ages: eight for each doubling, from a microsecond on.
const BUCKETS: usize = 8 * 30;

/// Nanoseconds of the machine's monotone clock.
pub fn clock() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("it has one");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The change with this number, made now.
pub fn value(number: u64) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value[8..].copy_from_slice(&clock().to_be_bytes());
    value
}

/// Which key the change with this number is of: each in turn, so that the last change of each follows from their number.
pub fn key_of(number: u64, keys: usize) -> usize {
    (number % keys as u64) as usize
}

/// All subscribers of a process.
pub struct Seen {
    ages: Mutex<Vec<u64>>,
    /// For each subscription the last change seen of each key, plus one.
    last: Vec<Vec<AtomicU64>>,
    pub updates: AtomicU64,
}

/// What a process of subscribers has found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Found {
    pub updates: u64,
    pub age_p50_ms: f64,
    pub age_p99_ms: f64,
    /// Keys, over all subscriptions, whose last value never came; and subscriptions with such.
    pub lost_values: u64,
    pub wrong_subscriptions: u64,
    pub cpu_seconds: f64,
}

fn bucket(age: u64) -> usize {
    let micros = (age / 1_000).max(1) as f64;
    ((micros.log2() * 8.0) as usize).min(BUCKETS - 1)
}

impl Seen {
    pub fn new(subscriptions: usize, keys: usize) -> Seen {
        let row = || (0..keys).map(|_| AtomicU64::new(0)).collect();
        Seen { ages: Mutex::new(vec![0; BUCKETS]), last: (0..subscriptions).map(|_| row()).collect(), updates: AtomicU64::new(0) }
    }

    /// A subscription has seen a value. One of 64 ages is kept.
    pub fn note(&self, subscription: usize, key: usize, value: &[u8]) {
        let Some((number, at)) = value.split_first_chunk::<8>() else { return };
        let number = u64::from_be_bytes(*number);
        if let Some(last) = self.last.get(subscription).and_then(|row| row.get(key)) {
            last.fetch_max(number + 1, Relaxed);
        }
        if self.updates.fetch_add(1, Relaxed).is_multiple_of(64)
            && let Some(at) = at.first_chunk::<8>()
        {
            let age = clock().saturating_sub(u64::from_be_bytes(*at));
            self.ages.lock().expect("no panic")[bucket(age)] += 1;
        }
    }

    /// Forgets the ages: those of who was frozen say nothing of those who were not.
    pub fn found(&self, changes: u64, keys: usize) -> Found {
        let ages = self.ages.lock().expect("no panic");
        let all: u64 = ages.iter().sum();
        let at = |share: f64| {
            let (mut left, mut index) = ((all as f64 * share) as u64, 0);
            while index < BUCKETS - 1 && ages[index] <= left {
                left -= ages[index];
                index += 1;
            }
            2f64.powf((index as f64 + 0.5) / 8.0) / 1e3
        };
        let wanted = |key: usize| (0..changes).rev().take(keys).find(|number| key_of(*number, keys) == key).map_or(0, |number| number + 1);
        let wanted: Vec<u64> = (0..keys).map(wanted).collect();
        let lost = |row: &Vec<AtomicU64>| row.iter().zip(&wanted).filter(|(last, wanted)| last.load(Relaxed) != **wanted).count() as u64;
        let losses: Vec<u64> = self.last.iter().map(lost).collect();
        Found {
            updates: self.updates.load(Relaxed),
            age_p50_ms: at(0.5),
            age_p99_ms: at(0.99),
            lost_values: losses.iter().sum(),
            wrong_subscriptions: losses.iter().filter(|lost| **lost > 0).count() as u64,
            cpu_seconds: cpu_seconds(),
        }
    }
}

/// User and system time of this process.
pub fn cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("it is there");
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
