//! The calls of the operating system behind [`super::folder`], for systems with calls relative to an open folder, and for others.

#[cfg(not(unix))]
pub(super) use other::*;
#[cfg(unix)]
pub(super) use unix::*;

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

    use super::super::folder::Look;

    /// A folder held open.
    pub(in super::super) type Held = OwnedFd;
    pub(in super::super) const CAN_SYNC_ALL: bool = cfg!(any(target_os = "linux", target_os = "android"));
    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    pub(in super::super) fn hold(path: &Path) -> io::Result<Held> {
        Ok(rustix::fs::openat(CWD, path, FOLDER, Mode::empty())?)
    }

    pub(in super::super) fn folder(at: &Held, name: &str) -> io::Result<Held> {
        Ok(rustix::fs::openat(at, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?)
    }

    pub(in super::super) fn look(at: &Held, name: &str) -> io::Result<Look> {
        let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Look::Folder,
            FileType::Symlink => Look::Link,
            FileType::RegularFile => {
                Look::File { size: u64::try_from(stat.st_size).unwrap_or_default(), executable: stat.st_mode & 0o100 != 0 }
            }
            _ => Look::Other,
        })
    }

    pub(in super::super) fn make_folder(at: &Held, name: &str, private: bool) -> io::Result<()> {
        let mode = if private { 0o700 } else { 0o777 };
        Ok(rustix::fs::mkdirat(at, name, Mode::from_raw_mode(mode))?)
    }

    /// The user that it belongs to.
    pub(in super::super) fn owner(of: impl std::os::fd::AsFd) -> io::Result<Option<u32>> {
        Ok(Some(rustix::fs::fstat(of)?.st_uid))
    }

    pub(in super::super) fn create(at: &Held, name: &str, executable: bool) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if executable { 0o777 } else { 0o666 };
        Ok(rustix::fs::openat(at, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Does not block if it is a pipe.
    pub(in super::super) fn file(at: &Held, name: &str, write: bool) -> io::Result<File> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(at, name, flags, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(rustix::io::Errno::LOOP) => Err(io::ErrorKind::NotADirectory.into()), // as a link in place of a folder is told
            Err(error) => Err(error.into()),
        }
    }

    pub(in super::super) fn remove(at: &Held, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(at, name, AtFlags::empty())?)
    }

    pub(in super::super) fn rename(from: &Held, to: &Held, name: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(from, name, to, name)?)
    }

    /// Where the system has no such rename, a look comes before: a file that appears in between could then be lost.
    pub(in super::super) fn rename_new(from: &Held, to: &Held, name: &str) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            use rustix::fs::RenameFlags;
            use rustix::io::Errno;
            match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {} // a file system without it
                Err(error) => return Err(error.into()),
            }
        }
        match look(to, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => rename(from, to, name),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    pub(in super::super) fn try_lock(file: &File) -> io::Result<bool> {
        use rustix::fs::{FlockOperation, flock};
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => Ok(true), // a file system without locks
            Err(error) => Err(error.into()),
        }
    }

    pub(in super::super) fn sync(at: &Held) -> io::Result<()> {
        Ok(rustix::fs::fsync(at)?)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(in super::super) fn sync_all(at: &Held) -> io::Result<()> {
        Ok(rustix::fs::syncfs(at)?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(in super::super) fn sync_all(_: &Held) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }
}

#[cfg(not(unix))]
mod other {
    use std::fs::{self, File, OpenOptions};
    use std::io;
    use std::path::{Path, PathBuf};

    use super::super::folder::Look;

    /// Folders cannot be held here: a path stands for one.
    pub(in super::super) type Held = PathBuf;
    pub(in super::super) const CAN_SYNC_ALL: bool = false;

    pub(in super::super) fn hold(path: &Path) -> io::Result<Held> {
        Ok(path.to_owned())
    }

    pub(in super::super) fn folder(at: &Held, name: &str) -> io::Result<Held> {
        match look(at, name)? {
            Look::Folder => Ok(at.join(name)),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(in super::super) fn look(at: &Held, name: &str) -> io::Result<Look> {
        let meta = fs::symlink_metadata(at.join(name))?;
        Ok(match meta {
            _ if meta.is_symlink() => Look::Link,
            _ if meta.is_dir() => Look::Folder,
            _ if meta.is_file() => Look::File { size: meta.len(), executable: false },
            _ => Look::Other,
        })
    }

    pub(in super::super) fn make_folder(at: &Held, name: &str, _: bool) -> io::Result<()> {
        fs::create_dir(at.join(name))
    }

    pub(in super::super) fn owner<T>(_: T) -> io::Result<Option<u32>> {
        Ok(None) // what others may do here is up to access lists that are inherited
    }

    pub(in super::super) fn create(at: &Held, name: &str, _: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(at.join(name))
    }

    pub(in super::super) fn file(at: &Held, name: &str, write: bool) -> io::Result<File> {
        match look(at, name)? {
            Look::Link => Err(io::ErrorKind::NotADirectory.into()),
            _ => OpenOptions::new().read(true).write(write).open(at.join(name)),
        }
    }

    pub(in super::super) fn remove(at: &Held, name: &str) -> io::Result<()> {
        fs::remove_file(at.join(name))
    }

    pub(in super::super) fn rename(from: &Held, to: &Held, name: &str) -> io::Result<()> {
        fs::rename(from.join(name), to.join(name))
    }

    /// There is no such rename here, so a look comes before: a file that appears in between could be lost.
    pub(in super::super) fn rename_new(from: &Held, to: &Held, name: &str) -> io::Result<()> {
        match look(to, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => rename(from, to, name),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// Here a file in use cannot be removed, which guards a little.
    pub(in super::super) fn try_lock(_: &File) -> io::Result<bool> {
        Ok(true)
    }

    /// Folders cannot be opened here.
    pub(in super::super) fn sync(_: &Held) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn sync_all(_: &Held) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => (offset, bytes) = (offset + n as u64, &bytes[n..]),
            }
        }
        Ok(())
    }
}
