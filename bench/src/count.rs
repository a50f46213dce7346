//! `count`: what a fixed piece of work costs in things that can be counted. Other programs on the machine change how long work takes, and much less
//! how many system calls and instructions it needs, so a regression shows on a noisy machine too. Not at all is too much to say: what comes
//! together leaves together, and how much comes together depends on who waits for whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;

use crate::{
    measure::Driver,
    pair,
    plan::Case,
    stack::{Family, Stack},
};

/// System calls that few rows have are told as one.
const COLUMNS_MAX: usize = 9;

/// Arguments of `count`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Over what: sets the stacks.
    #[arg(long, default_value = "quic")]
    over: Family,
    /// Which stacks to run [default: all of --over].
    #[arg(long, value_delimiter = ',')]
    stacks: Vec<Stack>,
    /// Print one JSON document instead of tables.
    #[arg(long)]
    json: bool,
}

/// The fixed pieces of work. Their sizes are part of what is compared: do not change them.
const WORK: [Case; 3] = [
    Case::Bulk { bytes: 64 << 20 },
    Case::Requests { count: 20_000, in_flight: 64 },
    Case::Requests { count: 2_000, in_flight: 1 },
];

/// What one stack needed for one piece of work.
#[derive(Debug, Serialize)]
struct Count {
    case: Case,
    stack: Stack,
    client: Counted,
    server: Counted,
}

/// One side's.
#[derive(Debug, Default, Serialize)]
struct Counted {
    /// What the stack's driver counted, while nobody watched it.
    driver: Option<Driver>,
    /// System calls by name.
    calls: Option<BTreeMap<String, u64>>,
    /// Instructions in user mode.
    instructions: Option<u64>,
}

/// The tools that count from outside, and why those that are missing do not.
struct Tools {
    strace: bool,
    perf: bool,
    missing: Vec<&'static str>,
}

impl Tools {
    fn here() -> Tools {
        let strace = Command::new("strace").arg("-V").output().is_ok_and(|out| out.status.success());
        // perf exits well without a counter, and says so only where the number would be.
        let perf = Command::new("perf").args(["stat", "-x", ",", "-e", "instructions:u", "true"]).output();
        let perf = perf.is_ok_and(|out| out.status.success() && instructions(&String::from_utf8_lossy(&out.stderr)).is_some());
        let mut missing = Vec::new();
        if !strace {
            missing.push("System calls were not counted: strace is not installed.");
        }
        if !perf {
            missing.push(
                "Instructions were not counted: perf is not installed, or has no hardware counter here (many virtual machines).",
            );
        }
        Tools { strace, perf, missing }
    }
}

/// Runs the count.
pub(crate) fn run(args: &Args) -> Result<()> {
    let stacks = if args.stacks.is_empty() { args.over.stacks() } else { args.stacks.clone() };
    let mut tools = Tools::here();
    let mut counts = Vec::new();
    for case in WORK {
        for &stack in &stacks {
            eprintln!("{case} {stack}");
            let count = count(stack, case, &tools).with_context(|| format!("{stack}, {case}"))?;
            if tools.strace && count.server.calls.is_none() {
                tools.strace = false;
                tools.missing.push("System calls were not counted: strace may not look at other processes here (root may).");
            }
            counts.push(count);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "counts": counts, "missing": tools.missing }))?);
    } else {
        print!("{}", render(&counts, &tools));
    }
    Ok(())
}

/// Runs the work once for each way to count, so that none counts another.
fn count(stack: Stack, case: Case, tools: &Tools) -> Result<Count> {
    let record = pair::run(stack, case, 0)?;
    let mut count = Count { case, stack, client: Counted::default(), server: Counted::default() };
    (count.server.driver, count.client.driver) = (record.server.driver, record.client.driver);
    if tools.strace {
        let (_, calls) = pair::run_watched(stack, case, 0, |server, client| {
            Ok([Watch::strace(server, "server")?, Watch::strace(client, "client")?])
        })?;
        let [server, client] = calls.map(Watch::finish);
        (count.server.calls, count.client.calls) = (calls_of(server?), calls_of(client?));
    }
    if tools.perf {
        let (_, counters) = pair::run_watched(stack, case, 0, |server, client| {
            Ok([Watch::perf(server, "server")?, Watch::perf(client, "client")?])
        })?;
        let [server, client] = counters.map(Watch::finish);
        (count.server.instructions, count.client.instructions) = (instructions(&server?), instructions(&client?));
    }
    Ok(count)
}

/// A tool that is attached to a process.
struct Watch {
    tool: Child,
    file: PathBuf,
}

