//! Ctrl-C and SIGTERM end each side with their own codes, and leave nothing half-written.
#![cfg(unix)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use common::command::*;
use common::*;
use strait::{Incoming, Priority};
use strait_cli::net;
use strait_cli::ticket::Ticket;
use strait_cli::wire::{Ask, Protocol};

#[test]
fn a_sender_ends_with_the_code_of_the_signal() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), b"text");
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let sender = Sender::start(&from.path().join("file"), &[]);
        assert_eq!(sender.signal(name), Some(code));
    }
}

/// TR-61: a receiver that is stopped in the middle leaves nothing but what the next run goes on from.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_in_the_middle_leaves_nothing_in_place() {
    let from = tempfile::tempdir().unwrap();
    write(&from.path().join("file"), &pattern(4 << 20, 1));
    let source = Arc::new(source(&[from.path().join("file")]));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let node = net::Nodes::default().start(strait_cli::keyfile::fresh().unwrap(), Some(listen)).await.unwrap();
    let (reached, mut at_the_end) = tokio::sync::watch::channel(false);
    let reached = Arc::new(reached);
    for (protocol, request) in
        [(Protocol::Manifest, &net::MANIFEST), (Protocol::Chunk, &net::CHUNK), (Protocol::Done, &net::DONE)]
    {
        let (source, reached) = (source.clone(), reached.clone());
        let handler = async move |incoming: Incoming| {
            let (_, ask) = Ask::decode(protocol, &incoming.body.into_bytes()).expect("get sends what can be read");
            if ask == (Ask::Chunk { index: 7 }) {
                reached.send_replace(true);
                std::future::pending::<()>().await; // this chunk never comes
            }
            source.answer(&ask).unwrap()
        };
        node.serve(request, Priority::Normal, handler).unwrap();
    }
    let ticket = Ticket { peer: node.peer_id(), addrs: node.listen_addrs(), root: source.root() }.to_string();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let to = tempfile::tempdir().unwrap();
        reached.send_replace(false);
        let args = ["get", &ticket, "-o", to.path().to_str().unwrap()];
        let mut child = strait(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        at_the_end.wait_for(|reached| *reached).await.unwrap();
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "the temporary folder is there");
        signal(&child, name);
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert_eq!(status.code(), Some(code));
        assert_nothing_in_place(to.path());
    }
    let _ = tokio::time::timeout(Duration::from_secs(5), node.close()).await;
}
