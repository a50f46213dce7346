//! Entries: one for each file and folder, in the order of a walk from the top, each with one component of its path.
//!
//! ```text
//! kind u8 (0 folder, 1 file, 2 executable file) | depth u8 | name length u8 | name | size u64 big-endian (files only)
//! ```
//!
//! A folder comes before what is in it, and names in one folder ascend. So a path cannot leave its folder, a name cannot come
//! twice, and one pass with a small stack checks all of it, however many entries there are.

use super::{BadName, DEPTH_MAX, PATH_BYTES_MAX, Rules, check_name};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A file whose owner may execute it.
    Executable,
}

/// One entry. Its path is in the [`Walker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// How many folders it is in; 0 is directly in the target.
    pub depth: usize,
    /// Bytes; 0 for folders.
    pub size: u64,
    /// Where its bytes begin in the content.
    pub start: u64,
}

impl Entry {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    /// Where its bytes end in the content.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// Why entries are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A name that may not travel or cannot exist here.
    #[error("the name \"{shown}\" is refused: {why}")]
    Name {
        /// The name as it can be printed.
        shown: String,
        /// Why.
        why: BadName,
    },
    /// Too deep, or the path is too long.
    #[error("a path is deeper than 255 folders or longer than 4096 bytes")]
    PathTooLong,
    /// Not in the one order that is allowed, or inside something that is not a folder.
    #[error("the entries are not in order")]
    Order,
    /// Unknown kind, or cut short.
    #[error("the entries are malformed")]
    Malformed,
    /// Sizes or the number of entries do not add up to what the header says.
    #[error("the entries do not add up to what the manifest's header says")]
    Sum,
}

/// What [`Walker::step`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The bytes end inside an entry.
    Need,
    /// An entry, and how many bytes it took.
    Entry(Entry, usize),
}

/// Encodes one entry and appends it (TR-30). The name must have passed [`check_name`].
pub fn encode(kind: Kind, depth: usize, name: &str, size: u64, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let depth = u8::try_from(depth).map_err(|_| EntryError::PathTooLong)?;
    let len = u8::try_from(name.len()).map_err(|_| EntryError::PathTooLong)?;
    let kind_byte = match kind {
        Kind::Folder => 0,
        Kind::File => 1,
        Kind::Executable => 2,
    };
    out.extend_from_slice(&[kind_byte, depth, len]);
    out.extend_from_slice(name.as_bytes());
    if kind != Kind::Folder {
        out.extend_from_slice(&size.to_be_bytes());
    }
    Ok(())
}

/// Reads entries one after the other and checks each against those before it. Its memory is one path.
#[derive(Debug, Clone)]
pub struct Walker {
    rules: Rules,
    /// Components of the path of the last entry.
    path: Vec<String>,
    path_bytes: usize,
    last_is_folder: bool,
    content: u64,
    content_max: u64,
    entries: u64,
    files: u64,
}

impl Walker {
    /// A walker at the first entry of content that has `content_max` bytes.
    pub fn new(rules: Rules, content_max: u64) -> Walker {
        Walker { rules, path: Vec::new(), path_bytes: 0, last_is_folder: true, content: 0, content_max, entries: 0, files: 0 }
    }

    /// The path of the last entry, component by component.
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// The path of the last entry as it can be printed.
    pub fn shown(&self) -> String {
        super::shown(&self.path.join("/")).to_string()
    }

    /// Entries read so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Files among them.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Bytes of content of the entries read so far.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Whether all entries add up to the header's numbers (TR-35).
    pub fn finish(&self, entries: u64) -> Result<(), EntryError> {
        if self.entries == entries && self.content == self.content_max { Ok(()) } else { Err(EntryError::Sum) }
    }

