//! What must hold at every step: a node's promises ([`promises`]), and the apps' bytes ([`Flow`]).
//!
//! What an app sends must be what the other app gets: a [`Flow`] is one direction of a stream with a
//! content that both sides can compute, so that every delivered byte is checked where it arrives.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use strait_core::Audit;

use crate::exec::lock;

/// Checks what an audit of a node has found: held <= granted <= committed <= budget, every queue under
/// its cap, and nothing that waits without a deadline unless it has declared so.
///
/// # Errors
/// What is broken, with all numbers.
pub fn promises(audit: &Audit) -> Result<(), String> {
    let Audit { held, granted, committed, budget, .. } = audit;
    let broken = if held > granted {
        format!("{held} bytes are held, only {granted} are granted")
    } else if granted > committed {
        format!("{granted} bytes are granted, only {committed} are committed")
    } else if committed > budget {
        format!("{committed} bytes are committed, the budget is {budget}")
    } else if !audit.over_cap.is_empty() {
        format!("queues above their caps (name, length, cap): {:?}", audit.over_cap)
    } else if !audit.waits_without_deadline.is_empty() {
        let waits = &audit.waits_without_deadline;
        format!("waits without a deadline: {waits:?}")
    } else {
        return Ok(());
    };
    Err(format!("broken promise: {broken}; audit: {audit:?}"))
}

