//! Checking what is there already, and writing verified chunks to their places.

use std::io;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Instant;

use super::commit::{sync, sync_chunks};
use super::folder::{Folder, Look, Open, Trail};
use super::prepare::{Places, creation, only_chunk};
use super::{at, link_in_the_way, taken};
use crate::exit::Failure;
use crate::manifest::{Entry, Kind, Listing, Part};
use crate::tree::{Hash, Shape, verify};

/// Files that can be written to at once, if they are longer than a chunk: more than there are writers, so that two files rarely share one.
const TURNS: usize = 16;

/// All that is needed to check and write chunks, from several threads at once.
#[derive(Debug)]
pub struct Site {
    pub(super) places: Places,
    /// The temporary folder.
    pub(super) temp: Folder,
    pub(super) chunks: Shape,
    pub(super) listing: Arc<Listing>,
    any_present: bool,
    present_bytes: u64,
    /// Held while a long file is written to, each for many files: the system lets one write to a file at a time, and others that try spend
    /// their time on waiting busily.
    turns: [Mutex<()>; TURNS],
    /// Held while chunks are made safe. Says whether the folders, and the files made before the first chunk, are safe already.
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

/// Where to look for the bytes of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Target,
    Tree,
}

/// The ways through both folders to the files of one chunk.
struct Ways {
    in_dir: Trail,
    in_tree: Trail,
}

