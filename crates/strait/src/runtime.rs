//! What the async API needs of the executor that it runs on.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use strait_core::peers::{Answer, LookupError, Question};

/// A future that can be handed to another thread.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a resolver will say.
pub type Lookup = Pin<Box<dyn Future<Output = Result<Answer, LookupError>> + Send>>;

/// An executor and its clock. tokio is one; the simulator's is another, in virtual time.
pub trait Runtime: Send + Sync + 'static {
    /// The monotone clock.
    fn now(&self) -> Instant;
    /// Runs a task to its end.
    fn spawn(&self, task: Task);
    /// Waits.
    fn sleep(&self, time: Duration) -> Task;
    /// Looks up a name. The core waits for at most [`LOOKUP_DEADLINE`](strait_core::limits::LOOKUP_DEADLINE), and asks a bounded number at once.
    fn resolve(&self, question: Question) -> Lookup {
        drop(question);
        Box::pin(std::future::ready(Err(LookupError::NoResolver)))
    }
}
