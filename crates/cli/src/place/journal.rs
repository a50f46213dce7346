//! Which chunks of a transfer are written, and which of them are safe on the disk: kept in a file beside them, so that the next run can
//! go on.
//!
//! ```text
//! head    "strait-j" | version u8 = 1 | root 32 | check 16
//! record  kind u8 (1 written, 2 safe) | number of ranges u32 | ( first chunk u64 | chunk after the last u64 )* | check 16
//! ```
//!
//! All numbers are big-endian. Records are appended and never changed; each check is the start of the BLAKE3 hash of the check before it
//! and of its own part, so that a record that was torn, or that belongs to another run, ends the reading (TR-68).
//!
//! A chunk is recorded as written at once: that is what a run leaves that was killed, and costs no wait. It is recorded as safe when it is
//! safe on the disk, not before (TR-67), batch by batch: that is what is left when the power fails. Both are hints to the next run, which
//! verifies each chunk again; a chunk that was recorded as written and went down with the power is found out there.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::folder::{Folder, Open};
use super::ranges::Ranges;
use crate::tree::Hash;

/// Its name in the temporary folder.
pub(super) const NAME: &str = "journal";
const MAGIC: &[u8] = b"strait-j\x01";
const CHECK: usize = 16;
const HEAD: usize = MAGIC.len() + 32 + CHECK;
const WRITTEN: u8 = 1;
const SAFE: u8 = 2;
/// Ranges in a record at most. A batch has far fewer, since chunks come nearly in order; if not, it becomes several records.
const RANGES_MAX: usize = 4096;
/// A batch is made safe this long after the first chunk of it was written.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// See [`Journal::rest`].
const REST: u32 = 3;

type Check = [u8; CHECK];

/// The journal of one transfer. It may be shared between threads.
#[derive(Debug)]
pub(super) struct Journal {
    root: Hash,
    /// A batch is made safe when it has so many bytes.
    batch_bytes: u64,
    /// What an earlier run left. A hint: it is verified again before it is relied on (TR-68).
    before: Ranges,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None until the places are prepared, and again after a write to it failed.
    file: Option<Arc<Open>>,
    check: Check,
    /// Where the next record goes.
    end: u64,
    /// Written by this run, and not made safe yet.
    waiting: Ranges,
    waiting_bytes: u64,
    since: Option<Instant>,
    /// The disk has rest until then.
    rest_until: Option<Instant>,
    /// Whether there is any record.
    any: bool,
}

fn check(before: &Check, part: &[u8]) -> Check {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(part);
    let mut check = [0; CHECK];
    hasher.finalize_xof().fill(&mut check);
    check
}

fn head(root: &Hash) -> Vec<u8> {
    let mut head = [MAGIC, root.as_bytes()].concat();
    head.extend_from_slice(&check(&[0; CHECK], &head));
    head
}

