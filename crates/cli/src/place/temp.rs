//! The temporary folder of one transfer, inside the target folder so that moving into place is a rename.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use super::journal::Journal;
use super::{Placer, Site, Target};
use crate::exit::{Code, Failure};
use crate::manifest::Listing;
use crate::tree::{Hash, Shape};

/// Start of the names of all temporary folders. No entry at the top of a manifest may begin with it (TR-31).
pub const TEMP_PREFIX: &str = ".strait-";
const LOCK: &str = "lock";
const TREE: &str = "tree";
const JOURNAL: &str = "journal";

/// Lets file work in while the transfer runs, and out before it ends: so nothing is created behind the removal of the temporary folder.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<RwLock<bool>>);

impl Gate {
    /// Enters until the guard is dropped, or fails because the transfer is being stopped.
    pub fn enter(&self) -> Result<RwLockReadGuard<'_, bool>, Failure> {
        let guard = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *guard {
            let why = "this transfer was told to stop";
            return Err(Failure::new(Code::Interrupted, "stopped", why, "run get again"));
        }
        Ok(guard)
    }

    /// Keeps everybody out until the guard is dropped: a disk that is stuck.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> std::sync::RwLockWriteGuard<'_, bool> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn close(&self) {
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
    }
}

/// The temporary folder, with the journal of what is in it.
///
/// It is removed when the transfer is in place, and when there is nothing in it to go on from. Otherwise it is kept, so that the next run
/// for the same root goes on (TR-61). Dropping it waits for file work under way and records what was written (TR-67); it may block.
#[derive(Debug)]
pub struct Temp {
    path: PathBuf,
    gate: Gate,
    journal: Arc<Journal>,
    site: Option<Arc<Site>>,
    keep: bool,
    /// Held open: the lock ends with it, even if the process is killed.
    _lock: File,
}

impl Temp {
    /// Makes the folder for this root inside the target folder, which is made too, or goes on with that of an earlier run.
    pub fn open(target: &Target, root: &Hash) -> Result<Temp, Failure> {
        let dir = &target.dir;
        fs::create_dir_all(dir).map_err(|error| Failure::disk(format_args!("make the folder {}", dir.display()), &error))?;
        let name = format!("{TEMP_PREFIX}{}", &root.to_hex()[..16]);
        let path = dir.join(&name);
        let fail = |error: io::Error| Failure::disk(format_args!("make the temporary folder {}", path.display()), &error);
        if let Err(error) = fs::create_dir(&path) {
            // Only a real folder is taken over.
            let ours = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            if error.kind() != io::ErrorKind::AlreadyExists || !ours {
                return Err(fail(error));
            }
        }
        let lock = super::open_plain(&path.join(LOCK), File::options().create(true).truncate(false).write(true)).map_err(fail)?;
        if !try_lock(&lock).map_err(fail)? {
            let what = format!("another get of the same ticket is at work in {}", dir.display());
            return Err(Failure::new(
                Code::TargetTaken,
                what,
                "it was started before",
                "wait for it, or choose another folder with -o",
            ));
        }
        let journal = Journal::read(&path.join(JOURNAL), root).map_err(fail)?;
        let tree = path.join(TREE);
        if !journal.is_resumed() {
            match fs::remove_dir_all(&tree) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                _ => {}
            }
        }
        match fs::create_dir(&tree) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            _ => {}
        }
        Ok(Temp { path, gate: Gate::default(), journal: Arc::new(journal), site: None, keep: true, _lock: lock })
    }

    /// Begins to prepare the places of a transfer with content of this shape.
    pub fn placer(&self, target: &Target, chunks: Shape) -> Placer {
        Placer::new(target.dir.clone(), self.path.join(TREE), chunks, self.journal.clone())
    }

    /// All places are prepared: from here on chunks can be written, and the next run can go on from them. It blocks.
    pub fn site(&mut self, placer: Placer, listing: Listing) -> Result<Arc<Site>, Failure> {
        self.journal
            .begin(&self.path.join(JOURNAL))
            .map_err(|error| Failure::disk(format_args!("write to {}", self.path.display()), &error))?;
        let site = Arc::new(placer.finish(listing));
        self.site = Some(site.clone());
        Ok(site)
    }

    /// Where files are written before they are moved into place.
    #[cfg(test)]
    pub(crate) fn tree(&self) -> PathBuf {
        self.path.join(TREE)
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
        // The names will not fit here the next time either.
        self.keep = failure.code != Code::UnsafeName;
        if self.settle() {
            let path = self.path.display();
            failure.next = format!("{}; what was fetched is kept in {path}: the same command goes on from it", failure.next);
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
        self.keep && self.journal.any()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.settle() {
            // The journal first: without it, whatever an interruption leaves is not taken for something to go on from.
            let _ = fs::remove_file(self.path.join(JOURNAL));
            let _ = fs::remove_dir_all(self.path.join(TREE));
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path); // nothing else is ours to remove
        }
    }
}

#[cfg(unix)]
fn try_lock(file: &File) -> io::Result<bool> {
    use rustix::fs::{FlockOperation, flock};
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => Ok(true), // a file system without locks
        Err(error) => Err(error.into()),
    }
}

/// Elsewhere nothing guards against two runs at once but the refusal to overwrite.
#[cfg(not(unix))]
fn try_lock(_: &File) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &std::path::Path, root: &Hash) -> Result<Temp, Failure> {
        Temp::open(&dir.into(), root)
    }

    /// TR-61: without a chunk in it the folder goes away with the transfer, and without a journal what a killed run left is cleared.
    #[test]
    fn the_folder_is_fresh_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = blake3::hash(b"r");
        let temp = open(dir.path(), &root).unwrap();
        fs::write(temp.tree().join("half"), "x").unwrap();
        let path = temp.path.clone();
        std::mem::forget(temp); // as a killed process would, but for the lock, which ends with it
        #[cfg(not(unix))]
        let _again = open(dir.path(), &root).unwrap();
        #[cfg(unix)]
        assert_eq!(open(dir.path(), &root).unwrap_err().code, Code::TargetTaken);
        fs::remove_file(path.join(LOCK)).unwrap();
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
