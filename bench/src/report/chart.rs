//! The chart: bars as plain SVG, readable on light and dark ground.

use std::fmt::Write;

use super::page::order;
use crate::{
    plan::{Case, Load},
    stack::Stack,
    table::{Summary, summaries},
};

const WIDTH: usize = 960;
/// Where names end and bars begin, and how long the longest bar is, in a panel of half the width.
const NAMES: f64 = 130.0;
const BAR: f64 = 250.0;
const ROW: f64 = 17.0;
const HEAD: f64 = 52.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:13px}.axis,.value{font-size:11px;fill:#59636e}\
.value{fill:#1f2328}.own{fill:#0969da}.other{fill:#8c959f}.limit{fill:#d1d9e0}.line{stroke:#d1d9e0}.ground{fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.axis{fill:#9198a1}.value{fill:#f0f6fc}.own{fill:#4493f8}.other{fill:#656c76}\
.limit{fill:#3d444d}.line{stroke:#3d444d}.ground{fill:#0d1117}}";

/// One panel: a case and what of it is shown.
struct Panel {
    title: String,
    /// What the axis counts, and which end is the good one.
    axis: &'static str,
    bars: Vec<(Stack, f64)>,
}

/// The whole chart.
pub(super) fn render(runs: &[crate::pair::Record]) -> String {
    let rows = summaries(runs, Stack::Strait);
    let panels: Vec<Panel> = order(runs).into_iter().flat_map(|case| panels(case, &rows)).collect();
    let mut body = String::new();
    let mut top = 10.0;
    for pair in panels.chunks(2) {
        let mut height: f64 = 0.0;
        for (column, panel) in pair.iter().enumerate() {
            height = height.max(draw(&mut body, panel, (column * WIDTH / 2) as f64 + 10.0, top));
        }
        top += height;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top:.0}\" width=\"{WIDTH}\" height=\"{top:.0}\" role=\"img\" \
         aria-label=\"strait and its peers, medians\">\n<style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

fn panels(case: Case, rows: &[Summary]) -> Vec<Panel> {
    let panel = |axis: &'static str, value: fn(&Summary) -> f64| {
        let bars = rows.iter().filter(|row| row.case == case).map(|row| (row.stack, value(row))).collect();
        Panel { title: case.to_string(), axis, bars }
    };
    match case {
        Case::Bulk { .. } | Case::Chunks { .. } => vec![
            panel("MB/s (more is better)", |row| row.rate),
            panel("CPU seconds per GiB, both sides (less is better)", |row| row.cpu_both),
        ],
        Case::Requests { .. } => vec![
            panel("requests per second (more is better)", |row| row.rate),
            panel("CPU µs per request, both sides (less is better)", |row| row.cpu_both),
        ],
        Case::Handshakes { .. } => vec![
            panel("handshakes per second (more is better)", |row| row.rate),
            panel("CPU µs per handshake, both sides (less is better)", |row| row.cpu_both),
        ],
        Case::Urgent { load: Load::Full, .. } => vec![panel("p99, ms (less is better)", |row| row.p99 / 1e3)],
        Case::Idle { .. } => vec![panel("KiB per connection, server (less is better)", |row| row.kib_each)],
        _ => Vec::new(),
    }
}

/// Draws a panel with its upper left corner there, and says how high it is.
fn draw(out: &mut String, panel: &Panel, left: f64, top: f64) -> f64 {
    let _ = writeln!(out, "<text class=\"title\" x=\"{left:.0}\" y=\"{:.0}\">{}</text>", top + 16.0, panel.title);
    let _ = writeln!(out, "<text class=\"axis\" x=\"{left:.0}\" y=\"{:.0}\">{}</text>", top + 32.0, panel.axis);
    let largest = panel.bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
    let step = round_step(largest / 5.0);
    let scale = BAR / largest;
    let (zero, bottom) = (left + NAMES, top + HEAD + ROW * panel.bars.len() as f64);
    for tick in 0..=(largest / step) as u32 {
        let value = f64::from(tick) * step;
        let x = zero + value * scale;
        let _ = writeln!(
            out,
            "<line class=\"line\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.0}\" y2=\"{bottom:.0}\"/>\
             <text class=\"axis\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            top + HEAD - 10.0,
            bottom + 12.0,
            number(value)
        );
    }
    for (index, (stack, value)) in panel.bars.iter().enumerate() {
        let y = top + HEAD - 6.0 + ROW * index as f64;
        let class = if stack.is_strait() {
            "own"
        } else if stack.is_limit() {
            "limit"
        } else {
            "other"
        };
        let length = (value * scale).max(1.0);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{stack}</text>\
             <rect class=\"{class}\" x=\"{zero:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.0}\" rx=\"2\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            zero - 6.0,
            y + 11.0,
            ROW - 4.0,
            zero + length + 4.0,
            y + 11.0,
            number(*value)
        );
    }
    HEAD + ROW * panel.bars.len() as f64 + 34.0
}

/// The smallest of 1, 2 and 5 times a power of ten that is no less than this.
fn round_step(about: f64) -> f64 {
    let power = 10f64.powf(about.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= about * 0.999).unwrap_or(10.0 * power)
}

/// Three digits, with thousands as k.
fn number(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0}k", value / 1e3),
        value if value >= 1_000.0 => format!("{:.1}k", value / 1e3),
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([0.37, 7.0, 130.0, 1.0].map(round_step), [0.5, 10.0, 200.0, 1.0]);
        assert_eq!(number(1_500.0), "1.5k");
    }
}
