//! Providers that lie, and manifests that no honest sender makes: refused, with nothing written outside or left in place.

mod common;

use std::fs;
use std::sync::Arc;

use common::*;
use strait_cli::exit::{Code, Failure};
use strait_cli::progress::Progress;
use strait_cli::tree::Which;
use strait_cli::wire::{Ask, Status, decline};

async fn get_crafted(crafted: Crafted, dir: &std::path::Path) -> Result<strait_cli::fetch::Outcome, Failure> {
    let root = crafted.root();
    strait_cli::fetch::get(Arc::new(crafted), root, dir, &Progress::new(true)).await
}

/// TR-24: one wrong byte in any part, or a part that is cut or longer, is found, and nothing is in place.
#[tokio::test]
async fn a_lie_in_any_part_is_found() {
    let from = tempfile::tempdir().unwrap();
    let top = tricky(from.path());
    let provider = provider(&[top]);
    let parts = [
        Ask::Header,
        Ask::Page { which: Which::Entries, level: 0, index: 0 },
        Ask::Page { which: Which::Content, level: 1, index: 0 },
        Ask::Chunk { index: 0 },
        Ask::Chunk { index: provider.source().unwrap().header().content().leaves() - 1 },
    ];
    type Lie = fn(&mut Vec<u8>);
    let lies: [Lie; 5] = [
        |reply| *reply.last_mut().unwrap() ^= 1,
        |reply| reply[1] ^= 0x80,
        |reply| _ = reply.pop(),
        |reply| reply.push(0),
        |reply| reply.truncate(1),
    ];
    for part in parts {
        for lie in lies {
            let to = tempfile::tempdir().unwrap();
            let meddle = move |ask, mut reply: Vec<u8>| {
                if ask == part {
                    lie(&mut reply);
                }
                Ok(reply)
            };
            let failure = get_near(&provider, to.path(), meddle).await.unwrap_err();
            assert_eq!(failure.code, Code::Mismatch, "{part:?}: {failure}");
            assert_nothing_in_place(to.path());
        }
    }
}

/// TR-42: statuses become the exit codes that they stand for.
#[tokio::test]
async fn declined_requests_say_why() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), b"text");
    let provider = provider(&[from.path().join("file")]);
    for (reply, code) in [
        (decline(Status::NotServed, ""), Code::NotServed),
        (decline(Status::SourceChanged, "file"), Code::SourceChanged),
        (decline(Status::SourceUnreadable, "file"), Code::NotServed),
        (decline(Status::NoSuchPart, ""), Code::Incompatible),
        (vec![], Code::Mismatch),
        (vec![77, 1, 2], Code::Mismatch),
    ] {
        let to = tempfile::tempdir().unwrap();
        let meddle = move |_, _| Ok(reply.clone());
        assert_eq!(get_near(&provider, to.path(), meddle).await.unwrap_err().code, code);
        assert_nothing_in_place(to.path());
    }
}

/// TR-31: names that lead out of the target folder are refused before anything is written.
#[tokio::test]
async fn hostile_names_are_refused_and_nothing_is_written() {
    let outer = tempfile::tempdir().unwrap();
    let names: [&[u8]; 10] =
        [b"..", b".", b"/etc/passwd", b"../escape", b"a/../../escape", b"a\\b", b"C:", b"nul\0", b"\xff\xfe", b".strait-0123"];
    for name in names {
        let to = outer.path().join("target");
        let crafted = Crafted::new(raw_entry(1, 0, name, 3), 1, b"abc");
        let failure = get_crafted(crafted, &to).await.unwrap_err();
        assert_eq!(failure.code, Code::UnsafeName, "{}: {failure}", name.escape_ascii());
        let nested = [raw_entry(0, 0, b"ok", 0), raw_entry(1, 1, name, 3)].concat();
        if !name.starts_with(b".strait") {
            let failure = get_crafted(Crafted::new(nested, 2, b"abc"), &to).await.unwrap_err();
            assert_eq!(failure.code, Code::UnsafeName, "{}: {failure}", name.escape_ascii());
        }
        let left: Vec<_> = contents(outer.path()).into_keys().collect();
        assert_eq!(left, [std::path::PathBuf::from("target")]);
    }
}

