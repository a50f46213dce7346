//! Putting verified bytes into the target folder: first under a temporary folder in it, then moved into place as a whole.

mod commit;
mod journal;
mod prepare;
mod ranges;
mod temp;
mod write;

pub use commit::commit;
pub use prepare::Placer;
pub use temp::{Gate, TEMP_PREFIX, Temp};
pub use write::{Had, Site};

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{Code, Failure};
use crate::manifest::shown;

/// Where a transfer goes, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// The target folder. It is made if it is not there.
    pub dir: PathBuf,
}

impl Target {
    /// This folder, and nothing in it is replaced.
    pub fn new(dir: impl Into<PathBuf>) -> Target {
        Target { dir: dir.into() }
    }
}

impl From<&Path> for Target {
    fn from(dir: &Path) -> Target {
        Target::new(dir)
    }
}

impl From<&PathBuf> for Target {
    fn from(dir: &PathBuf) -> Target {
        Target::new(dir)
    }
}

/// What stands at a path, without following a symbolic link; `None` if nothing does.
fn look(path: &Path) -> Result<Option<Metadata>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::disk(format_args!("look at {}", path.display()), &error)),
    }
}

/// The failure for a target that holds something else (TR-63).
fn taken(path: &[String], what: &str) -> Failure {
    Failure::new(
        Code::TargetTaken,
        format!("{} is already in the target folder, {what}", shown(&path.join("/"))),
        "something else of the same name was there before; it was left as it is",
        "move it away, or choose another folder with -o",
    )
}

/// The failure for a symbolic link where a file or folder should go (TR-62).
fn link_in_the_way(path: &[String]) -> Failure {
    Failure::new(
        Code::UnsafeName,
        format!("{} is a symbolic link in the target folder", shown(&path.join("/"))),
        "what is written through it would land outside of the target folder",
        "remove the link, or choose another folder with -o",
    )
}

/// The failure for two names that this file system takes for one (TR-64).
fn collides(path: &[String]) -> Failure {
    Failure::new(
        Code::UnsafeName,
        format!("{} has the same name as another file or folder of this transfer", shown(&path.join("/"))),
        "the file system of the target folder does not tell upper from lower case, or ways to write accents, apart",
        "choose a target folder on another file system with -o, or ask the sender to rename one of the two",
    )
}

/// Appends the components of a checked path.
fn join(base: &Path, path: &[String]) -> PathBuf {
    let mut full = base.to_owned();
    full.extend(path);
    full
}

/// Opens a plain file, and no symbolic link where the system can tell (TR-62).
fn open_plain(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options.open(path)
}

#[cfg(unix)]
fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => (offset, bytes) = (offset + n as u64, &bytes[n..]),
        }
    }
    Ok(())
}