/// The byte of flow `id` at `offset`: no two neighbouring 8-byte groups are alike, so that a lost,
/// repeated or moved piece shows.
fn byte(id: u64, offset: u64) -> u8 {
    let group = (offset / 8).wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (group ^ (group >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed.to_le_bytes()[(offset % 8) as usize]
}

#[derive(Debug, Default)]
struct State {
    sent: u64,
    finished: bool,
    send_errors: u32,
    delivered: u64,
    ended: bool,
    receive_errors: u32,
}

/// One direction of a stream, seen from both ends. Clones are the same flow.
///
/// ```
/// use strait_sim::check::Flow;
/// let flow = Flow::new("upload", 1);
/// let bytes = flow.next(1000);   // what the sending app writes
/// flow.sent(1000);               // how much of it was taken
/// flow.finished();
/// flow.delivered(&bytes);        // panics unless these are the next bytes
/// flow.ended();
/// flow.settle();                 // panics unless all came, or exactly one error
/// ```
#[derive(Debug, Clone)]
pub struct Flow {
    name: Arc<str>,
    id: u64,
    state: Arc<Mutex<State>>,
}

impl Flow {
    /// A flow with a name for messages and a content that `id` chooses.
    #[must_use]
    pub fn new(name: &str, id: u64) -> Flow {
        Flow { name: name.into(), id, state: Arc::default() }
    }

    /// The next `length` bytes to be sent. They count as sent only with [`Flow::sent`].
    #[must_use]
    pub fn next(&self, length: usize) -> Bytes {
        self.content(lock(&self.state).sent, length)
    }

    /// `length` bytes of the content from `offset` on.
    #[must_use]
    pub fn content(&self, offset: u64, length: usize) -> Bytes {
        let mut bytes = BytesMut::zeroed(length);
        for (i, out) in bytes.iter_mut().enumerate() {
            *out = byte(self.id, offset + i as u64);
        }
        bytes.freeze()
    }

    /// The sender handed over `length` bytes more.
    pub fn sent(&self, length: usize) {
        let mut state = lock(&self.state);
        assert!(!state.finished, "{}: sent after the end", self.name);
        state.sent += length as u64;
    }

    /// The sender ended the flow in good order.
    pub fn finished(&self) {
        lock(&self.state).finished = true;
    }

    /// The sender got an error.
    pub fn send_failed(&self) {
        lock(&self.state).send_errors += 1;
    }

    /// The receiver got these bytes.
    ///
    /// # Panics
    /// Unless they are the next ones of the content and were sent before.
    pub fn delivered(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let (name, at) = (&self.name, state.delivered);
        assert!(!state.ended && state.receive_errors == 0, "{name}: {} bytes delivered after the end", bytes.len());
        for (i, found) in bytes.iter().enumerate() {
            let offset = at + i as u64;
            let wanted = byte(self.id, offset);
            assert!(
                *found == wanted,
                "{name}: byte {offset} is {found}, sent was {wanted}: what was delivered is no prefix of \
                 what was sent"
            );
        }
        state.delivered += bytes.len() as u64;
        assert!(state.delivered <= state.sent, "{name}: {} bytes delivered, only {} were sent", state.delivered, state.sent);
    }

    /// The receiver was told that the sender finished.
    ///
    /// # Panics
    /// If the sender did not, or if bytes are missing, or if it was told before.
    pub fn ended(&self) {
        let mut state = lock(&self.state);
        let name = &self.name;
        assert!(!state.ended, "{name}: the end was told twice");
        assert!(state.receive_errors == 0, "{name}: an end after an error");
        assert!(state.finished, "{name}: an end that the sender never sent");
        assert_eq!(state.delivered, state.sent, "{name}: an end before all was delivered");
        state.ended = true;
    }

    /// The receiver got an error.
    pub fn receive_failed(&self) {
        lock(&self.state).receive_errors += 1;
    }

    /// Bytes handed over by the sender so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        lock(&self.state).sent
    }

    /// Bytes delivered so far.
    #[must_use]
    pub fn delivered_bytes(&self) -> u64 {
        lock(&self.state).delivered
    }

    /// True if the receiver knows how it ended: all, or an error.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let state = lock(&self.state);
        state.ended || state.receive_errors > 0
    }

    /// To be called when everything should be over.
    ///
    /// # Panics
    /// Unless all that was sent was delivered and ended, or it was cut short with exactly one error.
    pub fn settle(&self) {
        let state = lock(&self.state);
        let complete = state.ended && state.receive_errors == 0;
        let cut = !state.ended && state.receive_errors == 1;
        assert!(complete || cut, "{}: neither complete nor cut once: {state:?}", self.name);
        assert!(state.send_errors <= 1, "{}: told its sender twice: {state:?}", self.name);
    }

    /// As [`Flow::settle`], and nothing may be missing.
    ///
    /// # Panics
    /// Unless all that was sent was delivered and ended.
    pub fn settle_complete(&self) {
        let state = lock(&self.state);
        let complete = state.ended && state.receive_errors == 0 && state.send_errors == 0;
        assert!(complete, "{}: not complete: {state:?}", self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let flow = Flow::new("flow", 3);
        flow.sent(100);
        flow
    }

    #[test]
    fn each_broken_promise_is_found() {
        let mut audit = Audit::default();
        (audit.held, audit.granted) = (1, 2);
        (audit.committed, audit.budget) = (3, 4);
        assert_eq!(promises(&audit), Ok(()));
        let break_it = |change: fn(&mut Audit)| {
            let mut audit = audit.clone();
            change(&mut audit);
            promises(&audit).expect_err("it is broken")
        };
        assert!(break_it(|audit| audit.held = 3).contains("3 bytes are held"));
        assert!(break_it(|audit| audit.granted = 4).contains("4 bytes are granted"));
        assert!(break_it(|audit| audit.committed = 5).contains("5 bytes are committed"));
        assert!(break_it(|audit| audit.over_cap.push(("q", 2, 1))).contains("above their caps"));
        let wait = |audit: &mut Audit| audit.waits_without_deadline.push("w".to_owned());
        assert!(break_it(wait).contains("waits without a deadline"));
    }

    #[test]
    fn whole_and_cut_flows_pass() {
        let whole = flow();
        whole.finished();
        whole.delivered(&whole.content(0, 60));
        whole.delivered(&whole.content(60, 40));
        whole.ended();
        whole.settle_complete();
        let cut = flow();
        cut.delivered(&cut.content(0, 60));
        cut.receive_failed();
        cut.settle();
    }

    #[test]
    #[should_panic(expected = "no prefix")]
    fn a_moved_piece_is_found() {
        let flow = flow();
        flow.delivered(&flow.content(8, 8));
    }

    #[test]
    #[should_panic(expected = "only 100 were sent")]
    fn invented_bytes_are_found() {
        let flow = flow();
        flow.delivered(&flow.content(0, 101));
    }

    #[test]
    #[should_panic(expected = "before all was delivered")]
    fn an_end_too_early_is_found() {
        let flow = flow();
        flow.finished();
        flow.delivered(&flow.content(0, 99));
        flow.ended();
    }

    #[test]
    #[should_panic(expected = "neither complete nor cut once")]
    fn silence_is_found() {
        let flow = flow();
        flow.delivered(&flow.content(0, 100));
        flow.settle();
    }

    #[test]
    #[should_panic(expected = "neither complete nor cut once")]
    fn a_second_error_is_found() {
        let flow = flow();
        flow.receive_failed();
        flow.receive_failed();
        flow.settle();
    }
}
