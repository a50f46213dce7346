//! Showing people how far it is: a bar on a terminal, plain lines elsewhere. All of it goes to stderr.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Where progress goes. May be shared between threads.
#[derive(Debug)]
pub struct Progress {
    how: How,
}

#[derive(Debug)]
enum How {
    Quiet,
    Bar(ProgressBar),
    Plain(Plain),
}

/// Progress as lines, at most one every [`PLAIN_EVERY`].
#[derive(Debug)]
struct Plain {
    done: AtomicU64,
    state: Mutex<PlainState>,
}

#[derive(Debug)]
struct PlainState {
    phase: &'static str,
    total: u64,
    began: Instant,
    told: Instant,
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
            let now = Instant::now();
            let state = PlainState { phase: "", total: 0, began: now, told: now };
            How::Plain(Plain { done: AtomicU64::new(0), state: Mutex::new(state) })
        };
        Progress { how }
    }

    /// Begins a phase of `total` bytes.
    pub fn phase(&self, name: &'static str, total: u64) {
        match &self.how {
            How::Quiet => {}
            How::Bar(bar) => {
                bar.reset();
                bar.set_length(total);
                bar.set_message(name);
            }
            How::Plain(plain) => {
                plain.done.store(0, Ordering::Relaxed);
                if let Ok(mut state) = plain.state.lock() {
                    let now = Instant::now();
                    *state = PlainState { phase: name, total, began: now, told: now };
                }
            }
        }
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        match &self.how {
            How::Quiet => {}
            How::Bar(bar) => bar.inc(bytes),
            How::Plain(plain) => {
                plain.done.fetch_add(bytes, Ordering::Relaxed);
                plain.tell();
            }
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
}

/// Writes a line to stderr; that it may be closed is no reason to stop a transfer.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Plain {
    fn tell(&self) {
        // Whoever finds it locked leaves the line to the one who holds it.
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.told.elapsed() < PLAIN_EVERY {
            return;
        }
        state.told = Instant::now();
        write_line(&line(state.phase, self.done.load(Ordering::Relaxed), state.total, state.began.elapsed()));
    }
}

/// One line of plain progress.
fn line(phase: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
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
    }
}
