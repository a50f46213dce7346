//! Putting verified bytes into the target folder: first under a temporary folder in it, then moved into place as a whole.

mod commit;
mod disk;
mod folder;
mod journal;
mod prepare;
mod ranges;
mod system;
mod temp;
mod write;

pub use commit::commit;
pub use disk::{Op, Tap, Tell};
pub use prepare::Placer;
pub use temp::{Gate, TEMP_PREFIX, Temp, leftovers};
pub use write::{Had, Site};

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::exit::{Code, Failure};
use crate::manifest::shown;

/// See [`Target::safe_bytes`]. A disk of 100 MB/s takes two thirds of a second for it. Each time costs the file system a commit of its
/// own journal: with a quarter of this, writing took a seventh more CPU.
const SAFE_BYTES: u64 = 64 << 20;

/// Where a transfer goes, and how.
#[derive(Clone)]
pub struct Target {
    /// The target folder. It is made if it is not there.
    pub dir: PathBuf,
    /// Whether files in the target that are not those of the transfer are replaced by them (TR-63).
    pub replace: bool,
    /// How long a full disk is waited for (TR-69); without end if `None`.
    pub wait_for_space: Option<Duration>,
    /// What was fetched is made safe on the disk (TR-67) when so many bytes wait for it, or after a second, unless the disk is so slow at it
    /// that it needs rest in between. What was not made safe may have to be fetched again after the power failed.
    pub safe_bytes: u64,
    /// Is told when the transfer has to wait for the disk, and when it goes on. It may be called from any thread.
    pub tell: Tell,
    /// Watches the disk, and may break it: for tests.
    pub tap: Option<Arc<dyn Tap>>,
}

impl Target {
    /// This folder; nothing in it is replaced, and a full disk is waited for in silence.
    pub fn new(dir: impl Into<PathBuf>) -> Target {
        let safe_bytes = SAFE_BYTES;
        Target { dir: dir.into(), replace: false, wait_for_space: None, safe_bytes, tell: Arc::new(|_| ()), tap: None }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("dir", &self.dir).field("replace", &self.replace).finish_non_exhaustive()
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

/// The failure for an error at the place of an entry.
fn at(path: &[String], doing: &str, error: &io::Error) -> Failure {
    let shown = shown(&path.join("/")).to_string();
    match error.kind() {
        io::ErrorKind::NotADirectory => Failure::new(
            Code::UnsafeName,
            format!("could not {doing} {shown}: what was a folder on the way to it, or the file itself, is something else now"),
            "somebody changed the target folder while this transfer ran; a symbolic link there is not followed",
            "look at what is there, then run it again",
        ),
        _ => Failure::disk(format_args!("{doing} {shown}"), error),
    }
}

/// The failure for a target that holds something else (TR-63).
fn taken(path: &[String], what: &str) -> Failure {
    Failure::new(
        Code::TargetTaken,
        format!("{} is already in the target folder, {what}", shown(&path.join("/"))),
        "something else of the same name was there before; it was left as it is",
        "move it away, choose another folder with -o, or let get replace files with --force (folders it never replaces)",
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
