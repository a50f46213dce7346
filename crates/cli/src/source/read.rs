//! Answering requests from the files as they are now, or not at all if they are no longer what was hashed.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Roots;
use super::buffers::Buffers;
use crate::exit::Failure;
use crate::manifest::{Header, Listing, Part, Walker};
use crate::spill::{Spill, read_file_full};
use crate::tree::{Hash, PAGE_BYTES, Tree, TreeBuilder, Which};
use crate::wire::{Ask, Status, decline};

/// Bytes of a stamp.
const STAMP_BYTES: usize = 16;

/// When a file was last written, to tell whether it changed. Its size is checked as well.
pub(super) fn stamp(meta: &Metadata) -> [u8; STAMP_BYTES] {
    let since = meta.modified().ok().map(|at| match at.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
        Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
    });
    since.unwrap_or(i128::MIN).to_be_bytes()
}

/// Why a chunk cannot be given.
#[derive(Debug)]
pub enum Problem {
    /// A file is no longer what was hashed.
    Changed(PathBuf),
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The lists on the disk cannot be read.
    Lists(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        Problem::Lists(error)
    }
}

/// Where the files are.
#[derive(Debug)]
enum Places {
    /// Under the paths of the command line.
    Named(Roots),
    /// All in one folder.
    Inside(PathBuf),
}

impl Places {
    fn locate(&self, path: &[String]) -> Option<PathBuf> {
        match self {
            Places::Named(roots) => roots.locate(path),
            Places::Inside(dir) => {
                let mut full = dir.clone();
                full.extend(path);
                Some(full)
            }
        }
    }
}

/// Somebody who watches the reads of files, and may hold them up: for tests. Called on the thread that reads.
pub trait ReadTap: Send + Sync {
    /// A part of this file is about to be read.
    fn before(&self, path: &Path);
    /// It was read, or could not be.
    fn after(&self, path: &Path);
}

/// What is sent: its manifest, and where the files are.
pub struct Source {
    places: Places,
    header: Header,
    root: Hash,
    listing: Arc<Listing>,
    entries_tree: Tree,
    content_tree: Tree,
    /// One stamp for each file, in order.
    stamps: Spill,
    buffers: Buffers,
    tap: Option<Arc<dyn ReadTap>>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("places", &self.places).field("header", &self.header).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn new(
        roots: Roots,
        header: Header,
        listing: Listing,
        entries_tree: Tree,
        content_tree: Tree,
        stamps: Spill,
    ) -> Source {
        let root = header.root();
        let (places, listing) = (Places::Named(roots), Arc::new(listing));
        Source { places, header, root, listing, entries_tree, content_tree, stamps, buffers: Buffers::default(), tap: None }
    }

    /// The same, with its reads watched.
    #[must_use]
    pub fn tapped(self, tap: Arc<dyn ReadTap>) -> Source {
        Source { tap: Some(tap), ..self }
    }

    /// Serves what was fetched into `dir` and verified, with the tree of its content. It blocks, and reads no content: what changes from
    /// here on is seen by size and time (TR-52).
    ///
    /// # Errors
    /// A file is not there any more, or the lists cannot be kept on the disk.
    pub fn fetched(dir: PathBuf, header: Header, listing: Arc<Listing>, content_tree: Tree) -> Result<Source, Failure> {
        let lists = |error: io::Error| Failure::disk("keep what is needed to serve", &error);
        let mut entries = TreeBuilder::new();
        let pages = header.entry_pages();
        for index in 0..pages.leaves() {
            let len = pages.page_len(0, index).unwrap_or_default() as usize;
            let page = listing.bytes().read_vec(index * u64::from(PAGE_BYTES), len).map_err(lists)?;
            entries.push(blake3::hash(&page)).map_err(lists)?;
        }
        let entries_tree = entries.finish(pages).map_err(lists)?;
        let places = Places::Inside(dir);
        let mut stamps = Spill::new();
        let mut reader = listing.reader();
        while let Some(entry) = reader.next().map_err(lists)? {
            if entry.is_folder() {
                continue;
            }
            let path = places.locate(reader.walker().path()).ok_or_else(|| Failure::bug("an entry without a place"))?;
            let meta = path.symlink_metadata().map_err(|error| Failure::disk(format_args!("read {}", path.display()), &error))?;
            stamps.append(&stamp(&meta)).map_err(lists)?;
        }
        let root = header.root();
        Ok(Source { places, header, root, listing, entries_tree, content_tree, stamps, buffers: Buffers::default(), tap: None })
    }

