//! The commands.

mod demo;
mod forward;
mod get;
mod id;
mod look;
mod node;
mod ping;
mod pipe;
mod publish;
mod send;
mod watch;

use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::abuse::AbuseLog;
use crate::args::{Cli, Command, Side};
use crate::exit::{Code, Failure};
use crate::net::Nodes;
use crate::progress::Progress;

/// After a signal, peers are told of the end for at most so long.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Runs the command until it ends or a signal ends it.
///
/// When a signal comes, the command's future is dropped, and with it everything that it holds is put back: temporary folders are
/// removed, or kept in order for the next run, and the node is closed. A second signal ends the process at once.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let json = match &cli.command {
        Command::Get(args) => args.json,
        Command::Ping(args) => args.json,
        Command::Demo(args) => args.json,
        Command::Send(args) => args.json,
        Command::Publish(args) => args.json,
        Command::Watch(args) => args.json,
        Command::Forward(args) => match &args.side {
            Side::Expose(args) => args.json,
            Side::Open(args) => args.json,
        },
        Command::Explain(args) => args.json,
        Command::Id(_) | Command::Pipe(_) | Command::Node(_) | Command::Top(_) | Command::Trace(_) => false,
    };
    let nodes = Nodes::default();
    let result = match cli.command {
        Command::Send(args) => until_signal(&nodes, send::run(args, &nodes)).await,
        Command::Get(args) => until_signal(&nodes, get::run(args, &nodes)).await,
        Command::Id(args) => id::run(&args),
        Command::Ping(args) => until_signal(&nodes, ping::run(args, &nodes)).await,
        Command::Publish(args) => until_signal(&nodes, publish::run(args, &nodes)).await,
        Command::Watch(args) => until_signal(&nodes, watch::run(args, &nodes)).await,
        Command::Demo(args) => until_signal(&nodes, demo::run(args, &nodes)).await,
        Command::Forward(args) => match args.side {
            Side::Expose(args) => until_signal(&nodes, forward::expose(args, &nodes)).await,
            Side::Open(args) => until_signal(&nodes, forward::open(args, &nodes)).await,
        },
        Command::Top(args) => until_signal(&nodes, look::top(args)).await,
        Command::Explain(args) => until_signal(&nodes, look::explain(args)).await,
        Command::Trace(args) => until_signal(&nodes, look::trace(args)).await,
        Command::Node(args) => node::run(args, &nodes).await,
        Command::Pipe(args) => until_signal(&nodes, pipe::run(args, &nodes)).await,
    };
    if json && let Err(failure) = &result {
        let _ = print_json(&failure_json(failure)); // the failure itself is what the exit code tells
    }
    result
}

fn failure_json(failure: &Failure) -> Value {
    json!({
        "event": "error",
        "code": failure.code as u8,
        "what": failure.what,
        "why": failure.why,
        "next": failure.next,
    })
}

/// Prints a line to stdout, which programs read.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| Failure::disk("write to stdout", &error))
}

fn print_json(value: &Value) -> Result<(), Failure> {
    print_line(&value.to_string())
}

/// Begins to write the abuse log, if there is to be one.
fn abuse_log(node: &strait::Node, path: Option<&Path>, progress: &Arc<Progress>) -> Result<Option<AbuseLog>, Failure> {
    let say = progress.clone();
    path.map(|path| AbuseLog::start(node, path, move |line| say.say(&line))).transpose()
}

async fn until_signal(nodes: &Nodes, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut command = Box::pin(command);
    // Before the command says anything: whoever has read its first words may send a signal.
    let signal = signal();
    let code = tokio::select! {
        biased;
        result = &mut command => return result,
        code = signal => code,
        () = nodes.failed() => return Err(Failure::bug("this process's node has stopped, and nothing can be sent or received any more")),
    };
    end_at_next_signal();
    drop(command); // what a get fetched is made safe on the disk here, which can take a while
    nodes.close(CLOSE_WITHIN).await;
    let what = if code == Code::Terminated { "stopped by SIGTERM" } else { "stopped by Ctrl-C" };
    let next = "run the same command again; get goes on from what it had, and what forward and pipe carried was cut";
    Err(Failure::new(code, what, "somebody asked for it; nothing half-written is in place", next))
}

/// From now on a signal ends the process at once: whatever still hangs is left as it is.
fn end_at_next_signal() {
    let signal = signal();
    tokio::spawn(async {
        let code = signal.await;
        std::process::exit(i32::from(code as u8));
    });
}

/// The next signal that asks for an end. They are caught from this call on, not only when its future is polled.
#[cfg(unix)]
fn signal() -> impl Future<Output = Code> {
    use tokio::signal::unix::{SignalKind, signal};
    let caught = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        let (Ok(mut interrupt), Ok(mut terminate)) = caught else {
            return std::future::pending().await; // without handlers the system's own ending applies
        };
        tokio::select! {
            _ = interrupt.recv() => Code::Interrupted,
            _ = terminate.recv() => Code::Terminated,
        }
    }
}

#[cfg(not(unix))]
async fn signal() -> Code {
    match tokio::signal::ctrl_c().await {
        Ok(()) => Code::Interrupted,
        Err(_) => std::future::pending().await,
    }
}

/// "1 file", "2 files".
pub(crate) fn count(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {one}{s}")
}

/// Bytes as people read them.
pub(crate) fn bytes(number: u64) -> String {
    indicatif::HumanBytes(number).to_string()
}
