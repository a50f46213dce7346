//! A transfer that was ended in the middle goes on from what it had, and trusts nothing of it unseen.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use strait_cli::exit::Code;
use strait_cli::fetch::{FetchError, Outcome};
use strait_cli::provider::Provider;
use strait_cli::wire::Ask;

/// A long file, many small ones that share chunks, one that lies across two chunks, empty ones and folders: 5.2 MB, 21 chunks.
fn folder(dir: &Path) -> PathBuf {
    let top = dir.join("top");
    write(&top.join("a/long"), &pattern(3_000_000, 1));
    for i in 0..200 {
        write(&top.join(format!("b/{}/{i}", i % 7)), &pattern(i * 50, i as u64));
    }
    write(&top.join("c/across"), &pattern(400_000, 2));
    write(&top.join("d/long"), &pattern(800_000, 3));
    write(&top.join("e/empty"), b"");
    fs::create_dir_all(top.join("f/nothing")).unwrap();
    top
}

/// Fetches until chunk `last` is asked for, which never comes; then the transfer is given up.
async fn get_part(provider: &Arc<Provider>, dir: &Path, last: u64) {
    let meddle = move |ask, reply| match ask {
        Ask::Chunk { index } if index >= last => Err(FetchError::Again("gone".into())),
        _ => Ok(reply),
    };
    let failure = get_near(provider, dir, meddle).await.unwrap_err();
    assert_eq!(failure.code, Code::Lost);
    let kept = temp_folder(dir).unwrap();
    assert!(failure.next.contains(kept.to_str().unwrap()), "it says where: {failure}");
    assert_nothing_in_place(dir);
    // TR-69: and no more than what came is on the disk, whatever was announced.
    let lens = contents(&dir.join(kept).join("tree")).into_values().flatten().map(|(bytes, _)| bytes.len() as u64);
    assert!(lens.sum::<u64>() <= last * u64::from(provider.source().unwrap().header().chunk_bytes()));
}

fn assert_adds_up(outcome: &Outcome) {
    assert_eq!(outcome.fetched_bytes + outcome.had_bytes + outcome.resumed_bytes, outcome.bytes, "{outcome:?}");
}

/// TR-61, TR-67, TR-68: whatever was there when a run ended is not fetched again, and the folder goes away at the end.
#[tokio::test(start_paused = true)]
async fn the_next_run_fetches_only_what_is_missing() {
    let from = tempfile::tempdir().unwrap();
    let provider = provider(&[folder(from.path())]);
    let to = tempfile::tempdir().unwrap();
    let mut had = 0;
    for last in [1, 7, 8, 15] {
        get_part(&provider, to.path(), last).await;
        assert!(fs::metadata(to.path().join(temp_folder(to.path()).unwrap()).join("journal")).unwrap().len() > had);
        had = fs::metadata(to.path().join(temp_folder(to.path()).unwrap()).join("journal")).unwrap().len();
    }
    let again = Arc::new(AtomicBool::new(false));
    let asked = again.clone();
    let meddle = move |ask, reply| {
        asked.fetch_or(matches!(ask, Ask::Chunk { index } if index < 15), Ordering::Relaxed);
        Ok(reply)
    };
    let outcome = get_near(&provider, to.path(), meddle).await.unwrap();
    assert!(!again.load(Ordering::Relaxed), "a chunk that was had was fetched again");
    assert_eq!(outcome.resumed_bytes, 15 * u64::from(outcome.chunk_bytes));
    assert_adds_up(&outcome);
    assert_same(from.path(), to.path());
}

/// TR-68: somebody meddled with the temporary folder: what is wrong is fetched again, and what arrives is right.
#[tokio::test(start_paused = true)]
async fn what_was_changed_in_between_is_fetched_again() {
    let from = tempfile::tempdir().unwrap();
    let provider = provider(&[folder(from.path())]);
    type Meddle = fn(&Path);
    let cases: [Meddle; 9] = [
        |top| fs::write(top.join("a/long"), pattern(3_000_000, 9)).unwrap(),
        |top| fs::write(top.join("a/long"), pattern(3_500_000, 1)).unwrap(), // right, but for its end
        |top| fs::write(top.join("a/long"), b"short").unwrap(),
        |top| fs::remove_file(top.join("a/long")).unwrap(),
        |top| fs::write(top.join("b/0/77"), b"small").unwrap(),
        |top| fs::write(top.join("b/0/77"), pattern(77 * 50 + 1, 77)).unwrap(),
        |top| fs::remove_file(top.join("b/0/77")).unwrap(),
        |top| fs::remove_dir_all(top.join("b")).unwrap(),
        |top| fs::write(top.join("e/empty"), b"no more").unwrap(),
    ];
    for (number, meddle) in cases.iter().enumerate() {
        let to = tempfile::tempdir().unwrap();
        get_part(&provider, to.path(), 15).await;
        meddle(&to.path().join(temp_folder(to.path()).unwrap()).join("tree/top"));
        let outcome = get_plain(&provider, to.path()).await.unwrap();
        assert!(outcome.resumed_bytes > 0, "case {number}: the rest is still used");
        assert_adds_up(&outcome);
        assert_same(from.path(), to.path());
    }
}

/// A journal of another run, or none: begun anew.
#[tokio::test(start_paused = true)]
async fn without_its_journal_a_run_begins_anew() {
    let from = tempfile::tempdir().unwrap();
    let provider = provider(&[folder(from.path())]);
    let cases: [fn(&Path); 3] = [
        |journal| fs::remove_file(journal).unwrap(),
        |journal| fs::write(journal, b"").unwrap(),
        |journal| fs::write(journal, pattern(200, 1)).unwrap(),
    ];
    for spoil in cases {
        let to = tempfile::tempdir().unwrap();
        get_part(&provider, to.path(), 15).await;
        spoil(&to.path().join(temp_folder(to.path()).unwrap()).join("journal"));
        let outcome = get_plain(&provider, to.path()).await.unwrap();
        assert_eq!((outcome.resumed_bytes, outcome.fetched_bytes), (0, outcome.bytes));
        assert_same(from.path(), to.path());
    }
}

/// A run that ended while it moved things into place: some are there, the rest comes from the temporary folder.
#[tokio::test(start_paused = true)]
async fn a_run_that_ended_while_moving_goes_on() {
    let from = tempfile::tempdir().unwrap();
    let provider = provider(&[folder(from.path())]);
    let to = tempfile::tempdir().unwrap();
    get_part(&provider, to.path(), 15).await;
    let tree = to.path().join(temp_folder(to.path()).unwrap()).join("tree");
    fs::create_dir(to.path().join("top")).unwrap();
    fs::rename(tree.join("top/a"), to.path().join("top/a")).unwrap();
    let outcome = get_plain(&provider, to.path()).await.unwrap();
    assert_eq!(outcome.resumed_bytes, 15 * u64::from(outcome.chunk_bytes));
    assert_same(from.path(), to.path());
}
