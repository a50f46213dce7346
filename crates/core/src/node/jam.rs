//! Jams: streams that wait (for their turn within `per_peer_max`, for memory, or for an application that does not read) keep what has
//! come for them in the transport, and that counts against the connection's receive window. When they fill it, those that could go on get no more bytes.
//!
//! QUIC has one window a connection and, in the QUIC crate, one fixed size for all streams, so this cannot be kept from happening.
//! It is seen (nothing moved for an interval although somebody waits for bytes or the peer says that it is blocked, and so much may be unread that the
//! window can be full) and undone: the window is widened while there is memory, past its usual
//! bound; and when there is none, the newest waiting stream is given up, and with it its part of the window. A peer that keeps to its
//! windows and to `per_peer_max` loses a stream here only when the node's memory is used up.

use std::time::{Duration, Instant};

use super::role::Role;
use super::state::{ConnState, Phase, Stream};
use super::{Event, Node};
use crate::error::{DialError, RequestError};
use crate::proto::pace::deadline;
use crate::proto::request::CODE_SLOW;
use crate::stream::StreamPort as _;
use crate::wake::{Key, Why};

/// How long nothing may move before it is a jam. Well below the interval in which a message has to make progress.
const INTERVAL: Duration = Duration::from_millis(100);

/// Whether the stream keeps its bytes in the transport for a reason of ours.
fn is_parked(stream: &Stream) -> bool {
    stream.number.is_some() && (matches!(stream.role, Role::Queued) || stream.waits.memory)
}

/// Whether the stream would go on if the peer's bytes came.
fn is_starving(stream: &Stream) -> bool {
    let waits = stream.waits;
    stream.number.is_some()
        && waits.peer
        && !waits.memory
        && !waits.app
        && !waits.open_ended
        && !matches!(stream.role, Role::Queued)
}

impl Node {
    /// Has a connection looked at again when streams of it are parked.
    pub(super) fn watch_for_jam(&mut self, now: Instant, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        if conn.streams.is_empty() {
            // Nothing is unread now: all that was received beyond what was consumed is overhead.
            conn.overhead_in = conn.wire_in.saturating_sub(conn.bytes_in);
        }
        if !matches!(conn.phase, Phase::Open(_)) || conn.armed.at().is_some() {
            return;
        }
        let parked = conn.starved || conn.waiting.values().any(|queue| !queue.is_empty());
        if parked || conn.quic.data_blocked() > conn.jam_blocked {
            conn.jam_mark = conn.bytes_in;
            let at = deadline(now, INTERVAL);
            self.wakes.set(&mut conn.armed, Key::Conn(slot), Some((at, Why::Housekeeping)));
        }
    }

    /// The interval is over: undoes a jam if there is one.
    pub(super) fn undo_jam(&mut self, now: Instant, slot: usize) {
        let step = self.config.limits.receive_window_min;
        let Some(conn) = self.conn_mut(slot).filter(|conn| matches!(conn.phase, Phase::Open(_))) else {
            return;
        };
        // A stream that has not arrived for want of window cannot be seen; that the peer says it is blocked can.
        let blocked = conn.quic.data_blocked();
        let waits = blocked > conn.jam_blocked || conn.streams.iter().any(|(_, stream)| is_starving(stream));
        if conn.streams.is_empty() {
            conn.jam_blocked = blocked;
        }
        // At most so much waits unread (what was received includes all overhead): far less than the window cannot have filled it,
        // whatever the peer says. Half, since the transport tells of new credit in steps.
        let unread = conn.wire_in.saturating_sub(conn.bytes_in).saturating_sub(conn.overhead_in);
        if waits && conn.jam_mark == conn.bytes_in && unread.saturating_mul(2) >= conn.credit.receive_window {
            conn.jam_blocked = blocked;
            match (conn.credit.widen(step), newest_parked(conn)) {
                (Some(window), _) => conn.quic.set_receive_window(window),
                (None, Some(newest)) => self.give_up(slot, newest),
                // All of it is in raw streams that the application does not read: that wait is its own.
                (None, None) => {}
            }
            self.send_later(slot);
        }
        self.watch_for_jam(now, slot);
    }

    fn give_up(&mut self, slot: usize, index: usize) {
        if let Some(conn) = self.conn_mut(slot)
            && let Some(number) = conn.streams.get(index).and_then(|stream| stream.number)
        {
            let mut port = conn.quic.port(number);
            port.reset(CODE_SLOW);
            port.stop(CODE_SLOW);
        }
        let given_up = self.conn(slot).and_then(|conn| Some((conn.streams.get(index)?.role, conn.stream_ref(index)?)));
        if let Some((Role::Client { def }, stream)) = given_up {
            // One of ours: it has its one outcome.
            let result = Err(RequestError::Dial(DialError::Full("no memory for the reply")));
            self.count_reply(def.name, &result, Duration::ZERO);
            self.events.push_back(Event::Reply { stream, result });
        }
        self.counters.totals.jams = self.counters.totals.jams.saturating_add(1);
        self.remove_stream(slot, index);
        self.activate(slot);
    }
}

/// The parked stream that the peer has opened last.
fn newest_parked(conn: &ConnState) -> Option<usize> {
    let parked = conn.streams.iter().filter(|(_, stream)| is_parked(stream));
    parked.max_by_key(|(_, stream)| stream.number).map(|(index, _)| index)
}
