//! A transfer of one file to a stream: its chunks in order, each verified before a byte of it is given on.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::ask::{Fetch, Part};
use super::content::joined;
use super::get::{Outcome, Task, header, refused};
use super::providers::Providers;
use super::window::CHUNKS_MAX;
use crate::exit::{Code, Failure};
use crate::manifest::{Header, Listing, PushError, Rules};
use crate::progress::Progress;
use crate::tree::{Hash, HashCursor, Which};
use crate::wire::Ask;

/// Fetches the one file that `root` stands for and writes it to `out`, in order. Memory: as many chunks as one provider is asked for at
/// once, and one more; whoever reads slowly slows the providers.
///
/// # Errors
/// As [`get`](super::get); [`Code::Usage`] if there is not exactly one file, [`Code::OutputClosed`] if nobody reads any more. What was
/// written before an error is the start of the file, and right.
pub async fn stream<F: Fetch>(
    providers: Providers<F>,
    root: Hash,
    mut out: impl Write + Send + 'static,
    progress: &Progress,
) -> Result<Outcome, Failure> {
    let header = header(&providers, root).await?;
    progress.phase("listing", header.entries_len);
    let folders = one_file(&providers, &header, progress).await?;
    progress.phase("fetching", header.content_len);
    let content = header.content();
    let mut cursor = HashCursor::new(content, header.content_root);
    let mut ahead: VecDeque<Task<_>> = VecDeque::new();
    let (mut next, mut taken) = (0, 0);
    while taken < content.leaves() {
        while next < content.leaves() && ahead.len() < CHUNKS_MAX {
            let part = leaf(&providers, &mut cursor, Which::Content, next).await?;
            let providers = providers.clone();
            ahead.push_back(Task(tokio::spawn(async move { providers.part(part).await })));
            next += 1;
        }
        let mut task = ahead.pop_front().ok_or_else(|| Failure::bug("no chunk under way"))?;
        let bytes = joined((&mut task.0).await)?;
        taken += 1;
        let len = bytes.len() as u64;
        let write = move || out.write_all(&bytes).map(|()| out).map_err(|error| closed(&error));
        out = joined(tokio::task::spawn_blocking(write).await)?;
        progress.add(len);
    }
    joined(tokio::task::spawn_blocking(move || out.flush().map_err(|error| closed(&error))).await)?;
    progress.clear();
    // TR-45: as with files in place. What the reader of the stream does with it is its own affair.
    providers.done().await;
    Ok(Outcome {
        files: 1,
        folders,
        bytes: header.content_len,
        chunks: taken,
        chunk_bytes: header.chunk_bytes(),
        fetched_chunks: taken,
        fetched_bytes: header.content_len,
        had_bytes: 0,
        resumed_bytes: 0,
        duplicates: 0,
        given: Vec::new(),
        root,
    })
}

/// What to ask for a leaf of a tree, and what must come.
async fn leaf<F: Fetch>(providers: &Providers<F>, cursor: &mut HashCursor, which: Which, index: u64) -> Result<Part, Failure> {
    let pages = |level, index, len, hash| providers.part(Part::page(which, level, index, len, hash));
    let wrong = || Failure::bug("a page was not verified");
    let hash = cursor.leaf(index, pages, wrong).await?.ok_or_else(wrong)?;
    let len = cursor.shape().page_len(0, index).unwrap_or_default();
    Ok(match which {
        Which::Content => Part { ask: Ask::Chunk { index }, len, hash },
        Which::Entries => Part::page(which, 0, index, len, hash),
    })
}

/// Checks that there is exactly one file. Gives the number of folders around and beside it.
async fn one_file<F: Fetch>(providers: &Providers<F>, header: &Header, progress: &Progress) -> Result<u64, Failure> {
    let mut cursor = HashCursor::new(header.entry_pages(), header.entries_root);
    let mut listing = Listing::new(Rules::here(), header.content_len);
    for index in 0..cursor.shape().leaves() {
        let part = leaf(providers, &mut cursor, Which::Entries, index).await?;
        let page = providers.part(part).await?;
        listing.push(&page, |_, _| Ok(())).map_err(|error| match error {
            PushError::Entry(error) => refused(error),
            PushError::Spill(error) => Failure::disk("keep the list of files", &error),
            PushError::Visit(failure) => failure,
        })?;
        progress.add(page.len() as u64);
        if listing.files() > 1 {
            return Err(not_one("more than one file"));
        }
    }
    listing.finish(header.entries).map_err(refused)?;
    if listing.files() == 0 {
        return Err(not_one("no file"));
    }
    Ok(listing.entries() - listing.files())
}

fn not_one(what: &str) -> Failure {
    Failure::new(
        Code::Usage,
        format!("this ticket stands for {what}, and -o - writes exactly one"),
        "a stream has no names and no ends between files",
        "get it into a folder with -o DIR, or let the other side send one file: a packed one, or `tar c FOLDER | strait send -`",
    )
}

fn closed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(
            Code::OutputClosed,
            "nobody reads what is written to stdout any more",
            "the program that it was piped to has ended",
            "look at what that program said; what it got was verified, and was the start of the file",
        ),
        _ => Failure::disk("write to stdout", error),
    }
}
