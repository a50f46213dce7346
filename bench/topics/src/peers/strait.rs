//! strait: a node that publishes, and a node for each connection.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use strait::{Change, Keypair, Limits, Node, Priority, Topic};

use super::serve;
use crate::{Plan, seen::Seen};

const VALUES: Topic<u32, Bytes> = Topic::latest("/bench/values/1", 100_000, 4, 16);

pub(super) async fn publish(plan: &Plan) -> Result<()> {
    // 10,000 streams at their worst case (39 KB each, if their peers were hostile) are more than the default of 512 MiB. That is granted, not held.
    let limits = Limits { memory_bytes: 2 << 30, ..Limits::default() };
    let node = Node::builder().identity(Keypair::generate_ed25519()).limits(limits).listen("127.0.0.1:0".parse()?).start().await?;
    let values = node.publisher(&VALUES, Priority::Normal)?;
    let address = node.listen_addrs().first().context("it listens")?.clone();
    let one = |key: usize, value: [u8; 16]| {
        let published = values.publish(key as u32, Bytes::copy_from_slice(&value)).map_err(anyhow::Error::from);
        std::future::ready(published)
    };
    serve(&format!("{address}/p2p/{}", node.peer_id()), plan, one).await
}

pub(super) async fn subscribe(at: &str, count: usize, plan: &Plan, seen: &Arc<Seen>) -> Result<Vec<Node>> {
    let (address, peer) = at.rsplit_once("/p2p/").context("an address with an identity")?;
    let (address, peer) = (address.parse()?, peer.parse()?);
    let mut nodes = Vec::new();
    for connection in 0..count {
        let node = Node::builder().start().await?;
        node.connect(peer, &[Clone::clone(&address)]).await?;
        for subscription in 0..plan.subscriptions {
            let mut changes = node.subscribe(peer, &VALUES);
            // The snapshot is empty: it has begun when it is whole.
            while changes.next().await? != Change::Whole {}
            let (seen, number) = (seen.clone(), connection * plan.subscriptions + subscription);
            tokio::spawn(async move {
                while let Ok(change) = changes.next().await {
                    if let Change::Put(key, value) = change {
                        seen.note(number, key as usize, &value);
                    }
                }
            });
        }
        nodes.push(node);
    }
    Ok(nodes)
}
