//! Whole transfers without a network: what arrives is what was sent, and what is there already is left alone.

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use strait_cli::exit::Code;
use strait_cli::fetch::FetchError;
use strait_cli::wire::Ask;

/// TR-60: all of it is in place at the end, and nothing else.
#[tokio::test]
async fn a_tricky_folder_arrives_as_it_is() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = tricky(from.path());
    let provider = provider(&[top]);
    let outcome = get_plain(&provider, to.path()).await.unwrap();
    assert_same(from.path(), to.path());
    assert_eq!((outcome.files, outcome.folders), (provider.source().unwrap().files(), provider.source().unwrap().folders()));
    assert_eq!(outcome.fetched_bytes, provider.source().unwrap().header().content_len);
    // TR-45: the provider was told.
    assert_eq!(*provider.copies().borrow(), 1);
}

#[tokio::test]
async fn empty_folders_single_files_and_several_paths_arrive() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir(from.path().join("nothing")).unwrap();
    write(&from.path().join("empty file"), b"");
    write(&from.path().join("sub/file"), b"text");
    for paths in [vec!["nothing"], vec!["empty file"], vec!["sub/file"], vec!["nothing", "sub/file", "empty file", "sub"]] {
        let to = tempfile::tempdir().unwrap();
        let sent: Vec<_> = paths.iter().map(|path| from.path().join(path)).collect();
        get_plain(&provider(&sent), &to.path().join("made/on/the/way")).await.unwrap();
        for path in &sent {
            let there = to.path().join("made/on/the/way").join(path.file_name().unwrap());
            if path.is_dir() { assert_same(path, &there) } else { assert_eq!(fs::read(path).unwrap(), fs::read(there).unwrap()) }
        }
    }
}

#[tokio::test]
async fn many_small_files_take_few_requests() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..3000 {
        write(&from.path().join(format!("many/{}/{i}", i % 17)), &pattern(i % 100, i as u64));
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let provider = provider(&[from.path().join("many")]);
    let meddle = move |_, reply| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(reply)
    };
    get_near(&provider, to.path(), meddle).await.unwrap();
    assert_same(from.path(), to.path());
    // Header, one page of entries, one chunk, done: 148,500 bytes of content are less than a chunk.
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

/// TR-65: what is in the target already, and right, is neither fetched nor touched; what is missing is added.
#[tokio::test]
async fn identical_content_is_skipped_and_missing_files_are_added() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let top = tricky(from.path());
    let provider = provider(&[top]);
    get_plain(&provider, to.path()).await.unwrap();
    let again = get_plain(&provider, to.path()).await.unwrap();
    assert_eq!((again.fetched_chunks, again.had_bytes), (0, again.bytes));
    assert_same(from.path(), to.path());
    for gone in ["tricky/big/3 chunks and a bit", "tricky/one", "tricky/z/last, empty"] {
        fs::remove_file(to.path().join(gone)).unwrap();
    }
    fs::remove_dir_all(to.path().join("tricky/empty folder")).unwrap();
    fs::remove_dir_all(to.path().join("tricky/deep/1/2")).unwrap();
    write(&to.path().join("tricky/a file of its own"), b"mine");
    let mended = get_plain(&provider, to.path()).await.unwrap();
    assert!(mended.fetched_chunks > 0 && mended.had_bytes > 0, "{mended:?}");
    assert_eq!(fs::read(to.path().join("tricky/a file of its own")).unwrap(), b"mine");
    fs::remove_file(to.path().join("tricky/a file of its own")).unwrap();
    assert_same(from.path(), to.path());
}

/// TR-63: other content under the same name is refused, and the target is left as it was.
#[tokio::test]
async fn other_content_in_the_target_is_refused() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/a"), b"aaaa");
    write(&from.path().join("top/b/c"), &pattern(600_000, 1));
    write(&from.path().join("top/z"), b"zz");
    let provider = provider(&[from.path().join("top")]);
    type Prepare = fn(&std::path::Path);
    let cases: [Prepare; 5] = [
        |top| write(&top.join("a"), b"bbbb"),                 // same size
        |top| write(&top.join("a"), b"longer"),               // another size
        |top| write(&top.join("b"), b"a file, not a folder"), // another kind
        |top| fs::create_dir_all(top.join("z")).unwrap(),     // another kind
        |top| write(&top.join("b/c"), &pattern(600_000, 2)),  // same size, several chunks
    ];
    for (number, prepare) in cases.iter().enumerate() {
        let to = tempfile::tempdir().unwrap();
        prepare(&to.path().join("top"));
        let before = contents(to.path());
        let failure = get_plain(&provider, to.path()).await.unwrap_err();
        assert_eq!(failure.code, Code::TargetTaken, "case {number}: {failure}");
        assert!(in_place(to.path()) == before, "case {number}: the target was changed");
    }
}

