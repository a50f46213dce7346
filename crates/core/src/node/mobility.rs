//! Mobility: this machine has other addresses than before. What can go on from a new one does, what cannot is ended at once instead of at its
//! deadline, so that whoever waits for it can dial anew; and dials that wait for better times begin, since the times have changed.
//!
//! | connection | what becomes of it |
//! |---|---|
//! | QUIC, dialled | asks its peer for an answer from the new address (RFC 9000 section 9). None within [`MOVE_DEADLINE`]: it is over. So it ends at peers that forbid migration |
//! | QUIC, accepted at an address that is gone | over: only the side that dialled can move |
//! | a pipe from an address that is gone | over: TCP has no way to move |
//! | a dial from an address that is gone, or that has heard nothing yet | begun again |

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Node;
use super::state::{ConnId, ConnState, Phase};
use crate::conn::piped::{ADDRESS_GONE, PipeEnd};
use crate::conn::transport::Transport;
use crate::error::{Closed, DialError};
use crate::limits::{MOVE_DEADLINE, MOVE_ROUND_TRIPS, REST_FIRST, REST_MAX};
use crate::proto::pace::deadline;
use crate::wake::{Key, Why};

impl Node {
    /// This machine's addresses have changed, and `gone` are no more; it may be empty. Connections move or end as the module's table says, each with
    /// its events; who could not be reached is no longer left alone, and what is being dialled goes on at once.
    pub fn local_addresses_changed(&mut self, now: Instant, gone: &[IpAddr]) {
        self.restart_dials(now, gone);
        for slot in 0..self.conns.len() {
            self.leave_addresses(now, slot, gone);
        }
        self.forgive_dials(now);
    }

    /// How long to wait after so many failed dials in a row for a request that is to be sent again, beside what the addresses themselves rest:
    /// doubled each time from [`REST_FIRST`] to [`REST_MAX`], and jittered.
    pub fn redial_rest(&mut self, failures: u32) -> Duration {
        let doubled = REST_FIRST.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        self.random.jitter(doubled.min(REST_MAX))
    }

    fn leave_addresses(&mut self, now: Instant, slot: usize, gone: &[IpAddr]) {
        let Some(conn) = self.conn(slot).filter(|conn| conn.phase != Phase::Closed) else {
            return;
        };
        // Of a QUIC connection that has heard nothing since it moved it is not known.
        let left = conn.local.map(|local| gone.contains(&local));
        match (&conn.quic, conn.dialled, left) {
            (Transport::Pipe(_), _, Some(true)) => self.pipe_ended(now, slot, PipeEnd::AddressGone),
            (Transport::Quic(_), true, None) if gone.is_empty() => {}
            (Transport::Quic(_), true, Some(true) | None) => self.begin_move(now, slot),
            (Transport::Quic(_), false, Some(true)) => self.end_moved(now, slot),
            _ => {}
        }
    }

    /// Has a connection go on from another address, and its peer say that it does.
    fn begin_move(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        conn.quic.local_address_changed();
        conn.local = None;
        if matches!(conn.phase, Phase::Open(_)) {
            conn.moved = Some(now);
            let at = deadline(now, MOVE_DEADLINE.max(conn.quic.rtt().saturating_mul(MOVE_ROUND_TRIPS)));
            self.wakes.set(&mut conn.moved_armed, Key::Moved(slot), Some((at, Why::Move)));
        }
        self.send_later(slot);
        self.activate(slot);
    }

    /// A connection has moved a while ago: it is over if nothing was heard since.
    pub(super) fn move_due(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        conn.moved_armed.fired();
        let (Some(moved), Phase::Open(_)) = (conn.moved, &conn.phase) else {
            return;
        };
        if !conn.inbox.is_empty() {
            // Perhaps its answer: that is looked at in this turn.
            let at = deadline(now, MOVE_DEADLINE);
            return self.wakes.set(&mut conn.moved_armed, Key::Moved(slot), Some((at, Why::Move)));
        }
        conn.moved = None;
        // What was under way already says nothing.
        let half = conn.quic.rtt().checked_div(2).unwrap_or_default();
        if conn.heard <= deadline(moved, half) {
            self.end_moved(now, slot);
        }
    }

    fn end_moved(&mut self, now: Instant, slot: usize) {
        self.end_conn(now, slot, Closed::Moved, DialError::NoWay(ADDRESS_GONE.to_owned()));
        self.close_transport(now, slot, 0, "");
    }

    /// Those of these dials that are bound to an address that is gone, or have not been heard from.
    pub(super) fn stranded_dials(&self, conns: impl Iterator<Item = ConnId>, gone: &[IpAddr]) -> Vec<ConnId> {
        let stranded = |conn: &ConnState| conn.local.is_none_or(|local| gone.contains(&local));
        let at = |id: &ConnId| self.conn(usize::try_from(id.slot).ok()?).filter(|conn| conn.id == *id);
        conns.filter(|id| at(id).is_some_and(stranded)).collect()
    }
}
