//! One honest client beside a flooding one, over real sockets, with strait at all ends.
//!
//! On one machine a flooder takes CPU from the server by merely running, which a remote one does not. So there is a situation
//! beside a process that burns a core and sends nothing; a flooder has one thread, too. And each situation is run twice: once as the
//! system's scheduler shares two or three cores between three processes, and once (where permitted) apart: the server has a core for itself
//! and one thread, and the honest client runs ahead of the flooder on the other. In the second, what is left between the rows is what the
//! packets do. The flooder comes in two kinds. One fills the windows that the server declares and nothing more: that is the
//! most that the server will work for one peer. The other opens far more at once than it may: the server lets all of that wait.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    child::{Link, Role},
    measure::{Latencies, Percentiles, Side},
    pair::{Place, Process},
    peers::{Client, strait::Strait},
    plan::{Case, Sizes},
    stack::Stack,
};

/// Requests per second of the honest client: far below what it may ask for.
const HONEST_RATE: u32 = 500;
/// Tasks of the flooder, each in an endless loop of requests, small streams, or bulk.
const FLOOD_REQUESTS: usize = 1024;
const FLOOD_OPENS: usize = 256;
const FLOOD_BULK: usize = 16;
/// How many situations there are.
const SITUATIONS: usize = 4;

/// One round of all situations.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FloodRecord {
    /// Whether the server had a core for itself and the honest client went ahead of the disturber on the other.
    pub(crate) apart: bool,
    /// The honest client's times, in the order of [`FloodRecord::SITUATIONS`].
    pub(crate) times: [Percentiles; SITUATIONS],
    /// What the disturber got done meanwhile: without it, nobody knows that there was a flood.
    pub(crate) disturber: [Flooded; SITUATIONS],
    /// Cost to the server in each situation, while the honest client measured.
    pub(crate) server: [Side; SITUATIONS],
    /// How long that was, in seconds.
    pub(crate) wall: [f64; SITUATIONS],
}

impl FloodRecord {
    /// The situations.
    pub(crate) const SITUATIONS: [&'static str; SITUATIONS] = [
        "alone",
        "beside a process that burns a core",
        "beside a flooder that keeps to its windows",
        "beside a flooder that does not",
    ];

    /// How many processor cores the server kept busy.
    pub(crate) fn cores(&self, situation: usize) -> f64 {
        self.server[situation].cpu.total() / self.wall[situation].max(f64::MIN_POSITIVE)
    }
}

/// What a flooder did, by its own count.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Flooded {
    seconds: f64,
    requests_answered: u64,
    requests_failed: u64,
    streams_opened: u64,
    opens_failed: u64,
    bulk_mib: u64,
    first_error: Option<String>,
}

/// Runs each situation once.
pub(crate) fn round(sizes: &Sizes, apart: bool) -> Result<FloodRecord> {
    let places = if apart { [Place::Own, Place::First, Place::Last] } else { [Place::Anywhere; 3] };
    // One core, one thread: what a server on a machine of its own would have by default.
    let stack = if apart { Stack::StraitCurrent } else { Stack::Strait };
    let mut record = FloodRecord {
        apart,
        times: Default::default(),
        disturber: Default::default(),
        server: Default::default(),
        wall: Default::default(),
    };
    for (index, disturber) in [None, Some(Role::Burner), Some(Role::Flooder), Some(Role::UnboundFlooder)].into_iter().enumerate()
    {
        let mut server = Process::start_at(places[0], Role::Server, stack, Case::Flood, &[])?;
        let address: String = server.answer("ready")?;
        let seconds = sizes.flood_seconds.to_string();
        let more = ["--address", &address, "--seconds", &seconds];
        let mut honest = Process::start_at(places[1], Role::Honest, stack, Case::Flood, &more)?;
        let _: String = honest.answer("ready")?;
        let mut disturber =
            disturber.map(|role| Process::start_at(places[2], role, Stack::StraitCurrent, Case::Flood, &more)).transpose()?;
        if let Some(disturber) = &mut disturber {
            let _: String = disturber.answer("ready")?;
            disturber.order("go")?;
            // Let it come up to speed: the start of a flood is not what is measured.
            std::thread::sleep(Duration::from_millis(500));
        }
        server.order("mark")?;
        server.answer::<()>("marked")?;
        let begun = Instant::now();
        honest.order("go")?;
        record.times[index] = honest.answer("report")?;
        server.order("report")?;
        record.server[index] = server.answer("report")?;
        record.wall[index] = begun.elapsed().as_secs_f64();
        if let Some(disturber) = &mut disturber {
            disturber.order("report")?;
            record.disturber[index] = disturber.answer("report")?;
        }
        eprintln!(
            "flood{}, {}: honest p50 {:.0} us, p99 {:.0} us; server {:.2} cores",
            if apart { " (apart)" } else { "" },
            FloodRecord::SITUATIONS[index],
            record.times[index].p50,
            record.times[index].p99,
            record.cores(index),
        );
    }
    Ok(record)
}

