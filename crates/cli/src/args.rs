//! The command line.

mod look;
mod node;
mod topics;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use strait_core::{Multiaddr, PeerId};

use crate::exit::TABLE;
use crate::forward::{Local, Target};
pub use look::{Explain, Top, Trace};
pub use node::NodeArgs;
pub use topics::{Publish, VALUE_BYTES_MAX, Watch};

/// Sends files and folders, and carries TCP ports and pipes, straight from one machine to another.
#[derive(Debug, Parser)]
#[command(name = "strait", version, about, after_help = TABLE, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Offer files and folders; prints a ticket for the other side
    Send(Send),
    /// Fetch what a ticket stands for
    Get(Get),
    /// Print the identity of this machine's node
    Id(Id),
    /// Measure the round trip to a node
    Ping(Ping),
    /// Publish lines key=value of stdin, or of a file, to whoever watches
    Publish(Publish),
    /// Show what `strait publish` publishes, as it changes
    Watch(Watch),
    /// Reach a TCP port behind another node by a port of this machine
    Forward(Forward),
    /// Join stdin and stdout of this machine with those of another
    Pipe(Pipe),
    /// Run a node until it is stopped: others reach it, and what it does can be seen
    Node(NodeArgs),
    /// Draw what a node that runs on this machine does
    Top(Top),
    /// Explain a running node, one of its peers or a protocol in words
    Explain(Explain),
    /// Trace what a running node does on the connection to one of its peers: qlog, on stdout
    Trace(Trace),
    /// Show it all on this machine: two receivers, one of them killed and started again, and a peer that floods
    Demo(Demo),
}

/// Which identity to use.
#[derive(Debug, Clone, Default, Args)]
pub struct Key {
    /// Keep the identity in this file instead of the usual one; it is made if it is not there
    #[arg(long, value_name = "FILE", conflicts_with = "ephemeral")]
    pub key: Option<PathBuf>,
    /// Use a new identity, and forget it at the end
    #[arg(long)]
    pub ephemeral: bool,
}

/// `strait send`
#[derive(Debug, Args)]
pub struct Send {
    /// Files and folders; a single - is what comes on stdin, which is kept in a temporary file until the end
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Stop after one full copy was taken
    #[arg(long)]
    pub once: bool,
    /// With -: the name that the file gets at the other side
    #[arg(long, value_name = "FILE", default_value = "stdin")]
    pub name: String,
    /// With -: take at most so much from stdin (such as 500M or 2T; powers of 1024)
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = size)]
    pub stdin_max: u64,
    /// Print events on stdout, one JSON object a line (docs/json.md); with -q only the last one
    #[arg(long)]
    pub json: bool,
    /// Show the ticket as a QR code too, on stderr
    #[arg(long)]
    pub qr: bool,
    /// Append evidence of abuse to this file, one JSON object a line, for firewalls (docs/abuse-feed.md); nothing is blocked here
    #[arg(long, value_name = "FILE")]
    pub abuse_log: Option<PathBuf>,
    /// Listen at this address and port, for UDP and TCP, instead of free ports of all interfaces
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where others reach this machine, if not where it listens (such as /ip4/A.B.C.D/udp/PORT/quic-v1 of a port forward); may be given more than once.
    /// Then others learn this only, in the ticket and otherwise
    #[arg(long, value_name = "MULTIADDR")]
    pub announce: Vec<Multiaddr>,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub key: Key,
}

/// `strait get`
#[derive(Debug, Args)]
pub struct Get {
    /// The ticket that `strait send` or `strait get --serve` printed; several for the same content are used at once
    #[arg(required = true, value_name = "TICKET", num_args = 1..=TICKETS_MAX)]
    pub tickets: Vec<String>,
    /// Put it into this folder; it is made if it is not there. - writes the one file that the ticket stands for to stdout, in order,
    /// each piece verified before it is written
    #[arg(short = 'o', long = "output", value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    /// Replace files in that folder that differ; each is lost only when the new one is complete and safe on the disk
    #[arg(long)]
    pub force: bool,
    /// Serve to others what was fetched, until stopped; prints a ticket for it at once, which is good as soon as all is here
    #[arg(long)]
    pub serve: bool,
    /// With --serve: listen at this address and port, for UDP and TCP, instead of free ports of all interfaces
    #[arg(long, value_name = "IP:PORT", requires = "serve")]
    pub listen: Option<SocketAddr>,
    /// With --serve: where others reach this machine, if not where it listens (such as /ip4/A.B.C.D/udp/PORT/quic-v1 of a port forward); may be given more
    /// than once. Then others learn this only, in the ticket and otherwise
    #[arg(long, value_name = "MULTIADDR", requires = "serve")]
    pub announce: Vec<Multiaddr>,
    /// With --serve: append evidence of abuse to this file, one JSON object a line, for firewalls (docs/abuse-feed.md)
    #[arg(long, value_name = "FILE", requires = "serve")]
    pub abuse_log: Option<PathBuf>,
    /// Give up after so long (such as 90s, 15m or 2h) without anything new; until then keep trying, from the first contact on. Without
    /// it the first contact is tried once, and later waits have no end
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Print events on stdout, one JSON object a line (docs/json.md); with -q only the last one
    #[arg(long)]
    pub json: bool,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
    /// Use the identity in this file; without it a new one is used and forgotten
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Providers of one `get`, at most: each of them has some chunks under way, and [`crate::fetch`] holds a fixed number in all.
pub const TICKETS_MAX: usize = 16;

/// A whole number with its unit: `500ms`, `90s`, `15m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a whole number above zero with a unit, such as 90s, 15m or 2h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(milliseconds).filter(|all| *all > 0).map(Duration::from_millis).ok_or_else(wrong)
}

