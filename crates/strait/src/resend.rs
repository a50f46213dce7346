//! Requests whose connection was lost. One that may be worked on twice is dialled for again and sent again, so that its caller sees nothing of
//! a changed address; any other ends with [`RequestError::Lost`], since nobody can say whether the peer has acted on it.
//!
//! Nothing storms: a request is sent again [`RESENDS_MAX`] times at most, who waits for one peer shares one dial, dials have their budget, the first
//! dial after a loss that others may share does not come at once (the core sees to that), and what could not be reached rests for longer and longer,
//! jittered. Nothing waits for ever: there has to be a connection again within the protocol's `deadline`, and all of it ends with the time that one
//! exchange may take.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use strait_core::{CODE_NO_ROOM, Closed, DialError, Message, PeerId, Request, RequestError};

use crate::node::Node;
use crate::shared::Shared;

/// A request is sent again so often when its connection was lost. Not counted is that a peer had no room: it has not looked at anything then.
const RESENDS_MAX: u32 = 3;
/// A connection that was lost again so soon is not dialled for at once a second time.
const SOON: Duration = Duration::from_secs(1);

/// What is known of a request that may have to be sent again.
pub(crate) struct Resend {
    def: &'static Request,
    /// What is sent again; `None` for a request that must not be.
    kept: Option<Message>,
    /// When it has to be over, and when there has to be a connection again: once a connection was lost.
    by: Option<Instant>,
    connected_by: Option<Instant>,
    begun: Option<Instant>,
    last_sent: Option<Instant>,
    lost: u32,
    /// Dials in a row that came to nothing, and whether the next waits for that.
    failures: u32,
    rests: bool,
}

impl Resend {
    pub(crate) fn new(def: &'static Request, body: &Message) -> Resend {
        Resend {
            def,
            kept: def.idempotent.then(|| body.clone()),
            by: None,
            connected_by: None,
            begun: None,
            last_sent: None,
            lost: 0,
            failures: 0,
            rests: false,
        }
    }

    /// It is being sent.
    pub(crate) fn sent(&mut self, shared: &Shared) {
        if self.kept.is_some() {
            let now = shared.runtime.now();
            self.begun.get_or_insert(now);
            self.last_sent = Some(now);
        }
    }

    /// How long the exchange may take in all.
    fn total(&self, shared: &Shared) -> Duration {
        self.def.total(shared.lock().core.limits())
    }

    /// It has failed. What to send once more, if that may be.
    pub(crate) fn failed(&mut self, shared: &Shared, error: &RequestError) -> Option<Message> {
        let (RequestError::Lost(closed), Some(kept)) = (error, &self.kept) else {
            return None;
        };
        let refused = matches!(closed, Closed::There { code, .. } if *code == u64::from(CODE_NO_ROOM));
        // What this side has closed itself it does not want again.
        if matches!(closed, Closed::Here(_)) || (self.lost >= RESENDS_MAX && !refused) {
            return None;
        }
        let now = shared.runtime.now();
        let by = self.by.or_else(|| self.begun?.checked_add(self.total(shared))).filter(|by| now < *by)?;
        let without = now.checked_add(self.def.deadline).map_or(by, |at| at.min(by));
        let connected_by = self.connected_by.filter(|_| refused).unwrap_or(without);
        let body = (now < connected_by).then(|| kept.clone())?;
        let soon = self.lost > 0 && self.last_sent.is_some_and(|sent| now.saturating_duration_since(sent) < SOON);
        self.lost += u32::from(!refused);
        self.rests = refused || soon;
        self.failures = if self.rests { self.failures.saturating_add(1) } else { 0 };
        (self.by, self.connected_by) = (Some(by), Some(connected_by));
        Some(body)
    }

    /// Waits for a connection: once for a request that was not sent yet, and for one whose connection was lost as long as that makes sense.
    pub(crate) async fn connected(&mut self, node: &Node, peer: PeerId) -> Result<(), RequestError> {
        let shared = node.shared();
        let Some(by) = self.connected_by else {
            return node.connected(peer).await;
        };
        let mut last = None;
        if std::mem::take(&mut self.rests) {
            self.rest(shared, by, shared.moved.notified()).await;
        }
        loop {
            // Before the look: what changes from now on is not missed.
            let moved = shared.moved.notified();
            match within(shared, by, node.connected(peer)).await {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) if may_change(&error) && shared.runtime.now() < by => last = Some(error),
                Some(Err(error)) => return Err(error),
                None => return Err(last.unwrap_or(RequestError::Dial(DialError::NoAnswer { waited: self.def.deadline }))),
            }
            self.failures = self.failures.saturating_add(1);
            self.rest(shared, by, moved).await;
        }
    }

    /// Waits before the next dial, longer each time. Other addresses of this machine are a reason not to.
    async fn rest(&self, shared: &Shared, by: Instant, moved: impl Future<Output = ()>) {
        let rest = shared.lock().core.redial_rest(self.failures);
        let at = shared.runtime.now().checked_add(rest).map_or(by, |at| at.min(by));
        within(shared, at, moved).await;
    }

    /// Waits for a reply, for no longer than there is time once the request is not sent for the first time.
    pub(crate) async fn reply<F>(&self, shared: &Shared, reply: F) -> Result<Message, RequestError>
    where
        F: Future<Output = Result<Message, RequestError>>,
    {
        match self.by {
            None => reply.await,
            Some(by) => within(shared, by, reply).await.unwrap_or_else(|| Err(RequestError::TooLong(self.total(shared)))),
        }
    }
}

/// Whether a dial that failed so may succeed a little later, or from another network.
fn may_change(error: &RequestError) -> bool {
    use DialError as Dial;
    let RequestError::Dial(error) = error else {
        return false;
    };
    !matches!(error, Dial::Closing | Dial::Itself | Dial::WrongPeer { .. } | Dial::Incompatible(_) | Dial::BadAddress(_))
}

/// Waits for `future` until `by`. `None` when it took longer.
async fn within<F: Future>(shared: &Shared, by: Instant, future: F) -> Option<F::Output> {
    let mut sleep = shared.runtime.sleep(by.saturating_duration_since(shared.runtime.now()));
    let mut future = pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
    })
    .await
}