    /// The root that a ticket for this carries.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of files.
    pub fn files(&self) -> u64 {
        self.listing.files()
    }

    /// Number of folders.
    pub fn folders(&self) -> u64 {
        self.listing.entries().saturating_sub(self.listing.files())
    }

    /// Answers a request for the header, from memory.
    pub fn answer_header(&self) -> Bytes {
        ok(&self.header.encode())
    }

    /// Answers a request for this root. It blocks: it reads from the disk. Memory: one page or chunk, and a fixed
    /// number of buffers that are kept for the next chunks.
    pub fn answer(&self, ask: &Ask) -> Result<Bytes, Problem> {
        let page = match *ask {
            Ask::Header => Some(self.answer_header()),
            Ask::Done => Some(ok(&[])),
            Ask::Chunk { index } => self.chunk(index)?,
            Ask::Page { which: Which::Entries, level: 0, index } => self.entries_page(index)?,
            Ask::Page { which: Which::Entries, level, index } => self.entries_tree.page(level, index)?.map(|page| ok(&page)),
            Ask::Page { which: Which::Content, level, index } => self.content_tree.page(level, index)?.map(|page| ok(&page)),
        };
        Ok(page.unwrap_or_else(|| decline(Status::NoSuchPart, "").into()))
    }

    fn entries_page(&self, index: u64) -> io::Result<Option<Bytes>> {
        let Some(len) = self.header.entry_pages().page_len(0, index) else {
            return Ok(None);
        };
        let page = self.listing.bytes().read_vec(index * u64::from(PAGE_BYTES), len as usize)?;
        Ok(Some(ok(&page)))
    }

    /// A chunk with its status in front, read from the files that it is made of (TR-52).
    fn chunk(&self, index: u64) -> Result<Option<Bytes>, Problem> {
        let shape = self.header.content();
        let Some(len) = shape.page_len(0, index) else {
            return Ok(None);
        };
        let mut buffer = self.buffers.take(len as usize);
        let mut filled = 0;
        let start = index * u64::from(shape.leaf_bytes());
        self.listing.overlapping(start, start + u64::from(len), |walker, entry, part| {
            let path = self.places.locate(walker.path()).ok_or_else(|| Problem::Lists(io::ErrorKind::InvalidData.into()))?;
            let buf = &mut buffer.body()[part.in_range..part.in_range + part.len];
            filled += part.len;
            let stamp = self.stamp_of(walker)?;
            let Some(tap) = &self.tap else { return read_part(&path, entry.size, stamp, part, buf) };
            tap.before(&path);
            let read = read_part(&path, entry.size, stamp, part, buf);
            tap.after(&path);
            read
        })?;
        // A buffer has been used before: nothing of that may leave.
        let whole = filled == len as usize;
        if whole { Ok(Some(buffer.after(Status::Ok.to_byte()))) } else { Err(io::Error::from(io::ErrorKind::InvalidData).into()) }
    }

    /// The stamp of the walker's last entry, which is a file.
    fn stamp_of(&self, walker: &Walker) -> io::Result<Vec<u8>> {
        let number = walker.files().saturating_sub(1);
        self.stamps.read_vec(number * STAMP_BYTES as u64, STAMP_BYTES)
    }
}

fn ok(bytes: &[u8]) -> Bytes {
    let mut reply = Vec::with_capacity(1 + bytes.len());
    reply.push(Status::Ok.to_byte());
    reply.extend_from_slice(bytes);
    reply.into()
}

