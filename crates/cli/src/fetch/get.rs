//! A transfer from its root to files in place.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::ask::{Fetch, Part};
use super::content::{Tally, fetch_all, joined};
use super::providers::Providers;
use crate::exit::{Code, Failure};
use crate::manifest::{EntryError, Header, HeaderError, Listing, PushError, Rules};
use crate::news::News;
use crate::place::{Placer, Site, Target, Temp, commit};
use crate::progress::Progress;
use crate::source::Source;
use crate::tree::{Hash, HashCursor, TreeBuilder, Which};
use crate::wire::Ask;

/// Pages of entries on the network at once.
const PAGES_AHEAD: usize = 4;

/// What a transfer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Files in place.
    pub files: u64,
    /// Folders in place.
    pub folders: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Chunks of all files, each verified.
    pub chunks: u64,
    /// Bytes of a full chunk.
    pub chunk_bytes: u32,
    /// Chunks that came over the network.
    pub fetched_chunks: u64,
    /// Bytes of them.
    pub fetched_bytes: u64,
    /// Bytes that were in the target already, and right.
    pub had_bytes: u64,
    /// Bytes that an earlier run had fetched, and right.
    pub resumed_bytes: u64,
    /// Requests for chunks that another provider had been asked for already, and was slow with.
    pub duplicates: u64,
    /// What each provider gave, in the order in which they were named.
    pub given: Vec<Given>,
    /// The root that all of it was verified against.
    pub root: Hash,
}

/// What one provider gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Its name.
    pub provider: String,
    /// Chunks, each verified.
    pub chunks: u64,
}

/// Fetches everything that `root` stands for from all providers, verifies it, and puts it in place inside the target folder.
///
/// On a failure, and when the future is dropped, nothing half-written is in place. What was fetched is kept in a temporary folder, from
/// which the next run for the same root goes on; the failure says where (TR-61).
pub async fn get<F: Fetch>(
    providers: impl Into<Providers<F>>,
    root: Hash,
    target: impl Into<Target>,
    progress: &Progress,
) -> Result<Outcome, Failure> {
    Ok(run(providers.into(), root, target.into(), progress, None).await?.0)
}

/// As [`get`], and makes of what was fetched a source that can be served to others.
pub async fn get_to_serve<F: Fetch>(
    providers: impl Into<Providers<F>>,
    root: Hash,
    target: impl Into<Target>,
    progress: &Progress,
) -> Result<(Outcome, Source), Failure> {
    let (outcome, source) = run(providers.into(), root, target.into(), progress, Some(TreeBuilder::new())).await?;
    Ok((outcome, source.ok_or_else(|| Failure::bug("nothing was kept to serve"))?))
}

/// With `hashes`, those of all chunks are kept in it for a source.
async fn run<F: Fetch>(
    providers: Providers<F>,
    root: Hash,
    target: Target,
    progress: &Progress,
    mut hashes: Option<TreeBuilder>,
) -> Result<(Outcome, Option<Source>), Failure> {
    let header = header(&providers, root).await?;
    let mut temp = {
        let target = target.clone();
        blocking(move || Temp::open(&target, &root)).await?
    };
    match within(&providers, &header, root, &target, &mut temp, progress, &mut hashes).await {
        Ok((outcome, listing)) => {
            blocking(move || {
                temp.finish();
                Ok(())
            })
            .await?;
            // TR-45: all is in place; that nobody hears it changes nothing here. Asked once: a sender that waited for it may be gone.
            if !providers.done().await {
                progress.say("note: a sender did not answer when it was told that its copy was taken; it may have ended already");
            }
            let Some(hashes) = hashes else { return Ok((outcome, None)) };
            let keep = move || {
                let lists = |error: std::io::Error| Failure::disk("keep the list of hashes", &error);
                let tree = hashes.finish(header.content()).map_err(lists)?;
                Source::fetched(target.dir, header, listing, tree).map(Some)
            };
            Ok((outcome, blocking(keep).await?))
        }
        Err(failure) => Err(blocking(move || Ok(temp.fail(failure))).await?),
    }
}

