//! Fetching the chunks: many at once on the network, a few at the disk, and a fixed number in all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ask::{Fetch, ask, mismatch, page};
use super::window::{CHUNKS_MAX, Window};
use crate::exit::Failure;
use crate::place::{Gate, Had, Site};
use crate::progress::Progress;
use crate::tree::{Hash, HashCursor, Which, verify};
use crate::wire::Ask;

/// Chunks held at once, on the network or waiting for the disk. When the disk is slow they pile up to this number and no more
/// are asked for, so that the sender slows down too (TR-66).
const HELD_MAX: usize = CHUNKS_MAX + 8;
/// Writers at the disk at once.
const WRITERS: usize = 4;

/// What was fetched, and what did not have to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) fetched_chunks: u64,
    pub(super) fetched_bytes: u64,
    pub(super) had_chunks: u64,
    pub(super) had_bytes: u64,
    pub(super) resumed_bytes: u64,
}

/// A chunk that came over the network, or was there already.
struct Arrived {
    index: u64,
    hash: Hash,
    /// Where it was if it did not have to be fetched.
    bytes: Result<Bytes, Had>,
    after: Duration,
    tries: usize,
}

/// Fetches, verifies and writes all chunks.
pub(super) async fn fetch_all<F: Fetch>(
    fetch: &Arc<F>,
    cursor: &mut HashCursor,
    site: &Arc<Site>,
    gate: &Gate,
    progress: &Progress,
) -> Result<Tally, Failure> {
    let chunks = cursor.shape();
    let writers = Arc::new(Semaphore::new(WRITERS));
    let mut window = Window::new();
    let mut tally = Tally::default();
    let mut network: JoinSet<Result<Arrived, Failure>> = JoinSet::new();
    let mut disk: JoinSet<Result<u64, Failure>> = JoinSet::new();
    let mut next = 0;
    loop {
        while next < chunks.leaves() && network.len() < window.chunks() && network.len() + disk.len() < HELD_MAX {
            let pages = |level, index| page(fetch, Which::Content, level, index);
            let wrong = || mismatch("the list of chunk hashes");
            let hash = cursor.leaf(next, pages, wrong).await?.ok_or_else(|| Failure::bug("a chunk without a hash"))?;
            network.spawn(one(fetch.clone(), site.clone(), gate.clone(), next, hash));
            next += 1;
        }
        tokio::select! {
            Some(done) = network.join_next() => {
                let arrived = joined(done)?;
                let len = u64::from(chunks.page_len(0, arrived.index).unwrap_or_default());
                let bytes = match arrived.bytes {
                    Ok(bytes) => bytes,
                    Err(had) => {
                        tally.had_chunks += 1;
                        *if had == Had::Resumed { &mut tally.resumed_bytes } else { &mut tally.had_bytes } += len;
                        progress.add(len);
                        continue;
                    }
                };
                window.arrived(arrived.after, arrived.tries);
                tally.fetched_chunks += 1;
                tally.fetched_bytes += len;
                disk.spawn(store(writers.clone(), site.clone(), gate.clone(), arrived.index, arrived.hash, len as u32, bytes));
            }
            Some(done) = disk.join_next() => progress.add(joined(done)?),
            else => break,
        }
    }
    Ok(tally)
}

/// The result of a task. Tasks are only aborted together with whoever waits for them.
pub(super) fn joined<T>(done: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    done.unwrap_or_else(|error| Err(Failure::bug(format!("a part of the transfer broke off: {error}"))))
}

async fn one<F: Fetch>(fetch: Arc<F>, site: Arc<Site>, gate: Gate, index: u64, hash: Hash) -> Result<Arrived, Failure> {
    if site.may_have(index) {
        let look = tokio::task::spawn_blocking(move || {
            let _pass = gate.enter()?;
            site.has(index, &hash)
        });
        if let Some(had) = joined(look.await)? {
            return Ok(Arrived { index, hash, bytes: Err(had), after: Duration::ZERO, tries: 1 });
        }
    }
    let began = Instant::now();
    let (bytes, tries) = ask(&fetch, Ask::Chunk { index }).await?;
    Ok(Arrived { index, hash, bytes: Ok(bytes), after: began.elapsed(), tries })
}

