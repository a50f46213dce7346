//! Preparing the places of a transfer, and writing verified chunks to them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{collides, join, link_in_the_way, look, taken};
use crate::exit::Failure;
use crate::manifest::{Entry, Kind, Listing, Part, Walker, shown};
use crate::spill::read_file_full;
use crate::tree::{Hash, Shape, verify};

/// Looks at the target for each entry as it arrives, and makes folders and long or empty files under the temporary folder.
///
/// Nothing outside the temporary folder is touched.
#[derive(Debug)]
pub struct Placer {
    dir: PathBuf,
    tree: PathBuf,
    chunks: Shape,
    /// For each component of the last path: whether it is a folder that was in the target before.
    present: Vec<bool>,
    any_present: bool,
}

impl Placer {
    /// For a target folder, the temporary tree, and the shape of the content.
    pub fn new(dir: PathBuf, tree: PathBuf, chunks: Shape) -> Placer {
        Placer { dir, tree, chunks, present: Vec::new(), any_present: false }
    }

    /// Prepares the place of one entry. Entries must come in order.
    pub fn prepare(&mut self, path: &[String], entry: &Entry) -> Result<(), Failure> {
        self.present.truncate(entry.depth);
        let parent_present = self.present.last().copied().unwrap_or(true);
        let present = parent_present && self.is_present(path, entry)?;
        self.any_present |= present;
        self.present.push(present && entry.is_folder());
        let place = join(&self.tree, path);
        if entry.is_folder() {
            return fs::create_dir(&place).map_err(|error| creation(path, "make the folder", &error));
        }
        if !present && !in_one_chunk(entry, self.chunks) {
            create(&place, entry.kind).map_err(|error| creation(path, "create the file", &error))?;
        }
        Ok(())
    }

    /// Whether the entry is in the target already. What cannot be the same is refused at once (TR-62, TR-63).
    fn is_present(&self, path: &[String], entry: &Entry) -> Result<bool, Failure> {
        let Some(meta) = look(&join(&self.dir, path))? else {
            return Ok(false);
        };
        if meta.is_symlink() {
            return Err(link_in_the_way(path));
        }
        match (entry.is_folder(), meta.is_dir()) {
            (true, true) => Ok(true),
            (true, false) => Err(taken(path, "and it is not a folder")),
            (false, true) => Err(taken(path, "and it is a folder")),
            (false, false) if !meta.is_file() => Err(taken(path, "and it is not a plain file")),
            (false, false) if meta.len() != entry.size => Err(taken(path, "with another size")),
            (false, false) => Ok(true),
        }
    }

    /// Ends the preparation.
    pub fn finish(self, listing: Listing) -> Site {
        Site { dir: self.dir, tree: self.tree, chunks: self.chunks, any_present: self.any_present, listing }
    }
}

/// Whether all bytes of a file lie in one chunk. An empty file lies in none.
fn in_one_chunk(entry: &Entry, chunks: Shape) -> bool {
    let chunk = u64::from(chunks.leaf_bytes());
    entry.size > 0 && entry.start / chunk == (entry.end() - 1) / chunk
}

/// A name that is already there under our own temporary folder came from this transfer: the file system folds names (TR-64).
fn creation(path: &[String], doing: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return collides(path);
    }
    Failure::disk(format_args!("{doing} {}", shown(&path.join("/"))), error)
}

/// Creates a file that must not be there yet. The umask applies.
fn create(path: &Path, kind: Kind) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if kind == Kind::Executable { 0o777 } else { 0o666 });
    let _ = kind;
    options.open(path)
}

/// All that is needed to check and write chunks, from several threads at once.
#[derive(Debug)]
pub struct Site {
    pub(super) dir: PathBuf,
    pub(super) tree: PathBuf,
    chunks: Shape,
    any_present: bool,
    pub(super) listing: Listing,
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
    /// The entries.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Whether anything of the transfer was in the target before.
    pub fn any_present(&self) -> bool {
        self.any_present
    }