/// What happens while the temporary folder is there.
async fn within<F: Fetch>(
    providers: &Providers<F>,
    header: &Header,
    root: Hash,
    target: &Target,
    temp: &mut Temp,
    progress: &Progress,
    hashes: &mut Option<TreeBuilder>,
) -> Result<(Outcome, Arc<Listing>), Failure> {
    progress.phase("listing", header.entries_len);
    let site = entries(providers, header, temp, progress).await?;
    enough_space(&site, &target.dir)?;
    if site.recorded_bytes() > 0 {
        let recorded = indicatif::HumanBytes(site.recorded_bytes());
        let line = format!("going on from an earlier run, which had fetched {recorded}");
        progress.news(&News::resumed(line, site.recorded_bytes()));
    }
    progress.phase("fetching", header.content_len);
    let mut cursor = HashCursor::new(header.content(), header.content_root);
    let tally = fetch_all(providers, &mut cursor, &site, &temp.gate(), progress, hashes).await?;
    progress.clear();
    let (gate, placed) = (temp.gate(), site.clone());
    let place = move || {
        let _pass = gate.enter()?;
        commit(&placed)
    };
    blocking(place).await?;
    let given = tally.given.iter().enumerate().map(|(at, chunks)| Given { provider: providers.name(at), chunks: *chunks });
    Ok((outcome(header, &site, &tally, given.collect(), root), site.listing().clone()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn outcome(header: &Header, site: &Site, tally: &Tally, given: Vec<Given>, root: Hash) -> Outcome {
    let listing = site.listing();
    Outcome {
        files: listing.files(),
        folders: listing.entries() - listing.files(),
        bytes: header.content_len,
        chunks: tally.fetched_chunks + tally.had_chunks,
        chunk_bytes: header.chunk_bytes(),
        fetched_chunks: tally.fetched_chunks,
        fetched_bytes: tally.fetched_bytes,
        had_bytes: tally.had_bytes,
        resumed_bytes: tally.resumed_bytes,
        duplicates: tally.duplicates,
        given,
        root,
    }
}

/// The header, verified against the root (TR-24) before any number in it is used.
pub(super) async fn header<F: Fetch>(providers: &Providers<F>, root: Hash) -> Result<Header, Failure> {
    let bytes = providers.part(Part { ask: Ask::Header, len: Header::BYTES as u32, hash: root }).await?;
    Header::decode(&bytes).map_err(|error| match error {
        HeaderError::Version(_) => {
            let next = "use a newer strait on this side";
            Failure::new(Code::Incompatible, error.to_string(), "the sender uses another version of strait", next)
        }
        _ => Failure::new(
            Code::Mismatch,
            format!("the ticket stands for something that is not valid: {error}"),
            "it was made by a faulty or hostile program",
            "do not use this ticket",
        ),
    })
}

pub(super) fn refused(error: EntryError) -> Failure {
    match error {
        EntryError::Name { .. } | EntryError::PathTooLong => Failure::new(
            Code::UnsafeName,
            format!("this transfer is refused, nothing was written: {error}"),
            "it would lead out of the target folder, or cannot exist there; an honest sender does not send it",
            "do not use this ticket; if you trust the sender, ask for other names",
        ),
        EntryError::Order | EntryError::Malformed | EntryError::Sum => Failure::new(
            Code::Mismatch,
            format!("the list of files is not valid: {error}"),
            "it was made by a faulty or hostile program",
            "do not use this ticket",
        ),
    }
}

/// What takes the entries in, on threads that may block.
struct Intake {
    listing: Listing,
    placer: Placer,
}

impl Intake {
    fn push(&mut self, page: &[u8]) -> Result<(), Failure> {
        let placer = &mut self.placer;
        let pushed = self.listing.push(page, |walker, entry| placer.prepare(walker.path(), entry));
        pushed.map_err(|error| match error {
            PushError::Entry(error) => refused(error),
            PushError::Spill(error) => Failure::disk("keep the list of files", &error),
            PushError::Visit(failure) => failure,
        })
    }
}

/// Fetches the entries page by page, each verified (TR-24), checks each entry against the rules and the target, and makes the
/// temporary places.
async fn entries<F: Fetch>(
    providers: &Providers<F>,
    header: &Header,
    temp: &mut Temp,
    progress: &Progress,
) -> Result<Arc<Site>, Failure> {
    let pages = header.entry_pages();
    let mut cursor = HashCursor::new(pages, header.entries_root);
    let mut intake = Intake { listing: Listing::new(Rules::here(), header.content_len), placer: temp.placer(header.content()) };
    let mut ahead: VecDeque<Task<Bytes>> = VecDeque::new();
    let (mut next, mut taken) = (0, 0);
    while taken < pages.leaves() {
        while next < pages.leaves() && ahead.len() < PAGES_AHEAD {
            let hashes = |level, index, len, hash| providers.part(Part::page(Which::Entries, level, index, len, hash));
            let wrong = || Failure::bug("a page was not verified");
            let hash = cursor.leaf(next, hashes, wrong).await?.ok_or_else(wrong)?;
            let len = pages.page_len(0, next).unwrap_or_default();
            let (providers, part) = (providers.clone(), Part::page(Which::Entries, 0, next, len, hash));
            ahead.push_back(Task(tokio::spawn(async move { providers.part(part).await })));
            next += 1;
        }
        let mut task = ahead.pop_front().ok_or_else(|| Failure::bug("no page under way"))?;
        let bytes = joined((&mut task.0).await)?;
        taken += 1;
        progress.add(bytes.len() as u64);
        let gate = temp.gate();
        let take = move || {
            let _pass = gate.enter()?;
            intake.push(&bytes)?;
            Ok(intake)
        };
        intake = joined(tokio::task::spawn_blocking(take).await)?;
    }
    intake.listing.finish(header.entries).map_err(refused)?;
    temp.site(intake.placer, intake.listing)
}

/// A task that ends with its handle.
pub(super) struct Task<T>(pub(super) tokio::task::JoinHandle<Result<T, Failure>>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refuses what cannot fit before anything of it is fetched. It is a courtesy: space may still run out later.
#[cfg(unix)]
fn enough_space(site: &Site, dir: &Path) -> Result<(), Failure> {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if site.missing_bytes() <= free {
        return Ok(());
    }
    let (need, free) = (indicatif::HumanBytes(site.missing_bytes()), indicatif::HumanBytes(free));
    Err(Failure::new(
        Code::DiskFull,
        format!("this transfer needs {need} more, and {} has {free} free", dir.display()),
        "the disk is too full",
        "make space, or choose another folder with -o",
    ))
}

#[cfg(not(unix))]
fn enough_space(_: &Site, _: &Path) -> Result<(), Failure> {
    Ok(())
}