/// Verifies a chunk and writes it (TR-24, TR-60): in this order, and on a thread that may block.
async fn store(
    writers: Arc<Semaphore>,
    site: Arc<Site>,
    gate: Gate,
    index: u64,
    hash: Hash,
    len: u32,
    bytes: Bytes,
) -> Result<u64, Failure> {
    let _writer = writers.acquire_owned().await.map_err(|_| Failure::bug("the queue for the disk is gone"))?;
    let write = tokio::task::spawn_blocking(move || {
        verify(&bytes, len, &hash).map_err(|_| mismatch(&format!("chunk {index}")))?;
        let _pass = gate.enter()?;
        site.write(index, &bytes)
    });
    joined(write.await).map(|()| u64::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchError;
    use crate::manifest::{Kind, Listing, Rules, encode};
    use crate::place::{Target, Temp};
    use crate::tree::{Shape, TreeBuilder};
    use tokio::sync::watch;

    const CHUNK: usize = 1 << 16;
    const CHUNKS: usize = 3 * HELD_MAX;

    /// Gives chunks of its content at once, and counts those asked for.
    struct Quick {
        content: Vec<u8>,
        tree: crate::tree::Tree,
        asked: watch::Sender<usize>,
    }

    impl Fetch for Quick {
        async fn fetch(&self, ask: Ask) -> Result<Bytes, FetchError> {
            let part = match ask {
                Ask::Chunk { index } => {
                    self.asked.send_modify(|asked| *asked += 1);
                    let start = index as usize * CHUNK;
                    self.content[start..start + CHUNK].to_vec()
                }
                Ask::Page { level, index, .. } => self.tree.page(level, index).unwrap().unwrap(),
                _ => panic!("not asked for here"),
            };
            Ok([&[0], &part[..]].concat().into())
        }
    }

    /// TR-66: with the disk stuck, a fixed number of chunks is asked for and no more; when it goes on, so does the transfer.
    #[tokio::test]
    async fn a_stuck_disk_stops_the_asking() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..CHUNK * CHUNKS).map(|i| (i / 999) as u8).collect();
        let shape = Shape::new(content.len() as u64, CHUNK as u32);
        let mut builder = TreeBuilder::new();
        content.chunks(CHUNK).for_each(|chunk| builder.push(blake3::hash(chunk)).unwrap());
        let tree = builder.finish(shape).unwrap();
        let target = Target::new(dir.path());
        let mut temp = Temp::open(&target, &tree.root()).unwrap();
        let mut placer = temp.placer(shape);
        let mut listing = Listing::new(Rules::Unix, shape.len());
        let mut bytes = Vec::new();
        encode(Kind::File, 0, "file", shape.len(), &mut bytes).unwrap();
        listing.push(&bytes, |walker, entry| placer.prepare(walker.path(), entry)).unwrap();
        let site = temp.site(placer, listing).unwrap();
        let mut cursor = HashCursor::new(shape, tree.root());
        let asked = watch::Sender::new(0);
        let mut seen = asked.subscribe();
        let fetch = Arc::new(Quick { content: content.clone(), tree, asked });

        let gate = temp.gate();
        let (stuck, let_go) = std::sync::mpsc::sync_channel::<()>(1);
        let (held, is_held) = tokio::sync::oneshot::channel();
        let holder = std::thread::spawn(move || {
            let _stuck = gate.hold();
            held.send(()).unwrap();
            let _ = let_go.recv();
        });
        is_held.await.unwrap();
        let (gate, placed) = (temp.gate(), site.clone());
        let all = tokio::spawn(async move { fetch_all(&fetch, &mut cursor, &placed, &gate, &Progress::new(true)).await });
        seen.wait_for(|asked| *asked == HELD_MAX).await.unwrap();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*seen.borrow(), HELD_MAX);
        drop(stuck);
        let tally = all.await.unwrap().unwrap();
        holder.join().unwrap();
        assert_eq!(tally.fetched_chunks, CHUNKS as u64);
        assert!(std::fs::read(temp.tree().join("file")).unwrap() == content);
    }
}
