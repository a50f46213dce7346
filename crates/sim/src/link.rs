//! One direction of a path between two hosts: delay, loss, and the queue in front of the bottleneck.

use std::time::Duration;

use crate::rng::Random;

/// Bytes that IPv4 and UDP add to each datagram on the wire (RFC 791, RFC 768).
const HEADER_BYTES: u64 = 28;

/// What one direction of a path does to datagrams and to TCP's segments. All of it can be changed while the world runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Time from leaving the bottleneck to arrival.
    pub latency: Duration,
    /// Added to the latency, uniform between zero and this, for each datagram on its own. More than
    /// the gap between two datagrams reorders them.
    pub jitter: Duration,
    /// Probability, 0.0 to 1.0, that a datagram is lost.
    pub loss: f64,
    /// Probability, 0.0 to 1.0, that a datagram arrives a second time, with a jitter of its own.
    pub duplicate: f64,
    /// Probability, 0.0 to 1.0, that a copy that arrives has one to three bits flipped.
    pub corrupt: f64,
    /// Rate of the bottleneck in bytes a second, IP and UDP headers included. `None`: no bottleneck.
    pub bytes_per_second: Option<u64>,
    /// Most bytes that wait in front of the bottleneck. What comes on top is dropped.
    pub queue_bytes: u64,
    /// Longest wait in front of the bottleneck. What would wait longer is dropped.
    pub queue_delay: Duration,
    /// Largest payload of a datagram in bytes. Larger ones vanish, as with the don't-fragment bit.
    pub mtu: usize,
    /// False: nothing passes (a partition). What is already under way still arrives.
    pub up: bool,
    /// False: UDP vanishes, and TCP passes, as in many a company's network.
    pub udp: bool,
    /// False: TCP vanishes, and UDP passes.
    pub tcp: bool,
}

impl Link {
    /// A clean path with this one-way latency: no loss, no bottleneck, 1,472 bytes of payload
    /// (Ethernet with IPv4).
    #[must_use]
    pub const fn new(latency: Duration) -> Link {
        Link {
            latency,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            bytes_per_second: None,
            queue_bytes: 256 * 1024,
            queue_delay: Duration::from_millis(500),
            mtu: 1472,
            up: true,
            udp: true,
            tcp: true,
        }
    }

    /// Sets [`Link::jitter`].
    #[must_use]
    pub const fn jitter(mut self, jitter: Duration) -> Link {
        self.jitter = jitter;
        self
    }

    /// Sets [`Link::loss`].
    #[must_use]
    pub const fn loss(mut self, probability: f64) -> Link {
        self.loss = probability;
        self
    }

    /// Sets [`Link::duplicate`].
    #[must_use]
    pub const fn duplicate(mut self, probability: f64) -> Link {
        self.duplicate = probability;
        self
    }

    /// Sets [`Link::corrupt`].
    #[must_use]
    pub const fn corrupt(mut self, probability: f64) -> Link {
        self.corrupt = probability;
        self
    }

    /// Has UDP vanish, see [`Link::udp`].
    #[must_use]
    pub const fn without_udp(mut self) -> Link {
        self.udp = false;
        self
    }

    /// Has TCP vanish, see [`Link::tcp`].
    #[must_use]
    pub const fn without_tcp(mut self) -> Link {
        self.tcp = false;
        self
    }

    /// Sets [`Link::bytes_per_second`].
    #[must_use]
    pub const fn rate(mut self, bytes_per_second: u64) -> Link {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }
}

impl Default for Link {
    /// 10 ms one way, clean.
    fn default() -> Link {
        Link::new(Duration::from_millis(10))
    }
}

/// What happened on one direction so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Datagrams handed to the link.
    pub sent: u64,
    /// Copies that will arrive.
    pub passed: u64,
    /// Dropped by chance.
    pub lost: u64,
    /// Dropped by the queue in front of the bottleneck.
    pub overflowed: u64,
    /// Dropped because they were larger than the path allows.
    pub oversized: u64,
    /// Dropped because the link was down.
    pub cut: u64,
    /// Copies that were added.
    pub duplicated: u64,
    /// Copies that were damaged.
    pub corrupted: u64,
}

/// A copy of a datagram that will arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Virtual time of the arrival.
    pub(crate) at: Duration,
    /// Bits to flip, as random positions to be taken modulo the length; the first `flips` count.
    pub(crate) positions: [u64; 3],
    /// How many of the positions are meant.
    pub(crate) flips: usize,
}

/// One direction with its state.
#[derive(Debug)]
pub(crate) struct Direction {
    pub(crate) link: Link,
    pub(crate) counters: LinkCounters,
    random: Random,
    /// When the bottleneck is free again: the queue is the time until then.
    free_at: Duration,
}

impl Direction {
    pub(crate) fn new(link: Link, random: Random) -> Direction {
        Direction { link, counters: LinkCounters::default(), random, free_at: Duration::ZERO }
    }

    /// Decides what becomes of a datagram of `size` payload bytes sent at `now`: up to two copies.
    pub(crate) fn pass(&mut self, now: Duration, size: usize) -> [Option<Arrival>; 2] {
        self.pass_if(now, size, self.link.udp)
    }

    /// The same for a TCP segment that is as large as such a datagram.
    pub(crate) fn pass_tcp(&mut self, now: Duration, size: usize) -> [Option<Arrival>; 2] {
        self.pass_if(now, size, self.link.tcp)
    }

