//! `strait top`, `strait explain` and `strait trace`: what a running node says of itself.

use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use console::Term;
use serde_json::Value;
use strait_admin::client;
use strait_core::PeerId;

use super::print_line;
use crate::args::{Explain, Top, Trace};
use crate::exit::{Code, Failure};
use crate::top::{self, harmless};

/// A reading each so often: rates are of this time.
const EVERY: Duration = Duration::from_secs(1);
/// A terminal's size where there is none.
const PLAIN: (u16, u16) = (200, 160);

/// Asks the admin port for JSON.
async fn ask(admin: SocketAddr, path: &str) -> Result<Value, Failure> {
    let (status, text) = client::get(admin, path).await.map_err(|error| nobody(admin, &error))?;
    let why = "something else than a node of strait listens there, or another version of it";
    let other = |what: String| Failure::new(Code::Incompatible, what, why, "say with --admin where the node's admin port is");
    if status != 200 {
        return Err(other(format!("{admin} answers {path} with {status}")));
    }
    serde_json::from_str(&text).map_err(|error| other(format!("{admin} answers with what cannot be read: {error}")))
}

fn nobody(admin: SocketAddr, error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::TimedOut {
        let why = "the node there is stopped or has far too much to do, or something else listens there";
        let next = "see what its process does, or say with --admin where the node's admin port is";
        return Failure::new(Code::Unreachable, format!("waited for {admin} in vain: {error}"), why, next);
    }
    let why = "no node runs on this machine with its admin port there, or it was started with --admin off";
    let next = "start one with strait node, or say with --admin where its port is";
    Failure::new(Code::Unreachable, format!("no node answers at {admin}: {error}"), why, next)
}

/// Traces what the node does on the connection to a peer.
pub(super) async fn trace(args: Trace) -> Result<(), Failure> {
    let (admin, seconds) = (args.port.admin, args.lasts.as_secs().max(1));
    let path = format!("/trace.sqlog?peer={}&seconds={seconds}&bytes={}", args.peer, args.size);
    let (mut said, mut unwritten) = (Vec::new(), None);
    let status = client::follow(admin, &path, args.lasts, |status, bytes| match status {
        200 => {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(bytes).and_then(|()| out.flush());
            written.inspect_err(|error| unwritten = Some(Failure::disk("write to stdout", error)))
        }
        _ => {
            said.extend_from_slice(bytes);
            Ok(())
        }
    });
    let status = status.await;
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    match status.map_err(|error| nobody(admin, &error))? {
        200 => Ok(()),
        status => {
            let said = harmless(String::from_utf8_lossy(&said).trim().chars());
            let why = "only a peer that is connected now can be traced, some at once, for at most ten minutes";
            let next = "strait top shows who is; QLOGDIR traces connections from their beginning (docs/captures.md)";
            Err(Failure::new(Code::Unreachable, format!("there is no trace of {} ({status}): {said}", args.peer), why, next))
        }
    }
}

/// Explains the node, a peer or a protocol.
pub(super) async fn explain(args: Explain) -> Result<(), Failure> {
    let path = match &args.of {
        None => "/explain.json".to_owned(),
        Some(name) if name.parse::<PeerId>().is_ok() => format!("/explain.json?peer={name}"),
        Some(name) => format!("/explain.json?protocol={}", client::encoded(name)),
    };
    let said = ask(args.port.admin, &path).await?;
    if args.json {
        return print_line(&said.to_string());
    }
    for sentence in said["sentences"].as_array().into_iter().flatten() {
        let part = |name: &str| sentence[name].as_str().map(|text| harmless(text.chars()));
        let since = part("since").map(|since| format!(" ({since})")).unwrap_or_default();
        print_line(&format!("{}{since}.", part("is").unwrap_or_default()))?;
        for (word, name) in [("Why", "why"), ("Next", "next")] {
            if let Some(text) = part(name) {
                print_line(&format!("    {word}: {text}."))?;
            }
        }
    }
    Ok(())
}

/// Draws what the node does, again and again.
pub(super) async fn top(args: Top) -> Result<(), Failure> {
    let admin = args.port.admin;
    let mut before = ask(admin, "/now.json").await?;
    if args.once || !std::io::stdout().is_terminal() {
        tokio::time::sleep(EVERY).await;
        let now = ask(admin, "/now.json").await?;
        return top::draw(&before, &now, PLAIN).iter().try_for_each(|line| print_line(line));
    }
    let term = Term::buffered_stdout();
    let failed = |error: std::io::Error| Failure::disk("write to stdout", &error);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drawn = 0;
    loop {
        ticks.tick().await;
        let now = ask(admin, "/now.json").await?;
        let lines = top::draw(&before, &now, term.size());
        term.clear_last_lines(drawn).map_err(failed)?;
        drawn = lines.len();
        lines.iter().try_for_each(|line| term.write_line(line)).map_err(failed)?;
        term.flush().map_err(failed)?;
        before = now;
    }
}
