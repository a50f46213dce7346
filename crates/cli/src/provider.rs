//! The provider's side of the protocol: answers requests for one source, with a bounded number of readers of the disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, watch};

use crate::source::{Problem, Source};
use crate::tree::Hash;
use crate::wire::{Ask, Protocol, Status, decline};

/// Reads of the disk at once, whoever asks. More would only move the queue from here into the disk.
const READERS: usize = 8;
/// Changed files that are told of, at most. More say nothing new.
const TOLD_MAX: usize = 100;

/// See the module's text.
pub struct Provider {
    source: Arc<Source>,
    readers: Semaphore,
    copies: watch::Sender<u64>,
    told: Mutex<BTreeSet<PathBuf>>,
    say: Box<dyn Fn(String) + Send + Sync>,
}

impl Provider {
    /// Serves this source. `say` gets lines for people.
    pub fn new(source: Source, say: impl Fn(String) + Send + Sync + 'static) -> Arc<Provider> {
        Arc::new(Provider {
            source: Arc::new(source),
            readers: Semaphore::new(READERS),
            copies: watch::Sender::new(0),
            told: Mutex::new(BTreeSet::new()),
            say: Box::new(say),
        })
    }

    /// The root that is served.
    pub fn root(&self) -> Hash {
        self.source.root()
    }

    /// The source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How many full copies were taken, as receivers said.
    pub fn copies(&self) -> watch::Receiver<u64> {
        self.copies.subscribe()
    }

    /// Answers one request (TR-41, TR-43, TR-50). Waits while all readers are busy, so that a slow disk slows those who ask.
    pub async fn answer(self: Arc<Self>, protocol: Protocol, request: &[u8]) -> Vec<u8> {
        let Some((root, ask)) = Ask::decode(protocol, request) else {
            return decline(Status::NoSuchPart, "malformed request");
        };
        if root != self.source.root() {
            return decline(Status::NotServed, "");
        }
        if ask == Ask::Done {
            self.copies.send_modify(|copies| *copies += 1);
        }
        let Ok(_reader) = self.readers.acquire().await else {
            return decline(Status::SourceUnreadable, "shutting down");
        };
        let source = self.source.clone();
        match tokio::task::spawn_blocking(move || source.answer(&ask)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => self.explain(problem),
            Err(_) => decline(Status::SourceUnreadable, "internal error"),
        }
    }

    /// Tells both sides why a chunk is not given. The other side learns the name that it knows from the manifest, no local path.
    fn explain(&self, problem: Problem) -> Vec<u8> {
        let (status, path, words) = match problem {
            Problem::Changed(path) => (Status::SourceChanged, path, "changed after the ticket was made".to_owned()),
            Problem::Unreadable(path, error) => (Status::SourceUnreadable, path, format!("cannot be read: {error}")),
            Problem::Lists(error) => (Status::SourceUnreadable, PathBuf::from("the list of files"), format!("cannot be read: {error}")),
        };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let reply = decline(status, &name);
        if let Ok(mut told) = self.told.lock()
            && told.len() < TOLD_MAX
            && told.insert(path.clone())
        {
            (self.say)(format!("{} {words}; it is no longer sent. Stop this and run send again for a new ticket.", path.display()));
        }
        reply
    }
}
