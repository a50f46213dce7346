//! zenoh: a peer that publishes and listens, and a client session for each connection. A key expression for each key.

use std::sync::Arc;

use anyhow::{Result, anyhow};

use super::serve;
use crate::{Plan, seen::Seen};

fn config(mode: &str, endpoints: &str, at: &str) -> Result<zenoh::Config> {
    let mut config = zenoh::Config::default();
    let mut set = |key: &str, value: String| config.insert_json5(key, &value).map_err(|error| anyhow!("{key}: {error}"));
    set("mode", format!("{mode:?}"))?;
    set(endpoints, format!("[{at:?}]"))?;
    set("scouting/multicast/enabled", "false".to_owned())?;
    Ok(config)
}

pub(super) async fn publish(plan: &Plan) -> Result<()> {
    // Any free port: taken here and given back for it.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let at = format!("tcp/127.0.0.1:{port}");
    let session = zenoh::open(config("router", "listen/endpoints", &at)?).await.map_err(|error| anyhow!("{error}"))?;
    let one = |key: usize, value: [u8; 16]| {
        let session = session.clone();
        async move { session.put(format!("t/{key}"), value.to_vec()).await.map_err(|error| anyhow!("{error}")) }
    };
    serve(&at, plan, one).await
}

pub(super) async fn subscribe(at: &str, count: usize, plan: &Plan, seen: &Arc<Seen>) -> Result<Vec<zenoh::Session>> {
    let mut sessions = Vec::new();
    for connection in 0..count {
        let session = zenoh::open(config("client", "connect/endpoints", at)?).await.map_err(|error| anyhow!("{error}"))?;
        for subscription in 0..plan.subscriptions {
            let (seen, number) = (seen.clone(), connection * plan.subscriptions + subscription);
            let heard = move |sample: zenoh::sample::Sample| {
                if let Some(key) = sample.key_expr().as_str().strip_prefix("t/").and_then(|key| key.parse().ok()) {
                    seen.note(number, key, &sample.payload().to_bytes());
                }
            };
            session.declare_subscriber("t/*").callback(heard).background().await.map_err(|error| anyhow!("{error}"))?;
        }
        sessions.push(session);
    }
    Ok(sessions)
}
