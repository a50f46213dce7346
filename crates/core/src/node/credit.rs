//! What a connection may have under way: windows and stream credit.
//!
//! Each starts at its floor and doubles while the peer makes use of it, as long as the ledger grants the worst case of what the QUIC
//! crate may then hold. Windows are bounded by the measured rate times the delay that is acceptable. What was offered to a peer cannot be taken
//! back, so grants stay until the connection ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Node;
use crate::budget::{Account, Grant};
use crate::limits::{CONNECTION_BYTES, Limits};

/// The shortest time over which a rate is taken, for paths with hardly any delay.
const MEASURE_MIN: Duration = Duration::from_millis(10);

/// A connection's windows and their grant.
#[derive(Debug)]
pub(super) struct Credit {
    grant: Grant,
    /// What the grant may grow to; the rest of the account is for messages.
    ceiling: u64,
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
        Some(Credit { grant, ceiling: limits.credit_ceiling(), receive_window, send_window, streams, mark })
    }

    /// Widens the receive window past its usual bound: doubled if that is granted, else by `step` if that is. Returns the new one.
    pub(super) fn widen(&mut self, step: u64) -> Option<u64> {
        let steps = [self.receive_window.saturating_mul(2), self.receive_window.saturating_add(step)];
        let granted = |wider: &u64| *wider <= u64::from(u32::MAX) && self.grow(*wider, self.send_window, self.streams);
        steps.into_iter().find(granted)
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
        let (receive, send, streams) = (conn.credit.receive_window, conn.credit.send_window, conn.credit.streams);
        if let Some(more) = doubled(receive, limits.receive_window_max, moved_in, per(moved_in, passed, delay))
            && conn.credit.grow(more, send, streams)
        {
            conn.quic.set_receive_window(more);
            grown = grown.saturating_add(1);
        }
        let receive = conn.credit.receive_window;
        if let Some(more) = doubled(send, limits.send_window_max, moved_out, per(moved_out, passed, delay))
            && conn.credit.grow(receive, more, streams)
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
fn per(bytes: u64, passed: Duration, time: Duration) -> u64 {
    let micros = passed.as_micros().max(1);
    let product = u128::from(bytes).saturating_mul(time.as_micros());
    u64::try_from(product.checked_div(micros).unwrap_or(u128::MAX)).unwrap_or(u64::MAX)
}
