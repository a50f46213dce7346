//! `strait send -` and `strait get -o -`: one file as a stream, through pipes.
#![cfg(unix)]

mod common;

use std::io::{Read, Write};
use std::process::{Output, Stdio};
use std::sync::Arc;

use common::command::*;
use common::*;
use strait_cli::exit::Code;
use strait_cli::fetch::{FetchError, Providers, stream};
use strait_cli::progress::Progress;
use strait_cli::wire::Ask;

/// Where a stream goes, kept to look at.
#[derive(Clone, Default)]
struct Kept(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn to_stdout(ticket: &str) -> Output {
    run(&["get", ticket, "-o", "-"])
}

/// What is written to the sender's stdin comes out of the receiver's stdout; the file has the name that was asked for.
#[test]
fn through_both_pipes() {
    let content = pattern((5 << 20) + 17, 3);
    let args = ["send", "--ephemeral", "--listen", "127.0.0.1:0", "--name", "dump.tar", "-q", "-"];
    let mut child = strait(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&content).unwrap();
    drop(input);
    let ticket = first_line(child.stdout.take().unwrap());
    let output = to_stdout(&ticket);
    assert_code(&output, 0);
    assert!(output.stdout == content);
    let to = tempfile::tempdir().unwrap();
    assert_code(&get(&ticket, to.path(), &[]), 0);
    assert!(std::fs::read(to.path().join("dump.tar")).unwrap() == content);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_is_too_much_or_not_one_file_is_refused() {
    let mut child =
        strait(&["send", "--ephemeral", "--stdin-max", "1K", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(&[1; 2000]); // it may stop reading before the end
    assert_code(&child.wait_with_output().unwrap(), 16);
    assert_code(&run(&["send", "--ephemeral", "-", "other"]), 2);
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/a"), b"1");
    let sender = Sender::start(&from.path().join("top"), &[]);
    let one = to_stdout(&sender.ticket);
    assert_code(&one, 0);
    assert_eq!(one.stdout, b"1", "one file in a folder is one file");
    assert_code(&run(&["get", &sender.ticket, "-o", "-", "--json"]), 2);
    write(&from.path().join("top/b"), b"2");
    let sender = Sender::start(&from.path().join("top"), &[]);
    let two = to_stdout(&sender.ticket);
    assert_code(&two, 2);
    assert_explained(&two);
    assert!(two.stdout.is_empty());
    std::fs::create_dir(from.path().join("empty")).unwrap();
    assert_code(&to_stdout(&Sender::start(&from.path().join("empty"), &[]).ticket), 2);
}

#[test]
fn a_reader_that_goes_away_ends_it_with_a_code_of_its_own() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(8 << 20, 1));
    let sender = Sender::start(&from.path().join("file"), &["--once"]);
    let mut child = strait(&["get", &sender.ticket, "-o", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = vec![0; 1000];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap(); // and drops it
    assert!(start == pattern(8 << 20, 1)[..1000]);
    let output = child.wait_with_output().unwrap();
    assert_code(&output, Code::OutputClosed as i32);
    assert_explained(&output);
    assert_code(&to_stdout(&sender.ticket), 0);
    assert_eq!(sender.wait(), Some(0), "only the whole copy counted");
}

/// TR-24: what was written before a lie is the start of the file; of the lie nothing is written.
#[tokio::test(start_paused = true)]
async fn no_byte_of_a_lie_is_written() {
    let from = tempfile::tempdir().unwrap();
    let content = pattern(3 << 20, 1);
    write(&from.path().join("file"), &content);
    let provider = provider(&[from.path().join("file")]);
    let meddle = |ask, mut reply: Vec<u8>| -> Result<Vec<u8>, FetchError> {
        if ask == (Ask::Chunk { index: 5 }) {
            reply[100] ^= 1;
        }
        Ok(reply)
    };
    let near = Arc::new(Near { provider: provider.clone(), meddle });
    let kept = Kept::default();
    let progress = Progress::new(true);
    let failure = stream(Providers::from(near), provider.root(), kept.clone(), &progress).await.unwrap_err();
    assert_eq!(failure.code, Code::Mismatch);
    let kept = kept.0.lock().unwrap();
    assert!(content.starts_with(&kept) && kept.len() <= 5 << 18, "{}", kept.len());
}
