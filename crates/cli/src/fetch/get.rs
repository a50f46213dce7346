//! A transfer from its root to files in place.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::ask::{Fetch, ask, mismatch, page};
use super::content::{Tally, fetch_all, joined};
use crate::exit::{Code, Failure};
use crate::manifest::{EntryError, Header, HeaderError, Listing, PushError, Rules};
use crate::place::{Placer, Site, Temp, commit};
use crate::progress::Progress;
use crate::tree::{Hash, HashCursor, Which, verify};
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
    /// The root that all of it was verified against.
    pub root: Hash,
}

/// Fetches everything that `root` stands for, verifies it, and puts it in place inside `dir`, which is made if it is not there.
///
/// On a failure, and when the future is dropped, nothing half-written is in place and the temporary folder is removed (TR-61).
pub async fn get<F: Fetch>(fetch: Arc<F>, root: Hash, dir: &Path, progress: &Progress) -> Result<Outcome, Failure> {
    let header = header(&fetch, &root).await?;
    let dir = dir.to_owned();
    let temp = {
        let dir = dir.clone();
        let open = move || {
            fs::create_dir_all(&dir).map_err(|error| Failure::disk(format_args!("make the folder {}", dir.display()), &error))?;
            Temp::open(&dir, &root)
        };
        joined(tokio::task::spawn_blocking(open).await)?
    };
    progress.phase("listing", header.entries_len);
    let site = Arc::new(entries(&fetch, &header, &dir, &temp, progress).await?);
    enough_space(&site, &header, &dir)?;
    progress.phase("fetching", header.content_len);
    let mut cursor = HashCursor::new(header.content(), header.content_root);
    let tally = fetch_all(&fetch, &mut cursor, &site, &temp.gate(), progress).await?;
    progress.clear();
    let (gate, placed) = (temp.gate(), site.clone());
    let place = move || {
        let _pass = gate.enter()?;
        commit(&placed)
    };
    joined(tokio::task::spawn_blocking(place).await)?;
    // TR-45: all is in place; that nobody hears it changes nothing here. Asked once: a sender that waited for it may be gone already.
    if fetch.fetch(Ask::Done).await.is_err() {
        progress.say("note: the sender did not answer when it was told that its copy was taken; it may have ended already");
    }
    Ok(outcome(&header, &site, &tally, root))
}

fn outcome(header: &Header, site: &Site, tally: &Tally, root: Hash) -> Outcome {
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
        root,
    }
}

/// The header, verified against the root (TR-24) before any number in it is used.
async fn header<F: Fetch>(fetch: &Arc<F>, root: &Hash) -> Result<Header, Failure> {
    let (bytes, _) = ask(fetch, Ask::Header).await?;
    if bytes.len() > Header::BYTES || blake3::hash(&bytes) != *root {
        return Err(mismatch("the manifest"));
    }
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

fn refused(error: EntryError) -> Failure {
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

/// Fetches the entries page by page, verifies each (TR-24), checks each entry against the rules and the target, and makes the
/// temporary places.
async fn entries<F: Fetch>(
    fetch: &Arc<F>,
    header: &Header,
    dir: &Path,
    temp: &Temp,
    progress: &Progress,
) -> Result<Site, Failure> {
    let pages = header.entry_pages();
    let mut cursor = HashCursor::new(pages, header.entries_root);
    let mut intake = Intake {
        listing: Listing::new(Rules::here(), header.content_len),
        placer: Placer::new(dir.to_owned(), temp.tree(), header.content()),
    };
    let mut ahead: VecDeque<Task<Bytes>> = VecDeque::new();
    let mut next = 0;
    for index in 0..pages.leaves() {
        while next < pages.leaves() && ahead.len() < PAGES_AHEAD {
            let fetch = fetch.clone();
            ahead.push_back(Task(tokio::spawn(async move { page(&fetch, Which::Entries, 0, next).await })));
            next += 1;
        }
        let hash_pages = |level, index| page(fetch, Which::Entries, level, index);
        let wrong = || mismatch("the list of files");
        let hash = cursor.leaf(index, hash_pages, wrong).await?.ok_or_else(wrong)?;
        let mut task = ahead.pop_front().ok_or_else(|| Failure::bug("no page under way"))?;
        let bytes = joined((&mut task.0).await)?;
        let len = pages.page_len(0, index).unwrap_or_default();
        verify(&bytes, len, &hash).map_err(|_| wrong())?;
        let gate = temp.gate();
        let take = move || {
            let _pass = gate.enter()?;
            intake.push(&bytes)?;
            Ok(intake)
        };
        intake = joined(tokio::task::spawn_blocking(take).await)?;
        progress.add(u64::from(len));
    }
    intake.listing.finish(header.entries).map_err(refused)?;
    Ok(intake.placer.finish(intake.listing))
}

/// A task that ends with its handle.
struct Task<T>(tokio::task::JoinHandle<Result<T, Failure>>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refuses what cannot fit before anything of it is fetched. It is a courtesy: space may still run out later.
#[cfg(unix)]
fn enough_space(site: &Site, header: &Header, dir: &Path) -> Result<(), Failure> {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if site.any_present() || header.content_len <= free {
        return Ok(()); // what is there already is not counted, so nothing can be said then
    }
    let (need, free) = (indicatif::HumanBytes(header.content_len), indicatif::HumanBytes(free));
    Err(Failure::new(
        Code::DiskFull,
        format!("this transfer needs {need}, and {} has {free} free", dir.display()),
        "the disk is too full",
        "make space, or choose another folder with -o",
    ))
}

#[cfg(not(unix))]
fn enough_space(_: &Site, _: &Header, _: &Path) -> Result<(), Failure> {
    Ok(())
}
