//! Comparing what was sent with what arrived, by reading both: a check that shares nothing with the transfer's own.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::exit::{Code, Failure};
use crate::manifest::Kind;
use crate::source::{Found, Roots, census};

/// Bytes compared at once.
const PIECE: usize = 1 << 20;

fn differs(path: &Path, how: &str) -> Failure {
    let what = format!("{} {how} at the receiver", path.display());
    Failure::new(Code::DemoDiffers, what, "the transfer has a fault, or the file was written to meanwhile", "report this")
}

/// Compares everything under `roots` with what is in `dir`: kinds, bytes, executable bits, and that nothing else is there.
/// Returns the bytes compared. It blocks.
pub(in crate::cmd) fn compare(roots: &Roots, dir: &Path) -> Result<u64, Failure> {
    let tops: Vec<PathBuf> = roots.names().map(|name| dir.join(name)).collect();
    let arrived = Roots::new(&tops).map_err(|_| differs(dir, "is not complete"))?;
    let (left, right) = (census(roots)?, census(&arrived)?);
    if (left.files, left.folders, left.bytes, 0) != (right.files, right.folders, right.bytes, right.skipped) {
        return Err(differs(dir, "holds another number of files, folders or bytes"));
    }
    let mut path = vec![];
    let mut bytes = 0;
    roots.walk(|found| {
        let Found::Item(item) = found else { return Ok(()) };
        path.truncate(item.depth);
        path.push(item.name.to_owned());
        let there = arrived.locate(&path).ok_or_else(|| differs(item.path, "is missing"))?;
        let same = match item.kind {
            Kind::Folder => there.is_dir(),
            Kind::File | Kind::Executable => {
                bytes += item.meta.len();
                same_file(item.path, &there)
                    .map_err(|error| Failure::disk(format_args!("compare {}", item.path.display()), &error))?
            }
        };
        if same { Ok(()) } else { Err(differs(item.path, "differs")) }
    })?;
    Ok(bytes)
}

fn same_file(left: &Path, right: &Path) -> io::Result<bool> {
    if !same_bits(left, right)? {
        return Ok(false);
    }
    let (mut left, mut right) = (BufReader::new(File::open(left)?), BufReader::new(File::open(right)?));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    loop {
        a.clear();
        b.clear();
        left.by_ref().take(PIECE as u64).read_to_end(&mut a)?;
        right.by_ref().take(PIECE as u64).read_to_end(&mut b)?;
        if a != b || a.is_empty() {
            return Ok(a == b);
        }
    }
}

#[cfg(unix)]
fn same_bits(left: &Path, right: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let bit = |path: &Path| std::fs::metadata(path).map(|meta| meta.permissions().mode() & 0o100);
    Ok(bit(left)? == bit(right)?)
}

#[cfg(not(unix))]
fn same_bits(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn sees_every_kind_of_difference() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&left, &right] {
            fs::create_dir_all(dir.path().join("top/folder")).unwrap();
            fs::write(dir.path().join("top/file"), b"text").unwrap();
        }
        let roots = Roots::new(&[left.path().join("top")]).unwrap();
        assert_eq!(compare(&roots, right.path()), Ok(4));
        let spoil = |path: &str, text: Option<&str>| {
            let path = right.path().join(path);
            match text {
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            compare(&roots, right.path()).unwrap_err().code
        };
        assert_eq!(spoil("top/file", Some("tExt")), Code::DemoDiffers);
        assert_eq!(spoil("top/file", Some("longer")), Code::DemoDiffers);
        assert_eq!(spoil("top/file", None), Code::DemoDiffers);
        fs::write(right.path().join("top/file"), b"text").unwrap();
        assert_eq!(spoil("top/more", Some("")), Code::DemoDiffers);
        fs::remove_file(right.path().join("top/more")).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(right.path().join("top/file"), fs::Permissions::from_mode(0o755)).unwrap();
            assert!(compare(&roots, right.path()).is_err());
        }
    }
}
