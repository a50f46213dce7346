//! Hashing what is sent, once, with memory that does not grow with it.

use std::convert::Infallible;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use super::read::{Source, stamp};
use super::walk::{Census, Found, Item, Roots};
use crate::exit::{Code, Failure};
use crate::manifest::{EntryError, Header, Kind, Listing, PushError, Rules, encode};
use crate::spill::Spill;
use crate::tree::{PAGE_BYTES, Shape, Tree, TreeBuilder};

/// What a scan tells while it runs.
pub enum Told<'a> {
    /// So many more bytes are hashed.
    Hashed(u64),
    /// This is left out: a symbolic link, or neither file nor folder.
    Skipped(&'a Path),
}

/// Largest content that a header can hold.
const CONTENT_MAX: u64 = 1 << 50;

struct Scan<'t> {
    listing: Listing,
    entries: Vec<u8>,
    stamps: Spill,
    /// One chunk, filled up to `filled`.
    chunk: Vec<u8>,
    filled: usize,
    tree: TreeBuilder,
    told: &'t mut dyn FnMut(Told<'_>),
}

/// Finds and hashes everything under `roots`. It blocks, so that it needs a thread of its own.
pub fn scan(roots: Roots, census: Census, told: &mut dyn FnMut(Told<'_>)) -> Result<Source, Failure> {
    let chunk_log2 = Header::choose_chunk_log2(census.bytes);
    let mut scan = Scan {
        listing: Listing::new(Rules::Unix, CONTENT_MAX),
        entries: Vec::new(),
        stamps: Spill::new(),
        chunk: vec![0; 1 << chunk_log2],
        filled: 0,
        tree: TreeBuilder::new(),
        told,
    };
    roots.walk(|found| match found {
        Found::Item(item) => scan.take(&item),
        Found::Skipped(path) => {
            (scan.told)(Told::Skipped(path));
            Ok(())
        }
    })?;
    scan.flush()?;
    if scan.listing.entries() == 0 {
        let why = "only symbolic links or special files were named";
        return Err(Failure::new(Code::BadSource, "there is nothing to send", why, "name a file or a folder"));
    }
    let content = Shape::new(scan.listing.content(), 1 << chunk_log2);
    let content_tree = scan.tree.finish(content).map_err(|error| Failure::disk("keep the list of hashes", &error))?;
    let entries_tree = hash_entries(&scan.listing).map_err(|error| Failure::disk("keep the list of files", &error))?;
    let header = Header {
        chunk_log2,
        entries: scan.listing.entries(),
        entries_len: scan.listing.bytes().len(),
        entries_root: entries_tree.root(),
        content_len: scan.listing.content(),
        content_root: content_tree.root(),
    };
    let header = Header::decode(&header.encode()).map_err(|error| {
        Failure::new(
            Code::BadSource,
            format!("this is too much for one ticket: {error}"),
            "a ticket holds at most 1 PiB",
            "send it in parts",
        )
    })?;
    Ok(Source::new(roots, header, scan.listing, entries_tree, content_tree, scan.stamps))
}

fn hash_entries(listing: &Listing) -> std::io::Result<Tree> {
    let shape = Shape::new(listing.bytes().len(), PAGE_BYTES);
    let mut builder = TreeBuilder::new();
    for index in 0..shape.leaves() {
        let len = shape.page_len(0, index).unwrap_or_default() as usize;
        let page = listing.bytes().read_vec(index * u64::from(PAGE_BYTES), len)?;
        builder.push(blake3::hash(&page))?;
    }
    builder.finish(shape)
}

fn changed(path: &Path) -> Failure {
    let what = format!("{} changed while it was being read", path.display());
    Failure::new(
        Code::SourceChanged,
        what,
        "another program writes to it",
        "wait until nothing writes there, then run send again",
    )
}

impl Scan<'_> {
    fn take(&mut self, item: &Item<'_>) -> Result<(), Failure> {
        if item.kind == Kind::Folder {
            return self.list(item, 0);
        }
        let mut file =
            File::open(item.path).map_err(|error| Failure::disk(format_args!("open {}", item.path.display()), &error))?;
        let read = |error| Failure::disk(format_args!("read {}", item.path.display()), &error);
        let before = file.metadata().map_err(read)?;
        self.list(item, before.len())?;
        let mut left = before.len();
        while left > 0 {
            let room = &mut self.chunk[self.filled..];
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            let got = match file.read(&mut room[..most]) {
                Ok(0) => return Err(changed(item.path)),
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read(error)),
            };
            left -= got as u64;
            self.filled += got;
            (self.told)(Told::Hashed(got as u64));
            if self.filled == self.chunk.len() {
                self.flush()?;
            }
        }
        let after: Metadata = file.metadata().map_err(read)?;
        if (after.len(), stamp(&after)) != (before.len(), stamp(&before)) {
            return Err(changed(item.path));
        }
        self.stamps.append(&stamp(&before)).map_err(|error| Failure::disk("keep the list of files", &error))
    }

    /// Adds the entry to the list.
    fn list(&mut self, item: &Item<'_>, size: u64) -> Result<(), Failure> {
        let refuse = |error: EntryError| {
            let what = format!("cannot send {}: {error}", item.path.display());
            Failure::new(Code::BadSource, what, "it is beyond what a ticket can name", "move it up, or shorten its path")
        };
        self.entries.clear();
        encode(item.kind, item.depth, item.name, size, &mut self.entries).map_err(refuse)?;
        self.listing.push(&self.entries, |_, _| Ok::<_, Infallible>(())).map_err(|error| match error {
            PushError::Entry(error) => refuse(error),
            PushError::Spill(error) => Failure::disk("keep the list of files", &error),
            PushError::Visit(never) => match never {},
        })
    }

    /// Hashes what is in the chunk.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.filled > 0 {
            let hash = blake3::hash(&self.chunk[..self.filled]);
            self.tree.push(hash).map_err(|error| Failure::disk("keep the list of hashes", &error))?;
            self.filled = 0;
        }
        Ok(())
    }
}
