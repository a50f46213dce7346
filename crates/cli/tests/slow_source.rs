//! A provider whose disk is slow: it holds a fixed number of buffers, and goes on to serve those who do not need the disk.

mod common;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use common::*;
use strait::Node;
use strait_cli::net;
use strait_cli::provider::Provider;
use strait_cli::source::ReadTap;
use strait_cli::wire::{self, Ask, open_reply};
use strait_core::Counters;

/// Reads of the disk at once, for all peers (TR-51).
const READERS: usize = 8;
/// Chunks that one peer may ask for at once (TR-03).
const AT_ONCE: u64 = 16;
const CHUNK: usize = 256 << 10;

/// A disk that is stuck until it is let go. Knows how many read from it, and how many did at most.
#[derive(Default)]
struct Stuck {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    inside: usize,
    most: usize,
    free: bool,
}

impl ReadTap for Stuck {
    fn before(&self, _: &Path) {
        let mut state = self.state.lock().unwrap();
        state.inside += 1;
        state.most = state.most.max(state.inside);
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.free).unwrap());
    }

    fn after(&self, _: &Path) {
        self.state.lock().unwrap().inside -= 1;
    }
}

impl Stuck {
    async fn inside(self: &Arc<Stuck>, count: usize) {
        let stuck = self.clone();
        let wait = move || drop(stuck.changed.wait_while(stuck.state.lock().unwrap(), |state| state.inside < count).unwrap());
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    fn let_go(&self) {
        self.state.lock().unwrap().free = true;
        self.changed.notify_all();
    }
}

/// Lets go at its end: a test that failed has to end too.
struct LetGo(Arc<Stuck>);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

async fn node() -> Node {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    net::Nodes::default().start(strait_cli::keyfile::fresh().unwrap(), Some(listen)).await.unwrap()
}

/// A node that is connected to `provider`.
async fn receiver(provider: &Node) -> Node {
    let receiver = node().await;
    net::connect(&receiver, provider.peer_id(), &provider.listen_addrs()).await.unwrap();
    receiver
}

fn received(counters: &Counters, protocol: &str) -> u64 {
    counters.protocols.get(protocol).map_or(0, |protocol| protocol.received)
}

/// TR-51, and principle B2: while the disk is stuck, the node takes turns as ever, answers what it has in memory, and holds no reply.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_source_holds_no_memory_and_no_turn() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(AT_ONCE as usize * CHUNK, 1));
    let stuck = Arc::new(Stuck::default());
    let _let_go = LetGo(stuck.clone());
    let source = source(&[from.path().join("file")]).tapped(stuck.clone());
    let (root, content) = (source.root(), source.header().content());
    let (sender, provider) = (node().await, Provider::new(source, |_| ()));
    net::serve(&sender, &provider).unwrap();

    // Two peers ask for as much as they may.
    let greedy = [receiver(&sender).await, receiver(&sender).await];
    let mut asked = tokio::task::JoinSet::new();
    for (peer, index) in greedy.iter().flat_map(|peer| (0..AT_ONCE).map(move |index| (peer.clone(), index))) {
        let to = sender.peer_id();
        asked.spawn(async move { (index, peer.request(to, &net::CHUNK, Ask::Chunk { index }.encode(&root)).await.unwrap()) });
    }
    stuck.inside(READERS).await;
    let wanted = 2 * AT_ONCE;
    while received(&sender.counters(), wire::CHUNK) < wanted {
        assert!(greedy[0].ping(sender.peer_id()).await.is_ok());
    }

    // A third one is served meanwhile, as if there were no others.
    let modest = receiver(&sender).await;
    let served = async {
        for _ in 0..100 {
            assert!(modest.ping(sender.peer_id()).await.is_ok());
            let header = modest.request(sender.peer_id(), &net::MANIFEST, Ask::Header.encode(&root)).await.unwrap();
            assert_eq!(blake3::hash(&open_reply(header.into_bytes()).unwrap()), root);
        }
    };
    let guard = std::time::Duration::from_secs(60); // only so that a fault fails the test and does not hang it
    tokio::time::timeout(guard, served).await.expect("who needs no disk waits for nobody who does");
    let (audit, counters) = (sender.audit(), sender.counters());
    assert_eq!(stuck.state.lock().unwrap().most, READERS, "all that wait for the disk but these wait without a buffer");
    assert_eq!(counters.protocols[wire::CHUNK].served, 0);
    assert!(audit.held < CHUNK as u64, "{} bytes are held while nothing was read", audit.held);
    assert!(audit.granted <= audit.budget && audit.over_cap.is_empty(), "{audit:?}");

    stuck.let_go();
    let mut whole = vec![Vec::new(); AT_ONCE as usize];
    while let Some(done) = asked.join_next().await {
        let (index, reply) = done.unwrap();
        let chunk = open_reply(reply.into_bytes()).unwrap();
        assert_eq!(chunk.len(), content.page_len(0, index).unwrap() as usize);
        whole[index as usize] = chunk.to_vec();
    }
    assert!(whole.concat() == std::fs::read(from.path().join("file")).unwrap());
    assert_eq!(stuck.state.lock().unwrap().most, READERS);
}
