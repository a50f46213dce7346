//! Folders held open, and files in them. All file work of a receiver goes through here: one name at a time, relative to a folder that is
//! held, and never through a symbolic link (TR-62). So nothing that is swapped for a link while a transfer runs leads it elsewhere, and
//! a path may be longer than the system takes at once. Where the system has no such calls, paths are put together instead.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, Op};
use super::system;
use crate::spill::read_file_full;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Folder,
    File { size: u64, executable: bool },
    Link,
    Other,
}

/// A folder, held open.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    held: Arc<system::Held>,
    path: Arc<Path>,
    disk: Disk,
}

/// A file, open.
#[derive(Debug)]
pub(super) struct Open {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl Folder {
    /// Whether [`Folder::sync_all`] does anything here.
    pub(super) const CAN_SYNC_ALL: bool = system::CAN_SYNC_ALL;

    /// Opens a folder that the user named. Links on the way to it are the user's own.
    pub(super) fn open(path: &Path, disk: Disk) -> io::Result<Folder> {
        Ok(Folder { held: Arc::new(system::hold(path)?), path: path.into(), disk })
    }

    /// Its path, to be shown.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What stands under a name, `None` if nothing does.
    pub(super) fn look(&self, name: &str) -> io::Result<Option<Look>> {
        match system::look(&self.held, name) {
            Ok(look) => Ok(Some(look)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a folder in this one. A link in its place is an error of the kind `NotADirectory`.
    pub(super) fn folder(&self, name: &str) -> io::Result<Folder> {
        let held = Arc::new(system::folder(&self.held, name)?);
        Ok(Folder { held, path: self.path.join(name).into(), disk: self.disk.clone() })
    }

    /// Makes a folder. `private`: only its owner may look into it.
    pub(super) fn make_folder(&self, name: &str, private: bool) -> io::Result<()> {
        self.disk.run(Op::MakeFolder(&self.path.join(name)), || system::make_folder(&self.held, name, private))
    }

    /// Whether it belongs to the user that a file belongs to which is made in it now. So it is right also where the file system, not this
    /// process, says who owns what is made. A file of this name is made and removed; where that is forbidden, it is another's folder.
    pub(super) fn is_own(&self, probe: &str) -> io::Result<bool> {
        self.remove(probe)?;
        let file = match self.create(probe, false) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
            made => made?.file,
        };
        let own = system::owner(&file)? == system::owner(&*self.held)?;
        drop(file); // before it is removed, which not every system allows otherwise
        self.remove(probe)?;
        Ok(own)
    }

    /// Creates a file that must not be there yet. The umask applies.
    pub(super) fn create(&self, name: &str, executable: bool) -> io::Result<Open> {
        let path = self.path.join(name);
        let file = self.disk.run(Op::Create(&path), || system::create(&self.held, name, executable))?;
        Ok(Open { file, path, disk: self.disk.clone() })
    }

    /// Opens a plain file that is there.
    pub(super) fn file(&self, name: &str, write: bool) -> io::Result<Open> {
        let file = system::file(&self.held, name, write)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a plain file"));
        }
        Ok(Open { file, path: self.path.join(name), disk: self.disk.clone() })
    }

    /// Removes a file if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.disk.run(Op::Remove(&self.path.join(name)), || system::remove(&self.held, name));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Moves something to the same name in another folder. Without `replace` an error says that something is there already; with it a
    /// file or link that is there is replaced in one step.
    pub(super) fn rename(&self, name: &str, to: &Folder, replace: bool) -> io::Result<()> {
        let paths = (self.path.join(name), to.path.join(name));
        self.disk.run(Op::Rename(&paths.0, &paths.1), || {
            if replace { system::rename(&self.held, &to.held, name) } else { system::rename_new(&self.held, &to.held, name) }
        })
    }

    /// Makes the names in it safe on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.run(Op::SyncFolder(&self.path), || system::sync(&self.held))
    }

    /// Makes all of its file system safe on the disk; says `false`, and does nothing, where the system has no such call.
    pub(super) fn sync_all(&self) -> io::Result<bool> {
        if !Folder::CAN_SYNC_ALL {
            return Ok(false);
        }
        self.disk.run(Op::SyncAll, || system::sync_all(&self.held)).map(|()| true)
    }
}

impl Open {
    /// Its length in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads from its start on, once.
    pub(super) fn reader(&self) -> impl io::Read + '_ {
        &self.file
    }

