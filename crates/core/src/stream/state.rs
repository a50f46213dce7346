//! What outlives one drive of a stream.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::{Input, StreamPort};
use crate::budget::Grant;
use crate::wake::Why;

/// The state of a stream that outlives one drive.
#[derive(Debug)]
pub(crate) struct IoState {
    /// The chunk that was taken last, not all consumed.
    pub(super) front: Bytes,
    /// Header bytes gathered from several chunks. Always before `front`.
    pub(super) head: BytesMut,
    /// Small writes gathered in this drive.
    pub(super) outbox: BytesMut,
    /// What of the outbox the transport had no room for.
    pub(super) unsent: Bytes,
    pub(crate) grant: Grant,
    /// A large chunk was handed over: the transport keeps all of its memory until the last byte of it is acknowledged.
    pub(crate) pins: bool,
    /// The peer has acknowledged all of our direction.
    pub(crate) delivered: bool,
    /// What the stream itself is granted, beside its messages.
    pub(crate) base: u64,
    pub(super) peer_finished: bool,
    pub(crate) peer_reset: Option<u64>,
    pub(crate) peer_stopped: Option<u64>,
    pub(super) finish: Finish,
    /// The peer had refused our bytes before we ended.
    pub(super) cut: bool,
    pub(crate) deadline: Option<(Instant, Why)>,
    pub(crate) input: Option<Input>,
    pub(crate) moved: Moved,
    /// The transport had nothing to read when it was last asked, and has not said since that something has come: it is not asked again.
    pub(super) dry: bool,
    /// Reads are held back while a lazy negotiation is not confirmed.
    pub(super) held: bool,
    /// What the application wanted before the negotiation had come so far.
    pub(crate) late: Late,
}

/// What a stream has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes consumed, and given to the transport.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Bytes copied in user space.
    pub(crate) copied: u64,
    /// Keys of its topic that were looked at.
    pub(crate) looks: u64,
    /// Frames of its topic that were begun.
    pub(crate) told: u64,
}

impl Moved {
    /// What was done since.
    pub(crate) fn since(self, before: Moved) -> Moved {
        Moved {
            bytes_in: self.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
            copied: self.copied.saturating_sub(before.copied),
            looks: self.looks.saturating_sub(before.looks),
            told: self.told.saturating_sub(before.told),
        }
    }
}

/// Ends that an application asked for too early. A stream that is closed before its proposal is written says nothing to the peer; one
/// that refuses the peer's bytes before the answer never learns of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Late {
    pub(crate) finish: bool,
    pub(crate) stop: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    No,
    Wanted,
    Done,
}

impl IoState {
    pub(crate) fn new(grant: Grant) -> IoState {
        IoState {
            front: Bytes::new(),
            head: BytesMut::new(),
            outbox: BytesMut::new(),
            unsent: Bytes::new(),
            pins: false,
            delivered: false,
            base: grant.bytes(),
            grant,
            peer_finished: false,
            peer_reset: None,
            peer_stopped: None,
            finish: Finish::No,
            cut: false,
            deadline: None,
            input: None,
            moved: Moved::default(),
            dry: false,
            held: false,
            late: Late::default(),
        }
    }

    /// Allocated bytes that this stream holds beside what its machine holds.
    pub(crate) fn held(&self) -> u64 {
        let parts = [self.front.len(), self.head.capacity(), self.outbox.capacity(), self.unsent.len()];
        parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part as u64))
    }

    /// Whether the transport had nothing more for it when it was last asked, and has not said otherwise since.
    pub(crate) fn dry(&self) -> bool {
        self.dry
    }

    /// Nothing can have come for it yet.
    pub(crate) fn dried(&mut self) {
        self.dry = true;
    }

    /// Something has come for it.
    pub(crate) fn stirred(&mut self) {
        self.dry = false;
    }

    /// Ends whatever direction is still open.
    pub(crate) fn seal(&mut self, port: &mut dyn StreamPort) {
        if self.finish != Finish::Done {
            self.finish = Finish::Done;
            port.reset(0);
        }
        if !self.peer_finished && self.peer_reset.is_none() {
            self.peer_finished = true;
            port.stop(0);
        }
    }

    /// Whether the transport still holds memory of this stream that the peer has not released by acknowledging it.
    pub(crate) fn undelivered(&self) -> bool {
        self.pins && !self.delivered && self.peer_stopped.is_none()
    }
}
