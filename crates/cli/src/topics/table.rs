//! A live table of keys and values, for a terminal.

use std::time::Duration;

use bytes::Bytes;
use console::{measure_text_width, truncate_str};
use strait::{Change, Known, SubscribeError};

/// Letters of a key or value that are kept: no terminal is wider.
const SHOWN: usize = 400;

/// What is known, as far as it can be shown.
#[derive(Debug)]
pub struct Table {
    known: Known<Bytes, Row>,
    changes: u64,
}

#[derive(Debug)]
struct Row {
    value: String,
    changed: Duration,
}

/// What a remote has sent must not steer the terminal.
fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    crate::top::harmless(text.chars().take(SHOWN))
}

fn age(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

impl Table {
    /// An empty one.
    pub fn new(keys_max: usize) -> Table {
        Table { known: Known::new(keys_max), changes: 0 }
    }

    /// Takes a change over; `now` is any clock's time.
    ///
    /// # Errors
    /// [`SubscribeError::TooManyKeys`]: more are told than any topic may have.
    pub fn apply(&mut self, change: Change<Bytes, Bytes>, now: Duration) -> Result<(), SubscribeError> {
        let shown = match change {
            // Of a value no more is kept than can be shown.
            Change::Put(key, value) => Change::Put(key, Row { value: harmless(&value), changed: now }),
            Change::Delete(key) => Change::Delete(key),
            Change::Begin => Change::Begin,
            Change::Whole => Change::Whole,
            Change::Resumed => Change::Resumed,
            Change::Interrupted(why) => Change::Interrupted(why),
        };
        let changed = self.known.apply(shown)?;
        self.changes += u64::from(changed.is_some());
        Ok(())
    }

    /// How many changes were taken over.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The lines to show on a terminal of this size. The last row of it stays free.
    pub fn draw(&self, topic: &str, per_second: f64, now: Duration, (height, width): (u16, u16)) -> Vec<String> {
        let (height, width) = (usize::from(height.max(4)), usize::from(width.max(20)));
        let rows = self.known.values();
        let state = match self.known.interruption() {
            Some(why) => format!("STANDS STILL: {}", harmless(why.to_string().as_bytes())),
            None if self.known.is_partial() => "reading what is there".to_owned(),
            None => "live".to_owned(),
        };
        let keys = super::super::cmd::count(rows.len() as u64, "key");
        let mut lines = vec![format!("{}: {keys}, {per_second:.0} changes/s, {state}", harmless(topic.as_bytes()))];
        let room = height - 3;
        let names: Vec<String> = rows.keys().take(room).map(|key| harmless(key)).collect();
        let widest = names.iter().map(|name| measure_text_width(name)).max().unwrap_or(0).clamp(3, width / 2);
        for (name, row) in names.iter().zip(rows.values()) {
            let name = truncate_str(name, widest, "…");
            let pad = " ".repeat(widest.saturating_sub(measure_text_width(&name)));
            let since = age(now.saturating_sub(row.changed));
            lines.push(format!("{name}{pad}  {since:>7}  {}", row.value));
        }
        if rows.len() > room {
            lines.push(format!("… and {} more; --prefix chooses, and a pipe gets all of them", rows.len() - room));
        }
        lines.into_iter().map(|line| truncate_str(&line, width, "…").into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &[u8]) -> Change<Bytes, Bytes> {
        Change::Put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value))
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let mut table = Table::new(1000);
        table.apply(Change::Begin, at(0)).unwrap();
        for key in 0..100 {
            table.apply(put(&format!("key{key:03}"), &[b'v'; 300]), at(0)).unwrap();
        }
        table.apply(Change::Whole, at(0)).unwrap();
        let lines = table.draw("t", 3.0, at(1500), (24, 80));
        assert!(lines.len() < 24, "{}", lines.len());
        assert!(lines.iter().all(|line| measure_text_width(line) <= 80));
        assert_eq!(lines[0], "t: 100 keys, 3 changes/s, live");
        assert!(lines[1].starts_with("key000    1.5 s  vvv"), "{}", lines[1]);
        assert!(lines[22].starts_with("… and 79 more"), "{}", lines[22]);
    }

    #[test]
    fn what_a_remote_sends_does_not_steer_the_terminal() {
        let mut table = Table::new(1000);
        table.apply(put("\x1b[2Jkey\r", b"\x1b]0;title\x07\nnext"), at(0)).unwrap();
        let lines = table.draw("t", 0.0, at(0), (24, 80));
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:?}");
    }

    /// In a snapshot too: such a key was kept beyond the end of it.
    #[test]
    fn what_is_deleted_in_a_snapshot_is_not_counted_in_it() {
        let mut table = Table::new(1);
        for change in [Change::Begin, put("a", b"1"), Change::Delete(Bytes::from_static(b"a")), put("b", b"1"), Change::Whole] {
            table.apply(change, at(0)).unwrap();
        }
        assert_eq!(table.draw("t", 0.0, at(0), (24, 80)).len(), 2);
    }

    #[test]
    fn more_keys_than_a_topic_may_have_are_not_kept() {
        let mut table = Table::new(2);
        table.apply(Change::Begin, at(0)).unwrap();
        let all: Vec<_> = ["a", "b", "b", "c"].map(|key| table.apply(put(key, b"1"), at(0))).into();
        assert_eq!(all, [Ok(()), Ok(()), Ok(()), Err(SubscribeError::TooManyKeys { max: 2 })]);
    }

    #[test]
    fn what_a_snapshot_does_not_have_is_gone() {
        let mut table = Table::new(1000);
        for change in [Change::Begin, put("a", b"1"), put("b", b"1"), Change::Whole] {
            table.apply(change, at(0)).unwrap();
        }
        for change in [Change::Begin, put("b", b"2"), Change::Whole] {
            table.apply(change, at(0)).unwrap();
        }
        let lines = table.draw("t", 0.0, at(0), (24, 80));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with('b') && lines[1].ends_with('2'));
    }
}