/// A whole number of bytes, or of a larger unit: `700`, `500M`, `64G`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a whole number of bytes, or of K, M, G or T");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let power = match &text[digits.len()..] {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << (10 * power)).ok_or_else(wrong)
}

/// `strait id`
#[derive(Debug, Args)]
pub struct Id {
    #[allow(missing_docs)]
    #[command(flatten)]
    pub key: Key,
}

/// `strait ping`
#[derive(Debug, Args)]
pub struct Ping {
    /// A ticket, or an address such as /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3Koo...
    #[arg(value_name = "TICKET-OR-MULTIADDR")]
    pub target: String,
    /// How often
    #[arg(short = 'c', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Milliseconds between two pings
    #[arg(short = 'i', long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pub interval: u64,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `strait forward`
#[derive(Debug, Args)]
pub struct Forward {
    /// Which side this is.
    #[command(subcommand)]
    pub side: Side,
}

/// The sides of `strait forward`.
#[derive(Debug, Subcommand)]
pub enum Side {
    /// Let others reach TCP ports that this machine reaches; prints a ticket for the other side
    Expose(Expose),
    /// Listen at ports of this machine that lead to ports that another node exposes
    Open(Open),
}

/// Where and for whom a node can be reached.
#[derive(Debug, Clone, Default, Args)]
pub struct Door {
    /// Let in only the node of this identity (`strait id` prints it); may be given more than once. Without it everybody is let in who reaches this node
    #[arg(long, value_name = "PEERID")]
    pub allow: Vec<PeerId>,
    /// Listen for other nodes at this address and port, for UDP and TCP, instead of free ports of all interfaces
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where others reach this machine, if not where it listens (such as /ip4/A.B.C.D/udp/PORT/quic-v1 of a port forward); may be given more than once.
    /// Then others learn this only, in the ticket and otherwise
    #[arg(long, value_name = "MULTIADDR")]
    pub announce: Vec<Multiaddr>,
}

/// `strait forward expose`
#[derive(Debug, Args)]
pub struct Expose {
    /// The ports that others may reach, and no others: HOST:PORT (an IPv6 address in brackets), or PORT of this machine. A name is looked up here, for each connection
    #[arg(required = true, value_name = "HOST:PORT", num_args = 1..=TARGETS_MAX)]
    pub targets: Vec<Target>,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub door: Door,
    /// Print events on stdout, one JSON object a line (docs/json.md); with -q only what is needed
    #[arg(long)]
    pub json: bool,
    /// Append evidence of abuse to this file, one JSON object a line, for firewalls (docs/abuse-feed.md)
    #[arg(long, value_name = "FILE")]
    pub abuse_log: Option<PathBuf>,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub key: Key,
}

/// `strait forward open`
#[derive(Debug, Args)]
pub struct Open {
    /// The ticket that `strait forward expose` printed, or an address such as /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3Koo...
    #[arg(value_name = "TICKET-OR-MULTIADDR")]
    pub ticket: String,
    /// A port to listen at, and where it leads, as for ssh -L: PORT:HOST:PORT or BIND:PORT:HOST:PORT with a target that the other side exposes; PORT:PORT
    /// for a port of that machine itself; PORT or BIND:PORT if it exposes only one. Port 0 takes a free one. Without BIND only this machine reaches it.
    /// The addresses are printed on stdout
    #[arg(required = true, value_name = "[BIND:]PORT[:HOST:PORT]", num_args = 1..=TARGETS_MAX)]
    pub ports: Vec<Local>,
    /// Print events on stdout, one JSON object a line (docs/json.md); with -q only what is needed
    #[arg(long)]
    pub json: bool,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
    /// Use the identity in this file, made if it is not there: it is what the other side's --allow names. Without it a new one is used and forgotten
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Ports of one command, at most.
pub const TARGETS_MAX: usize = 64;

/// `strait pipe`
#[derive(Debug, Args)]
pub struct Pipe {
    /// The ticket that `strait pipe` printed on stderr at the other side. Without it this side waits for one peer, and then for no other
    #[arg(value_name = "TICKET-OR-MULTIADDR", conflicts_with_all = ["allow", "listen", "announce"])]
    pub ticket: Option<String>,
    #[allow(missing_docs)]
    #[command(flatten)]
    pub door: Door,
    /// Use the identity in this file, made if it is not there. Without it a new one is used and forgotten
    #[arg(long, value_name = "FILE", conflicts_with = "ephemeral")]
    pub key: Option<PathBuf>,
    /// Use a new identity, and forget it at the end: as without --key
    #[arg(long)]
    pub ephemeral: bool,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
}

/// `strait demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// A file or folder to send; without it a sample is made
    pub path: Option<PathBuf>,
    /// Print events on stdout, one JSON object a line (docs/json.md); with -q only the last one
    #[arg(long)]
    pub json: bool,
    /// Be the peer that floods the provider of this ticket: for the demo's own use
    #[arg(long, hide = true, value_name = "TICKET")]
    pub flood: Option<String>,
    /// Say only what is needed
    #[arg(short, long)]
    pub quiet: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn sizes_may_have_a_unit() {
        for (text, bytes) in [("0", 0), ("700", 700), ("3K", 3072), ("500M", 500 << 20), ("64G", 64 << 30), ("2T", 2 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "1.5G", "-1", "1 G", "1KB", "1k", "99999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86_400), ("5000ms", 5)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "90", "s", "0s", "-1s", "1.5s", "1 s", "9w", "99999999999999999999s", "18446744073709551615d", "5µs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_definition_is_sound_and_help_has_the_exit_codes() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("143  ended by SIGTERM"), "{help}");
    }
}
