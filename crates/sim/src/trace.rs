//! The record of a run: a digest of everything that was sent, and the means to find where two runs part.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::tcp::Segment;

/// Entries kept for comparison, about 80 bytes each. Later ones are only in the digest.
const ENTRIES_MAX: usize = 1 << 20;

/// One thing that happened: a datagram or a TCP segment that was sent, or a note of the scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A datagram as it left its host, before the link did anything to it.
    Datagram {
        /// Virtual time since the start.
        at: Duration,
        /// Source address as seen from outside.
        source: SocketAddr,
        /// Destination address.
        destination: SocketAddr,
        /// Payload bytes.
        length: usize,
        /// The first 8 bytes of the payload's BLAKE3 hash.
        hash: u64,
    },
    /// A TCP segment as it left its host.
    Segment {
        /// Virtual time since the start.
        at: Duration,
        /// Source address as seen from outside.
        source: SocketAddr,
        /// Destination address.
        destination: SocketAddr,
        /// Payload bytes.
        length: usize,
        /// The first 8 bytes of the BLAKE3 hash of its header and payload.
        hash: u64,
    },
    /// A note, see [`Trace::note`].
    Note {
        /// Virtual time since the start.
        at: Duration,
        /// Its text.
        text: String,
    },
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Datagram { at, source, destination, length, hash } => {
                write!(f, "{:>14.9} s  {source} -> {destination}  {length} bytes  {hash:016x}", at.as_secs_f64())
            }
            Entry::Segment { at, source, destination, length, hash } => {
                write!(f, "{:>14.9} s  {source} -> {destination}  TCP, {length} bytes  {hash:016x}", at.as_secs_f64())
            }
            Entry::Note { at, text } => write!(f, "{:>14.9} s  note: {text}", at.as_secs_f64()),
        }
    }
}

fn short_hash(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// The entries of a run and their running digest.
#[derive(Debug, Default)]
pub struct Trace {
    entries: Vec<Entry>,
    count: usize,
    hasher: blake3::Hasher,
    expected: Option<Arc<[Entry]>>,
}

impl Trace {
    /// A trace that panics at the first entry that differs from `expected`, an earlier run's.
    #[must_use]
    pub fn expecting(expected: Arc<[Entry]>) -> Trace {
        Trace { expected: Some(expected), ..Trace::default() }
    }

    /// Records a datagram.
    pub fn datagram(&mut self, at: Duration, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.push(Entry::Datagram { at, source: from, destination: to, length: payload.len(), hash: short_hash(payload) });
    }

    /// Records a TCP segment.
    pub(crate) fn segment(&mut self, at: Duration, from: SocketAddr, to: SocketAddr, segment: &Segment) {
        let (length, hash) = (segment.payload.len(), short_hash(&segment.encode()));
        self.push(Entry::Segment { at, source: from, destination: to, length, hash });
    }

    /// Records something that two runs must agree on, such as what an app has received.
    pub fn note(&mut self, at: Duration, text: String) {
        self.push(Entry::Note { at, text });
    }

    /// BLAKE3 over all entries so far: time, source, destination and content of each.
    #[must_use]
    pub fn digest(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// How many entries were recorded.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The entries (the first 2^20 of them) for [`Trace::expecting`].
    #[must_use]
    pub fn into_entries(self) -> Arc<[Entry]> {
        self.entries.into()
    }

    /// The last `n` entries that were kept.
    #[must_use]
    pub fn last(&self, n: usize) -> &[Entry] {
        &self.entries[self.entries.len().saturating_sub(n)..]
    }

    fn push(&mut self, entry: Entry) {
        self.digest_entry(&entry);
        let index = self.count;
        self.count += 1;
        if index >= ENTRIES_MAX {
            return;
        }
        if let Some(expected) = &self.expected
            && expected.get(index) != Some(&entry)
        {
            self.report(index, expected.get(index), &entry);
        }
        self.entries.push(entry);
    }

    fn digest_entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Datagram { at, source, destination, length, hash }
            | Entry::Segment { at, source, destination, length, hash } => {
                let kind = if matches!(entry, Entry::Segment { .. }) { 2 } else { 0 };
                self.hasher.update(&[kind]);
                self.hasher.update(&at.as_nanos().to_le_bytes());
                for address in [source, destination] {
                    match address.ip() {
                        IpAddr::V4(ip) => self.hasher.update(&ip.octets()),
                        IpAddr::V6(ip) => self.hasher.update(&ip.octets()),
                    };
                    self.hasher.update(&address.port().to_le_bytes());
                }
                self.hasher.update(&(*length as u64).to_le_bytes());
                self.hasher.update(&hash.to_le_bytes());
            }
            Entry::Note { at, text } => {
                self.hasher.update(&[1]);
                self.hasher.update(&at.as_nanos().to_le_bytes());
                self.hasher.update(&(text.len() as u64).to_le_bytes());
                self.hasher.update(text.as_bytes());
            }
        }
    }

    fn report(&self, index: usize, expected: Option<&Entry>, found: &Entry) -> ! {
        let before: Vec<_> = self.last(8).iter().map(Entry::to_string).collect();
        let expected = expected.map_or("the end of the run".to_owned(), Entry::to_string);
        panic!(
            "the second run of this seed is not the first: entry {index} differs, so something in it \
             does not come from the seed.\n  both runs: {}\n  first run: {expected}\n second run: {found}",
            before.join("\n             "),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(trace: &mut Trace, at: u64, payload: &[u8]) {
        let from = SocketAddr::from(([10, 0, 0, 1], 1));
        let to = SocketAddr::from(([10, 0, 0, 2], 1));
        trace.datagram(Duration::from_millis(at), from, to, payload);
    }

    #[test]
    fn the_digest_covers_time_and_content() {
        let digests = [(1, b"a"), (1, b"b"), (2, b"a")].map(|(at, payload)| {
            let mut trace = Trace::default();
            record(&mut trace, at, payload);
            trace.digest()
        });
        assert_ne!(digests[0], digests[1]);
        assert_ne!(digests[0], digests[2]);
    }

    #[test]
    #[should_panic(expected = "entry 1 differs")]
    fn the_first_difference_is_told() {
        let mut first = Trace::default();
        record(&mut first, 1, b"same");
        record(&mut first, 2, b"one");
        let mut second = Trace::expecting(first.into_entries());
        record(&mut second, 1, b"same");
        record(&mut second, 2, b"two");
    }
}
