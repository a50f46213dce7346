//! A byte sequence that grows at its end and is read at any place: in memory while small, in a nameless temporary file after.
//!
//! This is what keeps memory flat: lists that grow with the content (chunk hashes, file names) live here. The file has no name
//! on disk, so that nothing is left of it even after a crash.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Up to this many bytes are held in memory.
const MEMORY_MAX: usize = 1 << 20;
/// Appends to the file are gathered up to this many bytes.
const GATHER: usize = 1 << 16;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Spill {
    /// All bytes while there is no file; after that, those not yet written.
    tail: Vec<u8>,
    file: Option<File>,
    /// Bytes in the file.
    written: u64,
}

impl Spill {
    /// An empty sequence.
    pub fn new() -> Spill {
        Spill::default()
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.written.saturating_add(self.tail.len() as u64)
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes at the end. On an error nothing more may be read or added.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let limit = if self.file.is_some() { GATHER } else { MEMORY_MAX };
        if self.tail.len().saturating_add(bytes.len()) > limit {
            self.flush()?;
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        file.seek(SeekFrom::Start(self.written))?;
        file.write_all(&self.tail)?;
        self.written = self.written.saturating_add(self.tail.len() as u64);
        self.tail.clear();
        self.tail.shrink_to(GATHER);
        Ok(())
    }

    /// Reads up to `buf.len()` bytes from `offset` on; fewer only at the end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        if let Some(file) = &self.file {
            while done < buf.len() && offset.saturating_add(done as u64) < self.written {
                let at = offset.saturating_add(done as u64);
                let most = usize::try_from(self.written - at).unwrap_or(usize::MAX).min(buf.len() - done);
                match read_file_at(file, at, &mut buf[done..done + most])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => done += n,
                }
            }
        }
        let at = offset.saturating_add(done as u64);
        if let Some(skip) = at.checked_sub(self.written).and_then(|skip| usize::try_from(skip).ok()) {
            let rest = self.tail.get(skip..).unwrap_or_default();
            let n = rest.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&rest[..n]);
            done += n;
        }
        Ok(done)
    }

    /// Reads exactly `len` bytes from `offset` on.
    pub fn read_vec(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buf = vec![0; len];
        let got = self.read_at(offset, &mut buf)?;
        if got == len { Ok(buf) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Reads at a place without moving the file's cursor, so that several readers may share it.
#[cfg(unix)]
pub fn read_file_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

/// Reads at a place. On Windows the cursor moves, which nobody here relies on.
#[cfg(windows)]
pub fn read_file_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}

/// Reads at a place until `buf` is full or the file ends; returns the bytes read.
pub fn read_file_full(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match read_file_at(file, offset.saturating_add(done as u64), &mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn reads_what_was_appended_before_and_after_it_went_to_a_file() {
        let mut spill = Spill::new();
        let mut total = 0;
        for len in [1, 70_000, MEMORY_MAX - 80_000, 50_000, 100, 65_536, 3] {
            spill.append(&pattern(total, len)).unwrap();
            total += len;
            for (at, len) in [(0, 1), (total / 2, 1000), (total.saturating_sub(70_000), 70_000)] {
                let len = len.min(total - at);
                assert_eq!(spill.read_vec(at as u64, len).unwrap(), pattern(at, len), "at {at} of {total}");
            }
        }
        assert!(spill.file.is_some(), "the test must cross the limit");
        assert!(spill.tail.capacity() <= 2 * GATHER);
        assert_eq!(spill.len(), total as u64);
    }

    #[test]
    fn reading_past_the_end_is_short_or_an_error() {
        let mut spill = Spill::new();
        spill.append(b"abc").unwrap();
        assert_eq!(spill.read_at(2, &mut [0; 9]).unwrap(), 1);
        assert_eq!(spill.read_at(9, &mut [0; 9]).unwrap(), 0);
        assert!(spill.read_vec(1, 3).is_err());
        assert!(spill.read_vec(u64::MAX, 3).is_err());
    }
}
