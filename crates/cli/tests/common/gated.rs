//! A provider over loopback that holds chunks back until the test lets them go.
#![allow(dead_code, unreachable_pub)] // each test uses its own part

use std::net::SocketAddr;
use std::sync::Arc;

use strait::{Incoming, Node, Priority};
use strait_cli::net;
use strait_cli::source::Source;
use strait_cli::ticket::Ticket;
use strait_cli::wire::{Ask, Protocol};
use strait_core::Keypair;
use tokio::sync::watch;

/// See the module's text.
pub struct Gated {
    pub node: Node,
    pub ticket: String,
    reached: watch::Receiver<bool>,
    gate: watch::Sender<u64>,
}

impl Gated {
    /// Serves `source`, and holds back the chunks from `gate` on.
    pub async fn start(source: Arc<Source>, gate: u64, key: Option<Keypair>, listen: Option<SocketAddr>) -> Gated {
        let key = key.unwrap_or_else(|| strait_cli::keyfile::fresh().unwrap());
        let listen = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let node = net::Nodes::default().start(key, Some(listen)).await.unwrap();
        let (reach, reached) = watch::channel(false);
        let (reach, gate) = (Arc::new(reach), watch::Sender::new(gate));
        for (protocol, request) in
            [(Protocol::Manifest, &net::MANIFEST), (Protocol::Chunk, &net::CHUNK), (Protocol::Done, &net::DONE)]
        {
            let (source, reach, gate) = (source.clone(), reach.clone(), gate.subscribe());
            let handler = async move |incoming: Incoming| {
                let (_, ask) = Ask::decode(protocol, &incoming.body.into_bytes()).expect("get sends what can be read");
                if let Ask::Chunk { index } = ask {
                    let mut gate = gate.clone();
                    if index >= *gate.borrow() {
                        reach.send_replace(true);
                    }
                    let _ = gate.wait_for(|gate| index < *gate).await;
                }
                source.answer(&ask).unwrap()
            };
            node.serve(request, Priority::Normal, handler).unwrap();
        }
        let ticket = Ticket { peer: node.peer_id(), addrs: node.listen_addrs(), root: source.root() }.to_string();
        Gated { node, ticket, reached, gate }
    }

    /// Waits until a chunk is held back.
    pub async fn reached(&mut self) {
        self.reached.wait_for(|reached| *reached).await.unwrap();
    }

    /// Lets all chunks go.
    pub fn open(&self) {
        self.gate.send_replace(u64::MAX);
    }
}
