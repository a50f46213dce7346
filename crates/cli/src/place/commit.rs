//! Moving what is complete from the temporary folder to its place.

use std::fs;
use std::io;
use std::path::Path;

use super::ranges::Ranges;
use super::{Site, join, look, open_plain, taken};
use crate::exit::Failure;
use crate::manifest::shown;

/// Moves everything into place: first all of it is made safe on the disk, then each thing that the target lacks is renamed as a
/// whole, a folder with all that is in it in one step (TR-60). Nothing that is in the target is ever replaced (TR-63).
///
/// It blocks. Only renames happen here, so that what a failure leaves in place is whole files and folders.
pub fn commit(site: &Site) -> Result<(), Failure> {
    sync(site)?;
    site.mark()?; // should the moving be interrupted, the next run has all of it
    let list = |error: io::Error| Failure::disk("read the list of files", &error);
    let mut reader = site.listing.reader();
    // Entries deeper than this moved together with their folder.
    let mut moved: Option<usize> = None;
    while let Some(entry) = reader.next().map_err(list)? {
        if moved.is_some_and(|depth| entry.depth > depth) {
            continue;
        }
        moved = None;
        let path = reader.walker().path();
        let target = join(&site.dir, path);
        if look(&target)?.is_none() {
            let from = join(&site.tree, path);
            move_new(&from, &target).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                    taken(path, "and it came while this transfer ran")
                }
                _ => Failure::disk(format_args!("move {} into place", shown(&path.join("/"))), &error),
            })?;
            moved = Some(entry.depth);
        }
    }
    sync_folder(&site.dir).map_err(|error| Failure::disk(format_args!("sync {}", site.dir.display()), &error))
}

/// Renames unless something is there. Where the system has no such rename, a look comes before: a file that appears in between
/// could then be lost, a folder with something in it could not.
fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {} // a file system without it
            Err(error) => return Err(error.into()),
        }
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// Above this many files one call for the whole file system is far quicker than one for each; below, it is the other way round,
/// because that call also waits for what other programs wrote.
const EACH_MAX: u64 = 256;

/// Makes the files of these chunks safe on the disk, and the names they are found by. `prepared_safe`: whether that has been done for the
/// folders, and for the files that were made before the first chunk.
pub(super) fn sync_chunks(site: &Site, chunks: &Ranges, prepared_safe: bool) -> Result<(), Failure> {
    let fail = |error: io::Error| Failure::disk("make sure that all is on the disk", &error);
    if !prepared_safe {
        return sync(site);
    }
    let files_in = |each: &mut dyn FnMut(&[String]) -> io::Result<()>| {
        let leaf = u64::from(site.chunks.leaf_bytes());
        for (start, end) in chunks.iter() {
            site.listing.overlapping(start * leaf, end.saturating_mul(leaf), |walker, _, _| each(walker.path()))?;
        }
        Ok::<_, io::Error>(())
    };
    let mut files = 0;
    files_in(&mut |_| {
        files += 1;
        Ok(())
    })
    .map_err(fail)?;
    if files > EACH_MAX && sync_file_system(&site.tree).map_err(fail)? {
        return Ok(());
    }
    let mut folder = None;
    files_in(&mut |path| {
        let place = join(&site.tree, path);
        match open_plain(&place, fs::OpenOptions::new().read(true).write(true)) {
            Ok(file) => file.sync_data()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()), // it was in the target before
            Err(error) => return Err(error),
        }
        let parent = place.parent().map(Path::to_owned);
        if let Some(parent) = parent.as_deref().filter(|_| folder != parent) {
            sync_folder(parent)?;
        }
        folder = parent;
        Ok(())
    })
    .map_err(fail)
}

/// Makes all files of the transfer, and the folders they are in, safe on the disk.
fn sync(site: &Site) -> Result<(), Failure> {
    let fail = |error: io::Error| Failure::disk("make sure that all is on the disk", &error);
    let above = || {
        // The temporary folder, and its name in the target.
        let temp = site.tree.parent().unwrap_or(&site.tree);
        sync_folder(&site.tree).and_then(|()| sync_folder(temp)).and_then(|()| sync_folder(&site.dir))
    };
    if site.listing.entries() > EACH_MAX && sync_file_system(&site.tree).map_err(fail)? {
        return Ok(());
    }
    let mut reader = site.listing.reader();
    while let Some(entry) = reader.next().map_err(fail)? {
        let place = join(&site.tree, reader.walker().path());
        let done = match fs::OpenOptions::new().read(true).write(!entry.is_folder()).open(&place) {
            Ok(open) if cfg!(unix) || !entry.is_folder() => open.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()), // in the target before, or not yet written
            Err(_) if entry.is_folder() => Ok(()),                           // folders cannot be opened everywhere
            other => other.map(|_| ()),
        };
        done.map_err(fail)?;
    }
    above().map_err(fail)
}

/// Writes out the file system that holds `path`, if this system has such a call.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sync_file_system(path: &Path) -> io::Result<bool> {
    let tree = fs::File::open(path)?;
    rustix::fs::syncfs(&tree)?;
    Ok(true)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sync_file_system(_: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Makes renames in a folder safe on the disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}