    /// Reads the entry at the start of `bytes`.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, EntryError> {
        let Some((&[kind, depth, len], rest)) = bytes.split_first_chunk::<3>() else {
            return Ok(Step::Need);
        };
        let kind = match kind {
            0 => Kind::Folder,
            1 => Kind::File,
            2 => Kind::Executable,
            _ => return Err(EntryError::Malformed),
        };
        let Some((name, rest)) = rest.split_at_checked(usize::from(len)) else {
            return Ok(Step::Need);
        };
        let mut used = 3 + name.len();
        let mut size = 0;
        if kind != Kind::Folder {
            let Some((bytes, _)) = rest.split_first_chunk::<8>() else {
                return Ok(Step::Need);
            };
            size = u64::from_be_bytes(*bytes);
            used += 8;
        }
        let depth = usize::from(depth);
        let name = check_name(name, depth == 0, self.rules)
            .map_err(|why| EntryError::Name { shown: super::shown(&String::from_utf8_lossy(name)).to_string(), why })?;
        self.descend(depth, name)?;
        let start = self.content;
        self.content = start.checked_add(size).filter(|end| *end <= self.content_max).ok_or(EntryError::Sum)?;
        self.last_is_folder = kind == Kind::Folder;
        self.entries = self.entries.saturating_add(1);
        self.files += u64::from(!self.last_is_folder);
        Ok(Step::Entry(Entry { kind, depth, size, start }, used))
    }

    /// Moves the path to the next entry, if it may come here (TR-33, TR-34).
    fn descend(&mut self, depth: usize, name: &str) -> Result<(), EntryError> {
        let here = self.path.len();
        if depth > here || (depth == here && !self.last_is_folder) {
            return Err(EntryError::Order);
        }
        if self.path.get(depth).is_some_and(|before| before.as_bytes() >= name.as_bytes()) {
            return Err(EntryError::Order);
        }
        for gone in self.path.drain(depth..) {
            self.path_bytes = self.path_bytes.saturating_sub(gone.len() + 1);
        }
        self.path_bytes += name.len() + 1;
        if depth > DEPTH_MAX || self.path_bytes > PATH_BYTES_MAX + 1 {
            return Err(EntryError::PathTooLong);
        }
        self.path.push(name.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Plain<'a> = (Kind, usize, &'a str, u64);

    fn bytes(entries: &[Plain<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, depth, name, size) in entries {
            encode(*kind, *depth, name, *size, &mut out).unwrap();
        }
        out
    }

    fn walk(mut bytes: &[u8]) -> Result<Vec<(String, u64, u64)>, EntryError> {
        let mut walker = Walker::new(Rules::Unix, 100);
        let mut out = Vec::new();
        while !bytes.is_empty() {
            match walker.step(bytes)? {
                Step::Need => return Err(EntryError::Malformed),
                Step::Entry(entry, used) => {
                    out.push((walker.path().join("/"), entry.start, entry.size));
                    bytes = &bytes[used..];
                }
            }
        }
        Ok(out)
    }

    /// TR-30, TR-34: a tree in order comes back with its paths and places.
    #[test]
    fn a_tree_comes_back_with_paths_and_places() {
        use Kind::{Executable, File, Folder};
        let tree = [
            (Folder, 0, "a", 0),
            (File, 1, "b", 7),
            (Folder, 1, "c", 0),
            (Folder, 2, "empty", 0),
            (Executable, 1, "d", 3),
            (File, 0, "z", 0),
        ];
        let got = walk(&bytes(&tree)).unwrap();
        let want = [("a", 0, 0), ("a/b", 0, 7), ("a/c", 7, 0), ("a/c/empty", 7, 0), ("a/d", 7, 3), ("z", 10, 0)];
        assert_eq!(got, want.map(|(path, start, size)| (path.to_owned(), start, size)));
    }

    /// TR-34: twice, descending, inside a file, or too deep at once: not in order.
    #[test]
    fn what_is_out_of_order_is_refused() {
        use Kind::{File, Folder};
        let cases: [&[Plain<'_>]; 6] = [
            &[(File, 1, "a", 0)],
            &[(File, 0, "a", 0), (File, 0, "a", 0)],
            &[(File, 0, "b", 0), (File, 0, "a", 0)],
            &[(File, 0, "a", 0), (File, 1, "b", 0)],
            &[(Folder, 0, "a", 0), (File, 2, "b", 0)],
            &[(Folder, 0, "a", 0), (File, 1, "x", 0), (File, 1, "x", 0)],
        ];
        for case in cases {
            assert_eq!(walk(&bytes(case)), Err(EntryError::Order), "{case:?}");
        }
    }

    /// TR-31, TR-33: names and paths are held to their rules while they are read.
    #[test]
    fn hostile_names_and_endless_paths_are_refused() {
        let name = bytes(&[(Kind::File, 0, "..", 1)]);
        assert!(matches!(walk(&name), Err(EntryError::Name { why: BadName::Dots, .. })));
        let long = "x".repeat(255);
        let deep: Vec<Plain<'_>> = (0..16).map(|depth| (Kind::Folder, depth, &long[..], 0)).collect();
        assert_eq!(walk(&bytes(&deep)).map(|all| all.len()), Ok(16), "4096 bytes less the last separator fit");
        let more: Vec<Plain<'_>> = (0..17).map(|depth| (Kind::Folder, depth, &long[..], 0)).collect();
        assert_eq!(walk(&bytes(&more)), Err(EntryError::PathTooLong));
    }

    /// TR-35: sizes and counts must add up, and huge sizes do not wrap around.
    #[test]
    fn sums_must_be_those_of_the_header() {
        let two = bytes(&[(Kind::File, 0, "a", 60), (Kind::File, 0, "b", 41)]);
        assert_eq!(walk(&two), Err(EntryError::Sum));
        let wraps = bytes(&[(Kind::File, 0, "a", 60), (Kind::File, 0, "b", u64::MAX)]);
        assert_eq!(walk(&wraps), Err(EntryError::Sum));
        let mut walker = Walker::new(Rules::Unix, 61);
        walker.step(&bytes(&[(Kind::File, 0, "a", 60)])).unwrap();
        assert_eq!(walker.finish(1), Err(EntryError::Sum));
    }

    #[test]
    fn every_cut_asks_for_more_and_a_bad_kind_does_not() {
        let one = bytes(&[(Kind::Executable, 0, "name", 9)]);
        for len in 0..one.len() {
            assert_eq!(Walker::new(Rules::Unix, 9).step(&one[..len]), Ok(Step::Need), "{len}");
        }
        assert_eq!(Walker::new(Rules::Unix, 9).step(&[3, 0, 1, b'a']), Err(EntryError::Malformed));
    }
}
