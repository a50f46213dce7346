//! Preparing the places of a transfer, entry by entry, as the manifest comes in.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::Journal;
use super::{Site, collides, join, link_in_the_way, look, open_plain, taken};
use crate::exit::Failure;
use crate::manifest::{Entry, Kind, Listing, shown};
use crate::tree::Shape;

/// Looks at the target for each entry as it arrives, and makes folders and long or empty files under the temporary folder.
///
/// Nothing outside the temporary folder is touched.
#[derive(Debug)]
pub struct Placer {
    dir: PathBuf,
    tree: PathBuf,
    chunks: Shape,
    journal: Arc<Journal>,
    /// For each component of the last path: whether it is a folder that was in the target before.
    present: Vec<bool>,
    any_present: bool,
    /// Bytes of files that were in the target before.
    present_bytes: u64,
}

impl Placer {
    /// For a target folder, the temporary tree, the shape of the content, and what an earlier run recorded.
    pub(super) fn new(dir: PathBuf, tree: PathBuf, chunks: Shape, journal: Arc<Journal>) -> Placer {
        Placer { dir, tree, chunks, journal, present: Vec::new(), any_present: false, present_bytes: 0 }
    }

    /// Prepares the place of one entry. Entries must come in order.
    pub fn prepare(&mut self, path: &[String], entry: &Entry) -> Result<(), Failure> {
        self.present.truncate(entry.depth);
        let parent_present = self.present.last().copied().unwrap_or(true);
        let present = parent_present && self.is_present(path, entry)?;
        self.any_present |= present;
        self.present_bytes += if present { entry.size } else { 0 };
        self.present.push(present && entry.is_folder());
        let place = join(&self.tree, path);
        if entry.is_folder() {
            return self.folder(&place).map_err(|error| creation(path, "make the folder", &error));
        }
        if !present {
            self.file(&place, entry).map_err(|error| creation(path, "create the file", &error))?;
        }
        Ok(())
    }

    /// Makes a folder, or takes over that of an earlier run.
    fn folder(&self, place: &Path) -> io::Result<()> {
        match fs::create_dir(place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.journal.is_resumed() => {
                if fs::symlink_metadata(place)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
            }
            other => other,
        }
    }

    /// Creates a long or empty file, or takes over that of an earlier run. A file that lies in one chunk is created when that comes; what
    /// is left of it from an earlier run goes away, unless the chunk was recorded.
    fn file(&self, place: &Path, entry: &Entry) -> io::Result<()> {
        let resumed = self.journal.is_resumed();
        if let Some(chunk) = only_chunk(entry, self.chunks) {
            return if resumed && !self.journal.had(chunk) { remove(place) } else { Ok(()) };
        }
        match create(place, entry.kind) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && resumed => {
                let file = open_plain(place, OpenOptions::new().write(true))?;
                if file.metadata()?.len() > entry.size { file.set_len(entry.size) } else { Ok(()) }
            }
            other => other.map(|_| ()),
        }
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
    pub(super) fn finish(self, listing: Listing) -> Site {
        Site::new(self.dir, self.tree, self.chunks, self.journal, listing, self.any_present, self.present_bytes)
    }
}

/// The chunk that all bytes of a file lie in, if there is one. An empty file lies in none.
pub(super) fn only_chunk(entry: &Entry, chunks: Shape) -> Option<u64> {
    let chunk = u64::from(chunks.leaf_bytes());
    let first = entry.start / chunk;
    (entry.size > 0 && first == (entry.end() - 1) / chunk).then_some(first)
}

/// Removes a file if it is there.
pub(super) fn remove(place: &Path) -> io::Result<()> {
    match fs::remove_file(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A name that is already there under our own temporary folder came from this transfer: the file system folds names (TR-64).
pub(super) fn creation(path: &[String], doing: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return collides(path);
    }
    Failure::disk(format_args!("{doing} {}", shown(&path.join("/"))), error)
}

/// Creates a file that must not be there yet. The umask applies.
pub(super) fn create(path: &Path, kind: Kind) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if kind == Kind::Executable { 0o777 } else { 0o666 });
    let _ = kind;
    open_plain(path, &mut options)
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
        let placer = || {
            let journal = Journal::read(&dir.path().join("none"), &blake3::hash(b"")).unwrap();
            Placer::new(dir.path().to_owned(), tree.path().to_owned(), shape, Arc::new(journal))
        };
        let prepare = |kind, name: &str, size| {
            let mut placer = placer();
            placer.prepare(&[name.to_owned()], &Entry { kind, depth: 0, size, start: 0 })
        };
        fs::write(tree.path().join("folded"), "").unwrap();
        for (kind, size) in [(Kind::Folder, 0), (Kind::File, 0), (Kind::File, 11)] {
            assert_eq!(prepare(kind, "folded", size).unwrap_err().code, Code::UnsafeName);
        }
        // A file that lies in one chunk is created when that comes.
        let mut placer = placer();
        let mut listing = Listing::new(Rules::Unix, 100);
        let mut bytes = Vec::new();
        encode(Kind::File, 0, "folded", 10, &mut bytes).unwrap();
        listing.push(&bytes, |walker, entry| placer.prepare(walker.path(), entry)).unwrap();
        let failure = placer.finish(listing).write(0, &[1; 10]).unwrap_err();
        assert_eq!(failure.code, Code::UnsafeName);
        assert_eq!(fs::read(tree.path().join("folded")).unwrap(), b"");
    }
}