/// Requests at a fixed rate. Each is a task of its own, so that a slow one does not make the next one late and
/// thereby hide how slow it was.
pub(crate) async fn honest(mut link: Link, address: &str, seconds: u64) -> Result<()> {
    let mut client = Strait::connect(address).await?;
    client.requests(500, 1).await?;
    let client = Arc::new(client);
    link.tell("ready", &"")?;
    link.expect("go").await?;
    let mut clock = tokio::time::interval(Duration::from_secs(1) / HONEST_RATE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut open = JoinSet::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        clock.tick().await;
        let client = Arc::clone(&client);
        open.spawn(async move {
            let start = Instant::now();
            client.one(false).await.map(|()| start.elapsed())
        });
    }
    let mut times = Latencies::default();
    while let Some(time) = open.join_next().await {
        times.push(time??);
    }
    link.tell("report", &times.percentiles())?;
    link.expect("exit").await
}

#[derive(Default)]
struct Counts {
    requests_answered: AtomicU64,
    requests_failed: AtomicU64,
    streams_opened: AtomicU64,
    opens_failed: AtomicU64,
    bulk_bytes: AtomicU64,
    first_error: OnceLock<String>,
}

impl Counts {
    async fn count(&self, result: Result<()>, good: &AtomicU64, bad: &AtomicU64) {
        let Err(error) = result else {
            good.fetch_add(1, Relaxed);
            return;
        };
        bad.fetch_add(1, Relaxed);
        self.first_error.get_or_init(|| format!("{error:#}"));
        // An error that comes at once must not starve this process's own runtime.
        tokio::task::yield_now().await;
    }
}

/// Everything at once, as fast as it goes; `unbound` = past the windows that the server declares.
pub(crate) async fn flooder(mut link: Link, address: &str, unbound: bool) -> Result<()> {
    let client = Arc::new(Strait::connect(address).await?);
    let counts = Arc::new(Counts::default());
    link.tell("ready", &"")?;
    link.expect("go").await?;
    let start = Instant::now();
    for _ in 0..FLOOD_REQUESTS {
        let (client, counts) = (Arc::clone(&client), Arc::clone(&counts));
        tokio::spawn(async move {
            loop {
                let result = client.one(unbound).await;
                counts.count(result, &counts.requests_answered, &counts.requests_failed).await;
            }
        });
    }
    for index in 0..FLOOD_OPENS + FLOOD_BULK {
        let (client, counts) = (Arc::clone(&client), Arc::clone(&counts));
        tokio::spawn(async move {
            loop {
                let result = client.push(index < FLOOD_OPENS, unbound, &counts.bulk_bytes).await;
                counts.count(result, &counts.streams_opened, &counts.opens_failed).await;
            }
        });
    }
    link.expect("report").await?;
    let flooded = Flooded {
        seconds: start.elapsed().as_secs_f64(),
        requests_answered: counts.requests_answered.load(Relaxed),
        requests_failed: counts.requests_failed.load(Relaxed),
        streams_opened: counts.streams_opened.load(Relaxed),
        opens_failed: counts.opens_failed.load(Relaxed),
        bulk_mib: counts.bulk_bytes.load(Relaxed) >> 20,
        first_error: counts.first_error.get().cloned(),
    };
    link.tell("report", &flooded)?;
    link.expect("exit").await
}

/// Sends nothing, burns one core.
pub(crate) async fn burner(mut link: Link) -> Result<()> {
    link.tell("ready", &"")?;
    link.expect("go").await?;
    std::thread::spawn(|| {
        let mut sum = 0u64;
        loop {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    });
    link.expect("report").await?;
    link.tell("report", &Flooded::default())?;
    link.expect("exit").await
}
