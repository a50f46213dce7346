//! Fetching the chunks: many at once on the network, a few at the disk, and a fixed number in all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::ask::{Fetch, Miss, Part};
use super::plan::Plan;
use super::providers::{Providers, Standing};
use super::window::CHUNKS_MAX;
use crate::exit::Failure;
use crate::place::{Gate, Had, Site};
use crate::progress::Progress;
use crate::tree::{Hash, HashCursor, Shape, TreeBuilder, Which};
use crate::wire::Ask;

/// Chunks held at once, on the network or waiting for the disk; at the end of a transfer `DUPLICATES_MAX` more. When the disk is slow
/// they pile up to this number and no more are asked for, so that the providers slow down too (TR-66).
const HELD_MAX: usize = CHUNKS_MAX + 8;
/// Writers at the disk at once, and chunks that are looked for in the target at once.
const WRITERS: usize = 4;
/// How often the requests under way are looked at while a provider has nothing to do.
const TICK: Duration = Duration::from_millis(50);

/// What was fetched, and what did not have to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) fetched_chunks: u64,
    pub(super) fetched_bytes: u64,
    pub(super) had_chunks: u64,
    pub(super) had_bytes: u64,
    pub(super) resumed_bytes: u64,
    /// Requests for chunks that another provider was asked for already.
    pub(super) duplicates: u64,
    /// Chunks that each provider gave.
    pub(super) given: Vec<u64>,
}

/// What happened on the network, or when a chunk was looked for on the disk.
enum Event {
    Looked { index: u64, hash: Hash, had: Option<Had> },
    Reply { index: u64, member: usize, result: Result<Bytes, Miss> },
}

/// Fetches, verifies and writes all chunks. Their hashes are added to `hashes`, in order.
pub(super) async fn fetch_all<F: Fetch>(
    providers: &Providers<F>,
    cursor: &mut HashCursor,
    site: &Arc<Site>,
    gate: &Gate,
    progress: &Progress,
    hashes: &mut Option<TreeBuilder>,
) -> Result<Tally, Failure> {
    let mut work = Work {
        providers,
        site,
        gate,
        shape: cursor.shape(),
        plan: Plan::new(providers.count()),
        network: JoinSet::new(),
        disk: JoinSet::new(),
        writers: Arc::new(Semaphore::new(WRITERS)),
        looking: 0,
        next: 0,
        tally: Tally { given: vec![0; providers.count()], ..Tally::default() },
    };
    loop {
        let standings = work.standings();
        work.open(cursor, &standings, hashes).await?;
        let now = Instant::now();
        work.ask(&standings, now);
        if work.plan.open() + work.looking + work.disk.len() == 0 {
            return Ok(work.tally);
        }
        let stuck = work.plan.dead(&standings).cloned().or_else(|| work.providers.hopeless());
        if let Some(failure) = stuck.filter(|_| work.looking + work.disk.len() == 0) {
            return Err(failure);
        }
        let wake = work.wake(&standings, now);
        tokio::select! {
            Some(done) = work.network.join_next() => match done {
                Err(error) if error.is_cancelled() => {} // somebody else was quicker
                done => work.take(joined(done)?, progress),
            },
            Some(done) = work.disk.join_next() => {
                progress.add(joined(done)?);
                providers.moved();
            }
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            else => return Err(Failure::bug("chunks are missing and nothing is under way")),
        }
    }
}

/// A transfer of chunks under way.
struct Work<'a, F> {
    providers: &'a Providers<F>,
    site: &'a Arc<Site>,
    gate: &'a Gate,
    shape: Shape,
    plan: Plan,
    network: JoinSet<Result<Event, Failure>>,
    disk: JoinSet<Result<u64, Failure>>,
    writers: Arc<Semaphore>,
    looking: usize,
    /// The first chunk that was not begun with.
    next: u64,
    tally: Tally,
}

