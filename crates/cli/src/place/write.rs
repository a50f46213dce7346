//! Checking what is there already, and writing verified chunks to their places.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};

use super::commit::sync_chunks;
use super::journal::Journal;
use super::prepare::{create, creation, only_chunk, remove};
use super::{join, look, open_plain, taken, write_at};
use crate::exit::Failure;
use crate::manifest::{Entry, Listing, Part, Walker};
use crate::spill::read_file_full;
use crate::tree::{Hash, Shape, verify};

/// All that is needed to check and write chunks, from several threads at once.
#[derive(Debug)]
pub struct Site {
    pub(super) dir: PathBuf,
    pub(super) tree: PathBuf,
    pub(super) chunks: Shape,
    pub(super) journal: Arc<Journal>,
    pub(super) listing: Listing,
    any_present: bool,
    present_bytes: u64,
    /// Held while chunks are made safe. Says whether the folders and empty files are safe already.
    marking: Mutex<bool>,
}

/// Where a chunk was that did not have to be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Had {
    /// In the target before.
    InTarget,
    /// An earlier run had fetched it.
    Resumed,
}

enum Stop {
    Failure(Failure),
    Different,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failure(Failure::disk("read the list of files", &error))
    }
}

impl Site {
    pub(super) fn new(
        dir: PathBuf,
        tree: PathBuf,
        chunks: Shape,
        journal: Arc<Journal>,
        listing: Listing,
        any_present: bool,
        present_bytes: u64,
    ) -> Site {
        Site { dir, tree, chunks, journal, listing, any_present, present_bytes, marking: Mutex::new(false) }
    }

    /// The entries.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Bytes that have to be written, at most: all but what was in the target and what an earlier run had fetched.
    pub fn missing_bytes(&self) -> u64 {
        self.chunks.len().saturating_sub(self.recorded_bytes()).saturating_sub(self.present_bytes)
    }

    /// Bytes that an earlier run recorded as fetched. They are verified again when their turn comes.
    pub fn recorded_bytes(&self) -> u64 {
        let chunk = u64::from(self.chunks.leaf_bytes());
        let ranges = self.journal.had_ranges().map(|(start, end)| end.saturating_sub(start).saturating_mul(chunk));
        ranges.fold(0, u64::saturating_add).min(self.chunks.len())
    }

    /// Whether [`Site::has`] may find this chunk.
    pub fn may_have(&self, index: u64) -> bool {
        self.any_present || self.journal.had(index)
    }

    fn range(&self, index: u64) -> (u64, u32) {
        let start = index.saturating_mul(u64::from(self.chunks.leaf_bytes()));
        (start, self.chunks.page_len(0, index).unwrap_or_default())
    }

    /// Whether all of a chunk is here already, and right: in the target (TR-65), or where an earlier run put it (TR-68). What is not right
    /// is cleared away, so that it can be written. It blocks. Memory: one chunk.
    pub fn has(&self, index: u64, hash: &Hash) -> Result<Option<Had>, Failure> {
        if !self.may_have(index) {
            return Ok(None);
        }
        let resumed = self.journal.had(index);
        let (start, len) = self.range(index);
        let mut chunk = Vec::new();
        let found = self.listing.overlapping(start, start + u64::from(len), |walker, entry, part| {
            let file = match self.present_file(walker, entry).map_err(Stop::Failure)? {
                None if resumed => self.resumed_file(walker, entry)?,
                file => file,
            };
            let file = file.ok_or(Stop::Different)?;
            chunk.resize(part.in_range + part.len, 0);
            let got = read_file_full(&file, part.in_file, &mut chunk[part.in_range..])?;
            if got == part.len { Ok(()) } else { Err(Stop::Different) }
        });
        match found {
            Ok(()) if verify(&chunk, len, hash).is_ok() => Ok(Some(if resumed { Had::Resumed } else { Had::InTarget })),
            Ok(()) | Err(Stop::Different) if resumed => self.clear(index).map(|()| None),
            Ok(()) | Err(Stop::Different) => Ok(None),
            Err(Stop::Failure(failure)) => Err(failure),
        }
    }

