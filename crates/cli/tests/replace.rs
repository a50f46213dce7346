//! `--force`: files in the target are replaced, each in one step, and nothing else is.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::*;
use strait_cli::exit::{Code, Failure};
use strait_cli::fetch::{FetchError, Outcome};
use strait_cli::place::Target;
use strait_cli::progress::Progress;
use strait_cli::provider::Provider;
use strait_cli::wire::Ask;

async fn force<M>(provider: &Arc<Provider>, dir: &Path, meddle: M) -> Result<Outcome, Failure>
where
    M: Fn(Ask, Vec<u8>) -> Result<Vec<u8>, FetchError> + Send + Sync + 'static,
{
    let near = Near { provider: provider.clone(), meddle };
    let target = Target { replace: true, ..Target::new(dir) };
    strait_cli::fetch::get(patient(near), provider.root(), target, &Progress::new(true)).await
}

/// TR-63: what differs is replaced, whatever its size; what is the same stays the very file it was; what is not of the transfer stays.
#[cfg(unix)]
#[tokio::test]
async fn files_that_differ_are_replaced_and_nothing_else_is() {
    use std::os::unix::fs::{MetadataExt, symlink};
    let from = tempfile::tempdir().unwrap();
    let top = tricky(from.path());
    let provider = provider(&[top]);
    let (to, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    get_plain(&provider, to.path()).await.unwrap();
    let there = to.path().join("tricky");
    write(&there.join("one"), b"longer than it was");
    write(&there.join("empty"), b"no more");
    write(&there.join("chunk+1"), &pattern((256 << 10) + 1, 99));
    write(&outside.path().join("file"), b"outside");
    fs::remove_file(there.join("a.b")).unwrap();
    symlink(outside.path().join("file"), there.join("a.b")).unwrap();
    fs::set_permissions(there.join("bin/run"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    write(&there.join("mine"), b"mine");
    let inode = |name: &str| fs::metadata(there.join(name)).unwrap().ino();
    let same = [inode("chunk"), inode("big/3 chunks and a bit")];

    let outcome = force(&provider, to.path(), |_, reply| Ok(reply)).await.unwrap();
    assert!(outcome.had_bytes > 0 && outcome.fetched_bytes > 0, "{outcome:?}");
    assert_eq!(same, [inode("chunk"), inode("big/3 chunks and a bit")]);
    assert_eq!(fs::read(there.join("mine")).unwrap(), b"mine");
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"outside");
    fs::remove_file(there.join("mine")).unwrap();
    assert_same(from.path(), to.path());
}

/// TR-63: until all is there, what is to be replaced stays; the next run goes on and replaces it.
#[tokio::test(start_paused = true)]
async fn what_is_to_be_replaced_stays_until_all_is_there() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/a"), &pattern(2_000_000, 1));
    write(&from.path().join("top/b"), &pattern(2_000_000, 2));
    let provider = provider(&[from.path().join("top")]);
    let to = tempfile::tempdir().unwrap();
    write(&to.path().join("top/a"), &pattern(2_000_000, 3));
    write(&to.path().join("top/b"), b"short");
    let before = in_place(to.path());
    let gone = |ask, reply| match ask {
        Ask::Chunk { index: 10.. } => Err(FetchError::Again("gone".into())),
        _ => Ok(reply),
    };
    assert_eq!(force(&provider, to.path(), gone).await.unwrap_err().code, Code::Lost);
    assert!(in_place(to.path()) == before);
    let outcome = force(&provider, to.path(), |_, reply| Ok(reply)).await.unwrap();
    assert_eq!(outcome.resumed_bytes, 10 * u64::from(outcome.chunk_bytes));
    assert_same(from.path(), to.path());
}

/// TR-62, TR-63: a folder is never replaced, nothing is put in the place of a file or link that a folder would need, and no link is followed.
#[cfg(unix)]
#[tokio::test]
async fn folders_in_the_way_and_links_on_the_way_are_refused() {
    use std::os::unix::fs::symlink;
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/sub/file"), b"text");
    let provider = provider(&[from.path().join("top")]);
    type Trap = fn(&Path, &Path);
    let traps: [(Trap, Code); 5] = [
        (|to, _| fs::create_dir_all(to.join("top/sub/file")).unwrap(), Code::TargetTaken),
        (|to, _| write(&to.join("top/sub"), b"a file"), Code::TargetTaken),
        (|to, outside| symlink(outside, to.join("top")).unwrap(), Code::UnsafeName),
        (
            |to, outside| {
                fs::create_dir(to.join("top")).unwrap();
                symlink(outside, to.join("top/sub")).unwrap();
            },
            Code::UnsafeName,
        ),
        (
            |to, _| {
                fs::create_dir_all(to.join("top/sub")).unwrap();
                std::os::unix::net::UnixListener::bind(to.join("top/sub/file")).unwrap();
            },
            Code::TargetTaken,
        ),
    ];
    for (number, (trap, code)) in traps.iter().enumerate() {
        let (to, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(outside.path().join("sub")).unwrap();
        trap(to.path(), outside.path());
        let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
        let before = (names(to.path()), names(outside.path()), names(&outside.path().join("sub")));
        let failure = force(&provider, to.path(), |_, reply| Ok(reply)).await.unwrap_err();
        assert_eq!(failure.code, *code, "trap {number}: {failure}");
        assert_eq!(before, (names(to.path()), names(outside.path()), names(&outside.path().join("sub"))), "trap {number}");
    }
}

/// TR-62, TR-63: what comes into the target while the transfer runs is neither followed nor lost, and never taken for what was sent.
#[cfg(unix)]
#[tokio::test]
async fn what_comes_into_the_target_meanwhile_is_left_alone() {
    use std::os::unix::fs::symlink;
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/sub/file"), b"text");
    write(&from.path().join("top/z"), &pattern(600_000, 1));
    let provider = provider(&[from.path().join("top")]);
    type Come = fn(&Path, &Path);
    let comes: [(Come, Code); 4] = [
        (
            |to, outside| {
                fs::rename(to.join("top/sub"), to.join("top/was sub")).unwrap();
                symlink(outside, to.join("top/sub")).unwrap();
            },
            Code::UnsafeName,
        ),
        (|to, _| write(&to.join("top/sub/file"), b"TEXT"), Code::TargetTaken),
        (|to, _| fs::create_dir(to.join("top/z")).unwrap(), Code::TargetTaken),
        (|to, outside| symlink(outside.join("new"), to.join("top/z")).unwrap(), Code::UnsafeName),
    ];
    for (number, (come, code)) in comes.into_iter().enumerate() {
        let (to, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(to.path().join("top/sub")).unwrap();
        let (dir, away) = (to.path().to_owned(), outside.path().to_owned());
        let meddle = move |ask, reply| {
            if matches!(ask, Ask::Chunk { index: 2 }) {
                come(&dir, &away);
            }
            Ok(reply)
        };
        let failure = get_near(&provider, to.path(), meddle).await.unwrap_err();
        assert_eq!(failure.code, code, "case {number}: {failure}");
        assert!(contents(outside.path()).is_empty(), "case {number}");
        if number == 1 {
            assert_eq!(fs::read(to.path().join("top/sub/file")).unwrap(), b"TEXT");
        }
    }
}

/// TR-63: the same where nothing of the transfer was in the target before: it is found when all is there, and what was fetched is kept.
#[tokio::test]
async fn a_file_that_comes_meanwhile_is_refused_at_the_end() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/a"), b"text");
    write(&from.path().join("top/z"), &pattern(600_000, 1));
    let provider = provider(&[from.path().join("top")]);
    for (came, code) in [(&b"TEXT"[..], Some(Code::TargetTaken)), (b"longer", Some(Code::TargetTaken)), (b"text", None)] {
        let to = tempfile::tempdir().unwrap();
        let dir = to.path().to_owned();
        let meddle = move |ask, reply| {
            if matches!(ask, Ask::Chunk { index: 2 }) {
                write(&dir.join("top/a"), came);
            }
            Ok(reply)
        };
        let result = get_near(&provider, to.path(), meddle).await;
        assert_eq!(result.err().map(|failure| failure.code), code);
        assert_eq!(fs::read(to.path().join("top/a")).unwrap(), came);
        fs::remove_file(to.path().join("top/a")).unwrap();
        get_plain(&provider, to.path()).await.unwrap();
        assert_same(from.path(), to.path());
    }
}

/// Something of the right size came into the target between two runs: it is looked at, not what an earlier run had fetched.
#[tokio::test(start_paused = true)]
async fn other_content_that_came_between_two_runs_is_refused() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/a"), &pattern(900_000, 1));
    write(&from.path().join("top/b"), &pattern(900_000, 2));
    let provider = provider(&[from.path().join("top")]);
    let to = tempfile::tempdir().unwrap();
    let gone = |ask, reply| match ask {
        Ask::Chunk { index: 5.. } => Err(FetchError::Again("gone".into())),
        _ => Ok(reply),
    };
    get_near(&provider, to.path(), gone).await.unwrap_err();
    write(&to.path().join("top/a"), &pattern(900_000, 3));
    assert_eq!(get_plain(&provider, to.path()).await.unwrap_err().code, Code::TargetTaken);
    assert_eq!(fs::read(to.path().join("top/a")).unwrap(), pattern(900_000, 3));
    fs::remove_file(to.path().join("top/a")).unwrap();
    get_plain(&provider, to.path()).await.unwrap();
    assert_same(from.path(), to.path());
}

/// TR-33: the longest paths that can be named arrive, though the system takes none of them at once.
#[cfg(unix)]
#[tokio::test]
async fn the_longest_and_the_deepest_path_arrive() {
    let name = "n".repeat(255);
    let deep = |name: &str, depth: u8| {
        let mut entries: Vec<u8> = (0..depth).flat_map(|level| raw_entry(0, level, name.as_bytes(), 0)).collect();
        entries.extend(raw_entry(1, depth, name.as_bytes(), 3));
        Crafted::new(entries, u64::from(depth) + 1, b"abc")
    };
    for (name, depth) in [(&name[..], 15), ("d", 254)] {
        let to = tempfile::tempdir().unwrap();
        let target = to.path().join("some way below the root of the file system");
        for force in [false, false, true] {
            let crafted = deep(name, depth);
            let (root, target) = (crafted.root(), Target { replace: force, ..Target::new(&target) });
            strait_cli::fetch::get(Arc::new(crafted), root, target, &Progress::new(true)).await.unwrap();
        }
        let shell = format!(
            "cd '{}' && i=0; while [ $i -lt {depth} ]; do cd -P {name} || exit 1; i=$((i+1)); done; cat {name}",
            target.display()
        );
        let read = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
        assert_eq!(read.stdout, b"abc", "{}", String::from_utf8_lossy(&read.stderr));
    }
}