impl Watch {
    /// Counts system calls of all threads. Returns when it is attached, or will not be.
    fn strace(process: u32, side: &str) -> Result<Watch> {
        let mut watch = Watch::start(process, side, "strace", &["-c", "-f", "-o"])?;
        let stderr = watch.tool.stderr.take().context("no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        if let Some(Ok(line)) = lines.next()
            && !line.contains("attached")
        {
            eprintln!("{line}");
        }
        // Read to the end: it waits where a pipe is full.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(watch)
    }

    /// Counts instructions.
    fn perf(process: u32, side: &str) -> Result<Watch> {
        let watch = Watch::start(process, side, "perf", &["stat", "-x", ",", "-e", "instructions:u", "-o"])?;
        // It does not say when it has begun.
        std::thread::sleep(std::time::Duration::from_millis(300));
        Ok(watch)
    }

    fn start(process: u32, side: &str, tool: &str, args: &[&str]) -> Result<Watch> {
        let file = std::env::temp_dir().join(format!("strait-bench-{}-{side}", std::process::id()));
        let mut command = Command::new(tool);
        command.args(args).arg(&file).args(["-p", &process.to_string()]);
        let tool = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        Ok(Watch { tool, file })
    }

    /// What it has written; it ends with the process that it watches, or now.
    fn finish(mut self) -> Result<String> {
        if self.tool.try_wait()?.is_none() {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(i32::try_from(self.tool.id())?), Signal::SIGINT);
        }
        self.tool.wait()?;
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let _ = std::fs::remove_file(&self.file);
        Ok(text)
    }
}

/// The table of `strace -c`; none if there is none.
fn calls_of(text: String) -> Option<BTreeMap<String, u64>> {
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // % time, seconds, usecs/call, calls, errors if there are some, name.
        if let [_, _, _, count, .., name] = words[..]
            && let Ok(count) = count.parse::<u64>()
            && name != "total"
        {
            *calls.entry(name.to_owned()).or_default() += count;
        }
    }
    (!calls.is_empty()).then_some(calls)
}

/// The count in `perf stat -x ,`.
fn instructions(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains("instructions"))?.split(',').next()?.parse().ok()
}

fn render(counts: &[Count], tools: &Tools) -> String {
    let mut out = String::new();
    for case in WORK {
        let rows: Vec<_> = counts.iter().filter(|count| count.case == case).collect();
        calls_table(&mut out, case, &rows);
        driver_table(&mut out, &rows);
    }
    for missing in &tools.missing {
        let _ = writeln!(out, "\n{missing}");
    }
    out
}

fn calls_table(out: &mut String, case: Case, rows: &[&Count]) {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    let sides = || rows.iter().flat_map(|row| [("client", row.stack, &row.client), ("server", row.stack, &row.server)]);
    for (name, count) in sides().filter_map(|(_, _, side)| side.calls.as_ref()).flatten() {
        *sums.entry(name).or_default() += count;
    }
    let mut names: Vec<&str> = sums.keys().copied().collect();
    names.sort_by_key(|name| std::cmp::Reverse(sums[name]));
    names.truncate(COLUMNS_MAX);
    let shown: BTreeSet<&str> = names.iter().copied().collect();
    let _ = write!(out, "\n{case}: system calls, and instructions in user mode\n{:<25}{:>8}", "", "all");
    for name in &names {
        let _ = write!(out, "{:>12}", &name[..name.len().min(11)]);
    }
    let _ = writeln!(out, "{:>12}{:>14}", "others", "instructions");
    for (side, stack, counted) in sides() {
        let none = BTreeMap::new();
        let calls = counted.calls.as_ref().unwrap_or(&none);
        let _ = write!(out, "{:<25}{:>8}", format!("{stack} {side}"), calls.values().sum::<u64>());
        for name in &names {
            let _ = write!(out, "{:>12}", calls.get(*name).copied().unwrap_or(0));
        }
        let others: u64 = calls.iter().filter(|(name, _)| !shown.contains(name.as_str())).map(|(_, count)| count).sum();
        let instructions = counted.instructions.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let _ = writeln!(out, "{others:>12}{instructions:>14}");
    }
}

fn driver_table(out: &mut String, rows: &[&Count]) {
    let sides = rows.iter().flat_map(|row| [("client", row.stack, &row.client), ("server", row.stack, &row.server)]);
    let mut counted = sides.filter_map(|(side, stack, counted)| Some((side, stack, counted.driver?))).peekable();
    if counted.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "its own counters, in a run that nobody watches");
    let _ =
        writeln!(out, "{:<25}{:>14}{:>14}{:>14}{:>14}{:>14}", "", "datagrams in", "datagrams out", "receives", "sends", "wakes");
    for (side, stack, driver) in counted {
        let _ = writeln!(
            out,
            "{:<25}{:>14}{:>14}{:>14}{:>14}{:>14}",
            format!("{stack} {side}"),
            driver.datagrams_in,
            driver.datagrams_out,
            driver.receives,
            driver.sends,
            driver.wakes
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- --------- --------- ------\n \
                    67.30    0.912746         193      4723           epoll_wait\n  2.75    0.031776           6      4605        12 write\n\
                    100.00    1.356224          21      9328        12 total\n";
        let calls = calls_of(text.to_owned()).expect("a table");
        assert_eq!(calls, BTreeMap::from([("epoll_wait".to_owned(), 4723), ("write".to_owned(), 4605)]));
        assert!(calls_of(String::new()).is_none());
    }

    #[test]
    fn the_count_of_perf_is_read() {
        assert_eq!(instructions("# started\n\n12345,,instructions:u,99,100.00,,\n"), Some(12345));
        assert_eq!(instructions("<not supported>,,instructions:u,0,100.00,,\n"), None);
    }
}
