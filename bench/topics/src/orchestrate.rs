//! Starts the processes of each stack, one stack after the other, and prints what they found.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::seen::Found;
use crate::{Plan, Stack};

/// A child that talks in lines; killed when dropped.
struct Talker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Talker {
    fn start(plan: &Plan, role: &[String]) -> Result<Talker> {
        let numbers = [
            ("--connections", plan.connections as u64),
            ("--frozen", plan.frozen as u64),
            ("--subscriptions", plan.subscriptions as u64),
            ("--keys", plan.keys as u64),
            ("--rate", plan.rate),
            ("--seconds", plan.seconds),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        command.args(role);
        for (name, number) in numbers {
            command.arg(name).arg(number.to_string());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = (child.stdin.take().context("piped")?, child.stdout.take().context("piped")?);
        Ok(Talker { child, to, from: BufReader::new(from) })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("a child has ended: {:?}", self.child.wait()?);
        }
        Ok(line.trim().to_owned())
    }

    fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.to, "{line}")?;
        Ok(self.to.flush()?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's nats-server with its defaults, on a free port of loopback; killed when dropped.
struct Server(Child, String);

impl Server {
    fn start() -> Result<Server> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", &port]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("nats-server (Debian: apt install nats-server)")?;
        let server = Server(child, format!("127.0.0.1:{port}"));
        for _ in 0..100 {
            if std::net::TcpStream::connect(&server.1).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("nats-server does not answer")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Peak of resident memory in MiB, and processor seconds so far, of a process.
fn cost(pid: u32) -> Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let peak: f64 = peak.trim().trim_end_matches("kB").trim().parse()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().context("stat")?.split(' ').collect();
    let ticks: f64 = fields.get(11).context("utime")?.parse::<f64>()? + fields.get(12).context("stime")?.parse::<f64>()?;
    Ok((peak / 1024.0, ticks / 100.0))
}

fn one(plan: &Plan, stack: Stack) -> Result<Value> {
    let name = format!("{stack:?}").to_lowercase();
    let server = (stack == Stack::Nats).then(Server::start).transpose()?;
    let at = server.as_ref().map_or(String::new(), |server| server.1.clone());
    let mut publisher = Talker::start(plan, &["publisher".into(), name.clone(), at])?;
    let at = publisher.line()?.strip_prefix("ready ").context("ready")?.to_owned();
    let holder = server.as_ref().map_or(publisher.child.id(), |server| server.0.id());
    let group = |count: usize| Talker::start(plan, &["subscribers".into(), name.clone(), at.clone(), count.to_string()]);
    let (mut readers, mut frozen) = (group(plan.connections)?, group(plan.frozen)?);
    for group in [&mut readers, &mut frozen] {
        if group.line()? != "ready" {
            bail!("a group of subscribers is not ready");
        }
    }
    eprintln!("{name}: all subscribed");
    let (idle, before) = cost(holder)?;
    frozen.signal(Signal::SIGSTOP)?;
    publisher.say("go")?;
    let published: Value = serde_json::from_str(&publisher.line()?)?;
    let (peak, _) = cost(holder)?;
    eprintln!("{name}: {published}");
    frozen.signal(Signal::SIGCONT)?;
    for group in [&mut readers, &mut frozen] {
        group.say(&format!("end {}", published["changes"]))?;
    }
    let found: Found = serde_json::from_str(&readers.line()?)?;
    let thawed: Found = serde_json::from_str(&frozen.line()?)?;
    let (_, after) = cost(holder)?;
    publisher.say("end")?;
    Ok(json!({
        "stack": name, "changes": published["changes"], "idle_mib": idle, "peak_mib": peak, "cpu_seconds": after - before,
        "readers": found, "frozen": thawed,
    }))
}

pub fn run(plan: &Plan, stacks: &[Stack], as_json: bool) -> Result<()> {
    let rows = stacks.iter().map(|stack| one(plan, *stack)).collect::<Result<Vec<Value>>>()?;
    if as_json {
        println!("{}", json!({"plan": format!("{plan:?}"), "rows": rows}));
        return Ok(());
    }
    let Plan { connections, frozen, subscriptions, keys, rate, seconds } = plan;
    println!(
        "{connections} connections that read and {frozen} that are frozen, {subscriptions} subscriptions on each; {keys} keys, {rate} changes/s for {seconds} s\n"
    );
    println!("| | changes published | peak memory of what serves, MiB (idle) | its CPU, s | updates seen | age p50, ms | age p99, ms | last values lost: readers | once frozen |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let of = |group: &str, what: &str| number(&row[group][what]);
        println!(
            "| {} | {} | {:.0} ({:.0}) | {:.1} | {} | {:.1} | {:.1} | {} in {} | {} in {} |",
            row["stack"].as_str().unwrap_or_default(),
            row["changes"],
            number(&row["peak_mib"]),
            number(&row["idle_mib"]),
            number(&row["cpu_seconds"]),
            row["readers"]["updates"],
            of("readers", "age_p50_ms"),
            of("readers", "age_p99_ms"),
            row["readers"]["lost_values"],
            row["readers"]["wrong_subscriptions"],
            row["frozen"]["lost_values"],
            row["frozen"]["wrong_subscriptions"],
        );
    }
    Ok(())
}
