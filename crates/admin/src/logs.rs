//! What a node says of itself while it runs, as lines of text: bounded for each place in the source and hour, so that nobody fills a disk by making it say
//! the same again and again.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, callsite};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one place in the source within [`WINDOW`]; the next one after it says how many were left out.
pub const LINES_MAX: u32 = 60;
/// See [`LINES_MAX`].
pub const WINDOW: Duration = Duration::from_secs(3_600);
/// A line is at most about so long.
const LINE_BYTES_MAX: usize = 1_000;

/// Lines that wait to be written. Who says something never waits for whoever reads it: what has no room here is left out, and counted.
const WAITING_MAX: usize = 1_024;

/// A layer that writes lines. Other crates than strait's own are only heard when they warn.
pub struct Logs {
    level: LevelFilter,
    /// Places in the source are as many as the program has.
    places: Mutex<HashMap<callsite::Identifier, Place>>,
    lines: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Logs {
    /// Waits until all is written.
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // it has nothing to say of its end
        }
    }
}

struct Place {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Logs {
    /// Writes what is at least as grave as `level`, by a thread of its own: a reader that stands still holds nobody up.
    pub fn new(level: LevelFilter, mut to: impl Write + Send + 'static) -> Logs {
        let (lines, waiting) = sync_channel::<String>(WAITING_MAX);
        let write = move || {
            for line in waiting {
                // Nobody is there to be told when stderr is gone.
                let _ = to.write_all(line.as_bytes());
            }
        };
        // Without a thread nothing is said, and the node works all the same.
        let writer = std::thread::Builder::new().name("logs".to_owned()).spawn(write).ok();
        Logs { level, places: Mutex::default(), lines: Some(lines), writer }
    }

    fn hears(&self, metadata: &Metadata<'_>) -> bool {
        let level = if metadata.target().starts_with("strait") { self.level } else { self.level.min(LevelFilter::WARN) };
        *metadata.level() <= level
    }

    fn write(&self, now: Instant, at: SystemTime, metadata: &'static Metadata<'static>, text: &str) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(metadata.callsite()).or_insert(Place { since: now, lines: 0, left_out: 0 });
        if now.saturating_duration_since(place.since) >= WINDOW {
            *place = Place { since: now, lines: 0, left_out: place.left_out };
        }
        if place.lines >= LINES_MAX {
            place.left_out += 1;
            return;
        }
        let more = if place.left_out == 0 {
            String::new()
        } else {
            format!(" ({} more like this were left out before)", place.left_out)
        };
        let at = humantime::format_rfc3339_seconds(at);
        let line = format!("{at} {:5} {}: {text}{more}\n", metadata.level(), metadata.target());
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            Some(Ok(())) => *place = Place { since: place.since, lines: place.lines + 1, left_out: 0 },
            _ => place.left_out += 1,
        }
    }
}

impl<S: Subscriber> Layer<S> for Logs {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.hears(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.hears(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.write(Instant::now(), SystemTime::now(), event.metadata(), &text.whole());
    }
}

/// The message first, then the fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    /// On one line, of bounded length, without anything that would steer a terminal: some of it may be a remote's words.
    fn whole(self) -> String {
        let all = self.message + &self.fields;
        let mut out = String::new();
        for letter in all.chars() {
            if out.len() > LINE_BYTES_MAX {
                out.push('…');
                break;
            }
            out.push(if letter.is_control() { '\u{fffd}' } else { letter });
        }
        out
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Catch(Arc<Mutex<Option<&'static Metadata<'static>>>>);

    impl<S: Subscriber> Layer<S> for Catch {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            *self.0.lock().expect("not poisoned") = Some(event.metadata());
        }
    }

    /// Says that it was given something, and takes nothing, for ever.
    struct Stuck(SyncSender<()>);

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(());
            loop {
                std::thread::park();
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up() {
        let caught = Arc::new(Mutex::new(None));
        let subscriber = tracing_subscriber::registry().with(Catch(caught.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::info!("any place in the source will do"));
        let metadata = caught.lock().expect("not poisoned").expect("an event");
        let (begun, is_stuck) = sync_channel(1);
        // Its thread never ends, and nobody may wait for that.
        let logs = std::mem::ManuallyDrop::new(Logs::new(LevelFilter::INFO, Stuck(begun)));
        let begin = Instant::now();
        logs.write(begin, SystemTime::UNIX_EPOCH, metadata, "the one that it is stuck with");
        is_stuck.recv().expect("it was given that one");
        for hour in 1..=100 {
            for _ in 0..LINES_MAX {
                logs.write(begin + hour * WINDOW, SystemTime::UNIX_EPOCH, metadata, "x");
            }
        }
        let left_out: u64 = logs.places.lock().expect("not poisoned").values().map(|place| place.left_out).sum();
        assert_eq!(left_out, u64::from(100 * LINES_MAX) - WAITING_MAX as u64);
    }

    fn said(level: LevelFilter, say: impl FnOnce()) -> String {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(Logs::new(level, kept.clone()));
        tracing::subscriber::with_default(subscriber, say);
        let bytes = kept.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_line_has_its_level_place_words_and_fields() {
        let text = said(LevelFilter::INFO, || {
            tracing::info!(target: "strait::x", peer = %"P\x1b[2J\n", count = 3, "a thing happened");
            tracing::debug!(target: "strait::x", "not this");
            tracing::info!(target: "quinn_proto", "nor this");
            tracing::warn!(target: "quinn_proto", "but this");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with("Z INFO  strait::x: a thing happened peer=P\u{fffd}[2J\u{fffd} count=3"), "{text}");
        assert!(lines[1].ends_with(" WARN  quinn_proto: but this"), "{text}");
    }

    #[test]
    fn what_is_said_again_and_again_is_cut_and_counted_and_the_rest_goes_on() {
        let text = said(LevelFilter::INFO, || {
            for index in 0..10_000 {
                tracing::info!(target: "strait", "the same {index}");
            }
            tracing::info!(target: "strait", "{}", "long ".repeat(10_000));
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), LINES_MAX as usize + 1, "{}", lines.len());
        assert!(lines.iter().all(|line| line.len() < 2 * LINE_BYTES_MAX));
    }

    #[test]
    fn after_an_hour_it_is_said_again_with_how_many_were_left_out() {
        let kept = Kept::default();
        let logs = Logs::new(LevelFilter::INFO, kept.clone());
        let caught = Arc::new(Mutex::new(None));
        let subscriber = tracing_subscriber::registry().with(Catch(caught.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::info!("any place in the source will do"));
        let metadata = caught.lock().expect("not poisoned").expect("an event");
        let (begin, date) = (Instant::now(), SystemTime::UNIX_EPOCH);
        for _ in 0..LINES_MAX + 7 {
            logs.write(begin, date, metadata, "x");
        }
        logs.write(begin + WINDOW, date, metadata, "again");
        drop(logs);
        let text = String::from_utf8(kept.0.lock().expect("not poisoned").clone()).expect("text");
        assert_eq!(text.lines().count(), LINES_MAX as usize + 1);
        assert!(text.ends_with(": again (7 more like this were left out before)\n"), "{text}");
    }
}
