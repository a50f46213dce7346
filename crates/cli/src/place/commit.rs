//! Making things safe on the disk, and moving what is complete from the temporary folder to its place.

use std::io;

use super::folder::{Folder, Look, Trail};
use super::ranges::Ranges;
use super::{Site, at, link_in_the_way, taken};
use crate::exit::Failure;
use crate::manifest::{Entry, Kind};

/// Moves everything into place: first all of it is made safe on the disk, then each thing that the target lacks is renamed as a
/// whole, a folder with all that is in it in one step (TR-60). Nothing that is in the target is replaced, unless the user asked for
/// it: then files and links are, each in one step (TR-63).
///
/// It blocks. Only renames happen here, so that what a failure leaves in place is whole files and folders; the next run goes on.
pub fn commit(site: &Site) -> Result<(), Failure> {
    site.make_safe()?;
    let list = |error: io::Error| Failure::disk("read the list of files", &error);
    let mut changed = Changed::default();
    let (mut from, mut to) = (Trail::new(&site.places.tree), Trail::new(&site.places.dir));
    let mut reader = site.listing.reader();
    // Entries deeper than this moved together with their folder.
    let mut moved: Option<usize> = None;
    while let Some(entry) = reader.next().map_err(list)? {
        if moved.is_some_and(|depth| entry.depth > depth) {
            continue;
        }
        let path = reader.walker().path();
        let done = move_entry(site.places.replace, path, &entry, &mut from, &mut to)?;
        moved = done.then_some(entry.depth);
        if done {
            let into = to.find(path).map_err(|error| at(path, "move into place", &error))?.0;
            changed.folder(into).map_err(|error| at(path, "make safe", &error))?;
        }
    }
    changed.finish().map_err(|error| Failure::disk("make sure that all is on the disk", &error))
}

/// Moves one entry into place if that is needed. Says whether it was.
fn move_entry(replace: bool, path: &[String], entry: &Entry, from: &mut Trail, to: &mut Trail) -> Result<bool, Failure> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => taken(path, "and it came while this transfer ran"),
        io::ErrorKind::NotFound => taken(path, "or was: it was moved away while this transfer ran"),
        _ => at(path, "move into place", &error),
    };
    let (into, name) = to.find(path).map_err(fail)?;
    let replaced = match into.look(name).map_err(fail)? {
        None => false,
        Some(Look::Folder) if entry.is_folder() => return Ok(false),
        // It was there before and was compared, unless the temporary tree has it too.
        Some(Look::File { size, .. }) if !entry.is_folder() && !replace => {
            let (out_of, name) = from.find(path).map_err(fail)?;
            let ours = out_of.look(name).map_err(fail)?.is_some();
            return if !ours || (size == entry.size && same_bytes(out_of, into, name).map_err(fail)?) {
                Ok(false)
            } else {
                Err(taken(path, "and it came while this transfer ran"))
            };
        }
        Some(Look::File { .. } | Look::Link) if !entry.is_folder() && replace => true,
        Some(Look::Link) => return Err(link_in_the_way(path)),
        Some(_) => return Err(taken(path, "and it came while this transfer ran")),
    };
    let (out_of, name) = from.find(path).map_err(fail)?;
    if replaced && same(out_of, into, name, entry).map_err(fail)? {
        return Ok(false);
    }
    out_of.rename(name, into, replaced).map_err(fail)?;
    Ok(true)
}

/// Whether a file in the target is already what should replace it: it is left alone then, with its time and links.
fn same(left: &Folder, right: &Folder, name: &str, entry: &Entry) -> io::Result<bool> {
    let wanted = Look::File { size: entry.size, executable: entry.kind == Kind::Executable };
    Ok(right.look(name)? == Some(wanted) && same_bytes(left, right, name)?)
}

fn same_bytes(left: &Folder, right: &Folder, name: &str) -> io::Result<bool> {
    let (left, right) = (left.file(name, false)?, right.file(name, false)?);
    let mut bufs = [vec![0; 1 << 17], vec![0; 1 << 17]];
    let mut at = 0;
    loop {
        let got = [left.read(at, &mut bufs[0])?, right.read(at, &mut bufs[1])?];
        if bufs[0][..got[0]] != bufs[1][..got[1]] {
            return Ok(false);
        }
        if got[0] == 0 {
            return Ok(true);
        }
        at += got[0] as u64;
    }
}

/// Folders into which something was moved. Their names are made safe folder by folder while they are few, all at once otherwise.
#[derive(Default)]
struct Changed {
    last: Option<Folder>,
    synced: u64,
}

impl Changed {
    fn folder(&mut self, folder: &Folder) -> io::Result<()> {
        match self.last.replace(folder.clone()) {
            Some(before) if before.path() != folder.path() && (self.synced < EACH_MAX || !Folder::CAN_SYNC_ALL) => {
                self.synced += 1;
                before.sync()
            }
            _ => Ok(()),
        }
    }

    fn finish(self) -> io::Result<()> {
        let Some(last) = self.last else { return Ok(()) };
        if self.synced >= EACH_MAX && last.sync_all()? { Ok(()) } else { last.sync() }
    }
}

/// Above this many files or folders one call for the whole file system is far quicker than one for each; below, it is the other way
/// round, because that call also waits for what other programs wrote.
const EACH_MAX: u64 = 64;

fn unsafe_disk(error: &io::Error) -> Failure {
    Failure::disk("make sure that all is on the disk", error)
}

/// Makes the files of these chunks safe on the disk, and the names they are found by. `prepared_safe`: whether that has been done for the
/// folders, and for the files that were made before the first chunk.
pub(super) fn sync_chunks(site: &Site, chunks: &Ranges, prepared_safe: bool) -> Result<(), Failure> {
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
    let counted = files_in(&mut |_| {
        files += 1;
        Ok(())
    });
    counted.map_err(|error| unsafe_disk(&error))?;
    if files > EACH_MAX && site.temp.sync_all().map_err(|error| unsafe_disk(&error))? {
        return Ok(());
    }
    let (mut trail, mut before) = (Trail::new(&site.places.tree), None::<Folder>);
    let synced = files_in(&mut |path| {
        let (folder, name) = trail.find(path)?;
        match folder.file(name, true) {
            Ok(file) => file.sync()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()), // it was in the target before
            Err(error) => return Err(error),
        }
        if before.as_ref().is_none_or(|before| before.path() != folder.path()) {
            folder.sync()?;
            before = Some(folder.clone());
        }
        Ok(())
    });
    synced.map_err(|error| unsafe_disk(&error))
}

/// Makes all files of the transfer, and the folders they are in, safe on the disk.
pub(super) fn sync(site: &Site) -> Result<(), Failure> {
    if site.listing.entries() > EACH_MAX && site.temp.sync_all().map_err(|error| unsafe_disk(&error))? {
        return Ok(());
    }
    let each = || {
        let mut trail = Trail::new(&site.places.tree);
        let mut reader = site.listing.reader();
        while let Some(entry) = reader.next()? {
            let synced = trail.find(reader.walker().path()).and_then(|(folder, name)| {
                if entry.is_folder() { folder.folder(name)?.sync() } else { folder.file(name, true)?.sync() }
            });
            match synced {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // in the target before, or not written yet
                other => other?,
            }
        }
        // The temporary folder, and its name in the target.
        site.places.tree.sync()?;
        site.temp.sync()?;
        site.places.dir.sync()
    };
    each().map_err(|error| unsafe_disk(&error))
}
