//! Slow and dead told apart: a deadline on progress.
//!
//! Each interval is looked at by itself. A message that grew by less than the minimum in an interval is stalled,
//! unless the connection as a whole moved: then the peer is busy with our other streams. So 1 byte/s is found out in one interval
//! and a slow link is not, whatever share of it one stream gets.

use std::time::Instant;

use crate::stream::StreamIo;
use crate::wake::Why;

/// Which direction has to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer's bytes.
    In,
    /// Ours: the peer has to read them.
    Out,
}

/// Watches one message.
#[derive(Debug)]
pub struct Pace {
    direction: Direction,
    mark: Option<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    stream: u64,
    connection: u64,
}

impl Pace {
    /// Begins to watch at the first [`check`](Self::check).
    pub fn new(direction: Direction) -> Pace {
        Pace { direction, mark: None }
    }

    /// Forgets what was seen: the wait was not the peer's fault.
    pub fn restart(&mut self) {
        self.mark = None;
    }

    /// False when the last whole interval had too little progress. Sets the deadline for the next look.
    #[must_use]
    pub fn check(&mut self, io: &mut StreamIo<'_>) -> bool {
        let interval = io.limits().progress_interval;
        let (stream, connection) = match self.direction {
            Direction::In => (io.stream_bytes().0, io.connection_bytes().0),
            Direction::Out => (io.stream_bytes().1, io.connection_bytes().1),
        };
        let fresh = Mark { at: io.now(), stream, connection };
        let mark = *self.mark.get_or_insert(fresh);
        let mut end = deadline(mark.at, interval);
        if io.now() >= end {
            // Whatever share this stream got of a slow link, and whatever is being repaired on it: the link has moved.
            let grown = stream.saturating_sub(mark.stream);
            let moved = connection.saturating_sub(mark.connection);
            if grown.max(moved) < io.limits().progress_bytes {
                return false;
            }
            self.mark = Some(fresh);
            end = deadline(fresh.at, interval);
        }
        io.wake_at(end, Why::Progress);
        true
    }
}

/// `at + after`, or as late as can be.
pub(crate) fn deadline(at: Instant, after: std::time::Duration) -> Instant {
    const FAR: std::time::Duration = std::time::Duration::from_secs(60 * 60 * 24 * 365);
    at.checked_add(after).or_else(|| at.checked_add(FAR)).unwrap_or(at)
}
