//! The disk fills up in the middle of a transfer: it waits, says so, and goes on. The disk is a small one in memory, mounted where only the
//! command and this test see it; where that is not permitted these tests say so, and those of `src/place/disk.rs` have to do.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::gated::Gated;
use common::*;

/// Bytes of the disk; those of the content are fewer, so that it would fit if nothing else were there.
const DISK: &str = "size=8m";
const CONTENT: usize = 6_000_000;
/// Chunk that waits until the disk is full.
const GATE: u64 = 8;

/// Mounts a small disk at a folder, then runs a command; what is there at the end is copied out.
fn on_small_disk(disk: &Path, copy: &Path, args: &[&str]) -> Command {
    let script =
        format!("mount -t tmpfs -o {DISK} none \"$0\" && copy=$1 && shift && \"$@\"; code=$?; cp -r \"$0\"/. $copy; exit $code");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]).args([disk, copy]).args(args).stdin(Stdio::null());
    command
}

fn may_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let may =
        on_small_disk(dir.path(), dir.path(), &["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !may {
        eprintln!("SKIPPED: mounting a small disk is not permitted here");
    }
    may
}

/// A get that has filled its disk, with what it says.
struct Full {
    child: Child,
    said: std::io::Lines<BufReader<std::process::ChildStderr>>,
    /// The disk, as this test sees it.
    disk: PathBuf,
}

impl Full {
    async fn start(gated: &mut Gated, to: &Path, copy: &Path, more: &[&str]) -> Full {
        let args = [env!("CARGO_BIN_EXE_strait"), "get", &gated.ticket, "-q", "-o", to.to_str().unwrap()];
        let mut child =
            on_small_disk(to, copy, &[&args, more].concat()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        gated.reached().await;
        let disk = Path::new("/proc").join(child.id().to_string()).join("root").join(to.strip_prefix("/").unwrap());
        let mut filler = fs::File::create(disk.join("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        gated.open();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut full = Full { child, said, disk };
        full.hear("the disk is full since");
        full
    }

    /// Waits until it says this.
    fn hear(&mut self, what: &str) {
        let heard = self.said.by_ref().map_while(Result::ok).find(|line| line.contains(what));
        assert!(heard.is_some(), "it ended without saying: {what}");
    }
}

/// TR-69: it waits until there is space, and then all of it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_waits_for_space_and_goes_on() {
    if !may_mount() {
        return;
    }
    let (from, to, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("top/long"), &pattern(CONTENT - 200_000, 1));
    (0..50).for_each(|i| write(&from.path().join(format!("top/many/{i}")), &pattern(4000, i)));
    let mut gated = Gated::start(Arc::new(source(&[from.path().join("top")])), GATE, None, None).await;
    let mut full = Full::start(&mut gated, to.path(), copy.path(), &[]).await;
    assert!(full.child.try_wait().unwrap().is_none(), "it waits");
    fs::remove_file(full.disk.join("filler")).unwrap();
    full.hear("going on");
    assert_eq!(tokio::task::spawn_blocking(move || full.child.wait().unwrap()).await.unwrap().code(), Some(0));
    assert_same(from.path(), copy.path());
}

/// TR-61: a transfer that waits for space can be stopped, and keeps what it had.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_waits_for_space_can_be_stopped() {
    if !may_mount() {
        return;
    }
    let (from, to, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), &pattern(CONTENT, 1));
    let mut gated = Gated::start(Arc::new(source(&[from.path().join("file")])), GATE, None, None).await;
    let mut full = Full::start(&mut gated, to.path(), copy.path(), &[]).await;
    let stopped = Command::new("pkill").args(["-TERM", "-P", &full.child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(tokio::task::spawn_blocking(move || full.child.wait().unwrap()).await.unwrap().code(), Some(143));
    let kept: Vec<_> = contents(copy.path()).into_keys().collect();
    assert!(kept.iter().any(|name| name.ends_with("tree/file")) && !kept.contains(&"file".into()), "{kept:?}");
}

/// TR-69: `--timeout` bounds the wait for space, and says what to do. What was fetched is kept.
#[tokio::test(flavor = "multi_thread")]
async fn the_wait_for_space_ends_with_the_timeout() {
    if !may_mount() {
        return;
    }
    let (from, to, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), &pattern(CONTENT, 1));
    let mut gated = Gated::start(Arc::new(source(&[from.path().join("file")])), GATE, None, None).await;
    let mut full = Full::start(&mut gated, to.path(), copy.path(), &["--timeout", "2s"]).await;
    full.hear("the disk or your quota is full");
    assert_eq!(tokio::task::spawn_blocking(move || full.child.wait().unwrap()).await.unwrap().code(), Some(9));
    let kept: Vec<_> = contents(copy.path()).into_keys().collect();
    assert!(kept.iter().any(|name| name.ends_with("tree/file")) && !kept.contains(&"file".into()), "{kept:?}");
}
