//! The real `strait get` against nodes that lie: made in this process, over loopback.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use common::command::*;
use common::*;
use strait::{Incoming, Node, Priority};
use strait_cli::net;
use strait_cli::ticket::Ticket;
use strait_cli::tree::Hash;
use strait_cli::wire::{Ask, Protocol};

/// A node that answers with whatever `answer` gives, and a ticket for it.
async fn node(root: Hash, answer: impl Fn(Ask) -> Vec<u8> + Send + Sync + 'static) -> (Node, String) {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = net::Nodes::default().start(strait_cli::keyfile::fresh().unwrap(), Some(listen)).await.unwrap();
    let answer = Arc::new(answer);
    for (protocol, request) in
        [(Protocol::Manifest, &net::MANIFEST), (Protocol::Chunk, &net::CHUNK), (Protocol::Done, &net::DONE)]
    {
        let answer = answer.clone();
        let handler = async move |incoming: Incoming| {
            let (_, ask) = Ask::decode(protocol, &incoming.body.into_bytes()).expect("get sends what can be read");
            answer(ask)
        };
        node.serve(request, Priority::Normal, handler).unwrap();
    }
    let ticket = Ticket { peer: node.peer_id(), addrs: node.listen_addrs(), root };
    (node, ticket.to_string())
}

async fn get_from(ticket: String, dir: PathBuf) -> std::process::Output {
    tokio::task::spawn_blocking(move || get(&ticket, &dir, &[])).await.unwrap()
}

/// TR-24: whatever part is a lie, nothing of it is in place.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_lies_about_content() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("top/file"), &pattern(3 << 20, 1));
    let source = Arc::new(source(&[from.path().join("top")]));
    for part in [Ask::Header, Ask::Chunk { index: 0 }, Ask::Chunk { index: 11 }] {
        let to = tempfile::tempdir().unwrap();
        let honest = source.clone();
        let answer = move |ask| {
            let mut reply = honest.answer(&ask).unwrap().to_vec();
            if ask == part {
                *reply.last_mut().unwrap() ^= 1;
            }
            reply
        };
        let (node, ticket) = node(source.root(), answer).await;
        let output = get_from(ticket, to.path().to_owned()).await;
        assert_code(&output, 6);
        assert_explained(&output);
        assert_nothing_in_place(to.path());
        node.close().await;
    }
}

/// TR-31: nothing is written outside of the target, and nothing in it.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_out() {
    let outer = tempfile::tempdir().unwrap();
    let names: [&[u8]; 6] = [b"../escape", b"..", b"/tmp/escape", b"C:\\escape", b"a\0b", b"C:"];
    for name in names {
        let crafted = Crafted::new(raw_entry(1, 0, name, 3), 1, b"abc");
        let (node, ticket) = node(crafted.root(), move |ask| crafted.answer(ask)).await;
        let target = outer.path().join("target");
        let output = get_from(ticket, target.clone()).await;
        assert_code(&output, 7);
        assert_explained(&output);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
        node.close().await;
    }
}

/// A reply above the protocol's limit, and a node that serves nothing of this.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_do_not_keep_to_the_protocol() {
    let to = tempfile::tempdir().unwrap();
    let silent = net::Nodes::default()
        .start(strait_cli::keyfile::fresh().unwrap(), Some(SocketAddr::from(([127, 0, 0, 1], 0))))
        .await
        .unwrap();
    let ticket = Ticket { peer: silent.peer_id(), addrs: silent.listen_addrs(), root: blake3::hash(b"") }.to_string();
    let output = get_from(ticket, to.path().to_owned()).await;
    assert_code(&output, 13);
    let (rude, ticket) = node(blake3::hash(b""), |_| vec![99, 1]).await;
    let output = get_from(ticket, to.path().to_owned()).await;
    assert_code(&output, 6);
    assert_nothing_in_place(to.path());
    silent.close().await;
    rude.close().await;
}

/// TR-44: a provider that leaves in the middle is waited for as long as the user says, and told of once, not for each chunk.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_leaves() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(8 << 20, 1));
    let source = Arc::new(source(&[from.path().join("file")]));
    let (reached, mut at) = tokio::sync::watch::channel(false);
    let served = source.clone();
    let answer = move |ask| {
        if ask == (Ask::Chunk { index: 20 }) {
            reached.send_replace(true);
        }
        served.answer(&ask).unwrap().to_vec()
    };
    let (node, ticket) = node(source.root(), answer).await;
    let to = tempfile::tempdir().unwrap();
    let dir = to.path().to_owned();
    // Longer than a dial may take: who is dialled while it closes may say nothing at all, and then it is told of when that dial has failed.
    let output = tokio::task::spawn_blocking(move || get(&ticket, &dir, &["--timeout", "12s"]));
    at.wait_for(|reached| *reached).await.unwrap();
    drop(node); // closes at once
    let output = output.await.unwrap();
    assert_code(&output, 15);
    assert_explained(&output);
    let (_, said) = code_of(&output);
    // Not for each of the requests that it leaves behind. It may answer once more while it closes.
    assert!((1..=3).contains(&said.matches("trying again").count()), "{said}");
    assert_nothing_in_place(to.path());
}
