//! A short queue while something urgent may come.
//!
//! What has left for the path cannot be overtaken any more: urgent bytes wait behind all that is under way, in the queues of routers and in the peer's socket.
//! Windows are made for throughput, and their last part often only makes that queue longer. So on a connection that urgent streams were
//! used on a short time ago, less urgent ones have no more under way than the path moves in three round trips.
//!
//! The rate and the round trip are estimated as BBR does it (Cardwell et al., ACM Queue 14(5), 2016): a rate counts as the path's own only
//! when bytes were there to be sent, and the round trip is the shortest one, which had the shortest queue.
//!
//! Over TCP, what is under way is the system's to decide; there the node keeps what it hands over short (`conn/yamux/send.rs`).

use std::time::{Duration, Instant};

use super::Node;
use super::credit::{MEASURE_MIN, per};

/// How long after the last urgent byte of ours another one may come.
const URGENT_REST: Duration = Duration::from_secs(10);
/// One fills the path. Two keep it full if each side takes its turns at once; on loopback, where turns take longer than the path, bulk is a third as fast with
/// two and urgent bytes take twice as long with four (measured beside each other in `bench/`, case `urgent`).
const ROUNDS: u32 = 3;
/// Less urgent streams may have so many bytes under way whatever the path: about ten datagrams, as at its beginning (RFC 9002, section 7.2).
const LEAST: u64 = 16 << 10;
/// After so long with no more than that, the path is as long as it seems.
const PERIOD: Duration = Duration::from_secs(2);

/// What is known of a connection's path, and until when something urgent may come.
#[derive(Debug)]
pub(super) struct Calm {
    until: Option<Instant>,
    /// Since when bytes are counted, and how many had left then.
    at: Instant,
    bytes_out: u64,
    /// Urgent bytes that were written since `at`, and in the time before that was measured.
    urgent: [u64; 2],
    /// Whether these were the most of what left.
    mostly_urgent: bool,
    /// Bytes a second.
    rate: u64,
    /// The shortest smoothed round trip.
    shortest: Duration,
    /// Since when there was hardly anything under way, if that is so, and the shortest round trip since.
    least: Option<(Instant, Duration)>,
}

impl Calm {
    pub(super) fn new(now: Instant) -> Calm {
        Calm {
            until: None,
            at: now,
            bytes_out: 0,
            urgent: [0; 2],
            mostly_urgent: false,
            rate: 0,
            shortest: Duration::MAX,
            least: None,
        }
    }

    /// `hungry`: streams wait for room. Of the others' rates only a higher one says something of the path.
    fn measure(&mut self, now: Instant, rtt: Duration, bytes_out: u64, hungry: bool) {
        self.shortest = self.shortest.min(rtt);
        let passed = now.saturating_duration_since(self.at);
        if passed >= rtt.max(MEASURE_MIN) {
            let moved = bytes_out.saturating_sub(self.bytes_out);
            let rate = per(moved, passed, Duration::from_secs(1));
            if hungry || rate > self.rate {
                self.rate = rate;
            }
            let [urgent, _] = self.urgent;
            self.mostly_urgent = urgent > LEAST && urgent > moved / 2;
            (self.at, self.bytes_out, self.urgent) = (now, bytes_out, [0, urgent]);
            self.relearn(now, rtt, hungry);
        }
    }

    /// Where a path has become much longer, its rate seems to fall, and with it falls what may be under way: until it cannot be a queue of our own any more that
    /// makes it long.
    fn relearn(&mut self, now: Instant, rtt: Duration, hungry: bool) {
        if !hungry || self.until.is_none() || self.fills() > LEAST {
            self.least = None;
            return;
        }
        let (since, shortest) = self.least.unwrap_or((now, rtt));
        let shortest = shortest.min(rtt);
        self.least = Some((since, shortest));
        if now.saturating_duration_since(since) >= PERIOD {
            self.least = None;
            if shortest > self.shortest.saturating_mul(ROUNDS) {
                self.shortest = shortest;
            }
        }
    }

