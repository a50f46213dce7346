//! A siege over real sockets: one node, a few honest peers with modest wishes, and attackers that write raw bytes.
//!
//! All run on this machine, so the attackers also take processor time from the node by merely running. They are niced to the end, send
//! at a bounded rate, and what is told are ratios to the same without attackers, run just before. What remains is an upper bound of the
//! harm: a remote attacker would not share the node's cores.

pub(crate) mod attacker;
pub(crate) mod honest;

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use serde::Serialize;
use strait_adversary::Attack;

use self::{attacker::Done, honest::Served};
use crate::{
    child::Role,
    measure::Side,
    pair::{Place, Process},
    plan::Case,
    stack::Stack,
};

/// With `--quick`: one of each family that costs the most in its own way.
const QUICK: &[Attack] = &[
    Attack::SpoofedInitials,
    Attack::BadCoalesced,
    Attack::Reflection,
    Attack::RsaBurn,
    Attack::Churn,
    Attack::TinyFrames,
    Attack::Pings,
    Attack::PathChallenges,
    Attack::AckRanges,
    Attack::Gaps,
    Attack::Migration,
    Attack::Giant,
    Attack::RapidReset,
    Attack::ZeroWindow,
    Attack::Proposals,
    Attack::Requests,
];

/// Arguments of `siege`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sixteen attacks, sixteen attackers, 2 s each: about four minutes.
    #[arg(long)]
    quick: bool,
    /// How many attackers at once [default: 1,16,64].
    #[arg(long, value_delimiter = ',')]
    attackers: Vec<usize>,
    /// Which attacks [default: all].
    #[arg(long, value_delimiter = ',')]
    attacks: Vec<Attack>,
    /// Against which stacks.
    #[arg(long, value_delimiter = ',', default_values_t = [Stack::Strait, Stack::Libp2p])]
    stacks: Vec<Stack>,
    /// How long is measured, in seconds [default: 5].
    #[arg(long)]
    seconds: Option<u64>,
    /// Datagrams per second of all attackers together, at most.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// The node has a core for itself, as beside attackers on other machines; the honest peers are ahead of the attackers on the second. Needs two
    /// cores and the permission to set processes apart.
    #[arg(long)]
    apart: bool,
    /// Print one JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// One siege beside the same without attackers.
#[derive(Debug, Clone, Serialize)]
struct Siege {
    attack: &'static str,
    attackers: usize,
    stack: Stack,
    seconds: u64,
    alone: Served,
    besieged: Served,
    alone_node: Side,
    node: Side,
    attack_done: Done,
}

/// Runs all sieges, strait and rust-libp2p in turns.
pub(crate) fn run(args: &Args) -> Result<()> {
    let or = |given: &[Attack], default: &[Attack]| if given.is_empty() { default.to_vec() } else { given.to_vec() };
    let attacks = or(&args.attacks, if args.quick { QUICK } else { Attack::ALL });
    let counts = match args.attackers.as_slice() {
        [] if args.quick => vec![16],
        [] => vec![1, 16, 64],
        given => given.iter().map(|count| (*count).clamp(1, 500)).collect(),
    };
    ensure!(!args.apart || Place::can_be_chosen(), "processes cannot be set apart here: it takes two cores and CAP_SYS_NICE");
    let seconds = args.seconds.unwrap_or(if args.quick { 2 } else { 5 }).max(1);
    let mut sieges = Vec::new();
    if !args.json {
        println!("{}", head());
    }
    for attack in attacks {
        for stack in &args.stacks {
            let (alone, alone_node, _) = one(*stack, seconds, args.apart, None)?;
            for attackers in &counts {
                let (besieged, node, attack_done) = one(*stack, seconds, args.apart, Some((attack, *attackers, args.rate)))?;
                let siege = Siege {
                    attack: attack.name(),
                    attackers: *attackers,
                    stack: *stack,
                    seconds,
                    alone: alone.clone(),
                    besieged,
                    alone_node,
                    node,
                    attack_done,
                };
                if args.json {
                    eprintln!("{}", siege.row());
                } else {
                    println!("{}", siege.row());
                }
                sieges.push(siege);
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&sieges)?);
    }
    Ok(())
}

/// Once, with attackers or without.
fn one(stack: Stack, seconds: u64, apart: bool, siege: Option<(Attack, usize, u32)>) -> Result<(Served, Side, Done)> {
    let places = if apart { [Place::Own, Place::First, Place::Last] } else { [Place::Anywhere, Place::Anywhere, Place::Behind] };
    // One core, one thread: what a server on a machine of its own would have by default.
    let served_by = if apart && stack == Stack::Strait { Stack::StraitCurrent } else { stack };
    let mut node = Process::start_at(places[0], Role::Server, served_by, Case::Flood, &[])?;
    let address: String = node.answer("ready")?;
    let time = seconds.to_string();
    let mut honest =
        Process::start_at(places[1], Role::Defended, stack, Case::Flood, &["--address", &address, "--seconds", &time])?;
    let _: String = honest.answer("ready")?;
    let mut attackers = match siege {
        None => None,
        Some((attack, count, rate)) => {
            let (count, rate) = (count.to_string(), rate.to_string());
            let more = ["--address", &address, "--attack", attack.name(), "--attackers", &count, "--rate", &rate];
            let mut process = Process::start_at(places[2], Role::Besieger, stack, Case::Flood, &more)?;
            let _: String = process.answer("ready")?;
            process.order("go")?;
            // Their handshakes, and the time to come up to speed.
            sleep(Duration::from_millis(700));
            process.order("mark")?;
            Some(process)
        }
    };
    node.order("mark")?;
    node.answer::<()>("marked")?;
    honest.order("go")?;
    let served: Served = honest.answer("report")?;
    node.order("report")?;
    let side: Side = node.answer("report")?;
    let mut done = Done::default();
    if let Some(process) = &mut attackers {
        process.order("report")?;
        done = process.answer("report")?;
    }
    Ok((served, side, done))
}

fn head() -> String {
    "attack              k stack    goodput  p99 ms (alone)     x  errors   peak MiB  node CPU %  node/attack CPU  sent/s  opened ended".to_owned()
}

impl Siege {
    fn row(&self) -> String {
        let share = |served: &Served| served.goodput(self.seconds);
        let percent = |cpu: f64| cpu / self.seconds as f64 * 100.0;
        // What the attack costs the node, beside what the honest cost it anyway.
        let more = self.node.cpu.total() - self.alone_node.cpu.total();
        let error = self.besieged.first_error.as_deref().map(|error| format!("  {error:.60}")).unwrap_or_default();
        format!(
            "{:18} {:3} {:8} {:7.3} {:7.2} ({:6.2}) {:5.1} {:7} {:10.0} {:11.0} {:16.2} {:7.0} {:7} {:5}{error}",
            self.attack,
            self.attackers,
            self.stack,
            share(&self.besieged) / share(&self.alone).max(0.001),
            self.besieged.times.p99 / 1e3,
            self.alone.times.p99 / 1e3,
            self.besieged.times.p99 / self.alone.times.p99.max(1.0),
            self.besieged.errors,
            self.node.peak_kib as f64 / 1024.0,
            percent(self.node.cpu.total()),
            more / self.attack_done.cpu.max(0.001),
            self.attack_done.datagrams as f64 / self.seconds as f64,
            self.attack_done.opened,
            self.attack_done.ended,
        )
    }
}
