//! One side of a pair, as a process of its own. It takes orders as lines on stdin and answers with lines
//! `<tag> <json>` on stdout, so that the orchestrator decides when the measured part begins and ends.

use std::{io::BufRead, time::Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    flood,
    measure::{Driver, Latencies, Mark, Percentiles, Side},
    peers::{self, Client, Serving, libp2p::Libp2p, quinn::Quinn, strait::Strait},
    plan::Case,
    siege,
    stack::Stack,
};

/// What a child process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Serves a case.
    Server,
    /// Runs a case against a server.
    Client,
    /// Makes modest requests at a fixed rate and measures them.
    Honest,
    /// Sends as much as it can within the windows that the server declares.
    Flooder,
    /// Opens far more at once than the server's windows, and sends as much as it can.
    UnboundFlooder,
    /// Makes requests and bulk transfers at a fixed pace beside attackers.
    Defended,
    /// Attacks with raw bytes.
    Besieger,
    /// Sends nothing and burns one core: what a flooder on the same machine costs by its CPU alone.
    Burner,
}

/// Arguments of a child process.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    role: Role,
    #[arg(long)]
    stack: Stack,
    /// The case, as JSON.
    #[arg(long)]
    case: String,
    /// Where the server is, in whatever form its stack printed it.
    #[arg(long, default_value = "")]
    address: String,
    /// How long an honest client measures, in seconds.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// What a besieger does.
    #[arg(long, default_value = "pings")]
    attack: strait_adversary::Attack,
    /// How many attackers a besieger is.
    #[arg(long, default_value_t = 1)]
    attackers: usize,
    /// Datagrams per second of all attackers together.
    #[arg(long, default_value_t = 1)]
    rate: u32,
}

/// What a client tells after the measured part.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What it cost the client.
    pub(crate) side: Side,
    /// Seconds from the first byte to the last reply.
    pub(crate) wall: f64,
    /// Times of single requests; zeros in the bulk case.
    pub(crate) times: Percentiles,
}

/// Runs the role under the runtime that the stack's name asks for.
pub(crate) fn run(args: Args) -> Result<()> {
    // The idle case wants a socket for each connection. Where that is not permitted, the case says so when it fails.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let mut builder = if args.stack.current_thread() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    // `worker_threads` means nothing to a current-thread runtime.
    let runtime = builder.worker_threads(2).enable_all().build()?;
    // Spawned, because the future given to `block_on` would run on a third thread.
    runtime.block_on(async { tokio::spawn(role(args)).await? })
}

async fn role(args: Args) -> Result<()> {
    let case: Case = serde_json::from_str(&args.case)?;
    let link = Link::new();
    match args.role {
        Role::Server => serve(link, args.stack, case).await,
        Role::Client => connect(link, args.stack, case, &args.address).await,
        Role::Honest => flood::honest(link, &args.address, args.seconds).await,
        Role::Flooder => flood::flooder(link, &args.address, false).await,
        Role::UnboundFlooder => flood::flooder(link, &args.address, true).await,
        Role::Defended => match args.stack {
            Stack::Libp2p => siege::honest::run::<Libp2p>(link, &args.address, args.seconds).await,
            _ => siege::honest::run::<Strait>(link, &args.address, args.seconds).await,
        },
        Role::Besieger => siege::attacker::run(link, &args.address, args.attack, args.attackers, args.rate).await,
        Role::Burner => flood::burner(link).await,
    }
}

async fn serve(link: Link, stack: Stack, case: Case) -> Result<()> {
    match stack {
        Stack::Strait | Stack::StraitCurrent | Stack::StraitScraped | Stack::StraitTls | Stack::StraitNoise => {
            server(link, peers::strait::serve(stack, case).await?).await
        }
        Stack::Quinn | Stack::QuinnCurrent => server(link, peers::quinn::serve(case).await?).await,
        #[cfg(feature = "noq")]
        Stack::Noq | Stack::NoqCurrent => server(link, peers::noq::serve(case).await?).await,
        #[cfg(feature = "s2n-quic")]
        Stack::S2n | Stack::S2nCurrent => server(link, peers::s2n::serve(case).await?).await,
        Stack::Libp2p | Stack::Libp2pTls | Stack::Libp2pNoise => server(link, peers::libp2p::serve(stack, case).await?).await,
        #[cfg(feature = "litep2p")]
        Stack::Litep2pNoise => server(link, peers::litep2p::serve().await?).await,
        #[cfg(feature = "tcp-tls")]
        Stack::TcpTls | Stack::TcpTlsCurrent => server(link, peers::tcp_tls::serve(case).await?).await,
    }
}

