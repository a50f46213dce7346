//! A walk over everything that a node holds, against what it may.

use super::arrive::ANSWERS_MAX;
use super::role::Role;
use super::state::ConnState;
use super::{Event, Node};
use crate::conn::transport::Transport;
use crate::limits::{FRONT_BYTES_MAX, HEADER_BYTES_MAX, LOOKUPS_MAX, OUTBOX_BYTES_MAX};
use crate::report::Audit;

impl Node {
    /// Walks everything. For tests, the simulator and diagnosis: the time is in proportion to all streams.
    pub fn audit(&self) -> Audit {
        let mut audit = Audit {
            committed: self.ledger.committed(),
            budget: self.ledger.budget(),
            connections: self.live,
            book: self.book.bytes(),
            ..Audit::default()
        };
        let cap = |audit: &mut Audit, what: &'static str, len: u64, max: u64| {
            if len > max {
                audit.over_cap.push((what, len, max));
            }
        };
        let limits = &self.config.limits;
        audit.held = audit.held.saturating_add(self.strangers.bytes());
        cap(&mut audit, "strangers' datagrams", self.strangers.bytes(), limits.strangers_floor());
        audit.held = audit.held.saturating_add(self.book.bytes());
        audit.granted = audit.granted.saturating_add(self.book_grant.bytes());
        cap(&mut audit, "the address book", self.book.bytes(), self.book.bytes_max());
        let [wishes, dials, lookups] = self.dialling.counts();
        audit.held = audit.held.saturating_add(self.dialling.held());
        audit.granted = audit.granted.saturating_add(self.dialling_grant.bytes());
        cap(&mut audit, "what is to be dialled", self.dialling.held(), limits.dialling_floor());
        cap(&mut audit, "dials", dials as u64, limits.dials_max.into());
        cap(&mut audit, "look-ups", lookups as u64, LOOKUPS_MAX as u64);
        audit.held = audit.held.saturating_add(self.abuse.held());
        audit.granted = audit.granted.saturating_add(self.abuse.granted());
        cap(&mut audit, "the abuse feed", self.abuse.held(), limits.abuse_floor());
        cap(&mut audit, "answers", self.answers.len() as u64, ANSWERS_MAX as u64);
        cap(&mut audit, "connections", self.live as u64, limits.places().into());
        cap(&mut audit, "slots", self.slots.taken().into(), limits.connections_max.into());
        cap(&mut audit, "handshakes", self.places.taken().into(), limits.handshakes_max.into());
        let mut streams = 0usize;
        for conn in self.conns.iter().flatten() {
            streams = streams.saturating_add(conn.streams.len());
            audit.granted = audit.granted.saturating_add(conn.account.granted());
            cap(&mut audit, "an account", conn.account.granted(), conn.account.max());
            cap(&mut audit, "a connection's datagrams", conn.inbox.bytes(), conn.inbox.granted());
            audit.held = audit.held.saturating_add(conn.inbox.bytes());
            if let Transport::Pipe(pipe) = &conn.quic {
                let held = pipe.piped.held();
                audit.held = audit.held.saturating_add(held);
                cap(&mut audit, "a connection over a pipe", held, conn.account.granted());
            }
            self.audit_streams(conn, &mut audit);
        }
        audit.streams = streams;
        cap(
            &mut audit,
            "deadlines",
            self.wakes.len() as u64,
            // One is for peers that were lost.
            (streams as u64).saturating_add((self.live as u64).saturating_mul(3)).saturating_add(wishes as u64).saturating_add(1),
        );
        cap(&mut audit, "subscribers that wait", self.topics.watchers() as u64, streams as u64);
        let outcomes = (streams as u64).saturating_mul(2).saturating_add(limits.connections_max.into());
        let pending = self.events.iter().filter(|event| matches!(event, Event::Ready { .. })).count() as u64;
        cap(&mut audit, "readiness events", pending, outcomes);
        audit
    }

    fn audit_streams(&self, conn: &ConnState, audit: &mut Audit) {
        let staging = (HEADER_BYTES_MAX as u64)
            .saturating_add((OUTBOX_BYTES_MAX as u64).saturating_mul(2))
            .saturating_add(FRONT_BYTES_MAX as u64);
        for (index, stream) in &conn.streams {
            let held = stream.io.held();
            audit.held = audit.held.saturating_add(held);
            if held > staging.saturating_mul(2) {
                audit.over_cap.push(("a stream's staging", held, staging.saturating_mul(2)));
            }
            let waits = stream.waits;
            let theirs = (waits.peer || waits.room) && !waits.open_ended && !waits.app && !waits.memory;
            let started = stream.number.is_some() && !stream.queued && !matches!(stream.role, Role::Queued);
            let unopened = stream.number.is_none() && stream.open_by.is_none() && self.turns.is_idle();
            if unopened {
                audit.waits_without_deadline.push(format!("stream {index} of {:?}, to be opened ({:?})", conn.id, stream.role));
            }
            if theirs && started && stream.armed.at().is_none() {
                audit.waits_without_deadline.push(format!("stream {index} of {:?} ({:?})", conn.id, stream.role));
            }
        }
    }
}
