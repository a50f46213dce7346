//! How many chunks to ask one provider for at once: its rate times the delay of its path, both measured.

use std::time::Duration;

use tokio::time::Instant;

/// Chunks asked of one provider at once, at most. The protocol's own limit per peer is the same number (TR-03).
pub(super) const CHUNKS_MAX: usize = 16;
/// Chunks asked for at once before anything was measured.
const FIRST: usize = 4;
/// Of a longer delay only so much counts: on a slow path each request stays short, far from its deadline and with little lost when the
/// connection is.
const DELAY_MAX: Duration = Duration::from_secs(2);
/// Twice the product of rate and delay: one half is on its way while the other is being asked for and read from a disk.
const GAIN: f64 = 2.0;
/// With so few under way none waits behind another, so that what one takes is the delay of the path as it is now. When a path became
/// longer, the window falls to here by itself.
const ALONE: usize = 2;
/// So much of the way the estimates move with each chunk, where they do not jump: that of the delay,
const RISE: f64 = 1.0 / 4.0;
/// and that of the rate when chunks come more slowly than before.
const DECAY: f64 = 1.0 / 16.0;

/// What is known of the path to one provider.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// Chunks that came, to see how many came while one was under way.
    came: u64,
    /// Seconds from asking to having, smoothed; and the same without a queue, as far as is known.
    usual: Option<f64>,
    shortest: f64,
    /// Chunks a second.
    rate: f64,
    /// Has to prove itself: one at a time.
    doubted: bool,
}

/// A request that was sent: what is needed to measure with its reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: Instant,
    came: u64,
}

impl Window {
    /// How many chunks may be under way now: at least one, at most [`CHUNKS_MAX`].
    pub(super) fn chunks(&self) -> usize {
        if self.doubted {
            return 1;
        }
        if self.usual.is_none() {
            return FIRST;
        }
        let product = self.rate * self.shortest.min(DELAY_MAX.as_secs_f64());
        ((GAIN * product) as usize).saturating_add(1).min(CHUNKS_MAX)
    }

    /// How long a chunk takes, if one came at all.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.usual.map(Duration::from_secs_f64)
    }

    /// A chunk is asked for.
    pub(super) fn sends(&self, now: Instant) -> Sent {
        Sent { at: now, came: self.came }
    }

    /// It came. Its rate is that of all chunks which came while it was under way.
    pub(super) fn arrived(&mut self, sent: Sent, now: Instant) {
        let took = now.duration_since(sent.at).as_secs_f64().max(1e-6);
        self.came += 1;
        let rate = (self.came - sent.came) as f64 / took;
        match self.usual {
            None => (self.usual, self.shortest, self.rate) = (Some(took), took, rate),
            Some(usual) => {
                let rise = if self.chunks() <= ALONE { (took - self.shortest) * RISE } else { 0.0 };
                self.shortest = took.min(self.shortest + rise);
                self.usual = Some(usual + (took - usual) / 8.0);
                self.rate = rate.max(self.rate + (rate - self.rate) * DECAY);
            }
        }
        self.doubted = false;
    }

    /// Somebody else was quicker with a chunk that was asked for so long ago.
    pub(super) fn beaten(&mut self, sent: Sent, now: Instant) {
        let took = now.duration_since(sent.at).as_secs_f64();
        self.usual = Some(self.usual.map_or(took, |usual| usual.max(took)));
        self.doubted = true;
    }

    /// The connection failed: the next may take another path.
    pub(super) fn lost(&mut self) {
        *self = Window { came: self.came, doubted: true, ..Window::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a path on which chunks take `delay` and leave at most `rate` a second, and says where the window ends up.
    fn settles_at(window: &mut Window, delay: f64, rate: f64, chunks: usize) -> usize {
        let start = Instant::now();
        let mut open: std::collections::VecDeque<(f64, Sent)> = Default::default();
        let (mut now, mut free) = (0.0_f64, 0.0_f64);
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        for _ in 0..chunks {
            while open.len() < window.chunks() {
                free = free.max(now) + 1.0 / rate;
                open.push_back((free + delay, window.sends(at(now))));
            }
            let (done, sent) = open.pop_front().unwrap();
            now = now.max(done);
            window.arrived(sent, at(now));
        }
        window.chunks()
    }

    #[test]
    fn follows_rate_times_delay() {
        // 40 chunks a second and 100 ms: four are on the way, and one more is being sent.
        let long = settles_at(&mut Window::default(), 0.1, 40.0, 300);
        assert!((8..=14).contains(&long), "{long}");
        // The same rate without a delay.
        let short = settles_at(&mut Window::default(), 0.001, 40.0, 300);
        assert!((2..=6).contains(&short), "{short}");
        assert_eq!(settles_at(&mut Window::default(), 0.5, 1000.0, 300), CHUNKS_MAX);
    }

    #[test]
    fn a_slow_path_is_asked_for_one_or_two_at_a_time() {
        // A chunk in ten seconds: no request waits behind many others until it is past its deadline.
        assert_eq!(settles_at(&mut Window::default(), 0.05, 0.1, 50), 1);
        assert!(settles_at(&mut Window::default(), 0.05, 0.5, 50) <= 3);
    }

    #[test]
    fn a_path_that_changes_is_learnt_anew() {
        let mut window = Window::default();
        settles_at(&mut window, 0.5, 1000.0, 300);
        let slower = settles_at(&mut window, 0.0, 0.1, 300);
        assert!(slower <= 2, "{slower}");
        let quicker = settles_at(&mut window, 0.2, 100.0, 300);
        assert!(quicker >= 12, "{quicker}");
    }

    #[test]
    fn who_failed_or_was_beaten_proves_itself_with_one() {
        let start = Instant::now();
        let mut window = Window::default();
        assert_eq!(window.chunks(), FIRST);
        settles_at(&mut window, 0.5, 1000.0, 300);
        let sent = window.sends(start);
        window.beaten(sent, start + Duration::from_secs(9));
        assert_eq!((window.chunks(), window.usual()), (1, Some(Duration::from_secs(9))));
        window.arrived(window.sends(start), start + Duration::from_millis(500));
        assert!(window.chunks() > FIRST);
        window.lost();
        assert_eq!((window.chunks(), window.usual()), (1, None));
    }
}
