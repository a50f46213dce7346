//! Medians and ratios, as a table for people and as values for JSON.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use crate::{
    flood::FloodRecord,
    measure::median,
    pair::Record,
    peers,
    plan::{Case, Load},
    stack::Stack,
};

/// The medians of one stack in one case, and its ratios to the baseline.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) case: Case,
    pub(crate) stack: Stack,
    /// MB/s, requests/s or connections/s.
    pub(crate) rate: f64,
    /// CPU-s/GiB or CPU-us/request (or connection) of the client.
    pub(crate) cpu_client: f64,
    /// The same of the server.
    pub(crate) cpu_server: f64,
    /// The same of both.
    pub(crate) cpu_both: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// MiB.
    pub(crate) peak_client: f64,
    /// MiB.
    pub(crate) peak_server: f64,
    /// KiB by which the server grew for each connection; idle case only.
    pub(crate) kib_each: f64,
    /// Ratios to the baseline, if that was run.
    pub(crate) to_baseline: Option<Ratios>,
}

/// How one stack compares with another in the same case: median over the rounds of the ratio within a
/// round, because what drifts (neighbours, clock speed) drifts for both.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Ratios {
    /// Above 1 = faster.
    pub(crate) rate: f64,
    /// Below 1 = cheaper.
    pub(crate) cpu: f64,
    /// p99 of a request or handshake; below 1 = quicker.
    pub(crate) p99: f64,
    /// Memory of the server for each connection, idle case only; below 1 = less.
    pub(crate) kib_each: f64,
}

pub(crate) type Runs<'a> = BTreeMap<Stack, Vec<&'a Record>>;

/// Every stack's runs of every case.
pub(crate) fn by_case(records: &[Record]) -> BTreeMap<Case, Runs<'_>> {
    let mut cases: BTreeMap<Case, Runs<'_>> = BTreeMap::new();
    for record in records {
        let runs = cases.entry(record.case).or_default();
        runs.entry(record.stack).or_default().push(record);
    }
    cases
}

/// Everything that was measured, by case and stack.
pub(crate) fn summaries(records: &[Record], baseline: Stack) -> Vec<Summary> {
    let mut all = Vec::new();
    for (case, runs) in by_case(records) {
        for (&stack, own) in &runs {
            let of = |value: &dyn Fn(&Record) -> f64| median(own.iter().map(|run| value(run)));
            all.push(Summary {
                case,
                stack,
                rate: of(&Record::rate),
                cpu_client: of(&|run| run.per_unit(run.client.cpu.total())),
                cpu_server: of(&|run| run.per_unit(run.server.cpu.total())),
                cpu_both: of(&Record::cpu_both),
                p50: of(&|run| run.times.p50),
                p99: of(&|run| run.times.p99),
                peak_client: of(&|run| run.client.peak_kib as f64 / 1024.0),
                peak_server: of(&|run| run.server.peak_kib as f64 / 1024.0),
                kib_each: of(&Record::kib_each),
                to_baseline: ratios(&runs, stack, baseline),
            });
        }
    }
    all
}

/// Of `stack` to `other`, if both ran.
pub(crate) fn ratios(runs: &Runs<'_>, stack: Stack, other: Stack) -> Option<Ratios> {
    let (own, others) = (runs.get(&stack)?, runs.get(&other)?);
    let of = |value: &dyn Fn(&Record) -> f64| {
        let pairs = own.iter().filter_map(|run| {
            let partner = others.iter().find(|partner| partner.round == run.round)?;
            Some(value(run) / value(partner))
        });
        median(pairs)
    };
    Some(Ratios {
        rate: of(&Record::rate),
        cpu: of(&Record::cpu_both),
        p99: of(&|run| run.times.p99),
        kib_each: of(&Record::kib_each),
    })
}