/// TR-34, TR-35, TR-23: entries out of order, twice, inside files, or that do not add up.
#[tokio::test]
async fn manifests_that_contradict_themselves_are_refused() {
    let file = |name: &str, size| raw_entry(1, 0, name.as_bytes(), size);
    let cases = [
        Crafted::new([file("a", 1), file("a", 2)].concat(), 2, b"abc"),
        Crafted::new([file("b", 1), file("a", 2)].concat(), 2, b"abc"),
        Crafted::new([file("a", 3), raw_entry(1, 1, b"b", 0)].concat(), 2, b"abc"),
        Crafted::new(file("a", 4), 1, b"abc"),
        Crafted::new(file("a", 2), 1, b"abc"),
        Crafted::new(file("a", 3), 2, b"abc"),
        Crafted::new(file("a", u64::MAX), 1, b"abc"),
        Crafted::new(raw_entry(9, 0, b"a", 3), 1, b"abc"),
        Crafted::new(file("a", 3)[..9].to_vec(), 1, b"abc"),
        Crafted { header: vec![0; 98], entries: vec![], content: vec![] },
        Crafted { header: vec![], entries: vec![], content: vec![] },
    ];
    for (number, crafted) in cases.into_iter().enumerate() {
        let to = tempfile::tempdir().unwrap();
        let failure = get_crafted(crafted, to.path()).await.unwrap_err();
        assert_eq!(failure.code, Code::Mismatch, "case {number}: {failure}");
        assert_nothing_in_place(to.path());
    }
}

/// TR-62: symbolic links in the target are never written through, wherever on the path they are.
#[cfg(unix)]
#[tokio::test]
async fn links_in_the_target_are_not_followed() {
    use std::os::unix::fs::symlink;
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/sub/file"), b"text");
    let provider = provider(&[from.path().join("top")]);
    type Trap = fn(&std::path::Path, &std::path::Path);
    let traps: [Trap; 4] = [
        |to, outside| symlink(outside, to.join("top")).unwrap(),
        |to, outside| {
            fs::create_dir(to.join("top")).unwrap();
            symlink(outside, to.join("top/sub")).unwrap();
        },
        |to, outside| {
            fs::create_dir_all(to.join("top/sub")).unwrap();
            symlink(outside.join("file"), to.join("top/sub/file")).unwrap();
        },
        |to, _| symlink("nowhere", to.join("top")).unwrap(),
    ];
    for (number, trap) in traps.iter().enumerate() {
        let (to, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(outside.path().join("sub")).unwrap();
        trap(to.path(), outside.path());
        let before = (contents(to.path()), contents(outside.path()));
        let failure = get_plain(&provider, to.path()).await.unwrap_err();
        assert_eq!(failure.code, Code::UnsafeName, "trap {number}: {failure}");
        assert!(before == (contents(to.path()), contents(outside.path())), "trap {number}");
    }
}

/// A size beyond the disk is refused before anything is fetched, and costs nothing.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_absurd_size_is_refused_at_once() {
    absurd_size(false).await;
    absurd_size(true).await;
}

/// TR-69: also where files may be replaced.
#[cfg(target_os = "linux")]
async fn absurd_size(replace: bool) {
    let to = tempfile::tempdir().unwrap();
    let size = 1 << 50;
    let mut crafted = Crafted::new(raw_entry(1, 0, b"huge", size), 1, b"");
    crafted.header = {
        let mut header = strait_cli::manifest::Header::decode(&crafted.header).unwrap();
        header.content_len = size;
        header.encode()
    };
    let (root, target) = (crafted.root(), strait_cli::place::Target { replace, ..strait_cli::place::Target::new(to.path()) });
    let failure = strait_cli::fetch::get(Arc::new(crafted), root, target, &Progress::new(true)).await.unwrap_err();
    assert_eq!(failure.code, Code::DiskFull, "{failure}");
    assert_nothing_in_place(to.path());
}
