//! What the async API needs of the executor that it runs on.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// A future that can be handed to another thread.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An executor and its clock. tokio is one; the simulator's is another, in virtual time.
pub trait Runtime: Send + Sync + 'static {
    /// The monotone clock.
    fn now(&self) -> Instant;
    /// Runs a task to its end.
    fn spawn(&self, task: Task);
    /// Waits.
    fn sleep(&self, time: Duration) -> Task;
}
