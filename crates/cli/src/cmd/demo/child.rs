//! The other processes of the demo: this same program, started again. Each is killed when its handle is dropped.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::exit::{Code, Failure};
use crate::progress::Progress;

fn start(args: &[&str]) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::disk("find this program", &error))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().map_err(|error| Failure::disk("start this program once more", &error))
}

/// A peer that floods the provider of a ticket.
pub(super) fn flooder(ticket: &str) -> Result<Child, Failure> {
    start(&["demo", "--flood", ticket])
}

/// `strait get` of a ticket.
pub(super) fn receiver(ticket: &str, dir: &Path) -> Result<Child, Failure> {
    let dir = dir.to_str().ok_or_else(|| Failure::bug("the folder for temporary files has a name that is not UTF-8"))?;
    start(&["get", ticket, "--json", "-o", dir])
}

/// Follows a receiver to its end, and shows its progress. Gives its last event.
pub(super) async fn follow(mut child: Child, progress: Arc<Progress>) -> Result<Value, Failure> {
    let out = child.stdout.take().ok_or_else(|| Failure::bug("a receiver without stdout"))?;
    let mut lines = BufReader::new(out).lines();
    let (mut last, mut shown) = (Value::Null, 0);
    while let Ok(Some(line)) = lines.next_line().await {
        last = serde_json::from_str(&line).unwrap_or_default();
        if last["event"] == "progress" && last["phase"] == "fetching" {
            let now = last["bytes"].as_u64().unwrap_or_default().max(shown);
            progress.add(now - shown);
            shown = now;
        }
    }
    if last["event"] == "done" {
        progress.add(last["bytes"].as_u64().unwrap_or_default().saturating_sub(shown));
        return Ok(last);
    }
    let what = last["what"].as_str().unwrap_or("it said nothing at its end");
    Err(Failure::new(Code::DemoDiffers, format!("a receiver failed: {what}"), "the transfer has a fault", "report this"))
}
