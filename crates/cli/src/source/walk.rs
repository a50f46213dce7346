//! Walking through files and folders in the one order that entries have.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use crate::exit::{Code, Failure};
use crate::manifest::{Kind, Rules, check_name, shown};

/// What a walk comes upon.
pub struct Item<'a> {
    /// What it is.
    pub kind: Kind,
    /// How many folders it is in.
    pub depth: usize,
    /// Its name.
    pub name: &'a str,
    /// Where it is.
    pub path: &'a Path,
    /// What the file system says of it.
    pub meta: &'a Metadata,
}

/// One step of a walk.
pub enum Found<'a> {
    /// Something that is sent.
    Item(Item<'a>),
    /// What is left out: a symbolic link inside a folder, or what is neither file nor folder.
    Skipped(&'a Path),
}

/// The files and folders named on the command line, by the names under which they travel, in order.
#[derive(Debug, Clone)]
pub struct Roots(Vec<(String, PathBuf)>);

fn bad_source(what: String, why: &str, next: &str) -> Failure {
    Failure::new(Code::BadSource, what, why, next)
}

fn name_of(path: &Path) -> Option<std::ffi::OsString> {
    match path.file_name() {
        Some(name) => Some(name.to_owned()),
        None => fs::canonicalize(path).ok()?.file_name().map(ToOwned::to_owned), // "." and ".." have the name of their folder
    }
}

/// The name as it travels, or why it cannot.
fn travelling<'a>(name: &'a std::ffi::OsStr, path: &Path, top: bool) -> Result<&'a str, Failure> {
    let refused = |why: String| {
        let next = "rename it, or move it out of the folder that is sent";
        bad_source(format!("cannot send {}", path.display()), &why, next)
    };
    let text = name.to_str().ok_or_else(|| refused("its name is not valid UTF-8".to_owned()))?;
    check_name(text.as_bytes(), top, Rules::Unix).map_err(|why| refused(format!("its name may not travel: {why}")))
}

impl Roots {
    /// Takes the paths of the command line. Symbolic links among them are followed, because they were named.
    pub fn new(paths: &[PathBuf]) -> Result<Roots, Failure> {
        let mut roots = Vec::new();
        for path in paths {
            fs::metadata(path).map_err(|error| {
                let next = "check the path and whether you may read it";
                bad_source(format!("cannot send {}: {error}", path.display()), "it is not there, or may not be read", next)
            })?;
            let name = name_of(path).ok_or_else(|| {
                let next = "name a folder inside it";
                bad_source(format!("cannot send {}", path.display()), "it has no name to send it under", next)
            })?;
            roots.push((travelling(&name, path, true)?.to_owned(), path.clone()));
        }
        roots.sort();
        if let Some(pair) = roots.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let what = format!("two of the paths have the name {}", shown(&pair[0].0));
            return Err(bad_source(what, "they would overwrite each other at the other side", "send them one after the other"));
        }
        Ok(Roots(roots))
    }

    /// One file under a name of its own, wherever it lies.
    pub fn named(name: &str, path: PathBuf) -> Result<Roots, Failure> {
        Ok(Roots(vec![(travelling(name.as_ref(), Path::new(name), true)?.to_owned(), path)]))
    }

    /// The names at the top, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Where a path of the manifest lies on this machine.
    pub fn locate(&self, path: &[String]) -> Option<PathBuf> {
        let (top, below) = path.split_first()?;
        let at = self.0.binary_search_by(|(name, _)| name.cmp(top)).ok()?;
        let mut full = self.0.get(at)?.1.clone();
        full.extend(below);
        Some(full)
    }

    /// Calls `visit` for everything that is found, in the order of entries. Memory: the names of the folders on the way down.
    pub fn walk(&self, mut visit: impl FnMut(Found<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
        for (name, path) in &self.0 {
            let meta = fs::metadata(path).map_err(|error| Failure::disk(format_args!("read {}", path.display()), &error))?;
            let Some(kind) = kind_of(&meta) else {
                visit(Found::Skipped(path))?;
                continue;
            };
            visit(Found::Item(Item { kind, depth: 0, name, path, meta: &meta }))?;
            if kind == Kind::Folder {
                walk_folder(path, &mut visit)?;
            }
        }
        Ok(())
    }
}

/// Names in a folder, in the order of their bytes.
fn names_in(folder: &Path) -> Result<std::vec::IntoIter<String>, Failure> {
    let fail = |error| Failure::disk(format_args!("read the folder {}", folder.display()), &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        names.push(travelling(&name, &folder.join(&name), false)?.to_owned());
    }
    names.sort_unstable();
    Ok(names.into_iter())
}

