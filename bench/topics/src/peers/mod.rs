//! The two roles, for each stack. They talk to the orchestrator in lines: it says `go` and `end N` on stdin, they say `ready ADDRESS` and at last their
//! figures on stdout.

#[cfg(feature = "nats")]
mod nats;
mod strait;
#[cfg(feature = "zenoh")]
mod zenoh;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use crate::seen::{Seen, cpu_seconds, key_of, value};
use crate::{Plan, Stack};

/// After the last change subscribers have so long to catch up, and are through when nothing has come for so long.
const CATCH_UP: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(3);

type Commands = Lines<BufReader<Stdin>>;

fn commands() -> Commands {
    BufReader::new(tokio::io::stdin()).lines()
}

async fn command(from: &mut Commands, word: &str) -> Result<String> {
    let line = from.next_line().await?.context("the orchestrator is gone")?;
    let rest = line.strip_prefix(word).with_context(|| format!("{word} was expected, and {line} came"))?;
    Ok(rest.trim().to_owned())
}

/// Publishes changes at the plan's rate. `one` publishes one; it may wait, and then the rate falls.
async fn changes<F: Future<Output = Result<()>>>(plan: &Plan, mut one: impl FnMut(usize, [u8; 16]) -> F) -> Result<u64> {
    let (begin, mut number) = (Instant::now(), 0u64);
    while begin.elapsed() < Duration::from_secs(plan.seconds) {
        let due = (begin.elapsed().as_secs_f64() * plan.rate as f64) as u64;
        while number < due {
            one(key_of(number, plan.keys), value(number)).await?;
            number += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(number)
}

pub async fn publish(stack: Stack, at: &str, plan: &Plan) -> Result<()> {
    match stack {
        Stack::Strait => strait::publish(plan).await,
        #[cfg(feature = "nats")]
        Stack::Nats => nats::publish(at, plan).await,
        #[cfg(feature = "zenoh")]
        Stack::Zenoh => zenoh::publish(plan).await,
        #[allow(unreachable_patterns)]
        _ => bail!("this was built without {stack:?} (at {at})"),
    }
}

/// Says that it publishes at this address, waits for `go`, publishes, and tells figures.
async fn serve<F: Future<Output = Result<()>>>(address: &str, plan: &Plan, one: impl FnMut(usize, [u8; 16]) -> F) -> Result<()> {
    let mut from = commands();
    println!("ready {address}");
    command(&mut from, "go").await?;
    let before = cpu_seconds();
    let changes = changes(plan, one).await?;
    println!("{}", json!({"changes": changes, "cpu_seconds": cpu_seconds() - before}));
    command(&mut from, "end").await?;
    println!("{}", json!({"cpu_seconds": cpu_seconds() - before}));
    Ok(())
}

pub async fn subscribe(stack: Stack, at: &str, count: usize, plan: &Plan) -> Result<()> {
    let seen = Arc::new(Seen::new(count * plan.subscriptions, plan.keys));
    // Kept to the end: dropping it ends the subscriptions.
    let _held: Box<dyn std::any::Any> = match stack {
        Stack::Strait => Box::new(strait::subscribe(at, count, plan, &seen).await?),
        #[cfg(feature = "nats")]
        Stack::Nats => Box::new(nats::subscribe(at, count, plan, &seen).await?),
        #[cfg(feature = "zenoh")]
        Stack::Zenoh => Box::new(zenoh::subscribe(at, count, plan, &seen).await?),
        #[allow(unreachable_patterns)]
        _ => bail!("this was built without {stack:?}"),
    };
    let mut from = commands();
    println!("ready");
    let changes: u64 = command(&mut from, "end").await?.parse()?;
    let begin = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    while begin.elapsed() < CATCH_UP && since.elapsed() < QUIET {
        let now = seen.updates.load(Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{}", serde_json::to_string(&seen.found(changes, plan.keys))?);
    Ok(())
}