    fn pass_if(&mut self, now: Duration, size: usize, open: bool) -> [Option<Arrival>; 2] {
        self.counters.sent += 1;
        // All draws come first and always, so that one setting does not shift another's luck.
        let lost = self.random.chance(self.link.loss);
        let copied = self.random.chance(self.link.duplicate);
        let draws = [self.draw(), self.draw()];
        if !(self.link.up && open) {
            self.counters.cut += 1;
            return [None, None];
        }
        if size > self.link.mtu {
            self.counters.oversized += 1;
            return [None, None];
        }
        let Some(departure) = self.enqueue(now, size) else {
            self.counters.overflowed += 1;
            return [None, None];
        };
        // Lost after the bottleneck: a lost datagram has used the bandwidth.
        if lost {
            self.counters.lost += 1;
            return [None, None];
        }
        let [first, second] = draws.map(|draw| Arrival { at: departure + draw.at, ..draw });
        self.count(&first);
        if !copied {
            return [Some(first), None];
        }
        self.counters.duplicated += 1;
        self.count(&second);
        [Some(first), Some(second)]
    }

    fn count(&mut self, arrival: &Arrival) {
        self.counters.passed += 1;
        self.counters.corrupted += u64::from(arrival.flips > 0);
    }

    /// The luck of one copy; `at` is its delay after the bottleneck.
    fn draw(&mut self) -> Arrival {
        let jitter = u64::try_from(self.link.jitter.as_nanos()).unwrap_or(u64::MAX);
        let extra = Duration::from_nanos(self.random.below(jitter.saturating_add(1)));
        let damaged = self.random.chance(self.link.corrupt);
        let positions = [(); 3].map(|()| self.random.bits());
        let flips = 1 + usize::try_from(self.random.below(3)).unwrap_or(0);
        Arrival { at: self.link.latency + extra, positions, flips: if damaged { flips } else { 0 } }
    }

    /// When the datagram has left the bottleneck, or `None` if the queue is full.
    fn enqueue(&mut self, now: Duration, size: usize) -> Option<Duration> {
        let Some(rate) = self.link.bytes_per_second else {
            return Some(now);
        };
        let rate = rate.max(1);
        let wait = self.free_at.saturating_sub(now);
        let queued = wait.as_nanos() * u128::from(rate) / 1_000_000_000;
        if wait > self.link.queue_delay || queued > u128::from(self.link.queue_bytes) {
            return None;
        }
        let bytes = size as u64 + HEADER_BYTES;
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free_at = now.max(self.free_at) + takes;
        Some(self.free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn direction(link: Link) -> Direction {
        Direction::new(link, Random::new(5, "link", 0))
    }

    #[test]
    fn a_clean_link_delays_and_nothing_else() {
        let mut link = direction(Link::new(10 * MS));
        let [Some(arrival), None] = link.pass(5 * MS, 1200) else {
            panic!("one copy");
        };
        assert_eq!((arrival.at, arrival.flips), (15 * MS, 0));
    }

    #[test]
    fn bandwidth_spaces_datagrams_and_the_queue_is_bounded() {
        // 1 MB/s, 1,000 bytes with headers: 1 ms each. 10,000 bytes may wait.
        let mut spec = Link::new(MS).rate(1_000_000);
        spec.queue_bytes = 10_000;
        let mut link = direction(spec);
        let arrivals: Vec<_> = (0..30).filter_map(|_| link.pass(Duration::ZERO, 972)[0]).map(|arrival| arrival.at).collect();
        // 11: a datagram may join as long as no more than 10,000 bytes are before it.
        assert_eq!(arrivals.len(), 11);
        assert_eq!(arrivals[0], 2 * MS);
        assert_eq!(arrivals[10], 12 * MS);
        assert_eq!(link.counters.overflowed, 19);
        assert!(link.pass(11 * MS, 972)[0].is_some(), "the queue drains");
    }

    #[test]
    fn the_queue_is_bounded_in_time() {
        let mut spec = Link::new(MS).rate(1_000_000);
        spec.queue_delay = 3 * MS;
        let mut link = direction(spec);
        let passed = (0..30).filter(|_| link.pass(Duration::ZERO, 972)[0].is_some());
        assert_eq!(passed.count(), 4);
    }

    #[test]
    fn loss_duplication_corruption_and_reordering_happen_as_often_as_asked() {
        let spec = Link::new(10 * MS).loss(0.1).duplicate(0.2).corrupt(0.3);
        let mut link = direction(spec.jitter(10 * MS));
        let mut last = Duration::ZERO;
        let mut reordered = 0;
        for _ in 0..10_000 {
            if let Some(arrival) = link.pass(Duration::ZERO, 1000)[0] {
                reordered += u32::from(arrival.at < last);
                last = arrival.at;
                assert!((10 * MS..=20 * MS).contains(&arrival.at));
            }
        }
        let counters = link.counters;
        assert!((900..1_100).contains(&counters.lost), "{counters:?}");
        assert!((1_650..1_950).contains(&counters.duplicated), "{counters:?}");
        assert!((2_950..3_500).contains(&counters.corrupted), "{counters:?}");
        assert!(reordered > 3_000, "{reordered}");
    }

    #[test]
    fn nothing_passes_a_cut_link_or_is_larger_than_the_path() {
        let mut link = direction(Link::default());
        assert_eq!(link.pass(MS, 1473), [None, None]);
        link.link.up = false;
        assert_eq!(link.pass(MS, 100), [None, None]);
        assert_eq!((link.counters.oversized, link.counters.cut), (1, 1));
    }
}