/// The tables.
pub(crate) fn render(records: &[Record], floods: &[FloodRecord], baseline: Stack) -> String {
    let mut out = String::new();
    let summaries = summaries(records, baseline);
    for (case, runs) in by_case(records) {
        let rounds = runs.values().map(Vec::len).max().unwrap_or(0);
        let _ = writeln!(out, "\n{case} (median of {rounds}; x = against {baseline}, by round)");
        let own = summaries.iter().filter(|summary| summary.case == case);
        match case {
            Case::Bulk { .. } | Case::Chunks { .. } => bulk_table(&mut out, own),
            Case::Burst { .. } => burst_table(&mut out, own),
            Case::Idle { .. } => idle_table(&mut out, own),
            Case::Handshakes { .. } => request_table(&mut out, own, ["per s", "handshake"]),
            Case::Urgent { load: Load::Full | Load::Paced { .. }, .. } => request_table(&mut out, own, ["bulk MB/s", "request"]),
            _ => request_table(&mut out, own, ["per s", "request"]),
        }
        if !matches!(case, Case::Burst { .. }) {
            against(&mut out, case, &runs);
        }
    }
    for apart in [false, true] {
        flood_table(&mut out, apart, &floods.iter().filter(|flood| flood.apart == apart).collect::<Vec<_>>());
    }
    let _ = writeln!(out, "\nNotes");
    for note in peers::NOTES {
        let _ = writeln!(out, "- {note}");
    }
    out
}

fn bulk_table<'a>(out: &mut String, rows: impl Iterator<Item = &'a Summary>) {
    let _ = writeln!(
        out,
        "{:<17}{:>9}{:>8} |{:>9}{:>9}{:>9}{:>8} |{:>9}{:>9}",
        "", "MB/s", "x", "client", "server", "both", "x", "client", "server"
    );
    let _ = writeln!(out, "{:<17}{:>17} |{:>35} |{:>18}", "", "", "CPU-s/GiB", "peak MiB");
    for row in rows {
        let x = row.to_baseline;
        let _ = writeln!(
            out,
            "{:<17}{:>9.0}{:>8} |{:>9.2}{:>9.2}{:>9.2}{:>8} |{:>9.1}{:>9.1}",
            row.stack,
            row.rate,
            times(x.map(|x| x.rate)),
            row.cpu_client,
            row.cpu_server,
            row.cpu_both,
            times(x.map(|x| x.cpu)),
            row.peak_client,
            row.peak_server
        );
    }
}

/// How long it took until the server's count was back; the rest would count the silence too.
fn burst_table<'a>(out: &mut String, rows: impl Iterator<Item = &'a Summary>) {
    let _ = writeln!(out, "{:<17}{:>9}{:>8}", "", "ms", "x");
    for row in rows {
        let x = times(row.to_baseline.map(|x| x.p99));
        let _ = writeln!(out, "{:<17}{:>9.1}{x:>8}", row.stack, row.p50 / 1e3);
    }
}

/// The server's growth, and what making the connections cost.
fn idle_table<'a>(out: &mut String, rows: impl Iterator<Item = &'a Summary>) {
    let _ = writeln!(out, "{:<17}{:>9}{:>8} |{:>9}{:>9}{:>9}{:>8}", "", "KiB each", "x", "client", "server", "both", "x");
    let _ = writeln!(out, "{:<17}{:>17} |{:>35}", "", "server", "CPU us/connection");
    for row in rows {
        let x = row.to_baseline;
        let _ = writeln!(
            out,
            "{:<17}{:>9.1}{:>8} |{:>9.0}{:>9.0}{:>9.0}{:>8}",
            row.stack,
            row.kib_each,
            times(x.map(|x| x.kib_each)),
            row.cpu_client,
            row.cpu_server,
            row.cpu_both,
            times(x.map(|x| x.cpu)),
        );
    }
}

