//! All attackers, as one process and one thread: bots of `strait-adversary` on UDP sockets.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use strait_adversary::{Attack, Bot, Out, Target};

use crate::{child::Link, measure::Cpu, plan::MESSAGE_BYTES};

/// What the node under attack serves, of either stack.
const TARGET: Target =
    Target { request: "/strait-bench/request/1", request_bytes_max: MESSAGE_BYTES, pipe: "/strait-bench/bulk/1" };
/// Sockets of all attackers together, below the usual limit of descriptors.
const SOCKETS_MAX: usize = 900;
/// The pause between two ticks.
const TICK: Duration = Duration::from_millis(1);

/// What the attackers did in the measured time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Datagrams sent.
    pub(crate) datagrams: u64,
    /// Handshakes that were confirmed, from the start on.
    pub(crate) opened: u64,
    /// Connections that the node ended, from the start on.
    pub(crate) ended: u64,
    /// CPU seconds.
    pub(crate) cpu: f64,
}

/// As a child process.
pub(crate) async fn run(mut link: Link, address: &str, attack: Attack, attackers: usize, rate: u32) -> Result<()> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(address)?));
    let mut camp = Camp::new(to, attack, attackers, rate)?;
    link.tell("ready", &"")?;
    link.expect("go").await?;
    let (stop, marked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (stops, marks) = (stop.clone(), marked.clone());
    let attack = std::thread::spawn(move || camp.attack(&stops, &marks));
    link.expect("mark").await?;
    marked.store(true, Relaxed);
    link.expect("report").await?;
    stop.store(true, Relaxed);
    let done = attack.join().ok().context("the attackers have panicked")??;
    link.tell("report", &done)?;
    link.expect("exit").await
}

/// The UDP port in whatever a server printed.
fn port(address: &str) -> Result<u16> {
    let (_, rest) = address.split_once("/udp/").context("no UDP address")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().context("no port")
}

/// One attacker.
struct Raider {
    bot: Bot,
    sockets: BTreeMap<u16, UdpSocket>,
    /// Datagrams that it may send now.
    may: f64,
}

struct Camp {
    to: SocketAddr,
    attack: Attack,
    raiders: Vec<Raider>,
    rate: f64,
    sources: u16,
}

impl Camp {
    fn new(to: SocketAddr, attack: Attack, attackers: usize, rate: u32) -> Result<Camp> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let raiders = (0..attackers)
            .map(|number| {
                let bot = Bot::new(attack, number as u64 + 1, provider.clone(), TARGET);
                Ok(Raider { bot, sockets: BTreeMap::from([(0, socket()?)]), may: 0.0 })
            })
            .collect::<Result<_>>()?;
        let sources = (SOCKETS_MAX / attackers).clamp(1, 256) as u16;
        Ok(Camp { to, attack, raiders, rate: f64::from(rate) / attackers as f64, sources })
    }

    fn attack(&mut self, stop: &AtomicBool, marked: &AtomicBool) -> Result<Done> {
        let start = Instant::now();
        let (mut last, mut from) = (start, None);
        while !stop.load(Relaxed) {
            if from.is_none() && marked.load(Relaxed) {
                from = Some((Cpu::now()?, self.sum().datagrams));
            }
            let now = Instant::now();
            let passed = (now - last).as_secs_f64();
            last = now;
            for raider in &mut self.raiders {
                // What the machine gave no time for is not made up for.
                raider.may = (raider.may + passed * self.rate).min(64.0);
                raider.tick(now - start, self.to, self.attack, self.sources)?;
            }
            std::thread::sleep(TICK.saturating_sub(now.elapsed()));
        }
        let (cpu, before) = from.context("never marked")?;
        let all = self.sum();
        Ok(Done { datagrams: all.datagrams - before, cpu: Cpu::now()?.since(cpu).total(), ..all })
    }

    fn sum(&self) -> Done {
        let mut all = Done::default();
        for raider in &self.raiders {
            let told = raider.bot.told();
            all.datagrams += told.datagrams;
            all.opened += told.opened;
            all.ended += told.ended;
        }
        all
    }
}

impl Raider {
    fn tick(&mut self, now: Duration, to: SocketAddr, attack: Attack, sources: u16) -> Result<()> {
        let mut buffer = [0; 2048];
        for (source, socket) in &self.sockets {
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((len, _)) => self.bot.receive(now, *source, &buffer[..len]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // An ICMP message about an earlier datagram: the node may be gone.
                    Err(_) => {}
                }
            }
        }
        let budget = self.may as usize;
        let out = self.bot.tick(now, budget);
        self.may -= out.len().min(budget) as f64;
        for Out { source, bytes } in out {
            let source = match attack {
                // Its addresses are its connections: none stands for another.
                Attack::Squat if source > sources => continue,
                Attack::Squat => source,
                _ if source == 0 => 0,
                _ => 1 + (source - 1) % sources,
            };
            let socket = match self.sockets.entry(source) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => place.insert(socket()?),
            };
            // A full buffer is loss.
            let _ = socket.send_to(&bytes, to);
        }
        Ok(())
    }
}

fn socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding an attacker's socket")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
