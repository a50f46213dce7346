//! The honest peers: three that ask, one that sends in bulk, all at a modest pace.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    child::Link,
    measure::{Latencies, Percentiles},
    peers::Client,
};

/// Peers that ask, each so many times a second.
const ASKING: usize = 3;
const REQUESTS_PER_SECOND: u32 = 100;
/// The one that sends: so much, so many times a second; 5 MB/s.
const BULK_BYTES: u64 = 256 << 10;
const BULKS_PER_SECOND: u32 = 20;
/// What takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// What they got.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Times of requests, from when they were due.
    pub(crate) times: Percentiles,
    /// Requests answered.
    pub(crate) replies: u64,
    /// Bulk transfers that were acknowledged.
    pub(crate) bulks: u64,
    /// Requests and transfers that failed.
    pub(crate) errors: u64,
    /// The first error.
    pub(crate) first_error: Option<String>,
}

impl Served {
    /// Done of what was due, from 0 to 1: the smaller of both kinds.
    pub(crate) fn goodput(&self, seconds: u64) -> f64 {
        let requests = self.replies as f64 / (seconds as f64 * ASKING as f64 * f64::from(REQUESTS_PER_SECOND));
        requests.min(self.bulks as f64 / (seconds as f64 * f64::from(BULKS_PER_SECOND)))
    }
}

/// As a child process.
pub(crate) async fn run<C: Client + 'static>(mut link: Link, address: &str, seconds: u64) -> Result<()> {
    let mut clients = Vec::new();
    for at in 0..=ASKING {
        let mut client = C::connect(address).await?;
        if at < ASKING {
            client.requests(100, 1).await?;
        } else {
            client.bulk(16 << 20).await?;
        }
        clients.push(client);
    }
    link.tell("ready", &"")?;
    link.expect("go").await?;
    let mut tasks = JoinSet::new();
    for (at, client) in clients.into_iter().enumerate() {
        tasks.spawn(at_a_pace(client, at < ASKING, seconds));
    }
    let (mut served, mut times) = (Served::default(), Latencies::default());
    while let Some(done) = tasks.join_next().await {
        let (one, its_times) = done?;
        times.merge(its_times);
        served.replies += one.replies;
        served.bulks += one.bulks;
        served.errors += one.errors;
        served.first_error = served.first_error.or(one.first_error);
    }
    served.times = times.percentiles();
    link.tell("report", &served)?;
    link.expect("exit").await
}

/// One after the other. A time counts from when it was due, so that a slow one does not hide those that waited behind it.
async fn at_a_pace<C: Client>(mut client: C, asks: bool, seconds: u64) -> (Served, Latencies) {
    let per_second = if asks { REQUESTS_PER_SECOND } else { BULKS_PER_SECOND };
    let (mut served, mut times) = (Served::default(), Latencies::default());
    let mut clock = interval(Duration::from_secs(1) / per_second);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + Duration::from_secs(seconds);
    for _ in 0..seconds * u64::from(per_second) {
        let due = clock.tick().await.into_std();
        if Instant::now() >= end {
            break;
        }
        let done = if asks {
            timeout(PATIENCE, client.requests(1, 1)).await.map(|result| result.map(|_| ()))
        } else {
            timeout(PATIENCE, client.bulk(BULK_BYTES)).await
        };
        match done.unwrap_or_else(|late| Err(late.into())) {
            Ok(()) if asks => {
                served.replies += 1;
                times.push(due.elapsed());
            }
            Ok(()) => served.bulks += 1,
            Err(error) => {
                served.errors += 1;
                served.first_error.get_or_insert(format!("{error:#}"));
            }
        }
    }
    (served, times)
}
