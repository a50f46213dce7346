//! One request to one provider, and the ways in which it fails, in words.

use std::future::Future;

use bytes::Bytes;

use crate::exit::{Code, Failure};
use crate::tree::{Hash, Which, verify};
use crate::wire::{Ask, Declined, Status, open_reply};

/// Somebody who can be asked for the parts of one transfer.
///
/// The reply is what the protocol sends: a status and what follows. Nothing of it is trusted.
pub trait Fetch: Send + Sync + 'static {
    /// Asks once, and connects before if that is needed. Dropping the future cancels it.
    fn fetch(&self, ask: Ask) -> impl Future<Output = Result<Bytes, FetchError>> + Send;

    /// Its identity, or another name for people.
    fn name(&self) -> String {
        "without a name".to_owned()
    }
}

/// Why there was no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// It may work when tried again: the connection was lost, the reply was late.
    Again(String),
    /// Nobody answers there. It may work later.
    Unreachable(Box<Failure>),
    /// It will not work when tried again.
    Final(Box<Failure>),
}

/// A part of the transfer, and what its bytes must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) ask: Ask,
    pub(super) len: u32,
    pub(super) hash: Hash,
}

impl Part {
    /// A page of a tree.
    pub(super) fn page(which: Which, level: u8, index: u64, len: u32, hash: Hash) -> Part {
        Part { ask: Ask::Page { which, level, index }, len, hash }
    }
}

/// Why a provider did not give a part.
#[derive(Debug)]
pub(super) enum Miss {
    /// It has not got it yet (TR-47).
    NotHere,
    /// It cannot give this part; others perhaps.
    Lacks(Failure),
    /// It may give it when asked again.
    Silent(Failure),
    /// It is of no use, or lies. It is not asked again (TR-70).
    Out(Failure),
}

/// Asks once for a part and verifies it: what comes back is what the ticket stands for (TR-24).
pub(super) async fn ask<F: Fetch>(fetch: &F, part: Part) -> Result<Bytes, Miss> {
    let reply = fetch.fetch(part.ask).await.map_err(|error| match error {
        FetchError::Again(words) => Miss::Silent(lost(&words)),
        FetchError::Unreachable(failure) => Miss::Silent(*failure),
        FetchError::Final(failure) => Miss::Out(*failure),
    })?;
    let bytes = open_reply(reply).map_err(declined)?;
    let wrong = || Miss::Out(mismatch(&named(part.ask)));
    if !matches!(part.ask, Ask::Chunk { .. }) {
        return verify(&bytes, part.len, &part.hash).map(|()| bytes).map_err(|_| wrong());
    }
    let checked = tokio::task::spawn_blocking(move || verify(&bytes, part.len, &part.hash).map(|()| bytes)).await;
    match checked {
        Ok(right) => right.map_err(|_| wrong()),
        Err(_) => Err(Miss::Silent(lost("its reply could not be checked"))), // the process is ending
    }
}

fn named(ask: Ask) -> String {
    match ask {
        Ask::Header => "the manifest".to_owned(),
        Ask::Page { which: Which::Entries, .. } => "the list of files".to_owned(),
        Ask::Page { which: Which::Content, .. } => "the list of chunk hashes".to_owned(),
        Ask::Chunk { index } => format!("chunk {index}"),
        Ask::Done => "an acknowledgement".to_owned(),
    }
}

/// The failure for bytes that are not those of the ticket (TR-24).
fn mismatch(part: &str) -> Failure {
    Failure::new(
        Code::Mismatch,
        format!("the provider sent bytes that do not belong to this ticket ({part})"),
        "its files changed unnoticed, its disk or memory is faulty, or it lies; nothing was put in place",
        "ask the sender to run send again, and use the new ticket; do not trust this provider if it happens again",
    )
}

fn lost(words: &str) -> Failure {
    Failure::new(
        Code::Lost,
        format!("the provider stopped answering: {words}"),
        "it was stopped, or the network between is down or very slow",
        "check that `strait send` still runs at the other side, then run get again",
    )
}

fn declined(error: Declined) -> Miss {
    let Declined::Status(status, words) = error else {
        return Miss::Out(mismatch("a reply without a valid status"));
    };
    match status {
        Status::NotYet => Miss::NotHere,
        Status::NotServed => Miss::Out(Failure::new(
            Code::NotServed,
            "the provider does not serve what this ticket stands for",
            "the sender was started again for something else",
            "ask the sender for the ticket that it shows now",
        )),
        Status::SourceChanged => Miss::Lacks(Failure::new(
            Code::SourceChanged,
            format!("\"{words}\" changed at the sender after the ticket was made"),
            "somebody wrote to the file, or moved it away, while it was being sent",
            "ask the sender to run send again, and use the new ticket",
        )),
        Status::SourceUnreadable => Miss::Lacks(Failure::new(
            Code::NotServed,
            format!("the provider could not read \"{words}\""),
            "the file is gone, or its disk has a fault; the sender's screen says which",
            "ask the sender to look into it, then run get again",
        )),
        Status::NoSuchPart | Status::Ok => Miss::Out(Failure::new(
            Code::Incompatible,
            format!("the provider declined a request as invalid ({words})"),
            "it runs a version of strait that is not compatible, or has a fault",
            "use the same version of strait on both sides",
        )),
    }
}
