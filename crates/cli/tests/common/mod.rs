//! What several tests share: sample folders, comparing them, and providers that need no network.
#![allow(dead_code, unreachable_pub)] // each test uses its own part

pub mod command;
pub mod gated;
pub mod tcp;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use strait_cli::fetch::{Fetch, FetchError, Outcome, Providers};
use strait_cli::manifest::Header;
use strait_cli::progress::Progress;
use strait_cli::provider::Provider;
use strait_cli::source::{Roots, Source, census, scan};
use strait_cli::tree::{Hash, Which};
use strait_cli::wire::{Ask, Status, decline};

pub const EMPTY: &[u8] = &[];

/// Bytes that differ from chunk to chunk.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[cfg(unix)]
pub fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder with what is difficult: empty and large files, empty folders, names of all kinds, executables, sizes around a chunk.
pub fn tricky(dir: &Path) -> PathBuf {
    let top = dir.join("tricky");
    let chunk = 256 << 10;
    fs::create_dir_all(top.join("empty folder/inside/of another")).unwrap();
    for (name, len) in [
        ("empty", 0),
        ("one", 1),
        ("chunk", chunk),
        ("chunk-1", chunk - 1),
        ("chunk+1", chunk + 1),
        ("big/3 chunks and a bit", 3 * chunk + 17),
        ("Grüße aus München/日本語/🦀.txt", 5000),
        ("e\u{301}", 7), // decomposed
        ("é", 8),        // composed: another name
        ("Case", 9),
        ("case", 10),
        ("a.b", 1),
        ("a/b", 2),
        ("-rf", 3),
        (" space ", 4),
        ("quote\"'`$(x)", 5),
        ("new\nline", 6),
        (".hidden", 11),
        (&format!("long/{}", "n".repeat(255)), 12),
        ("deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/end", 13),
        ("z/last, empty", 0),
    ] {
        write(&top.join(name), &pattern(len, len as u64));
    }
    write(&top.join("bin/run"), b"#!/bin/sh\nexit 0\n");
    #[cfg(unix)]
    make_executable(&top.join("bin/run"));
    top
}

/// What is in a folder: the content of each file and whether it is executable, `None` for folders.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<(Vec<u8>, bool)>> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                all.insert(name, None);
                open.push(path);
            } else {
                #[cfg(unix)]
                let run = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o100 != 0;
                #[cfg(not(unix))]
                let run = false;
                all.insert(name, Some((if meta.is_symlink() { b"link".to_vec() } else { fs::read(&path).unwrap() }, run)));
            }
        }
    }
    all
}

/// How many chunks the journal in this target names, read by its description: those that are safe only, or those that were written too.
pub fn recorded(dir: &Path, safe_only: bool) -> u64 {
    let journal = temp_folder(dir).and_then(|temp| fs::read(dir.join(temp).join("journal")).ok()).unwrap_or_default();
    let (mut rest, mut chunks) = (journal.get(57..).unwrap_or_default(), BTreeSet::new());
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    while let Some((head, more)) = rest.split_at_checked(5) {
        let Some((pairs, more)) = more.split_at_checked(number(&head[1..]) as usize * 16) else { break };
        let Some((_check, more)) = more.split_at_checked(16) else { break };
        match head[0] {
            1 if safe_only => {}
            1 | 2 => pairs.chunks(16).for_each(|pair| chunks.extend(number(&pair[..8])..number(&pair[8..]))),
            _ => break, // zeros where a record was to be
        }
        rest = more;
    }
    chunks.len() as u64
}

/// What is in a target but for what the next run goes on from.
pub fn in_place(dir: &Path) -> BTreeMap<PathBuf, Option<(Vec<u8>, bool)>> {
    let temp = temp_folder(dir);
    contents(dir).into_iter().filter(|(name, _)| temp.as_ref().is_none_or(|temp| !name.starts_with(temp))).collect()
}

/// Fails if anything is in a target but what the next run goes on from (TR-61).
pub fn assert_nothing_in_place(dir: &Path) {
    assert!(in_place(dir).is_empty(), "{:?} is in place", in_place(dir).keys());
}

/// The name of the temporary folder in a target, if there is one.
pub fn temp_folder(dir: &Path) -> Option<PathBuf> {
    let mut names = fs::read_dir(dir).unwrap().map(|entry| PathBuf::from(entry.unwrap().file_name()));
    names.find(|name| name.to_string_lossy().starts_with(strait_cli::place::TEMP_PREFIX))
}