async fn connect(link: Link, stack: Stack, case: Case, address: &str) -> Result<()> {
    match stack {
        Stack::Strait | Stack::StraitCurrent | Stack::StraitScraped | Stack::StraitTls | Stack::StraitNoise => {
            client::<Strait>(link, case, address).await
        }
        Stack::Quinn | Stack::QuinnCurrent => client::<Quinn>(link, case, address).await,
        #[cfg(feature = "noq")]
        Stack::Noq | Stack::NoqCurrent => client::<peers::noq::Noq>(link, case, address).await,
        #[cfg(feature = "s2n-quic")]
        Stack::S2n | Stack::S2nCurrent => client::<peers::s2n::S2n>(link, case, address).await,
        Stack::Libp2p | Stack::Libp2pTls | Stack::Libp2pNoise => client::<Libp2p>(link, case, address).await,
        #[cfg(feature = "litep2p")]
        Stack::Litep2pNoise => client::<peers::litep2p::Litep2p>(link, case, address).await,
        #[cfg(feature = "tcp-tls")]
        Stack::TcpTls | Stack::TcpTlsCurrent => client::<peers::tcp_tls::TcpTls>(link, case, address).await,
    }
}

async fn server<K: Serving>(mut link: Link, (address, serving): (String, K)) -> Result<()> {
    link.tell("ready", &address)?;
    link.expect("mark").await?;
    let mark = Mark::now(serving.driver())?;
    link.tell("marked", &())?;
    link.expect("report").await?;
    link.tell("report", &Side::since(mark, serving.driver())?)?;
    link.expect("exit").await
}

/// What comes of the measured part is held until all accounts are taken, so that its end is not part of it.
async fn client<C: Client>(mut link: Link, case: Case, address: &str) -> Result<()> {
    match case {
        Case::Handshakes { count, at_once } => {
            let mut clients = Vec::with_capacity(at_once);
            for _ in 0..at_once {
                clients.push(C::connect(address).await?);
            }
            let begun = Begun::when_told(&mut link, None).await?;
            let (_clients, times) = peers::within(peers::handshakes(clients, count)).await?;
            begun.end(link, times, None).await
        }
        Case::Idle { connections } => {
            let mut first = C::connect(address).await?;
            let begun = Begun::when_told(&mut link, None).await?;
            let _clients = peers::within(peers::idle(&mut first, connections)).await?;
            begun.end(link, Latencies::default(), None).await
        }
        _ => {
            let mut client = C::connect(address).await?;
            if let Some(case) = peers::warm_up(case) {
                peers::run(&mut client, case).await?;
            }
            let begun = Begun::when_told(&mut link, client.driver()).await?;
            let times = peers::run(&mut client, case).await?;
            begun.end(link, times, client.driver()).await
        }
    }
}

/// The beginning of a client's measured part.
struct Begun {
    mark: Mark,
    at: Instant,
}

impl Begun {
    /// When the orchestrator says so.
    async fn when_told(link: &mut Link, driver: Option<Driver>) -> Result<Begun> {
        link.tell("ready", &"")?;
        link.expect("go").await?;
        Ok(Begun { mark: Mark::now(driver)?, at: Instant::now() })
    }

    /// Tells the account, and waits until the other side's is taken too.
    async fn end(self, mut link: Link, times: Latencies, driver: Option<Driver>) -> Result<()> {
        let (wall, side) = (self.at.elapsed().as_secs_f64(), Side::since(self.mark, driver)?);
        link.tell("report", &Outcome { wall, side, times: times.percentiles() })?;
        link.expect("exit").await
    }
}

/// The pipes to the orchestrator.
pub(crate) struct Link {
    orders: mpsc::Receiver<String>,
}

impl Link {
    fn new() -> Link {
        let (sender, orders) = mpsc::channel(4);
        // A thread that sleeps in `read` costs nothing in the measured part.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Link { orders }
    }

    /// Waits for `order`; any other, or the end of the orchestrator, is an error.
    pub(crate) async fn expect(&mut self, order: &str) -> Result<()> {
        let found = self.orders.recv().await.context("the orchestrator is gone")?;
        if found != order {
            bail!("expected the order {order:?}, got {found:?}");
        }
        Ok(())
    }

    /// Tells the orchestrator `value` under `tag`.
    pub(crate) fn tell(&self, tag: &str, value: &impl Serialize) -> Result<()> {
        println!("{tag} {}", serde_json::to_string(value)?);
        Ok(())
    }
}
