//! What a connection may have under way: windows and stream credit.
//!
//! Each starts at its floor and doubles while the peer makes use of it, as long as the ledger grants the worst case of what the QUIC
//! crate may then hold. Windows are bounded by the measured rate times the delay that is acceptable. What was offered to a peer cannot be taken
//! back, so grants stay until the connection ends, and windows leave room for streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Node;
use crate::budget::{Account, Grant};
use crate::limits::{CONNECTION_BYTES, Limits};

/// The shortest time over which a rate is taken, for paths with hardly any delay.
pub(super) const MEASURE_MIN: Duration = Duration::from_millis(10);

/// A connection's windows and their grant.
#[derive(Debug)]
pub(super) struct Credit {
    grant: Grant,
    /// What the grant may grow to; the rest of the account is for messages.
    ceiling: u64,
    /// What of it windows leave to streams.
    reserve: u64,
    pub(super) receive_window: u64,
    send_window: u64,
    pub(super) streams: u32,
    mark: Mark,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    bytes_in: u64,
    bytes_out: u64,
}

impl Credit {
    /// With the smallest windows, which the account's floor covers.
    pub(super) fn new(account: &Arc<Account>, limits: &Limits, now: Instant) -> Option<Credit> {
        let (receive_window, send_window, streams) = (limits.receive_window_min, limits.send_window_min, limits.streams_min);
        let grant = account.grant(cost(receive_window, send_window, streams))?;
        let mark = Mark { at: now, bytes_in: 0, bytes_out: 0 };
        let ceiling = limits.credit_ceiling();
        // Where not all fit, each has a half.
        let reserve = Limits::streams_cost(limits.streams_max.into()).min(ceiling / 2);
        Some(Credit { grant, ceiling, reserve, receive_window, send_window, streams, mark })
    }

    pub(super) fn send_window(&self) -> u64 {
        self.send_window
    }

    /// Widens the receive window past its usual bound: doubled if that is granted, else by half of what the ceiling leaves, so that few
    /// jams lead to it, else by `step`. Returns the new one.
    pub(super) fn widen(&mut self, step: u64) -> Option<u64> {
        let left = self.ceiling.saturating_sub(cost(self.receive_window, self.send_window, self.streams));
        let half = Limits::receive_window_within(left / 2);
        let more = [self.receive_window, half.max(step), step];
        let wider = more.map(|more| self.receive_window.saturating_add(more));
        let granted = |wider: &u64| *wider <= u64::from(u32::MAX) && self.grow(*wider, self.send_window, self.streams);
        wider.into_iter().find(granted)
    }

    /// Leaves what all the streams would cost that there may be: a peer that keeps its streams open waits for the next one until there is
    /// credit, and windows never give any back.
    fn grow_windows(&mut self, receive_window: u64, send_window: u64) -> bool {
        let streams = Limits::streams_cost(self.streams.into()).max(self.reserve);
        let room = self.ceiling.saturating_sub(streams);
        cost(receive_window, send_window, 0) <= room && self.grow(receive_window, send_window, self.streams)
    }

    fn grow(&mut self, receive_window: u64, send_window: u64, streams: u32) -> bool {
        let cost = cost(receive_window, send_window, streams);
        if cost > self.ceiling || !self.grant.resize_spare(cost) {
            return false;
        }
        (self.receive_window, self.send_window, self.streams) = (receive_window, send_window, streams);
        true
    }
}

fn cost(receive_window: u64, send_window: u64, streams: u32) -> u64 {
    CONNECTION_BYTES
        .saturating_add(Limits::receive_window_cost(receive_window))
        .saturating_add(Limits::send_window_cost(send_window))
        .saturating_add(Limits::streams_cost(u64::from(streams)))
}

