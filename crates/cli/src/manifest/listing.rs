//! All entries of a transfer, kept outside of memory, with a way to find the files of any part of the content.

use std::io;

use super::{ENTRY_BYTES_MAX, Entry, EntryError, Rules, Step, Walker};
use crate::spill::Spill;

/// Entries between two marks at first. Doubles whenever there would be too many marks.
const SPACING: u64 = 512;
/// Marks at most. Each holds one path.
const MARKS_MAX: usize = 4096;
/// Bytes read at once when entries are read again.
const READ: usize = 16 << 10;

/// A place between two entries from which reading can go on.
#[derive(Debug, Clone)]
struct Mark {
    walker: Walker,
    offset: u64,
}

/// The entries, in order. Memory is bounded however many there are: the bytes spill to disk, and marks are thinned out.
#[derive(Debug)]
pub struct Listing {
    bytes: Spill,
    /// Bytes of an entry that is not complete yet.
    rest: Vec<u8>,
    walker: Walker,
    marks: Vec<Mark>,
    spacing: u64,
}

/// Why entries could not be taken in.
#[derive(Debug)]
pub enum PushError<E> {
    /// The entries break a rule.
    Entry(EntryError),
    /// The list could not be written to disk.
    Spill(io::Error),
    /// The visitor refused.
    Visit(E),
}

impl Listing {
    /// An empty list for content of at most `content_max` bytes.
    pub fn new(rules: Rules, content_max: u64) -> Listing {
        let walker = Walker::new(rules, content_max);
        Listing {
            bytes: Spill::new(),
            rest: Vec::new(),
            marks: vec![Mark { walker: walker.clone(), offset: 0 }],
            walker,
            spacing: SPACING,
        }
    }

    /// Takes in the next bytes of the encoded entries. `visit` sees each entry that became complete, with its path.
    pub fn push<E>(&mut self, bytes: &[u8], mut visit: impl FnMut(&Walker, &Entry) -> Result<(), E>) -> Result<(), PushError<E>> {
        let mut offset = self.bytes.len().saturating_sub(self.rest.len() as u64);
        self.bytes.append(bytes).map_err(PushError::Spill)?;
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Step::Entry(entry, used) = self.walker.step(&self.rest[at..]).map_err(PushError::Entry)? {
            visit(&self.walker, &entry).map_err(PushError::Visit)?;
            at += used;
            offset += used as u64;
            if self.walker.entries().is_multiple_of(self.spacing) {
                self.mark(offset);
            }
        }
        self.rest.drain(..at);
        debug_assert!(self.rest.len() < ENTRY_BYTES_MAX);
        Ok(())
    }

    fn mark(&mut self, offset: u64) {
        self.marks.push(Mark { walker: self.walker.clone(), offset });
        if self.marks.len() > MARKS_MAX {
            let mut nth = 0;
            self.marks.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.spacing *= 2;
        }
    }

    /// Checks that the list is complete and adds up (TR-35).
    pub fn finish(&self, entries: u64) -> Result<(), EntryError> {
        if !self.rest.is_empty() {
            return Err(EntryError::Malformed);
        }
        self.walker.finish(entries)
    }

    /// The encoded entries.
    pub fn bytes(&self) -> &Spill {
        &self.bytes
    }

    /// Number of entries.
    pub fn entries(&self) -> u64 {
        self.walker.entries()
    }

    /// Number of files among them.
    pub fn files(&self) -> u64 {
        self.walker.files()
    }

    /// Bytes of all files.
    pub fn content(&self) -> u64 {
        self.walker.content()
    }

    /// Reads all entries again.
    pub fn reader(&self) -> Reader<'_> {
        self.reader_from(0)
    }

    /// Reads again from a place at or before the first entry that has bytes at `content`.
    fn reader_from(&self, content: u64) -> Reader<'_> {
        let after = self.marks.partition_point(|mark| mark.walker.content() <= content);
        let mark = self.marks.get(after.saturating_sub(1)).unwrap_or(&self.marks[0]);
        Reader { spill: &self.bytes, walker: mark.walker.clone(), offset: mark.offset, buf: Vec::new(), at: 0 }
    }

    /// Calls `visit` for each file that has bytes in `start..end` of the content, in order, with the part of the file that is
    /// meant.
    pub fn overlapping<E: From<io::Error>>(
        &self,
        start: u64,
        end: u64,
        mut visit: impl FnMut(&Walker, &Entry, Part) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut reader = self.reader_from(start);
        while let Some(entry) = reader.next()? {
            if entry.start >= end {
                break;
            }
            let (from, to) = (entry.start.max(start), entry.end().min(end));
            if from < to {
                let part = Part { in_file: from - entry.start, in_range: (from - start) as usize, len: (to - from) as usize };
                visit(&reader.walker, &entry, part)?;
            }
        }
        Ok(())
    }
}

