//! Every setting with its words and its default, as a file that can be used.

use std::fmt::Write as _;
use std::time::Duration;

use strait_core::Limits;
use strait_core::limits::LimitValue;

use super::settings::SETTINGS;

/// Lines of the reference are about so long.
const WIDTH: usize = 120;

/// The reference: a configuration file in which each line is commented out.
pub fn reference() -> String {
    let mut out = String::from(
        "# Every setting of `strait node`. Lines that begin with #: are its defaults, or examples where there is none.\n\
         # Sizes may have a unit (K, M, G, T; powers of 1024), times have one (ms, s, m, h, d).\n",
    );
    let mut section = "";
    for setting in SETTINGS {
        let (of, name) = setting.name.rsplit_once('.').unwrap_or(("", setting.name));
        if of != section {
            let _ = write!(out, "\n[{of}]\n");
            section = of;
        }
        out.push('\n');
        comment(&mut out, setting.words);
        let _ = writeln!(out, "#: {name} = {}", setting.example);
    }
    out.push_str("\n[limits]\n");
    for (name, words, value) in Limits::default().list() {
        out.push('\n');
        comment(&mut out, &plain(&words.concat()));
        let _ = writeln!(out, "#: {name} = {}", shown(name, value));
    }
    out
}

/// Markdown's links and backquotes left out.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.trim();
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        let Some((words, behind)) = after.split_once(']') else {
            rest = after;
            break;
        };
        out.push_str(words);
        rest = match behind.strip_prefix('(') {
            Some(link) => link.split_once(')').map_or("", |(_, rest)| rest),
            None => behind,
        };
    }
    out.push_str(rest);
    out.replace('`', "")
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() >= WIDTH {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

fn shown(name: &str, value: LimitValue) -> String {
    match value {
        LimitValue::Time(time) => format!("\"{}\"", shown_time(time)),
        LimitValue::Number(number) if name.contains("bytes") || name.contains("window") => shown_size(number),
        LimitValue::Number(number) => number.to_string(),
    }
}

fn shown_time(time: Duration) -> String {
    let ms = time.as_millis();
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

fn shown_size(number: u64) -> String {
    for (power, unit) in [(30, "G"), (20, "M"), (10, "K")] {
        if number >= 1 << power && number.is_multiple_of(1 << power) {
            return format!("\"{}{unit}\"", number >> power);
        }
    }
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn its_lines_are_the_defaults() {
        // Examples are of settings without a default: those of the limits, and the admin port, are what holds anyway.
        let text: String = reference().split_inclusive('\n').map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
        let limits = text.split_once("[limits]").expect("its section").1;
        let config = Config::read(&format!("[limits]{limits}")).expect("all are known");
        assert_eq!(config.limits, Limits::default());
        assert_eq!(limits.lines().filter(|line| line.contains(" = ")).count(), Limits::NAMES.len(), "each limit is there once");
        let examples = text.replace("12D3KooW...", &strait_core::PeerId::random().to_string());
        assert_eq!(Config::read(&examples).expect("the examples can be used").admin, Config::default().admin);
    }

    #[test]
    fn links_are_left_out() {
        assert_eq!(plain(" How `many` [`Node::connect`](crate::Node) [x] make."), "How many Node::connect x make.");
    }

    #[test]
    fn the_document_is_what_the_command_prints() {
        assert_eq!(
            include_str!("../../../../deploy/strait.toml"),
            reference(),
            "run: strait node --reference > deploy/strait.toml"
        );
    }
}
