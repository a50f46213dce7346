//! The temporary folder of one transfer, inside the target folder so that moving into place is a rename.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use super::disk::Disk;
use super::folder::{Folder, Open};
use super::journal::{self, Journal};
use super::prepare::Places;
use super::{Placer, Site, Target, system};
use crate::exit::{Code, Failure};
use crate::manifest::Listing;
use crate::tree::{Hash, Shape};

/// Start of the names of all temporary folders. No entry at the top of a manifest may begin with it (TR-31).
pub const TEMP_PREFIX: &str = ".strait-";
const LOCK: &str = "lock";
const TREE: &str = "tree";
const PROBE: &str = "owner";

/// Lets file work in while the transfer runs, and out before it ends: so nothing is created behind the removal of the temporary folder.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    inside: Arc<RwLock<()>>,
    stopped: Arc<AtomicBool>,
}

impl Gate {
    /// Enters until the guard is dropped, or fails because the transfer is being stopped.
    pub fn enter(&self) -> Result<RwLockReadGuard<'_, ()>, Failure> {
        let guard = self.inside.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if self.stopped.load(Ordering::Relaxed) {
            let why = "this transfer was told to stop";
            return Err(Failure::new(Code::Interrupted, "stopped", why, "run get again"));
        }
        Ok(guard)
    }

    /// Keeps everybody out until the guard is dropped: a disk that is stuck.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> std::sync::RwLockWriteGuard<'_, ()> {
        self.inside.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets nobody in any more, ends all waiting for space, and waits for those inside.
    fn close(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        drop(self.inside.write().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

/// The temporary folder, with the journal of what is in it.
///
/// It is removed when the transfer is in place, and when there is nothing in it to go on from. Otherwise it is kept, so that the next run
/// for the same root goes on (TR-61). Dropping it waits for file work under way and records what was written (TR-67); it may block.
#[derive(Debug)]
pub struct Temp {
    places: Places,
    temp: Folder,
    gate: Gate,
    site: Option<Arc<Site>>,
    keep: bool,
    /// Held open: the lock ends with it, even if the process is killed.
    _lock: Open,
}

impl Temp {
    /// Makes the folder for this root inside the target folder, which is made too, or goes on with that of an earlier run. It blocks.
    pub fn open(target: &Target, root: &Hash) -> Result<Temp, Failure> {
        let gate = Gate::default();
        let shown = target.dir.display();
        let make = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => no_folder(&target.dir),
            _ => Failure::disk(format_args!("make the folder {shown}"), &error),
        };
        fs::create_dir_all(&target.dir).map_err(make)?;
        let disk = Disk::new(target.tap.clone(), target.tell.clone(), target.wait_for_space, gate.stopped.clone());
        let dir = Folder::open(&target.dir, disk).map_err(make)?;
        let name = format!("{TEMP_PREFIX}{}", &root.to_hex()[..16]);
        let fail = |error: io::Error| Failure::disk(format_args!("make the temporary folder {shown}/{name}"), &error);
        // Only a real folder is taken over, and only one of our own: its owner could change what was verified (TR-60).
        let (temp, made) = make_or_take(&dir, &name, true).map_err(fail)?;
        if !made && !temp.is_own(PROBE).map_err(fail)? {
            return Err(not_own(temp.path()));
        }
        let lock = match temp.create(LOCK, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => temp.file(LOCK, true),
            other => other,
        };
        let lock = lock.map_err(fail)?;
        if !lock.try_lock().map_err(fail)? {
            let what = format!("another get of the same ticket is at work in {shown}");
            return Err(Failure::new(
                Code::TargetTaken,
                what,
                "it was started before",
                "wait for it, or choose another folder with -o",
            ));
        }
        let journal = Journal::read(&temp, root, target.safe_bytes).map_err(fail)?;
        if !journal.is_resumed() {
            match fs::remove_dir_all(temp.path().join(TREE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                _ => {}
            }
        }
        let (tree, _) = make_or_take(&temp, TREE, false).map_err(fail)?;
        let places = Places { dir, tree, journal: Arc::new(journal), replace: target.replace };
        Ok(Temp { places, temp, gate, site: None, keep: true, _lock: lock })
    }

    /// Begins to prepare the places of a transfer with content of this shape.
    pub fn placer(&self, chunks: Shape) -> Placer {
        Placer::new(self.places.clone(), chunks)
    }

    /// All places are prepared: from here on chunks can be written, and the next run can go on from them. It blocks.
    pub fn site(&mut self, placer: Placer, listing: Listing) -> Result<Arc<Site>, Failure> {
        let begun = self.places.journal.begin(&self.temp);
        begun.map_err(|error| Failure::disk(format_args!("write to {}", self.temp.path().display()), &error))?;
        let site = Arc::new(placer.finish(self.temp.clone(), listing));
        self.site = Some(site.clone());
        Ok(site)
    }

    /// Where files are written before they are moved into place.
    #[cfg(test)]
    pub(crate) fn tree(&self) -> &Path {
        self.places.tree.path()
    }

    /// The gate that file work must pass.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// The transfer is in place: the folder goes away. It blocks.
    pub fn finish(mut self) {
        self.keep = false;
    }

    /// The transfer failed: adds to the failure how to go on, if there is something to go on from. It blocks.
    pub fn fail(mut self, mut failure: Failure) -> Failure {
        if self.settle() {
            let path = self.temp.path().display();
            let next = &failure.next;
            failure.next =
                format!("{next}; what was fetched is kept in {path}: the same command goes on from it, or delete that folder");
        }
        failure
    }

    /// Ends all file work and records what was written. Says whether the folder is to be kept.
    fn settle(&mut self) -> bool {
        self.gate.close();
        if let Some(site) = self.site.take()
            && self.keep
        {
            let _ = site.mark(); // what gets no record is fetched again
        }
        self.keep && self.places.journal.any()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.settle() {
            // The journal first: without it, whatever an interruption leaves is not taken for something to go on from.
            let path = self.temp.path();
            let _ = fs::remove_file(path.join(journal::NAME));
            let _ = fs::remove_dir_all(path.join(TREE));
            let _ = fs::remove_file(path.join(LOCK));
            let _ = fs::remove_dir(path); // nothing else is ours to remove
        }
    }
}

/// Temporary folders in a target folder that nobody is at work in: of transfers that were ended and not gone on with. At most ten.
pub fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.path());
    let ours = names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMP_PREFIX)));
    let idle = ours.filter(|path| fs::File::open(path.join(LOCK)).is_ok_and(|lock| system::try_lock(&lock).unwrap_or(false)));
    idle.take(10).collect()
}

