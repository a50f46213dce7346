//! Waits with a bound. The bound is generous: it only keeps a broken test from hanging, and no test
//! asserts how long something took.

use std::{fmt::Debug, time::Duration};

use tokio::sync::watch;

/// How long any single wait may take.
pub const BOUND: Duration = Duration::from_secs(60);

/// The result of `future`.
///
/// # Panics
/// After [`BOUND`], naming `what` was awaited.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(BOUND, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {BOUND:?} in vain for: {what}"),
    }
}

/// The first value that `found` makes of what `watched` holds, now or later.
///
/// # Panics
/// After [`BOUND`], or when the sender is gone, naming `what` was awaited and what was there instead.
pub async fn until<T: Debug, R>(what: &str, watched: &mut watch::Receiver<T>, found: impl Fn(&T) -> Option<R>) -> R {
    let search = async {
        loop {
            if let Some(result) = found(&watched.borrow_and_update()) {
                return Some(result);
            }
            watched.changed().await.ok()?;
        }
    };
    match tokio::time::timeout(BOUND, search).await {
        Ok(Some(result)) => result,
        Ok(None) => panic!("the node ended before: {what}; last state: {:?}", watched.borrow()),
        Err(_) => panic!("waited {BOUND:?} in vain for: {what}; last state: {:?}", watched.borrow()),
    }
}

/// The first value that `found` gives, asked over and over.
///
/// # Panics
/// After [`BOUND`], naming `what` was awaited.
pub async fn poll<R>(what: &str, mut found: impl FnMut() -> Option<R>) -> R {
    within(what, async {
        loop {
            if let Some(result) = found() {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}
