//! NATS: nats-server with its defaults, a client that publishes, and a client for each connection. A subject for each key.

use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;

use super::serve;
use crate::{Plan, seen::Seen};

pub(super) async fn publish(at: &str, plan: &Plan) -> Result<()> {
    let client = async_nats::connect(at).await?;
    let one = |key: usize, value: [u8; 16]| {
        let client = client.clone();
        async move { Ok(client.publish(format!("t.{key}"), Bytes::copy_from_slice(&value)).await?) }
    };
    serve(at, plan, one).await?;
    Ok(client.flush().await?)
}

pub(super) async fn subscribe(at: &str, count: usize, plan: &Plan, seen: &Arc<Seen>) -> Result<Vec<async_nats::Client>> {
    let mut clients = Vec::new();
    for connection in 0..count {
        let client = async_nats::connect(at).await?;
        for subscription in 0..plan.subscriptions {
            let mut messages = client.subscribe("t.*").await?;
            let (seen, number) = (seen.clone(), connection * plan.subscriptions + subscription);
            tokio::spawn(async move {
                while let Some(message) = messages.next().await {
                    if let Some(key) = message.subject.strip_prefix("t.").and_then(|key| key.parse().ok()) {
                        seen.note(number, key, &message.payload);
                    }
                }
            });
        }
        client.flush().await?;
        clients.push(client);
    }
    Ok(clients)
}
