//! The page: where strait is behind, then a table for each case.

use std::fmt::Write;

use super::{Measured, machine::version};
use crate::{
    pair::Record,
    peers,
    plan::{Case, Load},
    stack::{Family, Stack},
    table::{Ratios, Runs, Summary, by_case, ratios, summaries},
};

/// Differences up to this are told as none: rounds differ from each other about as much.
const NOISE: f64 = 1.05;

/// The whole page.
pub(super) fn render(measured: &Measured) -> String {
    let mut out = String::from(
        "# Benchmarks\n\nstrait and its peers, two processes on one machine's loopback. Written by \
         `cargo run --release --features peers -- report` in [`bench`](../bench/README.md), which also says what each case does; \
         do not edit by hand.\n",
    );
    machine(&mut out, measured);
    how_to_read(&mut out, measured);
    let cases = by_case(&measured.runs);
    behind(&mut out, &cases.iter().map(|(case, runs)| (*case, runs)).collect::<Vec<_>>());
    let _ = writeln!(out, "\n![The same figures as bars](benchmarks.svg)");
    // No ratios from here: the page has its own, each against the strait that runs the same way.
    let rows = summaries(&measured.runs, Stack::Strait);
    for case in order(&measured.runs) {
        let Some(runs) = cases.get(&case) else { continue };
        let _ = writeln!(out, "\n## {}", title(case));
        table(&mut out, case, runs, &rows.iter().filter(|row| row.case == case).collect::<Vec<_>>());
    }
    let _ = writeln!(out, "\n## What else to know\n");
    for note in peers::NOTES {
        let _ = writeln!(out, "- {note}");
    }
    if !measured.failed.is_empty() {
        let _ = writeln!(out, "\n## What failed\n");
        for failure in &measured.failed {
            let _ = writeln!(out, "- {failure}");
        }
    }
    out
}

/// The cases as they were run.
pub(super) fn order(runs: &[Record]) -> Vec<Case> {
    let mut cases = Vec::new();
    for run in runs {
        if !cases.contains(&run.case) {
            cases.push(run.case);
        }
    }
    cases
}

fn title(case: Case) -> String {
    let text = case.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn machine(out: &mut String, measured: &Measured) {
    let machine = &measured.machine;
    let _ = writeln!(out, "\n| | |\n|---|---|");
    let _ = writeln!(out, "| processor | {}, {} cores, {} MiB of memory |", machine.cpu, machine.cores, machine.memory_mib);
    let _ = writeln!(out, "| system | Linux {} |", machine.kernel);
    let _ = writeln!(out, "| date | {} (UTC), strait at {} |", machine.date, machine.commit);
    let _ = writeln!(out, "| rounds | {}, in {:.0} min |", measured.rounds, measured.seconds / 60.0);
    let mut stacks: Vec<Stack> = measured.runs.iter().map(|run| run.stack).collect();
    stacks.sort_unstable();
    stacks.dedup();
    let mut crates: Vec<&str> = Vec::new();
    for stack in stacks {
        if !crates.contains(&stack.krate()) {
            crates.push(stack.krate());
        }
    }
    crates.extend(["rustls", "ring", "tokio"].into_iter().filter(|name| !crates.contains(name)).collect::<Vec<_>>());
    let versions = crates.iter().map(|name| format!("{name} {}", version(name))).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "| versions | {versions} |");
    if let Some(note) = &measured.note {
        let _ = writeln!(out, "| note | {note} |");
    }
}

fn how_to_read(out: &mut String, measured: &Measured) {
    let _ = write!(
        out,
        "\n## How to read it\n\n\
         - All figures are medians of the rounds, {} here. The stacks take turns within a round.\n\
         - **×** is the stack against strait run the same way (QUIC under the same runtime; TCP with the same security): the median over the \
         rounds of the ratio *within* a round. Above 1.00 in a rate means faster than strait, in all else dearer, slower or larger.\n\
         - The machine is shared with others. Wall time drifts most; judge by CPU, and by × rather than by figures. Up to {:.0} % is noise.\n\
         - CPU is user and system time of both processes. Peak memory is that of the whole process.\n\
         - `-current` is tokio's current-thread runtime; all others have the multi-thread runtime with two workers. `tcp-tls` is a limit \
         and no stack: it has neither streams nor flow control.\n\
         - Sizes are chosen so that all of it takes a quarter of an hour; the titles name them.\n",
        measured.rounds,
        (NOISE - 1.0) * 100.0
    );
}

/// One thing in which stacks differ.
struct Measure {
    name: &'static str,
    /// How many times worse strait is than the other.
    worse: fn(Ratios) -> f64,
}

fn measures(case: Case) -> Vec<Measure> {
    let rate = Measure { name: "rate", worse: |x| x.rate };
    let cpu = Measure { name: "CPU", worse: |x| 1.0 / x.cpu };
    let p99 = Measure { name: "p99", worse: |x| 1.0 / x.p99 };
    let memory = Measure { name: "memory", worse: |x| 1.0 / x.kib_each };
    match case {
        Case::Bulk { .. } | Case::Chunks { .. } => vec![rate, cpu],
        Case::Idle { .. } => vec![memory, Measure { name: "CPU of making them", ..cpu }],
        // The rate of paced requests says nothing that their times do not, and their CPU is that of the bulk too.
        Case::Urgent { load: Load::None, .. } => vec![p99, cpu],
        Case::Urgent { load: Load::Full, .. } => vec![p99, Measure { name: "bulk beside them", ..rate }],
        Case::Urgent { .. } => vec![p99],
        _ => vec![rate, cpu, p99],
    }
}