fn recording(error: &io::Error) -> Failure {
    Failure::disk("record what was fetched", error)
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
        places: Places,
        temp: Folder,
        chunks: Shape,
        listing: Listing,
        any_present: bool,
        present_bytes: u64,
    ) -> Site {
        let listing = Arc::new(listing);
        Site { places, temp, chunks, listing, any_present, present_bytes, turns: Default::default(), marking: Mutex::new(false) }
    }

    /// The entries.
    pub fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    /// Bytes that have to be written, at most: all but what was in the target and what an earlier run had fetched.
    pub fn missing_bytes(&self) -> u64 {
        self.chunks.len().saturating_sub(self.recorded_bytes()).saturating_sub(self.present_bytes)
    }

    /// Bytes that an earlier run recorded as fetched. They are verified again when their turn comes.
    pub fn recorded_bytes(&self) -> u64 {
        let chunk = u64::from(self.chunks.leaf_bytes());
        let ranges = self.places.journal.had_ranges().map(|(start, end)| end.saturating_sub(start).saturating_mul(chunk));
        ranges.fold(0, u64::saturating_add).min(self.chunks.len())
    }

    /// Whether [`Site::has`] may find this chunk.
    pub fn may_have(&self, index: u64) -> bool {
        self.any_present || self.places.journal.had(index)
    }

    fn range(&self, index: u64) -> (u64, u32) {
        let start = index.saturating_mul(u64::from(self.chunks.leaf_bytes()));
        (start, self.chunks.page_len(0, index).unwrap_or_default())
    }

    fn ways(&self) -> Ways {
        Ways { in_dir: Trail::new(&self.places.dir), in_tree: Trail::new(&self.places.tree) }
    }

    /// Whether all of a chunk is here already, and right: in the target (TR-65), or where an earlier run put it (TR-68). What is not right
    /// is cleared away, so that it can be written. It blocks. Memory: one chunk.
    pub fn has(&self, index: u64, hash: &Hash) -> Result<Option<Had>, Failure> {
        let resumed = self.places.journal.had(index);
        // What stays in the target has to be right, whatever is in the temporary tree.
        let sides = if self.places.replace { [Side::Tree, Side::Target].as_slice() } else { &[Side::Target] };
        for &side in sides {
            let (_, len) = self.range(index);
            let Some((chunk, moved)) = self.read(index, side, resumed)? else { continue };
            if verify(&chunk, len, hash).is_err() {
                continue;
            }
            if moved && self.places.replace {
                self.clear(index)?;
                self.write(index, &chunk)?;
            }
            return Ok(Some(if resumed && !(moved && self.places.replace) { Had::Resumed } else { Had::InTarget }));
        }
        if resumed {
            self.clear(index)?;
        }
        Ok(None)
    }

    /// Reads a chunk as it is now, and says whether any of it is in the target: `None` if a part of it is nowhere. Each part is looked for
    /// on one side first, then on the other; in the temporary tree only if an earlier run had the chunk.
    fn read(&self, index: u64, first: Side, resumed: bool) -> Result<Option<(Vec<u8>, bool)>, Failure> {
        let (start, len) = self.range(index);
        let (mut chunk, mut in_target, mut ways) = (Vec::new(), false, self.ways());
        let read = self.listing.overlapping(start, start + u64::from(len), |walker, entry, part| {
            let tree = |ways: &mut Ways| if resumed { self.resumed_file(ways, walker.path(), entry) } else { None };
            let mut found = if first == Side::Tree { tree(&mut ways) } else { None };
            if found.is_none() && self.any_present {
                found = self.present_file(&mut ways, walker.path(), entry).map_err(Stop::Failure)?;
                in_target |= found.is_some();
            }
            let file = found.or_else(|| tree(&mut ways)).ok_or(Stop::Different)?;
            chunk.resize(part.in_range + part.len, 0);
            let got = file.read(part.in_file, &mut chunk[part.in_range..])?;
            if got == part.len { Ok(()) } else { Err(Stop::Different) }
        });
        match read {
            Ok(()) => Ok(Some((chunk, in_target))),
            Err(Stop::Different) => Ok(None),
            Err(Stop::Failure(failure)) => Err(failure),
        }
    }

    /// The file of an entry if an earlier run left it, with a size that can be right.
    fn resumed_file(&self, ways: &mut Ways, path: &[String], entry: &Entry) -> Option<Open> {
        let (folder, name) = ways.in_tree.find(path).ok()?;
        let file = folder.file(name, false).ok()?;
        let right = only_chunk(entry, self.chunks).is_none() || file.len().ok()? == entry.size;
        right.then_some(file)
    }

    /// The file of an entry if it was in the target before.
    fn present_file(&self, ways: &mut Ways, path: &[String], entry: &Entry) -> Result<Option<Open>, Failure> {
        let found = ways.in_dir.find(path).and_then(|(folder, name)| match folder.look(name)? {
            Some(Look::File { size, .. }) if size == entry.size => folder.file(name, false).map(Ok).map(Some),
            Some(other) => Ok(Some(Err(other))),
            None => Ok(None),
        });
        match found {
            Ok(None) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None), // nor is the folder that it would be in
            Ok(Some(Ok(file))) => Ok(Some(file)),
            _ if self.places.replace => Ok(None),
            Ok(Some(Err(Look::Link))) => Err(link_in_the_way(path)),
            Ok(Some(Err(_))) => Err(taken(path, "and it changed while this transfer ran")),
            Err(error) => Err(at(path, "read", &error)),
        }
    }

    /// Removes the files that lie in this chunk alone from the temporary tree, so that they can be created.
    fn clear(&self, index: u64) -> Result<(), Failure> {
        let (start, len) = self.range(index);
        let mut trail = Trail::new(&self.places.tree);
        let cleared = self.listing.overlapping(start, start + u64::from(len), |walker, entry, _| {
            if only_chunk(entry, self.chunks).is_none() {
                return Ok(());
            }
            match trail.find(walker.path()) {
                Ok((folder, name)) => folder.remove(name),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        });
        cleared.map_err(|error| Failure::disk("clear what an earlier run left", &error))
    }

    /// Writes a chunk that was verified to the files it belongs to. It blocks. What is in the target already, and stays, is compared
    /// instead, and left as it is (TR-63). It is recorded as written, and now and then what was written is made safe on the disk and recorded as
    /// that (TR-67).
    pub fn write(&self, index: u64, chunk: &[u8]) -> Result<(), Failure> {
        let (start, len) = self.range(index);
        let mut ways = self.ways();
        let written = self.listing.overlapping(start, start + u64::from(len), |walker, entry, part| {
            let bytes = chunk.get(part.in_range..part.in_range + part.len).ok_or(Stop::Different)?;
            self.write_part(&mut ways, walker.path(), entry, part, bytes).map_err(Stop::Failure)
        });
        written.map_err(|stop| match stop {
            Stop::Failure(failure) => failure,
            Stop::Different => Failure::bug("a verified chunk is shorter than its place"),
        })?;
        let due = self.places.journal.written(index, u64::from(len)).map_err(|error| recording(&error))?;
        if due { self.mark_if_free() } else { Ok(()) }
    }

    fn write_part(&self, ways: &mut Ways, path: &[String], entry: &Entry, part: Part, bytes: &[u8]) -> Result<(), Failure> {
        if self.any_present
            && !self.places.replace
            && let Some(file) = self.present_file(ways, path, entry)?
        {
            let mut there = vec![0; part.len];
            let got = file.read(part.in_file, &mut there).map_err(|error| at(path, "read", &error))?;
            return if there.get(..got) == Some(bytes) { Ok(()) } else { Err(taken(path, "with other content")) };
        }
        let file = ways.in_tree.find(path).and_then(|(folder, name)| match only_chunk(entry, self.chunks) {
            Some(_) => folder.create(name, entry.kind == Kind::Executable),
            None => folder.file(name, true),
        });
        let file = file.map_err(|error| creation(path, "create the file", &error))?;
        let turn = only_chunk(entry, self.chunks).is_none().then(|| &self.turns[entry.start as usize % TURNS]);
        let _turn = turn.map(|turn| turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        file.write(part.in_file, bytes).map_err(|error| at(path, "write", &error))
    }

    /// Makes all that was written or prepared safe on the disk, whether there is anything to record or not. It blocks.
    pub(super) fn make_safe(&self) -> Result<(), Failure> {
        let mut prepared_safe = self.marking.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.mark_held(&mut prepared_safe)?; // should the moving be interrupted, the next run has all of it
        if !*prepared_safe {
            sync(self)?;
            *prepared_safe = true;
        }
        Ok(())
    }

    /// Makes what was written safe on the disk, then records that (TR-67). It blocks.
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
        let batch = self.places.journal.take();
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        sync_chunks(self, &batch, *prepared_safe)?;
        self.places.journal.rest(began.elapsed());
        *prepared_safe = true;
        self.places.journal.safe(&batch).map_err(|error| recording(&error))
    }
}