impl Journal {
    /// Reads what an earlier run for this root left in its temporary folder. Without a valid head there is nothing to go on from.
    pub(super) fn read(temp: &Folder, root: &Hash, batch_bytes: u64) -> io::Result<Journal> {
        let mut journal = Journal { root: *root, batch_bytes, before: Ranges::default(), state: Mutex::default() };
        let file = match temp.file(NAME, true) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(journal),
            Err(error) => return Err(error),
        };
        let mut state = State { end: HEAD as u64, ..State::default() };
        let mut reader = io::BufReader::new(file.reader());
        let mut found = [0; HEAD];
        if !read_all(&mut reader, &mut found)? || found[..] != head(root)[..] {
            return Ok(journal);
        }
        state.check.copy_from_slice(&found[HEAD - CHECK..]);
        while let Some((body, ranges)) = record(&mut reader, &state.check)? {
            ranges.into_iter().for_each(|(start, end)| journal.before.insert(start, end));
            state.check = check(&state.check, &body);
            state.end += (body.len() + CHECK) as u64;
            state.any = true;
        }
        drop(reader);
        state.file = Some(Arc::new(file));
        journal.state = Mutex::new(state);
        Ok(journal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether an earlier run got so far that all places are prepared.
    pub(super) fn is_resumed(&self) -> bool {
        self.state().end > 0
    }

    /// Begins the file, when all places are prepared. What an earlier run left is gone on with.
    pub(super) fn begin(&self, temp: &Folder) -> io::Result<()> {
        let mut state = self.state();
        if state.file.is_none() {
            temp.remove(NAME)?;
            let file = temp.create(NAME, false)?;
            let head = head(&self.root);
            file.write(0, &head)?;
            file.sync()?;
            state.end = HEAD as u64;
            state.check.copy_from_slice(&head[HEAD - CHECK..]);
            state.file = Some(Arc::new(file));
        }
        Ok(())
    }

    /// Whether an earlier run recorded this chunk.
    pub(super) fn had(&self, chunk: u64) -> bool {
        self.before.contains(chunk)
    }

    /// What an earlier run recorded: each range from its first chunk to the one after its last.
    pub(super) fn had_ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.before.iter()
    }

    /// Whether there is any record, of this run or an earlier one.
    pub(super) fn any(&self) -> bool {
        self.state().any
    }

    /// A chunk was written, which is recorded. Says whether it is time to make what was written safe.
    pub(super) fn written(&self, chunk: u64, bytes: u64) -> io::Result<bool> {
        let mut state = self.state();
        let after = chunk.saturating_add(1);
        state.append(WRITTEN, &[(chunk, after)])?;
        state.waiting.insert(chunk, after);
        state.waiting_bytes = state.waiting_bytes.saturating_add(bytes);
        let since = *state.since.get_or_insert_with(Instant::now);
        let full = state.waiting_bytes >= self.batch_bytes || since.elapsed() >= BATCH_AGE;
        Ok(full && state.rest_until.is_none_or(|until| Instant::now() >= until))
    }

    /// Making a batch safe took so long: the next one waits [`REST`] times that, so that a disk which is slow at it, or busy with what other
    /// programs wrote, spends most of its time on the transfer.
    pub(super) fn rest(&self, took: Duration) {
        self.state().rest_until = Some(Instant::now() + took * REST);
    }

    /// Takes what waits to be made safe. The caller does that, then calls [`Journal::safe`]; if it cannot, these chunks are not recorded as
    /// safe.
    pub(super) fn take(&self) -> Ranges {
        let mut state = self.state();
        (state.waiting_bytes, state.since) = (0, None);
        std::mem::take(&mut state.waiting)
    }

    /// Records chunks as safe, and makes that safe too.
    pub(super) fn safe(&self, chunks: &Ranges) -> io::Result<()> {
        let all: Vec<_> = chunks.iter().collect();
        let mut state = self.state();
        for ranges in all.chunks(RANGES_MAX) {
            state.append(SAFE, ranges)?;
        }
        let file = state.file.clone();
        drop(state); // nobody has to wait for the disk to record what was written
        file.map_or(Ok(()), |file| file.sync())
    }
}

impl State {
    /// Appends a record. After an error nothing more is recorded: the place of the next record would not be known.
    fn append(&mut self, kind: u8, ranges: &[(u64, u64)]) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let mut body = vec![kind];
        body.extend_from_slice(&(ranges.len() as u32).to_be_bytes());
        ranges.iter().for_each(|(start, end)| body.extend([start.to_be_bytes(), end.to_be_bytes()].as_flattened()));
        let check = check(&self.check, &body);
        body.extend_from_slice(&check);
        file.write(self.end, &body)?;
        self.end += body.len() as u64;
        self.check = check;
        self.any = true;
        self.file = Some(file);
        Ok(())
    }
}

