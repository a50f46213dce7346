//! The power fails after any operation on the disk: whatever was not made safe may be gone, and the next run still ends well.
//!
//! A transfer is watched, and its operations are played on a model of a disk that knows what is safe. For each place to stop, what may be
//! left there is made for real, and the next run goes on from it.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::*;
use strait_cli::fetch::Outcome;
use strait_cli::place::{Op, Tap, Target};
use strait_cli::progress::Progress;
use strait_cli::provider::Provider;

/// An operation, with paths relative to the target.
#[derive(Debug, Clone)]
enum Did {
    MakeFolder(PathBuf),
    Create(PathBuf),
    Write(PathBuf, usize, Vec<u8>),
    SetLen(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    SyncAll,
}

/// Writes operations down: changes when they are done, syncs when they begin.
struct Recorder {
    dir: PathBuf,
    did: Mutex<Vec<Did>>,
}

impl Recorder {
    fn record(&self, op: Op<'_>) {
        let short = |path: &Path| path.strip_prefix(&self.dir).unwrap().to_owned();
        self.did.lock().unwrap().push(match op {
            Op::MakeFolder(path) => Did::MakeFolder(short(path)),
            Op::Create(path) => Did::Create(short(path)),
            Op::Write(path, offset, bytes) => Did::Write(short(path), offset as usize, bytes.to_vec()),
            Op::SetLen(path, len) => Did::SetLen(short(path), len as usize),
            Op::Remove(path) => Did::Remove(short(path)),
            Op::Rename(from, to) => Did::Rename(short(from), short(to)),
            Op::SyncFile(path) => Did::SyncFile(short(path)),
            Op::SyncFolder(path) => Did::SyncFolder(short(path)),
            Op::SyncAll => Did::SyncAll,
        });
    }
}

impl Tap for Recorder {
    fn before(&self, op: Op<'_>) -> io::Result<()> {
        if op.is_sync() {
            self.record(op);
        }
        Ok(())
    }

    fn after(&self, op: Op<'_>) {
        if !op.is_sync() {
            self.record(op);
        }
    }
}

/// A file or folder: as it is, and as much of it as is safe.
#[derive(Debug, Clone)]
enum Node {
    Folder { now: BTreeMap<String, usize>, safe: BTreeMap<String, usize> },
    File { now: Vec<u8>, safe: Vec<u8> },
}

/// A disk. Node 0 is the target folder.
#[derive(Clone)]
struct Model(Vec<Node>);

/// What of the unsafe is still there after the power failed.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    All,
    /// All names, and of each file's unsafe bytes some, none or zeros, by this seed.
    Some(u64),
}

fn new_folder() -> Node {
    Node::Folder { now: BTreeMap::new(), safe: BTreeMap::new() }
}

impl Model {
    /// A disk with these files, all safe.
    fn with(files: &[(&str, Vec<u8>)]) -> Model {
        let mut model = Model(vec![new_folder()]);
        for (name, bytes) in files {
            let path = Path::new(name);
            for folder in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                if model.find(folder).is_none() {
                    model.add(folder, new_folder());
                }
            }
            model.add(path, Node::File { now: bytes.clone(), safe: Vec::new() });
        }
        model.play(&Did::SyncAll);
        model
    }

    fn find(&self, path: &Path) -> Option<usize> {
        path.components().try_fold(0, |at, part| match (&self.0[at], part) {
            (Node::Folder { now, .. }, Component::Normal(name)) => now.get(name.to_str()?).copied(),
            _ => None,
        })
    }

    fn names(&mut self, path: &Path) -> (&mut BTreeMap<String, usize>, String) {
        let parent = self.find(path.parent().unwrap()).unwrap();
        let Node::Folder { now, .. } = &mut self.0[parent] else { panic!("a file in the way of {path:?}") };
        (now, path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.0.push(node);
        let last = self.0.len() - 1;
        let (names, name) = self.names(path);
        assert!(names.insert(name, last).is_none());
    }

    fn file(&mut self, path: &Path) -> &mut Vec<u8> {
        let at = self.find(path).unwrap();
        let Node::File { now, .. } = &mut self.0[at] else { panic!("{path:?} is no file") };
        now
    }

    fn make_safe(&mut self, at: usize) {
        match &mut self.0[at] {
            Node::Folder { now, safe } => safe.clone_from(now),
            Node::File { now, safe } => safe.clone_from(now),
        }
    }

    fn play(&mut self, did: &Did) {
        match did {
            Did::MakeFolder(path) => self.add(path, new_folder()),
            Did::Create(path) => self.add(path, Node::File { now: Vec::new(), safe: Vec::new() }),
            Did::Write(path, offset, bytes) => {
                let file = self.file(path);
                file.resize(file.len().max(offset + bytes.len()), 0);
                file[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Did::SetLen(path, len) => self.file(path).resize(*len, 0),
            Did::Remove(path) => {
                let (names, name) = self.names(path);
                names.remove(&name).unwrap();
            }
            Did::Rename(from, to) => {
                let (names, name) = self.names(from);
                let node = names.remove(&name).unwrap();
                let (names, name) = self.names(to);
                names.insert(name, node);
            }
            Did::SyncFile(path) | Did::SyncFolder(path) => {
                // A sync is noted when it begins and a create when it has ended, so another thread's file may not be known yet. To leave
                // out a sync only makes the model stricter.
                if let Some(at) = self.find(path) {
                    self.make_safe(at);
                }
            }
            Did::SyncAll => (0..self.0.len()).for_each(|at| self.make_safe(at)),
        }
    }

    /// Makes what may be left of a node for real.
    fn leave(&self, at: usize, left: Left, to: &Path) {
        match (&self.0[at], left) {
            (Node::Folder { now, safe }, left) => {
                let names = if matches!(left, Left::Nothing) { safe } else { now };
                if at > 0 {
                    fs::create_dir(to).unwrap();
                }
                names.iter().for_each(|(name, node)| self.leave(*node, left, &to.join(name)));
            }
            (Node::File { safe, .. }, Left::Nothing) => fs::write(to, safe).unwrap(),
            (Node::File { now, .. }, Left::All) => fs::write(to, now).unwrap(),
            (Node::File { now, safe }, Left::Some(seed)) => {
                // Files whose name is there and whose bytes are not: cut short, or zeros.
                let dice = pattern(1, seed ^ (at as u64) << 20)[0];
                let mut bytes = if dice.is_multiple_of(3) { now.clone() } else { safe.clone() };
                bytes.resize(if dice % 3 == 1 { now.len() } else { bytes.len() }, 0);
                fs::write(to, bytes).unwrap();
            }
        }
    }
}

/// A folder on a file system in memory if there is one: syncs are what is modelled here, and cost time.
fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

async fn get(provider: &Arc<Provider>, dir: &Path, replace: bool, tap: Option<Arc<dyn Tap>>) -> Outcome {
    let near = Near { provider: provider.clone(), meddle: |_, reply| Ok(reply) };
    let target = Target { replace, tap, safe_bytes: 300_000, ..Target::new(dir) };
    strait_cli::fetch::get(Arc::new(near), provider.root(), target, &Progress::new(true)).await.unwrap()
}

/// Long files and short ones, which share chunks.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("top/a/long", pattern(700_000, 1)),
        ("top/b/1", pattern(3000, 2)),
        ("top/b/2", pattern(4000, 3)),
        ("top/c/across", pattern(120_000, 4)),
        ("top/d/long", pattern(600_000, 5)),
        ("top/e", Vec::new()),
    ]
}

