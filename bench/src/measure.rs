//! What a process measures about itself, and the arithmetic over it.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// CPU time of this process so far, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Cpu {
    /// In user mode.
    pub(crate) user: f64,
    /// In the kernel.
    pub(crate) system: f64,
}

impl Cpu {
    /// All threads of this process, from `getrusage`.
    pub(crate) fn now() -> Result<Cpu> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).context("getrusage")?;
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0;
        Ok(Cpu { user: seconds(usage.user_time()), system: seconds(usage.system_time()) })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Cpu) -> Cpu {
        Cpu { user: self.user - earlier.user, system: self.system - earlier.system }
    }

    /// User and system together.
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// Where the measured part begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    cpu: Cpu,
    resident_kib: u64,
    driver: Option<Driver>,
}

impl Mark {
    /// Now; `driver` is what the stack's driver has counted so far, if it counts.
    pub(crate) fn now(driver: Option<Driver>) -> Result<Mark> {
        Ok(Mark { cpu: Cpu::now()?, resident_kib: of_status("VmRSS:")?, driver })
    }
}

/// One side's account of the measured part.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Side {
    /// CPU time of the measured part.
    pub(crate) cpu: Cpu,
    /// Largest resident set of the whole process, start and warm-up included, in KiB.
    pub(crate) peak_kib: u64,
    /// By how much the resident set is larger at the end of the measured part than at its beginning, in KiB.
    pub(crate) grown_kib: u64,
    /// What the stack's driver counted in the measured part, if it counts.
    pub(crate) driver: Option<Driver>,
}

impl Side {
    /// The account from `mark` until now.
    pub(crate) fn since(mark: Mark, driver: Option<Driver>) -> Result<Side> {
        Ok(Side {
            cpu: Cpu::now()?.since(mark.cpu),
            peak_kib: of_status("VmHWM:")?,
            grown_kib: of_status("VmRSS:")?.saturating_sub(mark.resident_kib),
            driver: driver.zip(mark.driver).map(|(now, then)| now.since(then)),
        })
    }
}

/// What a stack's driver says that it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Driver {
    /// UDP datagrams received.
    pub(crate) datagrams_in: u64,
    /// UDP datagrams sent.
    pub(crate) datagrams_out: u64,
    /// System calls that received.
    pub(crate) receives: u64,
    /// System calls that sent.
    pub(crate) sends: u64,
    /// Times it woke up.
    pub(crate) wakes: u64,
}

impl Driver {
    fn since(self, earlier: Driver) -> Driver {
        Driver {
            datagrams_in: self.datagrams_in.saturating_sub(earlier.datagrams_in),
            datagrams_out: self.datagrams_out.saturating_sub(earlier.datagrams_out),
            receives: self.receives.saturating_sub(earlier.receives),
            sends: self.sends.saturating_sub(earlier.sends),
            wakes: self.wakes.saturating_sub(earlier.wakes),
        }
    }
}

/// A size in `/proc/self/status`, in KiB.
fn of_status(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no {name} in /proc/self/status"))
}

/// Percentiles of the time that requests took, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// Half took no longer.
    pub(crate) p50: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99: f64,
    /// The slowest.
    pub(crate) max: f64,
    /// MB/s of the bulk that ran beside them; zero if there was none.
    pub(crate) beside: f64,
}

/// Times of single requests, four bytes each so that keeping them costs little.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    nanos: Vec<u32>,
    /// See [`Percentiles::beside`].
    pub(crate) beside: f64,
}

impl Latencies {
    /// Room for `count` times, taken before the measured part.
    pub(crate) fn with_capacity(count: usize) -> Latencies {
        Latencies { nanos: Vec::with_capacity(count), beside: 0.0 }
    }

    /// Adds one time; more than 4.29 s counts as that.
    pub(crate) fn push(&mut self, time: Duration) {
        self.nanos.push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: Latencies) {
        self.nanos.extend(other.nanos);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.nanos.len()
    }

    /// The percentiles; zeros if there is no time at all.
    pub(crate) fn percentiles(mut self) -> Percentiles {
        self.nanos.sort_unstable();
        let at = |part: f64| {
            let index = ((self.nanos.len() as f64 * part).ceil() as usize).max(1) - 1;
            self.nanos.get(index).map_or(0.0, |ns| f64::from(*ns) / 1000.0)
        };
        Percentiles { p50: at(0.50), p99: at(0.99), max: at(1.0), beside: self.beside }
    }
}

/// The middle value; the mean of the two middle ones for an even count; zero for none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let mut times = Latencies::default();
        for micros in (1..=100).rev() {
            times.push(Duration::from_micros(micros));
        }
        let found = times.percentiles();
        assert_eq!((found.p50, found.p99, found.max), (50.0, 99.0, 100.0));
    }

    #[test]
    fn work_shows_up_as_cpu_time() {
        let start = Mark::now(None).expect("both sources");
        let mut sum = 0u64;
        while Cpu::now().expect("getrusage").since(start.cpu).total() == 0.0 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let side = Side::since(start, None).expect("both sources");
        assert!(side.cpu.total() > 0.0 && side.peak_kib > 0);
    }
}
