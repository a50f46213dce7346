//! Telling a provider that is slow from one that is gone. The transports themselves take 30 seconds to notice the latter.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

/// While requests wait and none is answered for so long, the provider is pinged.
const QUIET: Duration = Duration::from_secs(1);
/// A pong may take eight round trips, but at least and at most so long: a ping may be lost more than once, or wait behind what a slow
/// path still holds.
const PONG: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(20));

/// How long to wait for a pong on a path with this round-trip time.
pub(crate) fn pong_within(round_trip: Duration) -> Duration {
    round_trip.saturating_mul(8).clamp(PONG.0, PONG.1)
}

/// The last sign of life of one provider, shared by all requests to it.
#[derive(Debug)]
pub(crate) struct Pulse {
    felt: Mutex<Instant>,
    /// One ping at a time, however many requests wait.
    pinging: tokio::sync::Mutex<()>,
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse { felt: Mutex::new(Instant::now()), pinging: tokio::sync::Mutex::default() }
    }

    fn felt(&self) -> MutexGuard<'_, Instant> {
        self.felt.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for a request, and pings while it waits. `ping` says how long a pong may take, and waits for it.
    ///
    /// # Errors
    /// Once for all requests that wait: no pong came, or the ping's own words for why nobody is there. What else may be wrong with a ping counts as
    /// life, since the request will say why.
    pub(crate) async fn during<T, P: Future<Output = Result<(), String>>>(
        &self,
        request: impl Future<Output = T>,
        ping: impl Fn() -> (Duration, P),
    ) -> Result<T, String> {
        let mut request = pin!(request);
        let mut since = Instant::now();
        loop {
            since = since.max(*self.felt());
            tokio::select! {
                biased;
                done = &mut request => {
                    *self.felt() = Instant::now();
                    return Ok(done);
                }
                alive = self.look(since, &ping) => alive?,
            }
        }
    }

    /// Says whether the provider lives, when nothing else did for a while.
    async fn look<P: Future<Output = Result<(), String>>>(
        &self,
        since: Instant,
        ping: impl Fn() -> (Duration, P),
    ) -> Result<(), String> {
        sleep_until(since + QUIET).await;
        let _one = self.pinging.lock().await;
        if *self.felt() > since {
            return Ok(());
        }
        let (within, pong) = ping();
        let silent = |_| Err("it answers neither requests nor pings".to_owned());
        let alive = timeout(within, pong).await.unwrap_or_else(silent);
        *self.felt() = Instant::now(); // also if there was none: the next one is given the same time
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn who_answers_pings_may_take_as_long_as_it_likes() {
        let (pulse, pings) = (Pulse::new(), AtomicUsize::new(0));
        let ping = || {
            pings.fetch_add(1, Ordering::Relaxed);
            (PONG.0, async {
                sleep(PONG.0 / 2).await;
                Ok(())
            })
        };
        let slow = || async {
            sleep(Duration::from_secs(600)).await;
            7
        };
        let (one, two) = tokio::join!(pulse.during(slow(), ping), pulse.during(slow(), ping));
        assert_eq!((one, two), (Ok(7), Ok(7)));
        let pings = pings.load(Ordering::Relaxed);
        assert!((200..=300).contains(&pings), "{pings} pings for two requests in 600 s");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_noticed_soon_and_by_one_request() {
        let (pulse, began) = (Pulse::new(), Instant::now());
        let ping = || (pong_within(Duration::ZERO), pending());
        let (one, two) = (pulse.during(pending::<()>(), ping), pulse.during(pending::<()>(), ping));
        let (mut one, mut two) = (pin!(one), pin!(two));
        let other = tokio::select! { _ = &mut one => two, _ = &mut two => one };
        // The clock of the tests has whole milliseconds.
        assert_eq!(began.elapsed().as_millis() / 10, (QUIET + PONG.0).as_millis() / 10);
        // The other starts anew: by now there may be another connection.
        assert!(timeout(QUIET, other).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_answer_costs_no_ping() {
        let ping = || -> (Duration, std::future::Ready<Result<(), String>>) { panic!("not needed") };
        assert_eq!(Pulse::new().during(ready(1), ping).await, Ok(1));
    }
}
