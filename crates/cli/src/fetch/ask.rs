//! One request after another to a provider, with retries, and its failures in words.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::exit::{Code, Failure};
use crate::tree::Which;
use crate::wire::{Ask, Declined, Status, open_reply};

/// Waits before the second, third, ... try of a request that got no reply.
const RETRY_AFTER: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];

/// Somebody who can be asked for the parts of one transfer.
///
/// The reply is what the protocol sends: a status and what follows. Nothing of it is trusted.
pub trait Fetch: Send + Sync + 'static {
    /// Asks once. Dropping the future cancels it.
    fn fetch(&self, ask: Ask) -> impl Future<Output = Result<Bytes, FetchError>> + Send;
}

/// Why there was no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// It may work when tried again: the connection was lost, the reply was late.
    Again(String),
    /// It will not work when tried again.
    Final(Box<Failure>),
}

/// The failure for bytes that are not those of the ticket (TR-24).
pub(super) fn mismatch(part: &str) -> Failure {
    Failure::new(
        Code::Mismatch,
        format!("the provider sent bytes that do not belong to this ticket ({part})"),
        "its files changed unnoticed, its disk or memory is faulty, or it lies; nothing was put in place",
        "ask the sender to run send again, and use the new ticket; do not trust this provider if it happens again",
    )
}

fn declined(error: Declined) -> Failure {
    let Declined::Status(status, words) = error else {
        return mismatch("a reply without a valid status");
    };
    match status {
        Status::NotServed => Failure::new(
            Code::NotServed,
            "the provider does not serve what this ticket stands for",
            "the sender was started again for something else",
            "ask the sender for the ticket that it shows now",
        ),
        Status::SourceChanged => Failure::new(
            Code::SourceChanged,
            format!("\"{words}\" changed at the sender after the ticket was made"),
            "somebody wrote to the file while it was being sent",
            "ask the sender to run send again, and use the new ticket",
        ),
        Status::SourceUnreadable => Failure::new(
            Code::NotServed,
            format!("the provider could not read \"{words}\""),
            "the file is gone, or its disk has a fault; the sender's screen says which",
            "ask the sender to look into it, then run get again",
        ),
        Status::NoSuchPart | Status::Ok => Failure::new(
            Code::Incompatible,
            format!("the provider declined a request as invalid ({words})"),
            "it runs a version of strait that is not compatible, or has a fault",
            "use the same version of strait on both sides",
        ),
    }
}

/// Asks until there is a reply or the tries are used up, and takes the reply apart (TR-44). Also says how many tries it took.
pub(super) async fn ask<F: Fetch>(fetch: &Arc<F>, ask: Ask) -> Result<(Bytes, usize), Failure> {
    let mut last = String::new();
    for (tries, wait) in RETRY_AFTER.iter().map(Some).chain([None]).enumerate() {
        match fetch.fetch(ask).await {
            Ok(reply) => return open_reply(reply).map(|bytes| (bytes, tries + 1)).map_err(declined),
            Err(FetchError::Final(failure)) => return Err(*failure),
            Err(FetchError::Again(words)) => last = words,
        }
        if let Some(wait) = wait {
            tokio::time::sleep(*wait).await;
        }
    }
    Err(Failure::new(
        Code::Lost,
        format!("the provider stopped answering: {last}"),
        "it was stopped, or the network between is down or very slow",
        "check that `strait send` still runs at the other side, then run get again",
    ))
}

/// Asks for a page of a tree.
pub(super) async fn page<F: Fetch>(fetch: &Arc<F>, which: Which, level: u8, index: u64) -> Result<Bytes, Failure> {
    Ok(ask(fetch, Ask::Page { which, level, index }).await?.0)
}