/// Where strait is behind, and of whom.
fn behind(out: &mut String, cases: &[(Case, &Runs<'_>)]) {
    let _ = writeln!(out, "\n## Where strait is behind\n\nBy how many times it is worse than whom:\n");
    let mut lines = 0;
    for (case, runs) in cases {
        let mut found = Vec::new();
        for measure in measures(*case) {
            let others = runs.keys().filter(|stack| !stack.is_strait() && !stack.is_limit());
            let mut worse: Vec<(Stack, f64)> = others
                .filter_map(|&other| Some((other, (measure.worse)(ratios(runs, other, other.strait_beside())?))))
                .filter(|(_, factor)| *factor > NOISE && factor.is_finite())
                .collect();
            worse.sort_by(|one, two| two.1.total_cmp(&one.1));
            let others: Vec<_> = worse.iter().map(|(other, factor)| format!("{factor:.2} ({other})")).collect();
            if !others.is_empty() {
                found.push(format!("{} by {}", measure.name, others.join(", ")));
            }
        }
        if !found.is_empty() {
            let _ = writeln!(out, "- **{}**: {}.", title(*case), found.join("; "));
            lines += 1;
        }
    }
    if lines == 0 {
        let _ = writeln!(out, "Nowhere by more than {:.0} %, in these cases and on this machine.", (NOISE - 1.0) * 100.0);
    } else {
        let _ = writeln!(out, "\nThe limits, `tcp-tls`, are not counted: the tables have them.");
    }
}

/// What stands in a row behind its name.
type Cells = fn(&Summary, Option<Ratios>) -> String;

fn table(out: &mut String, case: Case, runs: &Runs<'_>, rows: &[&Summary]) {
    let (head, cells): (&str, Cells) = match case {
        Case::Bulk { .. } | Case::Chunks { .. } => (
            "| | MB/s | × | CPU-s/GiB client | server | both | × | peak MiB client | server |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            transfer_cells,
        ),
        Case::Idle { .. } => (
            "| | KiB each, server | × | CPU µs/connection client | server | both | × |\n|---|--:|--:|--:|--:|--:|--:|",
            idle_cells,
        ),
        Case::Urgent { load: Load::Full | Load::Paced { .. }, .. } => (
            "| | bulk, MB/s | × | p50 µs | p99 µs | × | CPU µs each client | server | both | × | peak MiB client | server |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            request_cells,
        ),
        _ => (
            "| | per s | × | p50 µs | p99 µs | × | CPU µs each client | server | both | × | peak MiB client | server |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            request_cells,
        ),
    };
    for (family, name) in [(Family::Quic, "QUIC"), (Family::Tcp, "TCP")] {
        let rows: Vec<_> = rows.iter().filter(|row| row.stack.family() == family).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\nOver {name}:\n\n{head}");
        for row in rows {
            let beside = row.stack.strait_beside();
            let x = (beside != row.stack).then(|| ratios(runs, row.stack, beside)).flatten();
            let name = if row.stack.is_strait() { format!("**{}**", row.stack) } else { row.stack.to_string() };
            let _ = writeln!(out, "| {name} | {} |", cells(row, x));
        }
    }
}

fn transfer_cells(row: &Summary, x: Option<Ratios>) -> String {
    format!(
        "{:.0} | {} | {:.2} | {:.2} | {:.2} | {} | {:.0} | {:.0}",
        row.rate,
        times(x.map(|x| x.rate)),
        row.cpu_client,
        row.cpu_server,
        row.cpu_both,
        times(x.map(|x| x.cpu)),
        row.peak_client,
        row.peak_server
    )
}

fn request_cells(row: &Summary, x: Option<Ratios>) -> String {
    format!(
        "{:.0} | {} | {:.0} | {:.0} | {} | {:.1} | {:.1} | {:.1} | {} | {:.0} | {:.0}",
        row.rate,
        times(x.map(|x| x.rate)),
        row.p50,
        row.p99,
        times(x.map(|x| x.p99)),
        row.cpu_client,
        row.cpu_server,
        row.cpu_both,
        times(x.map(|x| x.cpu)),
        row.peak_client,
        row.peak_server
    )
}

fn idle_cells(row: &Summary, x: Option<Ratios>) -> String {
    format!(
        "{:.1} | {} | {:.0} | {:.0} | {:.0} | {}",
        row.kib_each,
        times(x.map(|x| x.kib_each)),
        row.cpu_client,
        row.cpu_server,
        row.cpu_both,
        times(x.map(|x| x.cpu))
    )
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Cpu, Side};

    fn run(stack: Stack, wall: f64) -> Record {
        let side = Side { cpu: Cpu { user: wall, system: 0.0 }, ..Side::default() };
        let case = Case::Bulk { bytes: 1 << 30 };
        Record { stack, case, round: 0, wall, client: side, server: side, times: Default::default() }
    }

    #[test]
    fn what_is_slower_is_told() {
        let runs = [run(Stack::Strait, 2.0), run(Stack::Quinn, 1.0), run(Stack::Libp2p, 3.0)];
        let cases = by_case(&runs);
        let mut out = String::new();
        behind(&mut out, &cases.iter().map(|(case, runs)| (*case, runs)).collect::<Vec<_>>());
        assert!(out.contains("rate by 2.00 (quinn)") && !out.contains("libp2p"), "{out}");
    }
}