    /// Reads from an offset until `buf` is full or the file ends; returns the bytes read.
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        read_file_full(&self.file, offset, buf)
    }

    /// Writes all of `bytes` from an offset on.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.run(Op::Write(&self.path, offset, bytes), || system::write_at(&self.file, offset, bytes))
    }

    /// Takes a lock on it that ends when it is closed; says `false` if somebody else has it. Where there are no locks, nothing guards
    /// against two runs at once but the refusal to overwrite.
    pub(super) fn try_lock(&self) -> io::Result<bool> {
        system::try_lock(&self.file)
    }

    /// Cuts it to a length.
    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.run(Op::SetLen(&self.path, len), || self.file.set_len(len))
    }

    /// Makes its bytes safe on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.run(Op::SyncFile(&self.path), || self.file.sync_data())
    }
}

/// Follows the paths of entries, in their order, through folders held open: each next one is a step or two from the one before.
#[derive(Debug)]
pub(super) struct Trail {
    base: Folder,
    /// The folders of the way from the base, and the first of them held open.
    names: Vec<String>,
    held: Vec<Folder>,
    /// The last one, if it is too deep to be in `held`.
    last: Option<Folder>,
}

/// Folders that a trail holds open, but for the last: descriptors are few, and paths can be 255 deep.
const HELD_MAX: usize = 16;

impl Trail {
    /// Begins at a folder.
    pub(super) fn new(base: &Folder) -> Trail {
        Trail { base: base.clone(), names: Vec::new(), held: Vec::new(), last: None }
    }

    /// The folder that the last component of this path is in, and that component.
    pub(super) fn find<'p>(&mut self, path: &'p [String]) -> io::Result<(&Folder, &'p str)> {
        let (name, way) = path.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        if self.names != way {
            let same = self.names.iter().zip(way).take_while(|(left, right)| left == right).count();
            let keep = if same == self.names.len() { same } else { same.min(HELD_MAX) };
            self.names.truncate(keep);
            self.held.truncate(keep);
            if keep <= HELD_MAX {
                self.last = None;
            }
            for name in &way[keep..] {
                let next = self.here().folder(name)?;
                self.names.push(name.clone());
                if self.held.len() < HELD_MAX { self.held.push(next) } else { self.last = Some(next) }
            }
        }
        Ok((self.here(), name))
    }

    fn here(&self) -> &Folder {
        self.last.as_ref().or(self.held.last()).unwrap_or(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// TR-62: neither a folder nor a file is opened through a link, nor created through one that leads nowhere.
    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("file"), b"text").unwrap();
        for (name, to) in [("folder", outside.path().to_owned()), ("file", outside.path().join("file")), ("none", "none".into())]
        {
            std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        }
        let folder = Folder::open(dir.path(), Disk::plain()).unwrap();
        let kinds = [
            folder.folder("folder").map(|_| ()),
            folder.file("file", false).map(|_| ()),
            folder.file("file", true).map(|_| ()),
            folder.file("none", true).map(|_| ()),
        ];
        for kind in kinds {
            assert_eq!(kind.unwrap_err().kind(), io::ErrorKind::NotADirectory);
        }
        assert_eq!(folder.create("none", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(folder.look("folder").unwrap(), Some(Look::Link));
        folder.remove("folder").unwrap();
        assert!(outside.path().join("file").exists());
    }

    /// Any path is found from any other, also where folders are too deep to be held all.
    #[test]
    fn a_trail_leads_from_any_path_to_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let depths = [0, 1, HELD_MAX - 1, HELD_MAX, HELD_MAX + 1, HELD_MAX + 9];
        let path = |branch: &str, depth: usize| -> Vec<String> {
            let way = (0..depth).map(|level| if level < 3 { "same".to_owned() } else { branch.to_owned() });
            way.chain([format!("{branch}{depth}")]).collect()
        };
        let all: Vec<_> = depths.iter().flat_map(|depth| [path("a", *depth), path("b", *depth)]).collect();
        for path in &all {
            let place: PathBuf = [dir.path().to_owned()].into_iter().chain(path.iter().map(PathBuf::from)).collect();
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, path.join("/")).unwrap();
        }
        let folder = Folder::open(dir.path(), Disk::plain()).unwrap();
        for from in &all {
            for to in &all {
                let mut trail = Trail::new(&folder);
                for path in [from, to] {
                    let (folder, name) = trail.find(path).unwrap();
                    let mut read = vec![0; path.join("/").len()];
                    assert_eq!(folder.file(name, false).unwrap().read(0, &mut read).unwrap(), read.len());
                    assert_eq!(read, path.join("/").as_bytes());
                }
                assert!(trail.held.len() <= HELD_MAX);
            }
        }
        let mut trail = Trail::new(&folder);
        assert!(trail.find(&["same".into(), "none".into(), "x".into()]).is_err());
        assert!(trail.find(&all[5]).unwrap().0.look(all[5].last().unwrap()).unwrap().is_some(), "an error leaves it in order");
    }
}