fn request_table<'a>(out: &mut String, rows: impl Iterator<Item = &'a Summary>, [rate, what]: [&str; 2]) {
    let _ = writeln!(
        out,
        "{:<17}{:>9}{:>8} |{:>8}{:>8}{:>8} |{:>8}{:>8}{:>8}{:>8} |{:>8}{:>8}",
        "", rate, "x", "p50", "p99", "x", "client", "server", "both", "x", "client", "server"
    );
    let _ = writeln!(out, "{:<17}{:>17} |{:>24} |{:>32} |{:>16}", "", "", "us", format!("CPU us/{what}"), "peak MiB");
    for row in rows {
        let x = row.to_baseline;
        let _ = writeln!(
            out,
            "{:<17}{:>9.0}{:>8} |{:>8.0}{:>8.0}{:>8} |{:>8.1}{:>8.1}{:>8.1}{:>8} |{:>8.1}{:>8.1}",
            row.stack,
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
        );
    }
}

/// strait under each runtime against each other stack.
fn against(out: &mut String, case: Case, runs: &Runs<'_>) {
    for &own in runs.keys().filter(|stack| stack.is_strait()) {
        for &other in runs.keys().filter(|stack| !stack.is_strait()) {
            let Some(x) = ratios(runs, own, other) else {
                continue;
            };
            let _ = write!(out, "{own} / {other}: rate {:.2}x, CPU {:.2}x", x.rate, x.cpu);
            let _ = match case {
                Case::Requests { .. } | Case::Urgent { .. } | Case::Handshakes { .. } => writeln!(out, ", p99 {:.2}x", x.p99),
                Case::Idle { .. } => writeln!(out, ", memory {:.2}x", x.kib_each),
                _ => writeln!(out),
            };
        }
    }
}

fn flood_table(out: &mut String, apart: bool, floods: &[&FloodRecord]) {
    if floods.is_empty() {
        return;
    }
    let how = if apart {
        "the server on a core of its own, the honest client ahead of the flooder"
    } else {
        "all three share the processor"
    };
    let _ = writeln!(out, "\nflood: one honest client at a fixed rate, {how} (median of {}; us)", floods.len());
    let _ = writeln!(out, "{:<44}{:>9}{:>9}{:>9}{:>9}{:>9}", "", "p50", "x alone", "p99", "x alone", "server");
    for (index, situation) in FloodRecord::SITUATIONS.iter().enumerate() {
        let of = |value: &dyn Fn(&FloodRecord) -> f64| median(floods.iter().map(|flood| value(flood)));
        let _ = writeln!(
            out,
            "{:<44}{:>9.0}{:>9}{:>9.0}{:>9}{:>9}",
            situation,
            of(&|flood| flood.times[index].p50),
            times(Some(of(&|flood| flood.times[index].p50 / flood.times[0].p50))),
            of(&|flood| flood.times[index].p99),
            times(Some(of(&|flood| flood.times[index].p99 / flood.times[0].p99))),
            format!("{:.0} %", 100.0 * of(&|flood| flood.cores(index))),
        );
    }
    for flood in floods {
        for index in 2..flood.disturber.len() {
            let _ = writeln!(out, "{}: {:?}", FloodRecord::SITUATIONS[index], flood.disturber[index]);
        }
    }
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Side;

    fn run(stack: Stack, round: usize, wall: f64) -> Record {
        Record {
            stack,
            case: Case::Bulk { bytes: 1 << 30 },
            round,
            wall,
            client: Side::default(),
            server: Side::default(),
            times: crate::measure::Percentiles::default(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is ten times slower in the second round: both suffer, the ratio stays.
        let records =
            [run(Stack::Quinn, 0, 1.0), run(Stack::Libp2p, 0, 2.0), run(Stack::Quinn, 1, 10.0), run(Stack::Libp2p, 1, 20.0)];
        let all = summaries(&records, Stack::Quinn);
        let libp2p = all.iter().find(|row| row.stack == Stack::Libp2p);
        let ratio = libp2p.and_then(|row| row.to_baseline).expect("both ran");
        assert!((ratio.rate - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_missing_baseline_leaves_no_ratio() {
        let all = summaries(&[run(Stack::Quinn, 0, 1.0)], Stack::Libp2p);
        assert!(all[0].to_baseline.is_none());
        assert!(render(&[run(Stack::Quinn, 0, 1.0)], &[], Stack::Libp2p).contains("quinn"));
    }
}
