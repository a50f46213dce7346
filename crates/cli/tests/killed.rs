//! Either side is killed outright, several times, and the command that is run again goes on.
#![cfg(unix)]

mod common;

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use common::command::*;
use common::gated::Gated;
use common::*;
use strait_cli::keyfile;

const CHUNK: u64 = 256 << 10;
/// Chunks that each run adds, about: 16 MiB, which is a batch that is made safe at once.
const BATCH: u64 = 64;
const CHUNKS: u64 = 5 * BATCH;

/// TR-61, TR-67, TR-68: the receiver is killed at places that a seed chooses, the provider in between too; nothing that was recorded is
/// fetched again, and what arrives is right.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_goes_on() {
    let seed = 20;
    let (from, to, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("top/long"), &pattern((CHUNKS * CHUNK) as usize - 3_000_000, seed));
    (0..500).for_each(|i| write(&from.path().join(format!("top/many/{i}")), &pattern(6000, i)));
    let source = Arc::new(source(&[from.path().join("top")]));
    let key_file = keys.path().join("key");
    let (mut listen, mut ticket) = (SocketAddr::from(([127, 0, 0, 1], 0)), String::new());
    let mut written = 0;
    for (run, dice) in pattern(3, seed).into_iter().enumerate() {
        // Somewhere in the batch after that which this run adds.
        let gate = BATCH * (run as u64 + 1) + u64::from(dice) % BATCH;
        let key = keyfile::load_or_make(&key_file).unwrap();
        let mut gated = Gated::start(source.clone(), gate, Some(key), Some(listen)).await;
        ticket = gated.ticket.clone();
        let port = gated.node.listen_addrs()[0].to_string();
        listen.set_port(port.split('/').nth(4).unwrap().parse().unwrap());
        let args = ["get", &ticket, "-q", "-o", to.path().to_str().unwrap()];
        let mut child = strait(&args).stdout(Stdio::null()).spawn().unwrap();
        gated.reached().await;
        // All chunks before the gate come, since nothing holds them back. Bounded: 30 s.
        for _ in 0..3000 {
            if recorded(to.path(), false) >= gate {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(recorded(to.path(), false), gate, "run {run}");
        written = gate;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_nothing_in_place(to.path());
        drop(gated);
        // The next provider takes its place when the port is free. Bounded: 10 s.
        for _ in 0..1000 {
            if std::net::UdpSocket::bind(listen).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let sender = Sender::run(&from.path().join("top"), &["--key", key_file.to_str().unwrap(), "--listen", &listen.to_string()]);
    assert_eq!(sender.parsed().root, source.root());
    let output = tokio::task::spawn_blocking({
        let (ticket, to) = (ticket, to.path().to_owned());
        move || get(&ticket, &to, &["--json"])
    });
    let output = output.await.unwrap();
    assert_code(&output, 0);
    let (_, said) = code_of(&output);
    assert!(said.contains("going on from an earlier run"), "{said}");
    let json = events(&output).pop().unwrap();
    let number = |name: &str| json[name].as_u64().unwrap();
    assert_eq!(number("resumed_bytes"), written * CHUNK, "{json}");
    assert_eq!(number("resumed_bytes") + number("fetched_bytes"), number("bytes"));
    assert_same(from.path(), to.path());
}
