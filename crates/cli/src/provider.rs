//! The provider's side of the protocol: answers requests for one source, with a bounded number of readers of the disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use crate::source::{Problem, Source};
use crate::tree::Hash;
use crate::wire::{Ask, Protocol, Status, decline};

/// Reads of the disk at once, whoever asks (TR-51). More would only move the queue from here into the disk.
const READERS: usize = 8;
/// Changed files that are told of, at most. More say nothing new.
const TOLD_MAX: usize = 100;

/// See the module's text.
pub struct Provider {
    root: Hash,
    /// What is served; not there while it is still being fetched.
    source: OnceLock<Arc<Source>>,
    readers: Semaphore,
    copies: watch::Sender<u64>,
    told: Mutex<BTreeSet<PathBuf>>,
    say: Box<dyn Fn(String) + Send + Sync>,
}

impl Provider {
    /// Serves this source. `say` gets lines for people.
    pub fn new(source: Source, say: impl Fn(String) + Send + Sync + 'static) -> Arc<Provider> {
        let provider = Provider::awaiting(source.root(), say);
        provider.has(source);
        provider
    }

    /// Serves what this root stands for as soon as it is here ([`Provider::has`]), and says until then that it is not yet (TR-47).
    pub fn awaiting(root: Hash, say: impl Fn(String) + Send + Sync + 'static) -> Arc<Provider> {
        Arc::new(Provider {
            root,
            source: OnceLock::new(),
            readers: Semaphore::new(READERS),
            copies: watch::Sender::new(0),
            told: Mutex::new(BTreeSet::new()),
            say: Box::new(say),
        })
    }

    /// From now on this source is served, if it is that of the root.
    pub fn has(&self, source: Source) {
        if source.root() == self.root {
            let _ = self.source.set(Arc::new(source)); // once is enough: another with the same root is the same
        }
    }

    /// The root that is served.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The source, if it is here.
    pub fn source(&self) -> Option<&Source> {
        self.source.get().map(|source| &**source)
    }

    /// How many full copies were taken, as receivers said.
    pub fn copies(&self) -> watch::Receiver<u64> {
        self.copies.subscribe()
    }