/// Makes a folder, or opens that of an earlier run. Says whether it was made.
fn make_or_take(at: &Folder, name: &str, private: bool) -> io::Result<(Folder, bool)> {
    let made = match at.make_folder(name, private) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        made => made.is_ok(),
    };
    Ok((at.folder(name)?, made))
}

/// The failure for a target that is no folder, or that has something else on the way to it.
fn no_folder(dir: &Path) -> Failure {
    Failure::new(
        Code::TargetTaken,
        format!("{} cannot be made: it, or something on the way to it, is there and is not a folder", dir.display()),
        "-o names the folder that things are put into, not the file that is fetched",
        "choose a folder with -o; files keep the names that they have at the sender",
    )
}

/// The failure for a temporary folder that somebody else has put there.
fn not_own(path: &Path) -> Failure {
    Failure::new(
        Code::TargetTaken,
        format!("the temporary folder {} belongs to another user", path.display()),
        "another user began the same transfer here, or wants to change what you fetch; nothing in it was used",
        "remove it if you may, or choose a folder with -o that others cannot write to",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, root: &Hash) -> Result<Temp, Failure> {
        Temp::open(&dir.into(), root)
    }

    /// TR-61: without a chunk in it the folder goes away with the transfer, and without a journal what a killed run left is cleared.
    #[test]
    fn the_folder_is_fresh_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = blake3::hash(b"r");
        let temp = open(dir.path(), &root).unwrap();
        fs::write(temp.tree().join("half"), "x").unwrap();
        let path = temp.temp.path().to_owned();
        assert_eq!(leftovers(dir.path()), [] as [PathBuf; 0], "it is at work");
        std::mem::forget(temp); // as a killed process would, but for the lock, which ends with it
        #[cfg(not(unix))]
        let _again = open(dir.path(), &root).unwrap();
        #[cfg(unix)]
        assert_eq!(open(dir.path(), &root).unwrap_err().code, Code::TargetTaken);
        fs::remove_file(path.join(LOCK)).unwrap();
        fs::write(path.join(LOCK), "").unwrap();
        assert_eq!(leftovers(dir.path()), [path]);
        let temp = open(dir.path(), &root).unwrap();
        assert_eq!(fs::read_dir(temp.tree()).unwrap().count(), 0);
        drop(temp);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let root = blake3::hash(b"r");
        let name = format!("{TEMP_PREFIX}{}", &root.to_hex()[..16]);
        std::os::unix::fs::symlink(other.path(), dir.path().join(name)).unwrap();
        assert!(open(dir.path(), &root).is_err());
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    /// TR-60: a folder that another user made beforehand is refused and left as it is. It takes the superuser to make one.
    #[cfg(unix)]
    #[test]
    fn a_folder_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = blake3::hash(b"r");
        let path = dir.path().join(format!("{TEMP_PREFIX}{}", &root.to_hex()[..16]));
        fs::create_dir_all(path.join(TREE)).unwrap();
        fs::write(path.join(TREE).join("theirs"), "x").unwrap();
        drop(open(dir.path(), &root).expect("one of our own is taken over"));
        fs::create_dir_all(path.join(TREE)).unwrap();
        fs::write(path.join(TREE).join("theirs"), "x").unwrap();
        if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
            eprintln!("SKIPPED: it takes the superuser to give a folder away");
            return;
        }
        let failure = open(dir.path(), &root).unwrap_err();
        assert_eq!(failure.code, Code::TargetTaken);
        assert!(failure.what.contains("belongs to another user"), "{}", failure.what);
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [TREE]);
        assert!(path.join(TREE).join("theirs").exists());
    }

    /// TR-63: what was named is left as it is, and told from a fault of the disk.
    #[test]
    fn a_target_that_is_no_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        for target in [file.clone(), file.join("in it")] {
            let failure = open(&target, &blake3::hash(b"r")).unwrap_err();
            assert_eq!((failure.code, failure.what.contains("not a folder")), (Code::TargetTaken, true), "{failure}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }

    #[test]
    fn no_work_enters_after_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let temp = open(dir.path(), &blake3::hash(b"r")).unwrap();
        let gate = temp.gate();
        assert!(gate.enter().is_ok());
        drop(temp);
        assert!(gate.enter().is_err());
    }
}
