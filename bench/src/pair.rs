//! The orchestrator's side: starts the two processes of a pair and takes their accounts.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    child::{Outcome, Role},
    measure::{Percentiles, Side},
    plan::{Case, Load, REPLY_BYTES},
    stack::Stack,
};

/// How long one answer of a child may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// The network namespace that servers are started in, if it is not this one (path.py).
const SERVERS: &str = "STRAIT_BENCH_SERVERS";

/// Where a process runs beside others on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Wherever the system's scheduler puts it.
    Anywhere,
    /// Wherever the scheduler puts it, with what all others leave of the processor.
    Behind,
    /// On the first core, which it has for itself.
    Own,
    /// On the second core, ahead of those that share it.
    First,
    /// On the second core, with what the others leave of it.
    Last,
}

impl Place {
    /// What runs a command there.
    fn prefix(self) -> &'static [&'static str] {
        match self {
            Place::Anywhere => &[],
            Place::Behind => &["nice", "-n", "19"],
            // Not by the real-time scheduler, as the honest client: it takes a process that is busy all the time off its core for 50 ms of each second.
            Place::Own => &["taskset", "-c", "0", "nice", "-n", "-20"],
            Place::First => &["taskset", "-c", "1", "chrt", "-f", "10"],
            Place::Last => &["taskset", "-c", "1", "nice", "-n", "19"],
        }
    }

    /// Whether this machine has two cores and permits to set processes apart (CAP_SYS_NICE, and the tools of util-linux).
    pub(crate) fn can_be_chosen() -> bool {
        [Place::Own, Place::First].iter().all(|place| {
            let mut probe = place.command(OsStr::new("true"));
            probe.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        })
    }

    fn command(self, program: &OsStr) -> Command {
        match self.prefix().split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        }
    }
}

/// One run of one case by one stack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The stack.
    pub(crate) stack: Stack,
    /// The case.
    pub(crate) case: Case,
    /// In which round, from 0.
    pub(crate) round: usize,
    /// Seconds of the measured part.
    pub(crate) wall: f64,
    /// Cost to the client.
    pub(crate) client: Side,
    /// Cost to the server.
    pub(crate) server: Side,
    /// Times of single requests; zeros in the bulk case.
    pub(crate) times: Percentiles,
}

impl Record {
    /// Units per second: MB where bytes are what is measured, otherwise requests or connections.
    pub(crate) fn rate(&self) -> f64 {
        match self.case {
            Case::Bulk { bytes } | Case::Burst { bytes, .. } => bytes as f64 / 1e6 / self.wall,
            Case::Chunks { count, .. } => (count * REPLY_BYTES as u64) as f64 / 1e6 / self.wall,
            // Their pace is given; what it leaves to the bulk is not.
            Case::Urgent { load: Load::Full | Load::Paced { .. }, .. } => self.times.beside,
            Case::Requests { count, .. } | Case::Urgent { count, .. } | Case::Handshakes { count, .. } => {
                count as f64 / self.wall
            }
            Case::Idle { connections } => connections as f64 / self.wall,
            Case::Flood => 0.0,
        }
    }

    /// `cpu_seconds` by unit of work: by GiB where bytes are what is measured, otherwise microseconds by request or connection.
    pub(crate) fn per_unit(&self, cpu_seconds: f64) -> f64 {
        let by_gib = |bytes: u64| cpu_seconds / (bytes as f64 / f64::from(1u32 << 30));
        match self.case {
            Case::Bulk { bytes } | Case::Burst { bytes, .. } => by_gib(bytes),
            Case::Chunks { count, .. } => by_gib(count * REPLY_BYTES as u64),
            Case::Requests { count, .. } | Case::Urgent { count, .. } | Case::Handshakes { count, .. } => {
                cpu_seconds * 1e6 / count as f64
            }
            Case::Idle { connections } => cpu_seconds * 1e6 / connections as f64,
            Case::Flood => 0.0,
        }
    }

    /// By how much the server grew for each connection, in KiB; says something in the idle case only.
    pub(crate) fn kib_each(&self) -> f64 {
        match self.case {
            Case::Idle { connections } => self.server.grown_kib as f64 / connections as f64,
            _ => 0.0,
        }
    }

    /// CPU of both sides by unit of work.
    pub(crate) fn cpu_both(&self) -> f64 {
        self.per_unit(self.client.cpu.total() + self.server.cpu.total())
    }

    /// One line for the progress report.
    pub(crate) fn brief(&self) -> String {
        format!("{:.2} s, {:.0}/s, CPU {:.2} + {:.2} s", self.wall, self.rate(), self.client.cpu.total(), self.server.cpu.total())
    }
}

/// Runs `case` once with `stack` at both ends.
pub(crate) fn run(stack: Stack, case: Case, round: usize) -> Result<Record> {
    run_watched(stack, case, round, |_, _| Ok(())).map(|(record, ())| record)
}

/// The same; `watch` sees both processes (server and client) just before the measured part, and what it gives is dropped just after it.
pub(crate) fn run_watched<W>(
    stack: Stack,
    case: Case,
    round: usize,
    watch: impl FnOnce(u32, u32) -> Result<W>,
) -> Result<(Record, W)> {
    let mut server = Process::start(Role::Server, stack, case, &[])?;
    let address: String = server.answer("ready")?;
    let mut client = Process::start(Role::Client, stack, case, &["--address", &address])?;
    let _: String = client.answer("ready")?;
    let watched = watch(server.child.id(), client.child.id())?;
    server.order("mark")?;
    server.answer::<()>("marked")?;
    client.order("go")?;
    let outcome: Outcome = client.answer("report")?;
    server.order("report")?;
    let side: Side = server.answer("report")?;
    let record = Record { stack, case, round, wall: outcome.wall, client: outcome.side, server: side, times: outcome.times };
    Ok((record, watched))
}

/// A child process; it is killed when this is dropped.
pub(crate) struct Process {
    role: Role,
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts this same binary in `role`.
    pub(crate) fn start(role: Role, stack: Stack, case: Case, more: &[&str]) -> Result<Process> {
        Process::start_at(Place::Anywhere, role, stack, case, more)
    }

    /// The same, at a place of the machine.
    pub(crate) fn start_at(place: Place, role: Role, stack: Stack, case: Case, more: &[&str]) -> Result<Process> {
        let program = std::env::current_exe()?;
        let mut command = match std::env::var_os(SERVERS).filter(|_| role == Role::Server) {
            None => place.command(program.as_os_str()),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(program);
                command
            }
        };
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map_or_else(String::new, |value| value.get_name().to_owned())
        };
        let mut child = command
            .arg("child")
            .args(["--role", &name(&|| role.to_possible_value())])
            .args(["--stack", &name(&|| stack.to_possible_value())])
            .args(["--case", &serde_json::to_string(&case)?])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the {role:?}"))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (sender, lines) = mpsc::sync_channel(16);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Process { role, child, stdin, lines })
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.stdin, "{order}")
            .and_then(|()| self.stdin.flush())
            .with_context(|| format!("the {:?} ended early (its own error is above)", self.role))
    }

    /// The next answer, which must have this tag.
    pub(crate) fn answer<T: DeserializeOwned>(&mut self, tag: &str) -> Result<T> {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("the {:?} ended before it said {tag:?}", self.role)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the {:?} did not say {tag:?} within {PATIENCE:?}", self.role)
            }
        };
        let json = line.strip_prefix(tag).with_context(|| format!("the {:?} said {line:?} instead of {tag:?}", self.role))?;
        Ok(serde_json::from_str(json.trim_start())?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Usually it has exited by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