impl<F: Fetch> Work<'_, F> {
    fn standings(&self) -> Vec<Standing> {
        let now = Instant::now();
        (0..self.providers.count()).map(|member| self.providers.standing(member, now)).collect()
    }

    fn is_full(&self) -> bool {
        self.plan.open() + self.looking + self.disk.len() >= HELD_MAX
    }

    /// Begins with as many chunks as can be asked for now. Those that may be in the target are looked for first.
    async fn open(
        &mut self,
        cursor: &mut HashCursor,
        standings: &[Standing],
        hashes: &mut Option<TreeBuilder>,
    ) -> Result<(), Failure> {
        let wanted = self.plan.room(standings).max(WRITERS);
        while self.next < self.shape.leaves() && !self.is_full() && self.plan.unasked() + self.looking < wanted {
            let index = self.next;
            let pages = |level, page, len, hash| self.providers.part(Part::page(Which::Content, level, page, len, hash));
            let wrong = || Failure::bug("a page was not verified");
            let hash = cursor.leaf(index, pages, wrong).await?.ok_or_else(|| Failure::bug("a chunk without a hash"))?;
            if let Some(hashes) = hashes {
                hashes.push(hash).map_err(|error| Failure::disk("keep the list of hashes", &error))?;
            }
            self.next += 1;
            if !self.site.may_have(index) {
                self.plan.add(index, hash);
                continue;
            }
            self.looking += 1;
            let (site, gate) = (self.site.clone(), self.gate.clone());
            let look = move || {
                let _pass = gate.enter()?;
                Ok(Event::Looked { index, hash, had: site.has(index, &hash)? })
            };
            self.network.spawn_blocking(look);
        }
        Ok(())
    }

    /// Makes all requests that there are to make.
    fn ask(&mut self, standings: &[Standing], now: Instant) {
        let no_more = self.is_full() || self.next >= self.shape.leaves();
        while let Some(next) = self.plan.next(standings, no_more, now) {
            let (index, member) = (next.index, next.member);
            let len = self.shape.page_len(0, index).unwrap_or_default();
            let part = Part { ask: Ask::Chunk { index }, len, hash: next.hash };
            let providers = self.providers.clone();
            let request = async move { Ok(Event::Reply { index, member, result: providers.ask(member, part).await }) };
            let task = self.network.spawn(request);
            self.plan.asked(next, Some(task), now);
            self.tally.duplicates += u64::from(next.duplicate);
        }
    }

    /// When to look again if nothing happens.
    fn wake(&self, standings: &[Standing], now: Instant) -> Option<Instant> {
        let later = standings.iter().filter_map(|standing| match standing {
            Standing::Later(at) => Some(*at),
            _ => None,
        });
        let tick = self.plan.may_duplicate(standings).then(|| now + TICK);
        let deadline = self.providers.deadline().filter(|_| self.disk.is_empty());
        later.chain(tick).chain(deadline).min()
    }

    fn take(&mut self, event: Event, progress: &Progress) {
        match event {
            Event::Looked { index, hash, had } => {
                self.looking -= 1;
                let Some(had) = had else {
                    return self.plan.add(index, hash);
                };
                let len = u64::from(self.shape.page_len(0, index).unwrap_or_default());
                self.tally.had_chunks += 1;
                *if had == Had::Resumed { &mut self.tally.resumed_bytes } else { &mut self.tally.had_bytes } += len;
                progress.add(len);
                self.providers.moved();
            }
            Event::Reply { index, member, result } => match result {
                Ok(bytes) => self.arrived(index, member, bytes),
                Err(Miss::Silent(_)) => self.plan.lost(index, member),
                Err(Miss::NotHere) => self.plan.refused(index, member),
                Err(Miss::Lacks(failure) | Miss::Out(failure)) => self.plan.lacks(index, member, failure),
            },
        }
    }

    /// A verified chunk: the first of its kind goes to the disk.
    fn arrived(&mut self, index: u64, member: usize, bytes: Bytes) {
        let Some(slower) = self.plan.arrived(index, member, Instant::now()) else { return };
        slower.into_iter().for_each(|slow| self.providers.rest(slow));
        self.tally.fetched_chunks += 1;
        self.tally.fetched_bytes += bytes.len() as u64;
        self.tally.given[member] += 1;
        self.disk.spawn(store(self.writers.clone(), self.site.clone(), self.gate.clone(), index, bytes));
    }
}

/// The result of a task. Tasks are only aborted together with whoever waits for them.
pub(super) fn joined<T>(done: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    done.unwrap_or_else(|error| Err(Failure::bug(format!("a part of the transfer broke off: {error}"))))
}

/// Writes a verified chunk (TR-60), on a thread that may block. Gives back its length.
async fn store(writers: Arc<Semaphore>, site: Arc<Site>, gate: Gate, index: u64, bytes: Bytes) -> Result<u64, Failure> {
    let _writer = writers.acquire_owned().await.map_err(|_| Failure::bug("the queue for the disk is gone"))?;
    let len = bytes.len() as u64;
    let write = tokio::task::spawn_blocking(move || {
        let _pass = gate.enter()?;
        site.write(index, &bytes)
    });
    joined(write.await).map(|()| len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchError;
    use crate::manifest::{Kind, Listing, Rules, encode};
    use crate::place::{Target, Temp};
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
        let providers = Providers::new(vec![Quick { content: content.clone(), tree, asked }]);

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
        let all =
            tokio::spawn(
                async move { fetch_all(&providers, &mut cursor, &placed, &gate, &Progress::new(true), &mut None).await },
            );
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
