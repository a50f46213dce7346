//! A receiver whose disk is slow: what it holds is bounded however much there is to fetch, and the provider is slowed.

mod common;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use common::*;
use strait::Node;
use strait_cli::net::{self, Far};
use strait_cli::place::{Op, Tap, Target};
use strait_cli::progress::Progress;
use strait_cli::provider::Provider;
use strait_cli::ticket::Ticket;
use strait_cli::wire;

/// Chunks that a receiver holds at once, on the network or waiting for the disk (TR-66).
const HELD_MAX: u64 = 24;
const CHUNK: u64 = 256 << 10;

/// The slowest disk that there can be: it writes a chunk only when all that may be asked for meanwhile was asked for, and has come.
struct Slowest {
    sender: Node,
    receiver: OnceLock<Node>,
    chunks: u64,
    written: AtomicU64,
    /// The most chunks that had left the provider and were not written, and the most bytes that the receiver's node held.
    most: AtomicU64,
    held: AtomicU64,
}

impl Slowest {
    fn served(&self) -> u64 {
        self.sender.counters().protocols.get(wire::CHUNK).map_or(0, |chunk| chunk.served)
    }
}

impl Tap for Slowest {
    fn before(&self, op: Op<'_>) -> io::Result<()> {
        let Op::Write(path, ..) = op else { return Ok(()) };
        if !path.ends_with("file") {
            return Ok(()); // the journal
        }
        loop {
            let (served, written) = (self.served(), self.written.load(Ordering::SeqCst));
            self.most.fetch_max(served.saturating_sub(written), Ordering::SeqCst);
            if let Some(receiver) = self.receiver.get() {
                let audit = receiver.audit();
                assert!(audit.granted <= audit.budget && audit.over_cap.is_empty(), "{audit:?}");
                self.held.fetch_max(audit.held, Ordering::SeqCst);
            }
            if served >= self.chunks.min(written + HELD_MAX) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn after(&self, op: Op<'_>) {
        if matches!(op, Op::Write(path, ..) if path.ends_with("file")) {
            self.written.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Fetches a file of so many chunks onto the slowest disk. Gives the most chunks that were out, and the most bytes held by the node.
async fn fetch(chunks: u64) -> (u64, u64) {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(&from.path().join("file"), &pattern((chunks * CHUNK) as usize, chunks));
    let start = || async {
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        net::Nodes::default().start(strait_cli::keyfile::fresh().unwrap(), Some(listen)).await.unwrap()
    };
    let (sender, receiver) = (start().await, start().await);
    let provider = Provider::new(source(&[from.path().join("file")]), |_| ());
    net::serve(&sender, &provider).unwrap();
    let ticket = Ticket { peer: sender.peer_id(), addrs: sender.listen_addrs(), root: provider.root() };
    let progress = Arc::new(Progress::new(true));
    let (written, most, held) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let slowest = Arc::new(Slowest { sender, receiver: OnceLock::from(receiver.clone()), chunks, written, most, held });
    let target = Target { tap: Some(slowest.clone()), ..Target::new(to.path()) };
    let far = Far::new(receiver, ticket, progress.clone());
    let outcome = strait_cli::fetch::get(Arc::new(far), provider.root(), target, &progress).await.unwrap();
    assert_eq!(outcome.fetched_chunks, chunks);
    assert_same(from.path(), to.path());
    (slowest.most.load(Ordering::SeqCst), slowest.held.load(Ordering::SeqCst))
}

/// TR-66, and principle B2: as many chunks as may be held are out at once, never more, and no more for a file of four times the size.
#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_beside_a_slow_disk() {
    for chunks in [2 * HELD_MAX, 8 * HELD_MAX] {
        let (most, held) = fetch(chunks).await;
        assert_eq!(most, HELD_MAX, "{chunks} chunks");
        // What has come is handed on at once, and waits for the disk beside the node.
        assert!(held <= HELD_MAX * (CHUNK + 1) * strait_core::Message::HELD_FACTOR, "{chunks} chunks: {held} bytes");
    }
}