/// TR-44: a request that got no reply is tried again, and given up when the user's limit is over, not before.
#[tokio::test(start_paused = true)]
async fn lost_replies_are_asked_for_again_and_given_up_in_the_end() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(2_000_000, 3));
    let provider = provider(&[from.path().join("file")]);
    let to = tempfile::tempdir().unwrap();
    let calls = AtomicUsize::new(0);
    let meddle = move |_, reply| match calls.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => Err(FetchError::Again("lost".into())),
        _ => Ok(reply),
    };
    get_near(&provider, to.path(), meddle).await.unwrap();
    assert_same(from.path(), to.path());

    let to = tempfile::tempdir().unwrap();
    let meddle =
        |ask, reply| if matches!(ask, Ask::Chunk { index: 5 }) { Err(FetchError::Again("silence".into())) } else { Ok(reply) };
    let began = tokio::time::Instant::now();
    let failure = get_near(&provider, to.path(), meddle).await.unwrap_err();
    assert_eq!(failure.code, Code::Lost);
    assert!(failure.what.contains("silence"), "{failure}");
    assert!((PATIENCE..PATIENCE + Duration::from_secs(20)).contains(&began.elapsed()), "virtual time: {:?}", began.elapsed());
    assert_nothing_in_place(to.path());
}

/// TR-61: a transfer that is stopped under way leaves nothing in place.
#[tokio::test]
async fn stopping_under_way_leaves_nothing_in_place() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(8_000_000, 4));
    let provider = provider(&[from.path().join("file")]);
    let to = tempfile::tempdir().unwrap();
    let (reached, mut at) = tokio::sync::watch::channel(false);
    let meddle = move |ask, reply| {
        if matches!(ask, Ask::Chunk { index: 9 }) {
            reached.send_replace(true);
        }
        Ok(reply)
    };
    let dir = to.path().to_owned();
    let task = tokio::spawn(async move { get_near(&provider, &dir, meddle).await });
    at.wait_for(|reached| *reached).await.unwrap();
    task.abort();
    assert!(task.await.is_err());
    assert_nothing_in_place(to.path());
}

/// TR-52: a file that changed after the ticket was made ends the transfer with its name, and nothing is in place.
#[tokio::test]
async fn a_changed_source_is_told_by_name() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/steady"), &pattern(500_000, 5));
    write(&from.path().join("top/vivid"), &pattern(500_000, 6));
    let provider = provider(&[from.path().join("top")]);
    write(&from.path().join("top/vivid"), &pattern(500_001, 6));
    let to = tempfile::tempdir().unwrap();
    let failure = get_plain(&provider, to.path()).await.unwrap_err();
    assert_eq!(failure.code, Code::SourceChanged);
    assert!(failure.what.contains("vivid"), "{failure}");
    assert_nothing_in_place(to.path());
}

/// TR-45: done is sent once, after all is in place; no answer to it neither fails nor delays the transfer.
#[tokio::test]
async fn an_unanswered_done_changes_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), b"text");
    let provider = provider(&[from.path().join("file")]);
    let told = Arc::new(AtomicUsize::new(0));
    let (count, target) = (told.clone(), to.path().to_owned());
    let meddle = move |ask, reply| {
        if ask != Ask::Done {
            return Ok(reply);
        }
        assert_eq!(fs::read(target.join("file")).unwrap(), b"text", "in place before it is told");
        count.fetch_add(1, Ordering::Relaxed);
        Err(FetchError::Again("gone".into()))
    };
    get_near(&provider, to.path(), meddle).await.unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert_same(from.path(), to.path());
}

/// Small files share chunks: 5,000 files of 4 KiB take a request for each chunk and a few more, not one for each file.
#[tokio::test]
async fn files_of_4_kib_take_a_request_for_each_chunk() {
    const FILES: usize = 5000;
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = pattern(FILES * 4096, 1);
    for (i, file) in bytes.chunks(4096).enumerate() {
        write(&from.path().join(format!("top/{}/{i}", i % 50)), file);
    }
    let provider = provider(&[from.path().join("top")]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let meddle = move |_, reply| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(reply)
    };
    let outcome = get_near(&provider, to.path(), meddle).await.unwrap();
    let chunks = bytes.len().div_ceil(outcome.chunk_bytes as usize);
    assert_eq!(outcome.files, FILES as u64);
    // Beside the chunks: header, list of files, list of hashes, done.
    let asked = asked.load(Ordering::Relaxed);
    assert!((chunks + 4..=chunks + 8).contains(&asked), "{asked} requests for {chunks} chunks");
    assert_same(from.path(), to.path());
}