fn walk_folder(top: &Path, visit: &mut impl FnMut(Found<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut path = top.to_owned();
    let mut stack = vec![names_in(top)?];
    while let Some(names) = stack.last_mut() {
        let Some(name) = names.next() else {
            stack.pop();
            path.pop();
            continue;
        };
        path.push(&name);
        let meta = fs::symlink_metadata(&path).map_err(|error| Failure::disk(format_args!("read {}", path.display()), &error))?;
        match kind_of(&meta) {
            None => visit(Found::Skipped(&path))?,
            Some(kind) => {
                visit(Found::Item(Item { kind, depth: stack.len(), name: &name, path: &path, meta: &meta }))?;
                if kind == Kind::Folder {
                    stack.push(names_in(&path)?);
                    continue;
                }
            }
        }
        path.pop();
    }
    Ok(())
}

fn kind_of(meta: &Metadata) -> Option<Kind> {
    if meta.is_dir() {
        return Some(Kind::Folder);
    }
    if !meta.is_file() {
        return None;
    }
    Some(if is_executable(meta) { Kind::Executable } else { Kind::File })
}

#[cfg(unix)]
fn is_executable(meta: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}

/// What there is to send, counted before it is hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Symbolic links and special files, which are not sent.
    pub skipped: u64,
}

/// Counts what there is to send.
pub fn census(roots: &Roots) -> Result<Census, Failure> {
    let mut count = Census::default();
    roots.walk(|found| {
        match found {
            Found::Skipped(_) => count.skipped += 1,
            Found::Item(item) if item.kind == Kind::Folder => count.folders += 1,
            Found::Item(item) => {
                count.files += 1;
                count.bytes = count.bytes.saturating_add(item.meta.len());
            }
        }
        Ok(())
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["top/b", "top/a/deep", "top/a.x"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (file, text) in [("top/b/1", "1"), ("top/a/deep/2", "22"), ("top/z", ""), ("single", "333")] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        dir
    }

    #[test]
    fn walks_in_the_order_of_entries_and_finds_the_way_back() {
        let dir = tree();
        let roots = Roots::new(&[dir.path().join("top"), dir.path().join("single")]).unwrap();
        let mut seen = Vec::new();
        let mut path: Vec<String> = Vec::new();
        let visit = |found: Found<'_>| {
            let Found::Item(item) = found else { panic!("nothing is skipped") };
            path.truncate(item.depth);
            path.push(item.name.to_owned());
            assert_eq!(roots.locate(&path).unwrap(), item.path);
            seen.push(path.join("/"));
            Ok(())
        };
        roots.walk(visit).unwrap();
        let want = ["single", "top", "top/a", "top/a/deep", "top/a/deep/2", "top/a.x", "top/b", "top/b/1", "top/z"];
        assert_eq!(seen, want);
        let count = census(&roots).unwrap();
        assert_eq!(count, Census { files: 4, folders: 5, bytes: 6, skipped: 0 });
        assert_eq!(roots.locate(&["other".to_owned()]), None);
    }

    #[cfg(unix)]
    #[test]
    fn links_inside_are_skipped_and_a_named_link_is_followed() {
        let dir = tree();
        std::os::unix::fs::symlink("/etc", dir.path().join("top/link")).unwrap();
        std::os::unix::fs::symlink("top", dir.path().join("named")).unwrap();
        let roots = Roots::new(&[dir.path().join("named")]).unwrap();
        let mut skipped = Vec::new();
        let mut first = None;
        let visit = |found: Found<'_>| {
            match found {
                Found::Item(item) => _ = first.get_or_insert(item.name.to_owned()),
                Found::Skipped(path) => skipped.push(path.file_name().unwrap().to_owned()),
            }
            Ok(())
        };
        roots.walk(visit).unwrap();
        assert_eq!((first.as_deref(), skipped), (Some("named"), vec!["link".into()]));
    }

    #[test]
    fn what_cannot_be_sent_says_so() {
        let dir = tree();
        let code = |paths: &[PathBuf]| Roots::new(paths).unwrap_err().code;
        assert_eq!(code(&[dir.path().join("nothing")]), Code::BadSource);
        assert_eq!(code(&["/".into()]), Code::BadSource);
        assert_eq!(code(&[dir.path().join("top/z"), dir.path().join("top/b/../z")]), Code::BadSource);
        #[cfg(unix)]
        {
            fs::write(dir.path().join("top/a\\b"), "").unwrap();
            let roots = Roots::new(&[dir.path().join("top")]).unwrap();
            let failure = census(&roots).unwrap_err();
            assert_eq!(failure.code, Code::BadSource);
            assert!(failure.why.contains("separator"), "{failure}");
        }
    }
}
