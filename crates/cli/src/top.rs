//! What `strait top` shows, from two readings of `/now.json`: rates are what has changed between them.

use std::time::Duration;

use console::{measure_text_width, truncate_str};
use serde_json::Value;

use crate::cmd::count;

/// What a remote has said must not steer the terminal.
pub(crate) fn harmless(text: impl Iterator<Item = char>) -> String {
    text.map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// The lines for a terminal of this height and width, the last of whose rows stays free.
pub fn draw(before: &Value, now: &Value, (height, width): (u16, u16)) -> Vec<String> {
    let (height, width) = (usize::from(height.max(8)), usize::from(width.max(40)));
    let seconds = (number(&now["uptime_s"]) - number(&before["uptime_s"])).max(0.001);
    let rate = |path: &[&str]| (at(now, path) - at(before, path)).max(0.0) / seconds;
    let mut lines = head(now, &rate);
    let rooms = height.saturating_sub(lines.len() + 1);
    let sections = [protocols(now, &rate), peers(before, now, seconds), refused(before, now, seconds)];
    let mut left = rooms;
    for (index, section) in sections.iter().enumerate() {
        // Each gets its part of what is left, and leaves what it does not need.
        let part = (left / (sections.len() - index)).min(section.len() + 1);
        if part < 3 || section.len() < 2 {
            continue;
        }
        lines.push(String::new());
        let shown = if section.len() < part { section.len() } else { part - 2 };
        lines.extend(section.iter().take(shown).cloned());
        if section.len() > shown {
            lines.push(format!("… and {} more", section.len() - shown));
        }
        left = rooms.saturating_sub(lines.len());
    }
    lines.into_iter().map(|line| truncate_str(&line, width, "…").into_owned()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn at(value: &Value, path: &[&str]) -> f64 {
    number(path.iter().fold(value, |value, name| &value[*name]))
}

fn text(value: &Value) -> String {
    harmless(value.as_str().unwrap_or("?").chars())
}

fn bytes(number: f64) -> String {
    indicatif::HumanBytes(number as u64).to_string()
}

fn time(seconds: f64) -> String {
    let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    match time.as_secs() {
        0 if time < Duration::from_millis(1) => format!("{} µs", time.as_micros()),
        0 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

fn bar(part: f64, of: f64) -> String {
    let filled = if of > 0.0 { (part / of * 20.0).round().clamp(0.0, 20.0) as usize } else { 0 };
    format!("[{}{}]", "#".repeat(filled), ".".repeat(20 - filled))
}

fn head(now: &Value, rate: &impl Fn(&[&str]) -> f64) -> Vec<String> {
    let there = |name: &str| at(now, &["now", name]);
    let wire = |way: &str| rate(&["totals", &format!("datagram_bytes_{way}")]) + rate(&["totals", &format!("pipe_bytes_{way}")]);
    vec![
        format!(
            "strait {}  {}  {} for {}",
            text(&now["version"]),
            text(&now["peer_id"]),
            text(&now["state"]),
            time(number(&now["uptime_s"]))
        ),
        format!(
            "{} ({} over QUIC, {} over TCP), {}; in {}/s, out {}/s",
            count(there("peers") as u64, "peer"),
            at(now, &["now", "connections", "quic"]),
            at(now, &["now", "connections", "tcp"]),
            count(there("streams") as u64, "stream"),
            bytes(wire("in")),
            bytes(wire("out"))
        ),
        format!(
            "memory {} {} of {} promised; {} for it",
            bar(there("memory"), there("memory_max")),
            bytes(there("memory")),
            bytes(there("memory_max")),
            match there("starved") as u64 {
                1 => "1 connection waits".to_owned(),
                number => format!("{number} connections wait"),
            }
        ),
        format!(
            "slots  {} {} of {}; handshakes {} of {}",
            bar(there("slots"), there("slots_max")),
            there("slots"),
            there("slots_max"),
            there("handshakes"),
            there("handshakes_max")
        ),
    ]
}

/// Columns, each as wide as its widest, the first to the left and the others to the right.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| measure_text_width(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(index, (cell, width))| {
            let pad = " ".repeat(width.saturating_sub(measure_text_width(cell)));
            if index == 0 { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn titles(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn protocols(now: &Value, rate: &impl Fn(&[&str]) -> f64) -> Vec<String> {
    let mut rows = vec![titles(&["PROTOCOL", "asks/s", "serves/s", "in/s", "out/s", "p50", "p99", "failed"])];
    for (name, entry) in now["protocols"].as_object().into_iter().flatten() {
        let rate = |what: &str| rate(&["protocols", name, what]);
        let kind = if number(&entry["sent"]) >= number(&entry["received"]) { "asked" } else { "served_in" };
        let within = |part: f64| within(&entry[kind]["counts"], &now["bounds_s"], part);
        rows.push(vec![
            harmless(name.chars()),
            format!("{:.0}", rate("sent")),
            format!("{:.0}", rate("received")),
            bytes(rate("request_bytes_in") + rate("reply_bytes_in")),
            bytes(rate("request_bytes_out") + rate("reply_bytes_out")),
            within(0.5),
            within(0.99),
            format!("{:.0}", number(&entry["failed"]) + number(&entry["broken"])),
        ]);
    }
    table(&rows)
}

/// The bound of the bucket in which this part of all lies.
fn within(counts: &Value, bounds: &Value, part: f64) -> String {
    let counts: Vec<f64> = counts.as_array().into_iter().flatten().map(number).collect();
    let all: f64 = counts.iter().sum();
    if all == 0.0 {
        return "-".to_owned();
    }
    let mut sum = 0.0;
    for (count, bound) in counts.iter().zip(bounds.as_array().into_iter().flatten()) {
        sum += count;
        if sum >= all * part {
            return format!("<{}", time(number(bound)));
        }
    }
    ">30 s".to_owned()
}

fn peers(before: &Value, now: &Value, seconds: f64) -> Vec<String> {
    let mut rows = vec![titles(&["PEER", "over", "rtt", "for", "in/s", "out/s", "streams", "memory", "at"])];
    let list = |value: &Value| value["peers"].as_array().cloned().unwrap_or_default();
    let earlier = list(before);
    for peer in list(now) {
        let Some(newest) = peer["connections"].as_array().and_then(|all| all.last()) else {
            continue;
        };
        let moved = |value: &Value, way: &str| {
            value["connections"].as_array().into_iter().flatten().map(|c| number(&c[way])).sum::<f64>()
        };
        let was = earlier.iter().find(|other| other["peer"] == peer["peer"]);
        let rate = |way: &str| was.map_or(0.0, |was| (moved(&peer, way) - moved(was, way)).max(0.0) / seconds);
        rows.push(vec![
            text(&peer["peer"]),
            text(&newest["transport"]),
            time(number(&newest["rtt_ms"]) / 1e3),
            time(number(&newest["age_s"])),
            bytes(rate("bytes_in")),
            bytes(rate("bytes_out")),
            number(&newest["streams"]["all"]).to_string(),
            format!("{:.0} %", 100.0 * number(&newest["granted"]) / number(&newest["granted_max"]).max(1.0)),
            text(&newest["address"]),
        ]);
    }
    table(&rows)
}

fn refused(before: &Value, now: &Value, seconds: f64) -> Vec<String> {
    let mut lines = vec!["REFUSED OR DROPPED SINCE THE START, AND WHY".to_owned()];
    for entry in now["refused"].as_array().into_iter().flatten() {
        let count = number(&entry["count"]);
        if count > 0.0 {
            let name = entry["name"].as_str().unwrap_or_default();
            let rate = (count - at(before, &["totals", name])).max(0.0) / seconds;
            lines.push(format!("{count:>9}  {rate:>7.1}/s  {}", text(&entry["words"])));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(uptime: f64, sent: u64, peers: usize) -> Value {
        let connection = json!({"transport": "quic", "address": "/ip4/\u{1b}[2J", "rtt_ms": 0.4, "age_s": 130.0, "bytes_in": sent * 1024,
            "bytes_out": 0, "granted": 50, "granted_max": 100, "streams": {"all": 3}});
        json!({
            "version": "0.1.0", "peer_id": "12D3", "state": "ready", "uptime_s": uptime,
            "now": {"peers": peers, "connections": {"quic": 1, "tcp": 0}, "streams": 3, "memory": 25, "memory_max": 100, "slots": 1, "slots_max": 4},
            "totals": {"datagram_bytes_in": sent * 1024, "dropped_late": 7},
            "protocols": {"/a/1": {"sent": sent, "received": 0, "failed": 2, "asked": {"counts": [1, 99, 0]}}},
            "bounds_s": [0.001, 0.0025],
            "refused": [{"name": "dropped_late", "words": "Too late.", "count": 17}, {"name": "jams", "words": "Jams.", "count": 0}],
            "peers": (0..peers).map(|index| json!({"peer": format!("P{index}"), "connections": [connection.clone()]})).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn rates_are_what_changed_between_two_readings() {
        let lines = draw(&reading(10.0, 100, 1), &reading(12.0, 300, 1), (40, 200));
        let all = lines.join("\n");
        for part in
            ["in 100.00 KiB/s", "[#####...............]", "/a/1", "<2.5 ms", "17      5.0/s  Too late.", "P0", "400 µs", "50 %"]
        {
            assert!(all.contains(part), "{part} is not in:\n{all}");
        }
        let row = lines.iter().find(|line| line.starts_with("/a/1")).expect("the protocol");
        assert_eq!(row.split_whitespace().nth(1), Some("100"), "{row}");
        assert!(!all.contains("Jams"), "what never happened is left out:\n{all}");
        assert!(!all.chars().any(|letter| letter.is_control() && letter != '\n'), "{all:?}");
    }

    #[test]
    fn it_fits_its_terminal() {
        for (height, width) in [(24, 80), (8, 40), (50, 200), (1, 1)] {
            let lines = draw(&reading(1.0, 1, 50), &reading(2.0, 2, 50), (height, width));
            assert!(lines.len() < usize::from(height.max(8)), "{} lines of {height}", lines.len());
            assert!(lines.iter().all(|line| measure_text_width(line) <= usize::from(width.max(40))));
        }
    }

    #[test]
    fn a_restarted_node_has_no_negative_rates() {
        let lines = draw(&reading(1000.0, 1_000_000, 1), &reading(1.0, 5, 1), (40, 200));
        assert!(lines.iter().all(|line| !line.contains('-') || line.contains("ready")), "{lines:?}");
    }

    #[test]
    fn an_answer_of_another_kind_is_no_panic() {
        draw(&json!({}), &json!({"peers": 3, "protocols": [1], "refused": {"a": 1}, "uptime_s": "x"}), (24, 80));
    }
}
