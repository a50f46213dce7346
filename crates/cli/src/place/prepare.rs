//! Preparing the places of a transfer, entry by entry, as the manifest comes in.

use std::io;
use std::sync::Arc;

use super::folder::{Folder, Look, Trail};
use super::journal::Journal;
use super::{Site, at, collides, link_in_the_way, taken};
use crate::exit::Failure;
use crate::manifest::{Entry, Kind, Listing};
use crate::tree::Shape;

/// Where the parts of a transfer are.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The target folder.
    pub(super) dir: Folder,
    /// The temporary tree, which becomes what the target lacks.
    pub(super) tree: Folder,
    /// What of it an earlier run had.
    pub(super) journal: Arc<Journal>,
    /// Whether files in the target are replaced.
    pub(super) replace: bool,
}

/// Looks at the target for each entry as it arrives, and makes folders and long or empty files under the temporary folder.
///
/// Nothing outside the temporary folder is touched.
#[derive(Debug)]
pub struct Placer {
    places: Places,
    chunks: Shape,
    in_dir: Trail,
    in_tree: Trail,
    /// For each component of the last path: whether it is a folder that was in the target before.
    present: Vec<bool>,
    any_present: bool,
    /// Bytes of files that were in the target before and stay.
    present_bytes: u64,
}

impl Placer {
    pub(super) fn new(places: Places, chunks: Shape) -> Placer {
        let (in_dir, in_tree) = (Trail::new(&places.dir), Trail::new(&places.tree));
        Placer { places, chunks, in_dir, in_tree, present: Vec::new(), any_present: false, present_bytes: 0 }
    }

    /// Prepares the place of one entry. Entries must come in order.
    pub fn prepare(&mut self, path: &[String], entry: &Entry) -> Result<(), Failure> {
        self.present.truncate(entry.depth);
        let parent_present = self.present.last().copied().unwrap_or(true);
        let present = parent_present && self.is_present(path, entry)?;
        self.any_present |= present;
        self.present.push(present && entry.is_folder());
        if entry.is_folder() {
            return self.folder(path).map_err(|error| creation(path, "make the folder", &error));
        }
        if present && !self.places.replace {
            self.present_bytes = self.present_bytes.saturating_add(entry.size);
            return Ok(());
        }
        self.file(path, entry).map_err(|error| creation(path, "create the file", &error))
    }

    /// Whether the entry is in the target already. What cannot be the same, and may not be replaced, is refused at once (TR-62, TR-63).
    fn is_present(&mut self, path: &[String], entry: &Entry) -> Result<bool, Failure> {
        let found = self.in_dir.find(path).and_then(|(folder, name)| folder.look(name));
        let Some(found) = found.map_err(|error| at(path, "look at", &error))? else {
            return Ok(false);
        };
        let replace = self.places.replace && !entry.is_folder();
        match (entry.is_folder(), found) {
            (true, Look::Folder) => Ok(true),
            (false, Look::File { size, .. }) if replace || size == entry.size => Ok(true),
            (false, Look::Link) if replace => Ok(true),
            (_, Look::Link) => Err(link_in_the_way(path)),
            (false, Look::File { .. }) => Err(taken(path, "with another size")),
            (true, _) => Err(taken(path, "and it is not a folder")),
            (false, Look::Folder) => Err(taken(path, "and it is a folder")),
            (false, Look::Other) => Err(taken(path, "and it is not a plain file")),
        }
    }

    /// Makes a folder, or takes over that of an earlier run.
    fn folder(&mut self, path: &[String]) -> io::Result<()> {
        let (folder, name) = self.in_tree.find(path)?;
        match folder.make_folder(name, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.places.journal.is_resumed() => {
                folder.folder(name).map(|_| ())
            }
            other => other,
        }
    }

    /// Creates a long or empty file, or takes over that of an earlier run. A file that lies in one chunk is created when that comes; what
    /// is left of it from an earlier run goes away, unless the chunk was recorded.
    fn file(&mut self, path: &[String], entry: &Entry) -> io::Result<()> {
        let resumed = self.places.journal.is_resumed();
        if let Some(chunk) = only_chunk(entry, self.chunks) {
            if resumed && !self.places.journal.had(chunk) {
                let (folder, name) = self.in_tree.find(path)?;
                folder.remove(name)?;
            }
            return Ok(());
        }
        let (folder, name) = self.in_tree.find(path)?;
        match folder.create(name, entry.kind == Kind::Executable) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && resumed => {
                let file = folder.file(name, true)?;
                if file.len()? > entry.size { file.set_len(entry.size) } else { Ok(()) }
            }
            other => other.map(|_| ()),
        }
    }

    /// Ends the preparation.
    pub(super) fn finish(self, temp: Folder, listing: Listing) -> Site {
        Site::new(self.places, temp, self.chunks, listing, self.any_present, self.present_bytes)
    }
}

/// The chunk that all bytes of a file lie in, if there is one. An empty file lies in none.
pub(super) fn only_chunk(entry: &Entry, chunks: Shape) -> Option<u64> {
    let chunk = u64::from(chunks.leaf_bytes());
    let first = entry.start / chunk;
    (entry.size > 0 && first == (entry.end() - 1) / chunk).then_some(first)
}

/// A name that is already there under our own temporary folder came from this transfer: the file system folds names (TR-64).
pub(super) fn creation(path: &[String], doing: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AlreadyExists { collides(path) } else { at(path, doing, error) }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::*;
    use crate::exit::Code;
    use crate::manifest::{Rules, encode};
    use std::fs;

    /// TR-64: on a file system that folds names, the second of two that fold to one finds its place taken, whichever way it is
    /// created. Here the place is taken by hand.
    #[test]
    fn names_that_fold_to_one_end_the_transfer() {
        let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let shape = Shape::new(100, 10);
        let open = |path: &std::path::Path| Folder::open(path, Disk::plain()).unwrap();
        let placer = || {
            let journal = Arc::new(Journal::read(&open(dir.path()), &blake3::hash(b""), 10).unwrap());
            Placer::new(Places { dir: open(dir.path()), tree: open(tree.path()), journal, replace: false }, shape)
        };
        let prepare = |kind, name: &str, size| placer().prepare(&[name.to_owned()], &Entry { kind, depth: 0, size, start: 0 });
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
        let failure = placer.finish(open(dir.path()), listing).write(0, &[1; 10]).unwrap_err();
        assert_eq!(failure.code, Code::UnsafeName);
        assert_eq!(fs::read(tree.path().join("folded")).unwrap(), b"");
    }
}