/// Reads all of `buf`; says `false` if the file ends before.
fn read_all(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buf) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The next record, without its check, if it is whole and right.
#[allow(clippy::type_complexity)] // bytes, and what they say
fn record(reader: &mut impl Read, before: &Check) -> io::Result<Option<(Vec<u8>, Vec<(u64, u64)>)>> {
    let mut body = vec![0; 5];
    if !read_all(reader, &mut body)? {
        return Ok(None);
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let ranges = number(&body[1..]) as usize;
    if !(WRITTEN..=SAFE).contains(&body[0]) || ranges > RANGES_MAX {
        return Ok(None);
    }
    body.resize(5 + 16 * ranges, 0);
    let mut found = [0; CHECK];
    if !read_all(reader, &mut body[5..])? || !read_all(reader, &mut found)? || found != check(before, &body) {
        return Ok(None);
    }
    let ranges = body[5..].chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect();
    Ok(Some((body, ranges)))
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::*;
    use std::fs;

    fn ranges(all: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        all.iter().for_each(|(start, end)| ranges.insert(*start, *end));
        ranges
    }

    /// TR-68: whatever byte of the file is torn off, changed or missing, what is read is what was recorded before it, never more.
    #[test]
    fn a_torn_or_changed_journal_gives_what_was_recorded_before_the_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (path, root) = (dir.path().join(NAME), blake3::hash(b"r"));
        let temp = Folder::open(dir.path(), Disk::plain()).unwrap();
        let journal = Journal::read(&temp, &root, 10).unwrap();
        assert!(!journal.is_resumed() && !journal.any());
        journal.begin(&temp).unwrap();
        let batches = [ranges(&[(3, 5), (9, 10)]), ranges(&[(5, 6)]), ranges(&[(6, 7)]), ranges(&[(0, 1)])];
        let mut whole = vec![(HEAD, Ranges::default())];
        for (number, batch) in batches.iter().enumerate() {
            let first = batch.iter().next().unwrap().0;
            if number == 1 {
                journal.written(first, 1).map(|_| ()).unwrap()
            } else {
                journal.safe(batch).unwrap()
            }
            let mut sum = whole.last().unwrap().1.clone();
            batch.iter().for_each(|(start, end)| sum.insert(start, end));
            whole.push((fs::metadata(&path).unwrap().len() as usize, sum));
        }
        let bytes = fs::read(&path).unwrap();
        let expected = |intact: usize| {
            let known = whole.iter().rev().find(|(len, _)| *len <= intact);
            known.map_or_else(Ranges::default, |(_, sum)| sum.clone())
        };
        for at in 0..=bytes.len() {
            fs::write(&path, &bytes[..at]).unwrap();
            assert_eq!(Journal::read(&temp, &root, 10).unwrap().before, expected(at), "cut at {at}");
            if at < bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x40;
                fs::write(&path, &wrong).unwrap();
                assert_eq!(Journal::read(&temp, &root, 10).unwrap().before, expected(at), "changed at {at}");
            }
        }
        fs::write(&path, &bytes).unwrap();
        assert!(!Journal::read(&temp, &blake3::hash(b"other"), 10).unwrap().is_resumed());
        // Going on after a torn end: the new record takes its place.
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let journal = Journal::read(&temp, &root, 10).unwrap();
        journal.begin(&temp).unwrap();
        journal.safe(&ranges(&[(20, 21)])).unwrap();
        assert_eq!(Journal::read(&temp, &root, 10).unwrap().before, ranges(&[(3, 7), (9, 10), (20, 21)]));
    }

    #[test]
    fn a_batch_is_made_safe_after_so_many_bytes() {
        let journal = Journal { root: blake3::hash(b""), batch_bytes: 10, before: Ranges::default(), state: Mutex::default() };
        assert!(!journal.written(0, 1).unwrap());
        assert!(journal.written(1, 9).unwrap());
        assert_eq!(journal.take(), ranges(&[(0, 2)]));
        assert!(journal.take().is_empty());
    }
}