/// Reads a part of a file. The file is checked after it was read, so that a change in between is seen too (TR-52).
fn read_part(path: &Path, size: u64, stamped: Vec<u8>, part: Part, buf: &mut [u8]) -> Result<(), Problem> {
    let unreadable = |error: io::Error| Problem::Unreadable(path.to_owned(), error);
    let changed = || Problem::Changed(path.to_owned());
    let file =
        File::open(path).map_err(|error| if error.kind() == io::ErrorKind::NotFound { changed() } else { unreadable(error) })?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(changed());
    }
    let got = read_file_full(&file, part.in_file, buf).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if got != buf.len() || meta.len() != size || stamp(&meta)[..] != stamped[..] {
        return Err(changed());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{census, scan};
    use super::*;
    use crate::wire::open_reply;
    use std::fs;

    fn source(dir: &Path) -> Source {
        let roots = Roots::new(&[dir.join("top")]).unwrap();
        let count = census(&roots).unwrap();
        let mut hashed = 0;
        let source = scan(roots, count, &mut |told| {
            if let super::super::Told::Hashed(n) = told {
                hashed += n
            }
        });
        assert_eq!(hashed, count.bytes);
        source.unwrap()
    }

    fn tree() -> (tempfile::TempDir, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("top/empty")).unwrap();
        let big: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(dir.path().join("top/a"), b"small").unwrap();
        fs::write(dir.path().join("top/b"), &big).unwrap();
        fs::write(dir.path().join("top/c"), b"").unwrap();
        fs::write(dir.path().join("top/d"), b"tail").unwrap();
        let content = [b"small", &big[..], b"tail"].concat();
        (dir, content)
    }

    /// TR-20, TR-21: the content is all files in the order of their entries, cut in chunks.
    #[test]
    fn chunks_are_the_files_one_after_the_other() {
        let (dir, content) = tree();
        let source = source(dir.path());
        assert_eq!((source.files(), source.folders(), source.header().content_len), (4, 2, 700_009));
        let mut got = Vec::new();
        for index in 0..source.header().content().leaves() {
            let reply = source.answer(&Ask::Chunk { index }).unwrap();
            got.extend_from_slice(&open_reply(reply).unwrap());
        }
        assert!(got == content, "chunks differ from the content");
    }

    /// TR-43: parts that do not exist are declined.
    #[test]
    fn parts_that_do_not_exist_are_declined() {
        let (dir, _) = tree();
        let source = source(dir.path());
        let asks = [
            Ask::Chunk { index: 3 },
            Ask::Chunk { index: u64::MAX },
            Ask::Page { which: Which::Entries, level: 0, index: 1 },
            Ask::Page { which: Which::Entries, level: 1, index: 0 },
            Ask::Page { which: Which::Content, level: 2, index: 0 },
            Ask::Page { which: Which::Content, level: 255, index: u64::MAX },
        ];
        for ask in asks {
            assert_eq!(source.answer(&ask).unwrap()[..], [Status::NoSuchPart.to_byte()], "{ask:?}");
        }
        let hashes = source.answer(&Ask::Page { which: Which::Content, level: 1, index: 0 }).unwrap();
        assert_eq!(hashes.len(), 1 + 3 * 32);
    }

    /// TR-52: a file that changed, shrank, grew or went away is not sent; the others are.
    #[test]
    fn a_changed_file_is_refused_and_the_others_are_not() {
        type Change = fn(&Path);
        let changes: [Change; 4] = [
            |path| fs::write(path, b"other").unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| {
                let file = File::options().append(true).open(path).unwrap();
                file.set_len(3).unwrap();
            },
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
        ];
        for change in changes {
            let (dir, _) = tree();
            let path = dir.path().join("top/a");
            let source = source(dir.path());
            let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
            change(&path);
            if path.is_file() {
                File::options().append(true).open(&path).unwrap().set_modified(past).unwrap();
            }
            let first = source.answer(&Ask::Chunk { index: 0 });
            assert!(matches!(first, Err(Problem::Changed(at)) if at == path));
            assert!(source.answer(&Ask::Chunk { index: 1 }).is_ok());
        }
    }
}
