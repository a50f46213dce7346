//! Two connections to one peer. When both sides dial at the same moment, both dials may succeed. Then both sides go on with the same one, and the other
//! is closed when nothing is under way on it.
//!
//! **The rule.** Of one that we dialled and one that the peer dialled, that one is used which was dialled by whoever has the smaller identity, as bytes. It
//! has to show that it is alive first: something has to come over it after the other was established. So what a process left behind that has been
//! restarted since is never chosen, whoever dialled it; and between two processes that live both sides choose the same, since both hear from it.
//!
//! **Nothing is lost.** On the other nothing new is begun; what is under way on it goes on. It is closed when nothing has moved on it for
//! [`RETIRED_FOR`], far longer than the peer takes to choose too. A peer that keeps using it (other software may) keeps it.
//!
//! Beyond `connections_per_peer_max` a connection of the same identity is refused, unless one of them is dead ([`Node::is_surplus`]).

use std::time::Instant;

use libp2p_identity::PeerId;

use super::Node;
use super::state::{ConnState, Phase};
use crate::error::{Closed, DialError};
use crate::limits::RETIRED_FOR;
use crate::proto::pace::deadline;
use crate::wake::{Key, Why};

impl Node {
    /// Whether connections that we dialled win over those that `peer` dialled.
    fn ours_win(&self, peer: &PeerId) -> bool {
        self.peer_id.to_bytes() < peer.to_bytes()
    }

    /// A connection to `peer` was established, or one of several was heard from: settles which is used.
    pub(super) fn settle_rivals(&mut self, now: Instant, peer: &PeerId) {
        let Some(slots) = self.peers.get(peer).filter(|slots| slots.len() > 1).cloned() else {
            return;
        };
        let ours = self.ours_win(peer);
        let wins = |slot: &usize| self.conn(*slot).is_some_and(|conn| conn.dialled == ours && conn.retired.is_none());
        let Some(winner) = slots.iter().rev().copied().find(wins) else {
            return;
        };
        let Some(heard) = self.conn(winner).map(|conn| conn.heard) else {
            return;
        };
        let (mut waits, mut retired) = (false, false);
        for slot in slots.into_iter().filter(|slot| *slot != winner) {
            let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
                continue;
            };
            if conn.dialled == ours || conn.retired.is_some() {
                continue;
            }
            if heard < conn.since {
                waits = true;
                continue;
            }
            conn.retired = Some(moved(conn));
            retired = true;
            let at = deadline(now, RETIRED_FOR);
            self.wakes.set(&mut conn.retired_armed, Key::Retired(slot), Some((at, Why::Housekeeping)));
        }
        if retired && let Some(slots) = self.peers.get_mut(peer) {
            // What is used is the last one.
            slots.retain(|slot| *slot != winner);
            slots.push(winner);
        }
        self.await_winner(winner, waits);
    }

    /// Whether one more connection to `peer` is too many. If there are as many as there may be, the one that was silent for the longest makes room, when a
    /// peer that lives would have answered meanwhile: it is what is left of a process that was restarted, or of an address that the peer had.
    pub(super) fn is_surplus(&mut self, now: Instant, peer: &PeerId) -> bool {
        let limits = &self.config.limits;
        let max = usize::try_from(limits.connections_per_peer_max).unwrap_or(usize::MAX);
        let Some(slots) = self.peers.get(peer).filter(|slots| slots.len() >= max) else {
            return *peer == self.peer_id;
        };
        // Each was asked for a sign of life after one and a quarter of the interval at the latest; the rest is time for the answer.
        let dead_after = limits.keep_alive.saturating_add(limits.keep_alive.checked_div(2).unwrap_or_default());
        let silent = |slot: usize| {
            // Of what was not looked at nothing was heard.
            let conn = self.conn(slot).filter(|conn| conn.inbox.is_empty() && conn.quic.wants_input())?;
            Some((now.saturating_duration_since(conn.heard), slot))
        };
        let longest = slots.iter().filter_map(|slot| silent(*slot)).max();
        let Some((silent, slot)) = longest.filter(|(silent, _)| *silent >= dead_after) else {
            return true;
        };
        self.end_conn(now, slot, Closed::Silent(silent), DialError::Closing);
        self.close_transport(now, slot, 0, "replaced by a newer connection");
        false
    }

    /// Has a connection that has to show that it is alive do so.
    fn await_winner(&mut self, winner: usize, waits: bool) {
        let Some(conn) = self.conn_mut(winner) else {
            return;
        };
        if waits && !std::mem::replace(&mut conn.rival, true) {
            // Asking for anything will do; that the peer is asked twice who it is does no harm.
            self.ask_identity(winner);
            self.activate(winner);
        } else if !waits {
            conn.rival = false;
        }
    }

    /// Something has come over a connection whose rival waits for that.
    pub(super) fn heard_from_rival(&mut self, now: Instant, slot: usize) {
        let peer = match self.conn(slot).map(|conn| (&conn.phase, conn.rival)) {
            Some((Phase::Open(peer), true)) => *peer,
            _ => return,
        };
        self.settle_rivals(now, &peer);
    }

    /// Looks at a connection that is not used any more.
    pub(super) fn retired_due(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        conn.retired_armed.fired();
        if !matches!(conn.phase, Phase::Open(_)) {
            return;
        }
        let now_moved = moved(conn);
        let quiet = conn.retired.replace(now_moved) == Some(now_moved);
        if quiet && conn.streams.is_empty() && conn.opening.is_empty() && conn.quic.unacknowledged() == 0 {
            self.counters.totals.connections_merged = self.counters.totals.connections_merged.saturating_add(1);
            let closed = Closed::Here("both sides had dialled at the same moment, and another connection to this peer is used");
            self.end_conn(now, slot, closed, DialError::Closing);
            return self.close_transport(now, slot, 0, "another connection is used");
        }
        let at = deadline(now, RETIRED_FOR);
        self.wakes.set(&mut conn.retired_armed, Key::Retired(slot), Some((at, Why::Housekeeping)));
    }
}

/// How much has moved over a connection's streams.
fn moved(conn: &ConnState) -> u64 {
    conn.bytes_in.saturating_add(conn.bytes_out)
}