    /// How many bytes keep the path busy, with only a short queue in front of it.
    fn fills(&self) -> u64 {
        per(self.rate, Duration::from_secs(1), self.shortest.saturating_mul(ROUNDS)).max(LEAST)
    }

    /// How many bytes may be under way for less urgent streams to be given more. Urgent ones, which are not held back, do not count: those that were written in
    /// the last round trip may be under way. `None` where they make the queue themselves: then the shares of the whole window hold
    /// (`conn/quic/room.rs`).
    pub(super) fn enough(&self) -> Option<u64> {
        self.until.filter(|_| !self.mostly_urgent)?;
        let [written, earlier] = self.urgent;
        Some(self.fills().saturating_add(written).saturating_add(earlier))
    }
}

impl Node {
    /// Lets less urgent streams of a connection fill as much of its send window as they may now.
    pub(super) fn keep_calm(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conn_mut(slot) else {
            return;
        };
        let Some(quic) = conn.quic.as_quic() else {
            return;
        };
        let calm = &mut conn.calm;
        let urgent = quic.take_urgent();
        if urgent > 0 {
            let [written, _] = &mut calm.urgent;
            *written = written.saturating_add(urgent);
            calm.until = now.checked_add(URGENT_REST);
        }
        calm.until = calm.until.filter(|until| now < *until);
        calm.measure(now, quic.rtt(), conn.bytes_out, quic.is_hungry());
        if quic.set_calm(calm.enough()) {
            self.counters.totals.queues_kept_short = self.counters.totals.queues_kept_short.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    fn calm() -> (Calm, Instant) {
        let now = Instant::now();
        (Calm::new(now), now)
    }

    #[test]
    fn a_sender_with_little_to_say_does_not_make_the_path_slower() {
        let (mut calm, now) = calm();
        calm.measure(now + 100 * MS, MS, 10_000_000, true);
        assert_eq!(calm.rate, 100_000_000);
        calm.measure(now + 200 * MS, MS, 10_001_000, false);
        assert_eq!(calm.rate, 100_000_000, "it had no more to say");
        calm.measure(now + 300 * MS, MS, 15_001_000, true);
        assert_eq!(calm.rate, 50_000_000, "the path took no more");
        assert_eq!(calm.fills(), 150_000, "three round trips");
    }

    /// Moves what is allowed in each round trip, over a path that is not full.
    fn fill(calm: &mut Calm, now: &mut Instant, rtt: Duration, time: Duration) {
        let end = *now + time;
        while *now < end {
            *now += rtt;
            calm.measure(*now, rtt, calm.bytes_out + calm.fills(), true);
        }
    }

    #[test]
    fn a_path_that_has_become_longer_is_found_out() {
        let (mut calm, mut now) = calm();
        calm.until = Some(now + 100 * PERIOD);
        now += 100 * MS;
        calm.measure(now, 10 * MS, 1_000_000, true);
        assert_eq!(calm.fills(), 300_000);
        fill(&mut calm, &mut now, 100 * MS, PERIOD / 2);
        assert_eq!(calm.fills(), LEAST, "it seems to be a queue");
        fill(&mut calm, &mut now, 100 * MS, PERIOD + PERIOD / 2);
        assert!(calm.fills() > 10 * LEAST, "{calm:?}");
    }

    #[test]
    fn a_queue_of_our_own_is_not_taken_for_a_long_path() {
        let (mut calm, now) = calm();
        calm.until = Some(now + 100 * PERIOD);
        calm.measure(now + 100 * MS, 2 * MS, 1_000_000, true);
        for round in 1..1_000 {
            // What is under way takes as long as it takes a full path to move it.
            let queue = Duration::from_micros(calm.fills() / 10);
            calm.measure(now + 100 * MS + round * 10 * MS, queue, 1_000_000 + 100_000 * u64::from(round), true);
        }
        assert_eq!(calm.fills(), 60_000, "{calm:?}");
    }
}