/// Fails with a short text if two folders differ.
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (contents(left), contents(right));
    for (name, what) in &left {
        assert!(right.get(name) == Some(what), "{} differs or is missing", name.display());
    }
    for name in right.keys() {
        assert!(left.contains_key(name), "{} is too much", name.display());
    }
}

pub fn source(paths: &[PathBuf]) -> Source {
    let roots = Roots::new(paths).unwrap();
    let count = census(&roots).unwrap();
    scan(roots, count, &mut |_| ()).unwrap()
}

pub fn provider(paths: &[PathBuf]) -> Arc<Provider> {
    Provider::new(source(paths), |_| ())
}

/// Asks a provider in this process, and may change what it says.
pub struct Near<M> {
    pub provider: Arc<Provider>,
    pub meddle: M,
}

impl<M> Fetch for Near<M>
where
    M: Fn(Ask, Vec<u8>) -> Result<Vec<u8>, FetchError> + Send + Sync + 'static,
{
    fn fetch(&self, ask: Ask) -> impl Future<Output = Result<Bytes, FetchError>> + Send {
        let request = ask.encode(&self.provider.root());
        async move {
            let reply = self.provider.clone().answer(ask.protocol(), &request).await.to_vec();
            (self.meddle)(ask, reply).map(Bytes::from)
        }
    }
}

/// How long transfers in memory wait for what does not come. Tests in which it does not come run in virtual time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Fetches from a provider in this process, with `meddle` in between.
pub async fn get_near<M>(provider: &Arc<Provider>, dir: &Path, meddle: M) -> Result<Outcome, strait_cli::exit::Failure>
where
    M: Fn(Ask, Vec<u8>) -> Result<Vec<u8>, FetchError> + Send + Sync + 'static,
{
    let near = Near { provider: provider.clone(), meddle };
    strait_cli::fetch::get(patient(near), provider.root(), dir, &Progress::new(true)).await
}

/// One provider that is waited for as long as [`PATIENCE`].
pub fn patient<F: Fetch>(fetch: F) -> Providers<F> {
    Providers::new(vec![fetch]).with(Some(PATIENCE), [7; 32], |_| ())
}

/// Fetches as an honest provider would have it.
pub async fn get_plain(provider: &Arc<Provider>, dir: &Path) -> Result<Outcome, strait_cli::exit::Failure> {
    get_near(provider, dir, |_, reply| Ok(reply)).await
}

/// A manifest made by hand, to say what no honest sender says. It answers with whatever it was given.
pub struct Crafted {
    pub header: Vec<u8>,
    pub entries: Vec<u8>,
    pub content: Vec<u8>,
}

impl Crafted {
    /// One page of raw entries and at most one chunk of content, with hashes and counts that are right.
    pub fn new(entries: Vec<u8>, count: u64, content: &[u8]) -> Crafted {
        let header = Header {
            chunk_log2: 18,
            entries: count,
            entries_len: entries.len() as u64,
            entries_root: blake3::hash(&entries),
            content_len: content.len() as u64,
            content_root: blake3::hash(content),
        };
        Crafted { header: header.encode(), entries, content: content.to_vec() }
    }

    pub fn root(&self) -> Hash {
        blake3::hash(&self.header)
    }

    pub fn answer(&self, ask: Ask) -> Vec<u8> {
        let part: &[u8] = match ask {
            Ask::Header => &self.header,
            Ask::Page { which: Which::Entries, level: 0, index: 0 } => &self.entries,
            Ask::Chunk { index: 0 } => &self.content,
            Ask::Done => EMPTY,
            _ => return decline(Status::NoSuchPart, ""),
        };
        [&[0], part].concat()
    }
}

impl Fetch for Crafted {
    async fn fetch(&self, ask: Ask) -> Result<Bytes, FetchError> {
        Ok(self.answer(ask).into())
    }
}

/// One entry as bytes, with nothing checked.
pub fn raw_entry(kind: u8, depth: u8, name: &[u8], size: u64) -> Vec<u8> {
    let mut out = vec![kind, depth, name.len() as u8];
    out.extend_from_slice(name);
    if kind != 0 {
        out.extend_from_slice(&size.to_be_bytes());
    }
    out
}