/// Which bytes of a file lie in a range of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where in the file.
    pub in_file: u64,
    /// Where in the range.
    pub in_range: usize,
    /// How many bytes.
    pub len: usize,
}

/// Reads a list of entries that was checked before.
#[derive(Debug)]
pub struct Reader<'a> {
    spill: &'a Spill,
    walker: Walker,
    offset: u64,
    buf: Vec<u8>,
    at: usize,
}

impl Reader<'_> {
    /// The walker, which has the path of the last entry.
    pub fn walker(&self) -> &Walker {
        &self.walker
    }

    /// The next entry, or `None` at the end. Only the disk can fail here.
    #[allow(clippy::should_implement_trait)] // the path is lent from here, so this is no iterator
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let step =
                self.walker.step(&self.buf[self.at..]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            match step {
                Step::Entry(entry, used) => {
                    self.at += used;
                    return Ok(Some(entry));
                }
                Step::Need => {
                    self.buf.drain(..self.at);
                    self.at = 0;
                    let held = self.buf.len();
                    self.buf.resize(held + READ, 0);
                    let got = self.spill.read_at(self.offset, &mut self.buf[held..])?;
                    self.buf.truncate(held + got);
                    self.offset += got as u64;
                    if got == 0 {
                        return if held == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, encode};
    use super::*;
    use std::convert::Infallible;

    fn numbered(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(Kind::Folder, 0, "all", 0, &mut bytes).unwrap();
        for i in 0..count {
            encode(Kind::File, 1, &format!("{i:08}"), i % 3, &mut bytes).unwrap();
        }
        bytes
    }

    fn listing(bytes: &[u8], piece: usize) -> Listing {
        let mut listing = Listing::new(Rules::Unix, 1 << 40);
        for piece in bytes.chunks(piece) {
            listing.push(piece, |_, _| Ok::<_, Infallible>(())).unwrap();
        }
        listing
    }

    #[test]
    fn entries_that_come_in_any_pieces_are_read_again_in_full() {
        let bytes = numbered(2000);
        for piece in [1, 7, 4096, bytes.len()] {
            let listing = listing(&bytes, piece);
            assert_eq!((listing.entries(), listing.files(), listing.content()), (2001, 2000, 1999));
            let mut reader = listing.reader();
            let mut count = 0;
            while let Some(entry) = reader.next().unwrap() {
                if count > 0 {
                    assert_eq!(reader.walker().path()[1], format!("{:08}", count - 1));
                    assert_eq!(entry.size, (count - 1) % 3);
                }
                count += 1;
            }
            assert_eq!(count, 2001);
        }
    }

    #[test]
    fn every_range_finds_its_files_through_the_marks() {
        let listing = listing(&numbered(5000), 4096);
        let mut all = Vec::new(); // which file each byte of the content belongs to
        (0..5000u64).for_each(|i| all.extend((0..i % 3).map(|_| i)));
        for (start, len) in [(0usize, 1usize), (0, 4999), (1, 2), (2500, 700), (4990, 9), (4998, 1)] {
            let mut got = vec![u64::MAX; len];
            let visit = |walker: &Walker, _: &Entry, part: Part| {
                let file: u64 = walker.path()[1].parse().unwrap();
                got[part.in_range..part.in_range + part.len].fill(file);
                Ok::<_, io::Error>(())
            };
            listing.overlapping(start as u64, (start + len) as u64, visit).unwrap();
            assert_eq!(got, all[start..start + len], "{start}+{len}");
        }
    }

    #[test]
    fn marks_are_thinned_out_and_still_lead_to_the_files() {
        let mut listing = Listing::new(Rules::Unix, 1 << 40);
        listing.spacing = 1;
        listing.push(&numbered(10_000), |_, _| Ok::<_, Infallible>(())).unwrap();
        assert!(listing.marks.len() <= MARKS_MAX + 1 && listing.spacing == 4, "{} {}", listing.marks.len(), listing.spacing);
        let mut seen = Vec::new();
        let visit = |walker: &Walker, _: &Entry, _: Part| {
            seen.push(walker.path()[1].clone());
            Ok::<_, io::Error>(())
        };
        listing.overlapping(9000, 9001, visit).unwrap();
        assert_eq!(seen, ["00009001"]);
    }

    /// TR-35: an entry that is cut at the end is not overlooked.
    #[test]
    fn a_list_that_ends_inside_an_entry_is_malformed() {
        let bytes = numbered(3);
        let listing = listing(&bytes[..bytes.len() - 1], 10);
        assert_eq!(listing.finish(3), Err(EntryError::Malformed));
    }
}