    /// Answers one request (TR-41, TR-43, TR-50). Waits while all readers are busy, so that a slow disk slows those who ask.
    pub async fn answer(self: Arc<Self>, protocol: Protocol, request: &[u8]) -> Bytes {
        let Some((root, ask)) = Ask::decode(protocol, request) else {
            return decline(Status::NoSuchPart, "malformed request").into();
        };
        if root != self.root {
            return decline(Status::NotServed, "").into();
        }
        let Some(source) = self.source.get().cloned() else {
            return decline(Status::NotYet, "").into();
        };
        if ask == Ask::Done {
            // Answered at once, so that the reply is on its way before whoever waits for the copy closes the node.
            self.copies.send_modify(|copies| *copies += 1);
            return vec![Status::Ok.to_byte()].into();
        }
        if ask == Ask::Header {
            return source.answer_header(); // in memory: nobody has to wait for a disk to learn what it is about
        }
        let Ok(_reader) = self.readers.acquire().await else {
            return decline(Status::SourceUnreadable, "shutting down").into();
        };
        match tokio::task::spawn_blocking(move || source.answer(&ask)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(problem)) => self.explain(problem).into(),
            Err(_) => decline(Status::SourceUnreadable, "internal error").into(),
        }
    }

    /// Tells both sides why a chunk is not given. The other side learns the name that it knows from the manifest, no local path.
    fn explain(&self, problem: Problem) -> Vec<u8> {
        let (status, path, words) = match problem {
            Problem::Changed(path) => (Status::SourceChanged, path, "changed after the ticket was made".to_owned()),
            Problem::Unreadable(path, error) => (Status::SourceUnreadable, path, format!("cannot be read: {error}")),
            Problem::Lists(error) => {
                (Status::SourceUnreadable, PathBuf::from("the list of files"), format!("cannot be read: {error}"))
            }
        };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let reply = decline(status, &name);
        if let Ok(mut told) = self.told.lock()
            && told.len() < TOLD_MAX
            && told.insert(path.clone())
        {
            (self.say)(format!(
                "{} {words}; it is no longer sent. Stop this and run send again for a new ticket.",
                path.display()
            ));
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Roots, census, scan};
    use std::future::Future;
    use std::task::{Context, Waker};

    fn provider(dir: &std::path::Path) -> (Arc<Provider>, Arc<Mutex<Vec<String>>>) {
        std::fs::write(dir.join("file"), b"text").unwrap();
        let roots = Roots::new(&[dir.join("file")]).unwrap();
        let count = census(&roots).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let say = said.clone();
        (Provider::new(scan(roots, count, &mut |_| ()).unwrap(), move |line| say.lock().unwrap().push(line)), said)
    }

    /// TR-50: who does not know the root learns nothing, and cannot end `--once`.
    #[tokio::test]
    async fn other_roots_are_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let (provider, _) = provider(dir.path());
        for ask in [Ask::Header, Ask::Chunk { index: 0 }, Ask::Done] {
            let reply = provider.clone().answer(ask.protocol(), &ask.encode(&blake3::hash(b"other"))).await;
            assert_eq!(reply[..], [1], "{ask:?}");
        }
        assert_eq!(*provider.copies().borrow(), 0);
        let reply = provider.clone().answer(Protocol::Chunk, b"short").await;
        assert_eq!(reply[0], Status::NoSuchPart.to_byte());
        let right = Ask::Chunk { index: 0 }.encode(&provider.root());
        assert_eq!(provider.answer(Protocol::Chunk, &right).await[..], b"\0text"[..]);
    }

    /// TR-47: who is still fetching says so, and only to those who know the root.
    #[tokio::test]
    async fn what_is_not_here_yet_is_said_to_be_so() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, _) = provider(dir.path());
        let root = whole.root();
        let awaiting = Provider::awaiting(root, |_| ());
        for ask in [Ask::Header, Ask::Chunk { index: 0 }, Ask::Done] {
            assert_eq!(awaiting.clone().answer(ask.protocol(), &ask.encode(&root)).await[..], [5], "{ask:?}");
            assert_eq!(awaiting.clone().answer(ask.protocol(), &ask.encode(&blake3::hash(b"other"))).await[..], [1]);
        }
        let roots = Roots::new(&[dir.path().join("file")]).unwrap();
        let count = census(&roots).unwrap();
        awaiting.has(scan(roots, count, &mut |_| ()).unwrap());
        assert_eq!(awaiting.answer(Protocol::Chunk, &Ask::Chunk { index: 0 }.encode(&root)).await[..], b"\0text"[..]);
    }

    /// TR-51: when all readers are busy, a request waits for one, and costs the disk nothing until then.
    #[tokio::test]
    async fn requests_wait_while_all_readers_are_busy() {
        let dir = tempfile::tempdir().unwrap();
        let (provider, _) = provider(dir.path());
        let busy = provider.readers.acquire_many(READERS as u32).await.unwrap();
        let request = Ask::Chunk { index: 0 }.encode(&provider.root());
        let mut answer = Box::pin(provider.clone().answer(Protocol::Chunk, &request));
        assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        std::fs::write(dir.path().join("file"), b"changed").unwrap();
        drop(busy);
        assert_eq!(answer.await[0], Status::SourceChanged.to_byte(), "it was read only after a reader became free");
    }

    /// TR-46: the other side learns the name of a changed file, not where it lies here; this side is told once.
    #[tokio::test]
    async fn a_changed_file_is_told_once_here_and_by_name_there() {
        let dir = tempfile::tempdir().unwrap();
        let (provider, said) = provider(dir.path());
        std::fs::write(dir.path().join("file"), b"longer text").unwrap();
        let request = Ask::Chunk { index: 0 }.encode(&provider.root());
        for _ in 0..3 {
            assert_eq!(provider.clone().answer(Protocol::Chunk, &request).await[..], b"\x03file"[..]);
        }
        assert_eq!(said.lock().unwrap().len(), 1);
    }
}
