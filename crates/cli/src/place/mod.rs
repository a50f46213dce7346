//! Putting verified bytes into the target folder: first under a temporary folder in it, then moved into place as a whole.

mod commit;
mod temp;
mod write;

pub use commit::commit;
pub use temp::{Gate, TEMP_PREFIX, Temp};
pub use write::{Placer, Site};

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use crate::exit::{Code, Failure};
use crate::manifest::shown;

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
fn join(base: &Path, path: &[String]) -> std::path::PathBuf {
    let mut full = base.to_owned();
    full.extend(path);
    full
}