    fn range(&self, index: u64) -> (u64, u32) {
        let start = index.saturating_mul(u64::from(self.chunks.leaf_bytes()));
        (start, self.chunks.page_len(0, index).unwrap_or_default())
    }

    /// Whether all of a chunk is in the target already, and right (TR-65). It blocks. Memory: one chunk.
    pub fn has(&self, index: u64, hash: &Hash) -> Result<bool, Failure> {
        if !self.any_present {
            return Ok(false);
        }
        let (start, len) = self.range(index);
        let mut chunk = Vec::new();
        let found = self.listing.overlapping(start, start + u64::from(len), |walker, entry, part| {
            let Some(file) = self.present_file(walker, entry).map_err(Stop::Failure)? else {
                return Err(Stop::Different);
            };
            chunk.resize(part.in_range + part.len, 0);
            let got = read_file_full(&file, part.in_file, &mut chunk[part.in_range..])?;
            if got == part.len { Ok(()) } else { Err(Stop::Different) }
        });
        match found {
            Ok(()) => Ok(verify(&chunk, len, hash).is_ok()),
            Err(Stop::Different) => Ok(false),
            Err(Stop::Failure(failure)) => Err(failure),
        }
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
    /// and left as it is (TR-63).
    pub fn write(&self, index: u64, chunk: &[u8]) -> Result<(), Failure> {
        let (start, len) = self.range(index);
        let written = self.listing.overlapping(start, start + u64::from(len), |walker, entry, part| {
            let bytes = chunk.get(part.in_range..part.in_range + part.len).ok_or(Stop::Different)?;
            self.write_part(walker, entry, part, bytes).map_err(Stop::Failure)
        });
        written.map_err(|stop| match stop {
            Stop::Failure(failure) => failure,
            Stop::Different => Failure::bug("a verified chunk is shorter than its place"),
        })
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
        let whole = in_one_chunk(entry, self.chunks);
        let file = if whole { create(&place, entry.kind) } else { OpenOptions::new().write(true).open(&place) };
        let file = file.map_err(|error| creation(walker.path(), "create the file", &error))?;
        write_at(&file, part.in_file, bytes).map_err(|error| Failure::disk(format_args!("write {}", walker.shown()), &error))
    }
}

#[cfg(unix)]
fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => (offset, bytes) = (offset + n as u64, &bytes[n..]),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Code;
    use crate::manifest::{Rules, encode};

    /// TR-64: on a file system that folds names, the second of two that fold to one finds its place taken, whichever way it is
    /// created. Here the place is taken by hand.
    #[test]
    fn names_that_fold_to_one_end_the_transfer() {
        let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shape = Shape::new(100, 10);
        let prepare = |kind, name: &str, size| {
            let mut placer = Placer::new(dir.path().to_owned(), tree.path().to_owned(), shape);
            placer.prepare(&[name.to_owned()], &Entry { kind, depth: 0, size, start: 0 })
        };
        fs::write(tree.path().join("folded"), "").unwrap();
        for (kind, size) in [(Kind::Folder, 0), (Kind::File, 0), (Kind::File, 11)] {
            assert_eq!(prepare(kind, "folded", size).unwrap_err().code, Code::UnsafeName);
        }
        // A file that lies in one chunk is created when that comes.
        let mut placer = Placer::new(dir.path().to_owned(), tree.path().to_owned(), shape);
        let mut listing = Listing::new(Rules::Unix, 100);
        let mut bytes = Vec::new();
        encode(Kind::File, 0, "folded", 10, &mut bytes).unwrap();
        listing.push(&bytes, |walker, entry| placer.prepare(walker.path(), entry)).unwrap();
        let failure = placer.finish(listing).write(0, &[1; 10]).unwrap_err();
        assert_eq!(failure.code, Code::UnsafeName);
        assert_eq!(fs::read(tree.path().join("folded")).unwrap(), b"");
    }
}