/// Watches one transfer, then stops it after each of its operations.
async fn stop_everywhere(new: Vec<(&str, Vec<u8>)>, replace: bool) {
    let from = quick_dir();
    new.iter().for_each(|(name, bytes)| write(&from.path().join(name), bytes));
    let old: Vec<(&str, Vec<u8>)> =
        if replace { vec![("top/b/2", pattern(4000, 9)), ("top/d/long", pattern(500_000, 9))] } else { Vec::new() };
    let provider = provider(&[from.path().join("top")]);
    let watched = quick_dir();
    old.iter().for_each(|(name, bytes)| write(&watched.path().join(name), bytes));
    let recorder = Arc::new(Recorder { dir: watched.path().to_owned(), did: Mutex::default() });
    let whole = get(&provider, watched.path(), replace, Some(recorder.clone())).await;
    let did = std::mem::take(&mut *recorder.did.lock().unwrap());
    let mut model = Model::with(&old);
    let (mut most, mut last) = (0, 0);
    for stop in 0..=did.len() {
        for left in [Left::Nothing, Left::All, Left::Some(stop as u64)] {
            let to = quick_dir();
            model.leave(0, left, to.path());
            let here =
                format!("replace {replace}, stopped after {stop} of {}: {:?}, {left:?}", did.len(), did.get(stop.max(1) - 1));
            // TR-60, TR-63: under the names of the transfer there is nothing half-written, and nothing old is lost.
            for (name, there) in in_place(to.path()) {
                let Some((there, _)) = there else { continue };
                let either = [&old, &new].into_iter().flatten().any(|(known, bytes)| Path::new(known) == name && *bytes == there);
                assert!(either, "{here}: {} is neither old nor new", name.display());
            }
            old.iter().for_each(|(name, _)| assert!(to.path().join(name).exists(), "{here}: {name} is lost"));
            if stop == did.len() {
                // TR-60: what a finished run put in place is safe there.
                let there = in_place(to.path());
                new.iter().for_each(|(name, bytes)| {
                    let found = there.get(Path::new(name)).and_then(|file| file.as_ref());
                    assert!(found.is_some_and(|(found, _)| found == bytes), "{here}: {name} is not safe");
                });
            }
            let recorded = recorded(to.path(), true);
            let outcome = get(&provider, to.path(), replace, None).await;
            assert_same(from.path(), to.path());
            // TR-67: what is recorded as safe was so, so that none of it is fetched again; but for a chunk at the end of each file that has
            // replaced another already, since the next run cannot tell which of its bytes are in the target and which are not.
            let renamed =
                if replace { did[..stop].iter().filter(|did| matches!(did, Did::Rename(..))).count() as u64 } else { 0 };
            let had = (outcome.resumed_bytes + outcome.had_bytes).div_ceil(u64::from(outcome.chunk_bytes));
            assert!(had + renamed >= recorded, "{here}: {recorded} chunks were recorded, {had} were there");
            (most, last) = (most.max(recorded), if matches!(left, Left::Nothing) { recorded } else { last });
        }
        if let Some(did) = did.get(stop) {
            model.play(did);
        }
    }
    assert_eq!((most, last), (whole.chunks, whole.chunks), "in the end all chunks were recorded and safe");
}

/// TR-61, TR-67, TR-68: a fresh target.
#[tokio::test]
async fn whatever_is_left_of_a_transfer_the_next_run_goes_on() {
    stop_everywhere(files(), false).await;
    stop_everywhere(vec![("top/empty", Vec::new()), ("top/sub/empty", Vec::new())], false).await;
}

/// TR-63: a target whose files are replaced: until the end of it each is the old one or the new one.
#[tokio::test]
async fn whatever_is_left_of_a_replacement_the_next_run_goes_on() {
    stop_everywhere(files(), true).await;
}