impl Node {
    /// Looks at how a connection has used what it has, about once a round trip, and grows what was too small.
    pub(super) fn review_credit(&mut self, now: Instant, slot: usize) {
        let limits = &self.config.limits;
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        let mut grown = 0u64;
        if conn.quic.peer_streams().saturating_mul(2) >= u64::from(conn.credit.streams) {
            let more = conn.credit.streams.saturating_mul(2).min(limits.streams_max);
            let (receive, send) = (conn.credit.receive_window, conn.credit.send_window);
            if more > conn.credit.streams && conn.credit.grow(receive, send, more) {
                conn.quic.set_stream_credit(more);
                grown = grown.saturating_add(1);
            }
        }
        let (bytes_in, bytes_out) = (conn.bytes_in, conn.bytes_out);
        let mark = conn.credit.mark;
        let passed = now.saturating_duration_since(mark.at);
        let moved_in = bytes_in.saturating_sub(mark.bytes_in);
        let moved_out = bytes_out.saturating_sub(mark.bytes_out);
        let round = conn.quic.rtt().max(MEASURE_MIN);
        let due = passed >= round;
        // Using half of a window in less than a round trip need not be measured to the end.
        let delay = limits.delay_max.max(round.saturating_mul(2));
        let (receive, send) = (conn.credit.receive_window, conn.credit.send_window);
        if let Some(more) = doubled(receive, limits.receive_window_max, moved_in, per(moved_in, passed, delay))
            && conn.credit.grow_windows(more, send)
        {
            conn.quic.set_receive_window(more);
            grown = grown.saturating_add(1);
        }
        let receive = conn.credit.receive_window;
        if let Some(more) = doubled(send, limits.send_window_max, moved_out, per(moved_out, passed, delay))
            && conn.credit.grow_windows(receive, more)
        {
            conn.quic.set_send_window(more);
            grown = grown.saturating_add(1);
        }
        if due || grown > 0 {
            conn.credit.mark = Mark { at: now, bytes_in, bytes_out };
        }
        self.counters.totals.windows_grown = self.counters.totals.windows_grown.saturating_add(grown);
    }
}

/// Twice the window, when half of it was used and neither its maximum nor what the measured rate needs stands against it.
fn doubled(window: u64, max: u64, moved: u64, needed: u64) -> Option<u64> {
    let more = window.saturating_mul(2).min(max);
    (moved.saturating_mul(2) >= window && more > window && more <= needed).then_some(more)
}

/// How many bytes `bytes` in `passed` make in `time`.
pub(super) fn per(bytes: u64, passed: Duration, time: Duration) -> u64 {
    let micros = passed.as_micros().max(1);
    let product = u128::from(bytes).saturating_mul(time.as_micros());
    u64::try_from(product.checked_div(micros).unwrap_or(u128::MAX)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Ledger;

    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    fn fresh(limits: &Limits) -> Credit {
        let ledger = Ledger::new(limits.memory_bytes);
        let account = ledger.open(limits.connection_floor(), limits.connection_bytes_max).expect("a floor");
        Credit::new(&account, limits, Instant::now()).expect("the floor covers it")
    }

    fn grow_all_windows(credit: &mut Credit, limits: &Limits) {
        loop {
            let receive = credit.receive_window.saturating_mul(2).min(limits.receive_window_max);
            let send = credit.send_window.saturating_mul(2).min(limits.send_window_max);
            let wider = receive > credit.receive_window && credit.grow_windows(receive, credit.send_window);
            if !(wider || send > credit.send_window && credit.grow_windows(credit.receive_window, send)) {
                return;
            }
        }
    }

    /// A peer that keeps its streams open never gets credit back by ending one: with other peers' limits of 256, and ours, 100 of them at once after
    /// a large transfer waited without end.
    #[test]
    fn windows_that_have_grown_leave_room_for_all_streams() {
        let limits = Limits::default();
        let mut credit = fresh(&limits);
        grow_all_windows(&mut credit, &limits);
        assert_eq!(credit.receive_window, limits.receive_window_max, "nor do streams that may come cost one direction its speed");
        while credit.streams < limits.streams_max {
            let more = credit.streams.saturating_mul(2).min(limits.streams_max);
            assert!(credit.grow(credit.receive_window, credit.send_window, more), "stuck at {} streams", credit.streams);
        }
    }

    /// Each is found only after an interval in which nothing moved: a hundred of them would be the end of every deadline.
    #[test]
    fn a_few_jams_widen_the_window_to_all_that_there_is() {
        let limits = Limits::default();
        let mut credit = fresh(&limits);
        grow_all_windows(&mut credit, &limits);
        let times = std::iter::from_fn(|| credit.widen(limits.receive_window_min)).take(100).count();
        assert!(times <= 16, "{times}");
        let left = credit.ceiling - cost(credit.receive_window, credit.send_window, credit.streams);
        assert!(left < Limits::receive_window_cost(limits.receive_window_min), "{left} B left");
    }

    #[test]
    fn streams_that_may_come_leave_half_of_a_small_room_to_windows() {
        let limits = Limits { connection_bytes_max: 4 << 20, ..Limits::default() };
        let mut credit = fresh(&limits);
        grow_all_windows(&mut credit, &limits);
        assert!(credit.receive_window > limits.receive_window_min, "{credit:?}");
    }
}
