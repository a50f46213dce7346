//! What happens around each operation on the disk: a full disk is waited for, and tests can watch and break in.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::news::News;

/// Time between two attempts while the disk is full.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How soon a transfer that is stopped notices while it waits for space.
const STOP_WITHIN: Duration = Duration::from_millis(50);

/// One change of the disk, or one wait for it. Paths begin with that of the target folder.
#[derive(Debug, Clone, Copy)]
pub enum Op<'a> {
    /// A folder is made.
    MakeFolder(&'a Path),
    /// A file is created; it was not there before.
    Create(&'a Path),
    /// Bytes are written to a file from an offset on.
    Write(&'a Path, u64, &'a [u8]),
    /// A file is cut to this length.
    SetLen(&'a Path, u64),
    /// A file is removed.
    Remove(&'a Path),
    /// A file or folder is renamed; a file that was there under the new name is replaced.
    Rename(&'a Path, &'a Path),
    /// The bytes of a file are made safe.
    SyncFile(&'a Path),
    /// The names in a folder are made safe.
    SyncFolder(&'a Path),
    /// Everything on the file system is made safe.
    SyncAll,
}

impl Op<'_> {
    /// Whether it makes something safe and changes nothing.
    pub fn is_sync(&self) -> bool {
        matches!(self, Op::SyncFile(_) | Op::SyncFolder(_) | Op::SyncAll)
    }
}

/// Somebody who watches the disk, and may break it: for tests.
pub trait Tap: Send + Sync {
    /// Before an operation. An error takes its place.
    fn before(&self, op: Op<'_>) -> io::Result<()>;
    /// After an operation that succeeded.
    fn after(&self, op: Op<'_>);
}

/// Tells what happened.
pub type Tell = Arc<dyn Fn(&News) + Send + Sync>;

/// What all file work of a transfer has in common.
#[derive(Clone)]
pub(super) struct Disk {
    tap: Option<Arc<dyn Tap>>,
    tell: Tell,
    wait_for_space: Option<Duration>,
    full_since: Arc<Mutex<Option<Instant>>>,
    full: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("full", &self.full).field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

impl Disk {
    /// `wait_for_space`: how long a full disk is waited for, without end if `None`. `stopped`: set when nobody wants to wait any more.
    pub(super) fn new(tap: Option<Arc<dyn Tap>>, tell: Tell, wait_for_space: Option<Duration>, stopped: Arc<AtomicBool>) -> Disk {
        Disk { tap, tell, wait_for_space, full_since: Arc::default(), full: Arc::default(), stopped }
    }

    /// Waits for nothing and tells nobody.
    #[cfg(test)]
    pub(super) fn plain() -> Disk {
        Disk::new(None, Arc::new(|_| ()), Some(Duration::ZERO), Arc::default())
    }

    /// Does one operation. While the disk is full it is tried again (TR-69); it must do no harm to do it twice.
    ///
    /// Syncs are not tried again: after one has failed, a second one may succeed without the bytes.
    pub(super) fn run<T>(&self, op: Op<'_>, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        // Only what had to wait tells that there is space: a few bytes to a file that has room left are written to a full disk too.
        let mut waited = false;
        loop {
            let done = self.tap.as_ref().map_or(Ok(()), |tap| tap.before(op)).and_then(|()| work());
            match done {
                Ok(done) => {
                    if let Some(tap) = &self.tap {
                        tap.after(op);
                    }
                    if waited && self.full.load(Ordering::Relaxed) {
                        self.go_on();
                    }
                    return Ok(done);
                }
                Err(error) if is_full(&error) && !op.is_sync() => {
                    self.wait(error)?;
                    waited = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.full_since.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until it may be worth another attempt, or gives the error back because the time is up or the transfer was stopped.
    fn wait(&self, error: io::Error) -> io::Result<()> {
        let began = *self.since().get_or_insert_with(|| {
            self.full.store(true, Ordering::Relaxed);
            let since = SystemTime::now();
            let line = format!(
                "the disk is full since {} ({error}): waiting for space; make some, or stop this: what was fetched is kept",
                clock(since),
            );
            (self.tell)(&News::space(line, Some((since, &error.to_string()))));
            Instant::now()
        });
        let tried = Instant::now();
        while tried.elapsed() < RETRY_EVERY {
            if self.stopped.load(Ordering::Relaxed) || self.wait_for_space.is_some_and(|most| began.elapsed() >= most) {
                return Err(error);
            }
            std::thread::sleep(STOP_WITHIN);
        }
        Ok(())
    }

    fn go_on(&self) {
        if let Some(since) = self.since().take() {
            self.full.store(false, Ordering::Relaxed);
            (self.tell)(&News::space(format!("there is space again after {} s: going on", since.elapsed().as_secs()), None));
        }
    }
}

/// Whether an operation failed for want of space.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The time of day, in UTC.
fn clock(now: SystemTime) -> String {
    let secs = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()) % 86_400;
    format!("{:02}:{:02}:{:02} UTC", secs / 3600, secs / 60 % 60, secs % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(most: Option<Duration>) -> (Disk, Arc<Mutex<Vec<String>>>, Arc<AtomicBool>) {
        let (said, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let lines = said.clone();
        let tell: Tell = Arc::new(move |news: &News| lines.lock().unwrap().push(news.to_string()));
        (Disk::new(None, tell, most, stopped.clone()), said, stopped)
    }

    fn full<T>() -> io::Result<T> {
        Err(io::ErrorKind::StorageFull.into())
    }

    /// TR-69: a full disk is waited for, which is said once, and so is the end of it.
    #[test]
    fn a_full_disk_is_waited_for() {
        let (disk, said, _) = disk(None);
        let mut left = 2;
        let result = disk.run(Op::Create(Path::new("x")), || {
            left -= 1;
            if left > 0 { full() } else { Ok(7) }
        });
        assert_eq!(result.unwrap(), 7);
        let said = said.lock().unwrap();
        assert!(said.len() == 2 && said[0].contains("UTC") && said[1].contains("going on"), "{said:?}");
    }

    /// TR-69: a few bytes that a full disk still takes do not end the wait of what it does not take.
    #[test]
    fn only_what_had_to_wait_tells_that_there_is_space() {
        let (disk, said, stopped) = disk(None);
        let waits = disk.clone();
        let waiting = std::thread::spawn(move || waits.run(Op::Create(Path::new("large")), full::<()>).is_err());
        while !disk.full.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        disk.run(Op::Create(Path::new("small")), || Ok(())).unwrap();
        stopped.store(true, Ordering::Relaxed);
        assert!(waiting.join().unwrap());
        assert_eq!(said.lock().unwrap().len(), 1, "{said:?}");
    }

    #[test]
    fn waiting_ends_at_its_limit_and_when_stopped_and_never_begins_for_a_sync_or_another_error() {
        let (limited, said, _) = disk(Some(Duration::ZERO));
        let error = limited.run(Op::Create(Path::new("x")), full::<()>).unwrap_err();
        assert_eq!((error.kind(), said.lock().unwrap().len()), (io::ErrorKind::StorageFull, 1));
        let (patient, said, stopped) = disk(None);
        assert!(patient.run(Op::SyncAll, full::<()>).is_err());
        assert!(patient.run(Op::Create(Path::new("x")), || Err::<(), _>(io::ErrorKind::NotFound.into())).is_err());
        assert!(said.lock().unwrap().is_empty());
        stopped.store(true, Ordering::Relaxed);
        assert!(patient.run(Op::Create(Path::new("x")), full::<()>).is_err());
    }

    #[test]
    fn the_clock_shows_the_time_of_day() {
        assert_eq!(clock(std::time::UNIX_EPOCH + Duration::from_secs(86_400 * 9 + 3600 * 4 + 5 * 60 + 6)), "04:05:06 UTC");
    }
}
