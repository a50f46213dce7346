//! Showing how far it is: to people on stderr, by a bar on a terminal and by plain lines elsewhere; to programs on stdout, by events.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::news::News;

/// Time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(2);
/// Time between two events of progress.
const EVENT_EVERY: Duration = Duration::from_millis(250);

/// Where progress goes. May be shared between threads.
#[derive(Debug)]
pub struct Progress {
    how: How,
    events: Option<Meter>,
}

#[derive(Debug)]
enum How {
    Quiet,
    Bar(ProgressBar),
    Plain(Meter),
}

/// How far a phase is, told now and then.
#[derive(Debug)]
struct Meter {
    every: Duration,
    done: AtomicU64,
    phase: Mutex<Phase>,
}

#[derive(Debug, Clone, Copy)]
struct Phase {
    name: &'static str,
    total: u64,
    began: Instant,
    told: Instant,
}

impl Meter {
    fn new(every: Duration) -> Meter {
        let now = Instant::now();
        Meter { every, done: AtomicU64::new(0), phase: Mutex::new(Phase { name: "", total: 0, began: now, told: now }) }
    }

    fn begin(&self, name: &'static str, total: u64) -> Phase {
        let now = Instant::now();
        let phase = Phase { name, total, began: now, told: now };
        self.done.store(0, Ordering::Relaxed);
        *self.phase.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = phase;
        phase
    }

    fn add(&self, bytes: u64, tell: impl FnOnce(&Phase, u64)) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        // Whoever finds it locked leaves the telling to the one who holds it.
        let Ok(mut phase) = self.phase.try_lock() else { return };
        if phase.told.elapsed() >= self.every {
            phase.told = Instant::now();
            tell(&phase, self.done.load(Ordering::Relaxed));
        }
    }
}

impl Progress {
    /// A bar if stderr is a terminal, else plain lines; nothing if `quiet`.
    pub fn new(quiet: bool) -> Progress {
        let how = if quiet {
            How::Quiet
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            let style = "{msg:10} {bar:30} {percent:>3}%  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            How::Bar(bar)
        } else {
            How::Plain(Meter::new(PLAIN_EVERY))
        };
        Progress { how, events: None }
    }

    /// The same, and events on stdout if `events` (see `docs/json.md`). Quiet progress has none: then the last line is all there is.
    pub fn with_events(quiet: bool, events: bool) -> Progress {
        Progress { events: (events && !quiet).then(|| Meter::new(EVENT_EVERY)), ..Progress::new(quiet) }
    }

    /// Begins a phase of `total` bytes; 0 if that is not known.
    pub fn phase(&self, name: &'static str, total: u64) {
        match &self.how {
            How::Quiet => {}
            How::Bar(bar) => {
                bar.reset();
                bar.set_length(total);
                bar.set_message(name);
            }
            How::Plain(meter) => _ = meter.begin(name, total),
        }
        if let Some(meter) = &self.events {
            write_event(&event(&meter.begin(name, total), 0));
        }
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        match &self.how {
            How::Quiet => {}
            How::Bar(bar) => bar.inc(bytes),
            How::Plain(meter) => {
                meter.add(bytes, |phase, done| write_line(&line(phase.name, done, phase.total, phase.began.elapsed())));
            }
        }
        if let Some(meter) = &self.events {
            meter.add(bytes, |phase, done| write_event(&event(phase, done)));
        }
    }

    /// Ends the phase and takes the bar away.
    pub fn clear(&self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }

    /// A line of its own, for people.
    pub fn say(&self, line: &str) {
        match &self.how {
            How::Quiet => {}
            How::Bar(bar) => bar.suspend(|| write_line(line)),
            How::Plain(_) => write_line(line),
        }
    }

    /// An event of its own, for programs.
    pub fn event(&self, event: &Value) {
        if self.events.is_some() {
            write_event(event);
        }
    }

    /// Something that happened, for both.
    pub fn news(&self, news: &News) {
        let line = news.to_string();
        if !line.is_empty() {
            self.say(&line);
        }
        self.event(news.event());
    }

    /// The same, for what people need to know even when little is to be said.
    pub fn urgent(&self, news: &News) {
        if matches!(self.how, How::Quiet) {
            write_line(&news.to_string());
        }
        self.news(news);
    }
}

/// Writes a line to stderr; that it may be closed is no reason to stop a transfer.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes an event to stdout. Nor is that: the last line of all tells whether stdout works.
fn write_event(event: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{event}").and_then(|()| out.flush());
}

fn event(phase: &Phase, done: u64) -> Value {
    let seconds = phase.began.elapsed().as_secs_f64();
    json!({"event": "progress", "phase": phase.name, "bytes": done, "total": phase.total, "seconds": seconds})
}

/// One line of plain progress.
fn line(phase: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    if total == 0 && done > 0 {
        return format!("{phase} {}  {}/s", HumanBytes(done), HumanBytes(rate as u64)); // nobody knows how much will come
    }
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    let left = HumanDuration(Duration::from_secs_f64(left.min(1e9)));
    format!("{phase} {percent}%  {} of {}  {}/s  {left} left", HumanBytes(done), HumanBytes(total), HumanBytes(rate as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_has_rate_and_time_left() {
        let text = line("fetching", 10 << 20, 40 << 20, Duration::from_secs(10));
        assert_eq!(text, "fetching 25%  10.00 MiB of 40.00 MiB  1.00 MiB/s  30 seconds left");
        assert!(line("fetching", 0, 0, Duration::ZERO).contains("100%"));
        assert_eq!(line("reading", 1 << 20, 0, Duration::from_secs(1)), "reading 1.00 MiB  1.00 MiB/s");
    }

    #[test]
    fn a_meter_tells_no_more_often_than_it_should_and_counts_all() {
        let told = std::cell::RefCell::new(Vec::new());
        let meter = Meter::new(Duration::MAX);
        meter.begin("x", 9);
        (0..5).for_each(|_| meter.add(1, |_, done| told.borrow_mut().push(done)));
        assert!(told.borrow().is_empty());
        let meter = Meter { every: Duration::ZERO, ..meter };
        meter.add(2, |_, done| told.borrow_mut().push(done));
        assert_eq!(*told.borrow(), [7]);
    }
}
