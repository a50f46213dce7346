//! The demo's flooder, a process of its own: an admitted peer that sends valid requests as fast as it is let.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::exit::Failure;
use crate::keyfile;
use crate::net::{self, Nodes};
use crate::ticket::Ticket;
use crate::wire::Ask;

/// Ends by itself after so long, should nobody end it.
const MOST: Duration = Duration::from_secs(30);
/// Tasks that send, each the next as soon as the last was answered. They are more than its window of requests, so that is always full.
const SENDERS: usize = 48;

/// Floods the provider of this ticket: a third of its senders with pings, a third with requests for chunks that are there, a third with
/// requests for what is not served.
pub(super) async fn run(ticket: &str, nodes: &Nodes) -> Result<(), Failure> {
    let ticket: Ticket = ticket.parse()?;
    let node = nodes.start(keyfile::fresh()?, None).await?;
    net::connect(&node, ticket.peer, &ticket.addrs).await?;
    let end = Instant::now() + MOST;
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let (node, ticket) = (node.clone(), ticket.clone());
        let sender = async move {
            let other = blake3::hash(b"what nobody serves");
            while node.is_connected(ticket.peer) {
                let _ = match number % 3 {
                    0 => node.ping(ticket.peer).await.is_ok(),
                    1 => node.request(ticket.peer, &net::CHUNK, Ask::Chunk { index: 0 }.encode(&ticket.root)).await.is_ok(),
                    _ => node.request(ticket.peer, &net::MANIFEST, Ask::Header.encode(&other)).await.is_ok(),
                };
            }
        };
        senders.spawn(sender);
    }
    let _ = timeout_at(end, async { while senders.join_next().await.is_some() {} }).await;
    Ok(())
}
