//! The temporary folder of one transfer, inside the target folder so that moving into place is a rename.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use crate::exit::{Code, Failure};
use crate::tree::Hash;

/// Start of the names of all temporary folders. No entry at the top of a manifest may begin with it (TR-31).
pub const TEMP_PREFIX: &str = ".strait-";
const LOCK: &str = "lock";
const TREE: &str = "tree";

/// Lets file work in while the temporary folder is there, and out before it is removed: so nothing is created again behind the
/// removal.
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

/// The temporary folder. Dropping it waits for file work under way and removes it with all that is in it.
#[derive(Debug)]
pub struct Temp {
    path: PathBuf,
    gate: Gate,
    /// Held open: the lock ends with it, even if the process is killed.
    _lock: File,
}

impl Temp {
    /// Makes the folder for this root inside `dir`. What an earlier run that was killed left there is removed (TR-61).
    pub fn open(dir: &Path, root: &Hash) -> Result<Temp, Failure> {
        let name = format!("{TEMP_PREFIX}{}", &root.to_hex()[..16]);
        let path = dir.join(&name);
        let fail = |error: io::Error| Failure::disk(format_args!("make the temporary folder {}", path.display()), &error);
        if let Err(error) = fs::create_dir(&path) {
            // Only a real folder is taken over, and only one with our lock file in it is emptied.
            let ours = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            if error.kind() != io::ErrorKind::AlreadyExists || !ours {
                return Err(fail(error));
            }
        }
        let lock = File::options().create(true).truncate(false).write(true).open(path.join(LOCK)).map_err(fail)?;
        if !try_lock(&lock).map_err(fail)? {
            let what = format!("another get of the same ticket is at work in {}", dir.display());
            return Err(Failure::new(
                Code::TargetTaken,
                what,
                "it was started before",
                "wait for it, or choose another folder with -o",
            ));
        }
        let tree = path.join(TREE);
        match fs::remove_dir_all(&tree) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => fs::create_dir(&tree).map_err(fail)?,
        }
        Ok(Temp { path, gate: Gate::default(), _lock: lock })
    }

    /// Where files are written before they are moved into place.
    pub fn tree(&self) -> PathBuf {
        self.path.join(TREE)
    }

    /// The gate that file work must pass.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        self.gate.close();
        let _ = fs::remove_dir_all(self.path.join(TREE));
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = fs::remove_dir(&self.path); // nothing else is ours to remove
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

    /// TR-61: the folder goes away with the transfer, and what a killed run left is cleared.
    #[test]
    fn the_folder_is_fresh_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = blake3::hash(b"r");
        let temp = Temp::open(dir.path(), &root).unwrap();
        fs::write(temp.tree().join("half"), "x").unwrap();
        let path = temp.path.clone();
        std::mem::forget(temp); // as a killed process would, but for the lock, which ends with it
        #[cfg(not(unix))]
        let _again = Temp::open(dir.path(), &root).unwrap();
        #[cfg(unix)]
        assert_eq!(Temp::open(dir.path(), &root).unwrap_err().code, Code::TargetTaken);
        fs::remove_file(path.join(LOCK)).unwrap();
        let temp = Temp::open(dir.path(), &root).unwrap();
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
        assert!(Temp::open(dir.path(), &root).is_err());
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn no_work_enters_after_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let temp = Temp::open(dir.path(), &blake3::hash(b"r")).unwrap();
        let gate = temp.gate();
        assert!(gate.enter().is_ok());
        drop(temp);
        assert!(gate.enter().is_err());
    }
}