    /// The file of an entry if an earlier run left it, with a size that can be right.
    fn resumed_file(&self, walker: &Walker, entry: &Entry) -> io::Result<Option<File>> {
        match open_plain(&join(&self.tree, walker.path()), OpenOptions::new().read(true)) {
            Ok(file) => {
                let meta = file.metadata()?;
                let right = only_chunk(entry, self.chunks).is_none() || meta.len() == entry.size;
                Ok((meta.is_file() && right).then_some(file))
            }
            Err(_) => Ok(None), // not there, or something else is
        }
    }

    /// Removes the files that lie in this chunk alone, so that they can be created.
    fn clear(&self, index: u64) -> Result<(), Failure> {
        let (start, len) = self.range(index);
        let cleared = self.listing.overlapping(start, start + u64::from(len), |walker, entry, _| {
            if only_chunk(entry, self.chunks).is_some() { remove(&join(&self.tree, walker.path())) } else { Ok(()) }
        });
        cleared.map_err(|error| Failure::disk("clear what an earlier run left", &error))
    }

    /// The file of an entry if it was in the target before.
    fn present_file(&self, walker: &Walker, entry: &Entry) -> Result<Option<File>, Failure> {
        let path = join(&self.dir, walker.path());
        match look(&path) {
            Ok(Some(meta)) if meta.is_file() && meta.len() == entry.size => {
                File::open(&path).map(Some).map_err(|error| Failure::disk(format_args!("read {}", walker.shown()), &error))
            }
            Ok(Some(_)) => Err(taken(walker.path(), "and it changed while this transfer ran")),
            Ok(None) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Writes a chunk that was verified to the files it belongs to. It blocks. What is in the target already is compared instead,
    /// and left as it is (TR-63). Now and then it makes what was written safe on the disk and records it (TR-67).
    pub fn write(&self, index: u64, chunk: &[u8]) -> Result<(), Failure> {
        let (start, len) = self.range(index);
        let written = self.listing.overlapping(start, start + u64::from(len), |walker, entry, part| {
            let bytes = chunk.get(part.in_range..part.in_range + part.len).ok_or(Stop::Different)?;
            self.write_part(walker, entry, part, bytes).map_err(Stop::Failure)
        });
        written.map_err(|stop| match stop {
            Stop::Failure(failure) => failure,
            Stop::Different => Failure::bug("a verified chunk is shorter than its place"),
        })?;
        if self.journal.written(index, u64::from(len)) { self.mark_if_free() } else { Ok(()) }
    }

    /// Makes what was written safe on the disk, then records it (TR-67). It blocks.
    pub(super) fn mark(&self) -> Result<(), Failure> {
        self.mark_held(&mut self.marking.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// The same, unless somebody else is at it: then the next record has more in it, which is how a slow disk gets larger batches.
    fn mark_if_free(&self) -> Result<(), Failure> {
        match self.marking.try_lock() {
            Ok(mut held) => self.mark_held(&mut held),
            Err(TryLockError::Poisoned(poisoned)) => self.mark_held(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Ok(()),
        }
    }

    fn mark_held(&self, prepared_safe: &mut bool) -> Result<(), Failure> {
        let batch = self.journal.take();
        if batch.is_empty() {
            return Ok(());
        }
        sync_chunks(self, &batch, *prepared_safe)?;
        *prepared_safe = true;
        self.journal.record(&batch).map_err(|error| Failure::disk("record what was fetched", &error))
    }

    fn write_part(&self, walker: &Walker, entry: &Entry, part: Part, bytes: &[u8]) -> Result<(), Failure> {
        if self.any_present
            && let Some(file) = self.present_file(walker, entry)?
        {
            let mut there = vec![0; part.len];
            let got = read_file_full(&file, part.in_file, &mut there)
                .map_err(|error| Failure::disk(format_args!("read {}", walker.shown()), &error))?;
            return if there.get(..got) == Some(bytes) { Ok(()) } else { Err(taken(walker.path(), "with other content")) };
        }
        let place = join(&self.tree, walker.path());
        let whole = only_chunk(entry, self.chunks).is_some();
        let file = if whole { create(&place, entry.kind) } else { open_plain(&place, OpenOptions::new().write(true)) };
        let file = file.map_err(|error| creation(walker.path(), "create the file", &error))?;
        write_at(&file, part.in_file, bytes).map_err(|error| Failure::disk(format_args!("write {}", walker.shown()), &error))
    }
}
