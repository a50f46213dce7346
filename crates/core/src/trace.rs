//! Traces of single connections in qlog (draft-ietf-quic-qlog-main-schema, version 0.3): what the node itself knows of one, from when somebody asked for
//! it. One that is open already can be traced too, which a trace of the QUIC crate's own could not. Sizes, times and causes are in it, never what was said,
//! nor keys.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use libp2p_identity::PeerId;

use crate::json::{self, Object};
use crate::report::StreamsNow;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was taken.
    Yes,
    /// There is no room for it now: it is lost, and the trace will say so.
    NoRoom,
    /// Nobody wants any more of them.
    Over,
}

/// Takes the records of one trace. It is called in the middle of a turn, so it must not wait.
pub trait TraceSink: Send {
    /// Takes one record of JSON text sequences (RFC 7464): a separator, a JSON object, a line feed.
    fn record(&mut self, record: &str) -> Taken;
}

/// Says which connections are traced from their beginning.
pub trait Traces: Send + Sync + Debug {
    /// A connection begins: when this node dials it, or when a stranger's handshake has told its name. `None`: it is not traced. Otherwise where the
    /// records go, and how many bytes they may be.
    fn begin(&self, peer: &PeerId, dialled: bool) -> Option<(Box<dyn TraceSink>, u64)>;
}

/// Kept free for the last record, which says why there is no more.
const CLOSING_BYTES: u64 = 160;

/// One trace, and what it knows of its connection.
pub(crate) struct Trace {
    sink: Box<dyn TraceSink>,
    began: Instant,
    /// How many bytes it may still hand over.
    left: u64,
    /// Records that its sink had no room for, since it last had.
    lost: u64,
    /// Some were lost, or left out since there was no room for them.
    cut: bool,
    over: bool,
    text: String,
    pub(crate) vitals: Vitals,
    pub(crate) streams: StreamsNow,
    pub(crate) granted: u64,
    pub(crate) starved: bool,
}

/// How many kinds of frames are told apart.
pub(crate) const FRAMES: usize = 23;

/// What a transport knows of itself. A trace tells what has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Vitals {
    /// Frames received and sent so far, by kind.
    pub(crate) frames_in: [u64; FRAMES],
    pub(crate) frames_out: [u64; FRAMES],
    pub(crate) rtt: Duration,
    pub(crate) rtt_min: Duration,
    /// The congestion window, and where it stops to double, in bytes.
    pub(crate) window: u64,
    pub(crate) threshold: Option<u64>,
    pub(crate) lost: u64,
    pub(crate) lost_bytes: u64,
    pub(crate) congestions: u64,
    pub(crate) mtu: u64,
}

/// What is known at the beginning of a trace.
pub(crate) struct Beginning {
    pub(crate) peer: PeerId,
    pub(crate) dialled: bool,
    pub(crate) carrier: &'static str,
    pub(crate) remote: String,
    /// How long the connection has been there.
    pub(crate) age: Duration,
    /// Since 1970.
    pub(crate) date: Duration,
    pub(crate) vitals: Vitals,
}

impl Trace {
    /// Begins a trace of at most `bytes_max`.
    pub(crate) fn new(now: Instant, sink: Box<dyn TraceSink>, bytes_max: u64, of: Beginning) -> Trace {
        let mut trace = Trace {
            sink,
            began: now,
            left: bytes_max,
            lost: 0,
            cut: false,
            over: false,
            text: String::new(),
            vitals: of.vitals,
            streams: StreamsNow::default(),
            granted: 0,
            starved: false,
        };
        let mut text = String::from("\u{1e}");
        json::object(&mut text, |head| {
            head.text("qlog_version", "0.3").text("qlog_format", "JSON-SEQ").text("title", "strait").object("trace", |trace| {
                trace.object("vantage_point", |point| {
                    point.text("type", if of.dialled { "client" } else { "server" });
                });
                trace.object("common_fields", |common| {
                    common.text("time_format", "relative").millis("reference_time", of.date);
                });
            });
        });
        text.push('\n');
        trace.hand_over(&text);
        trace.record(now, "strait:trace_began", |data| {
            data.text("peer", &of.peer.to_string()).text("over", of.carrier).text("remote", &of.remote).millis("age", of.age);
        });
        // Not what has changed, but all of it.
        let before = Vitals { frames_in: of.vitals.frames_in, frames_out: of.vitals.frames_out, ..Vitals::default() };
        trace.metrics(now, &before);
        trace
    }

    /// Writes one event down, if there is still room for it.
    pub(crate) fn record(&mut self, now: Instant, name: &str, data: impl FnOnce(&mut Object<'_>)) {
        if self.over {
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        self.write(&mut text, now, name, data);
        if text.len() as u64 > self.left.saturating_sub(CLOSING_BYTES) {
            self.cut = true;
            self.end(now, "it is as large as it may be");
        } else {
            self.hand_over(&text);
        }
        self.text = text;
    }

    /// Ends it with a word of why.
    pub(crate) fn end(&mut self, now: Instant, why: &'static str) {
        if self.over {
            return;
        }
        let mut text = String::new();
        self.write(&mut text, now, "strait:trace_ended", |data| {
            data.text("why", why);
        });
        self.hand_over(&text);
        self.over = true;
    }

    fn write(&self, text: &mut String, now: Instant, name: &str, data: impl FnOnce(&mut Object<'_>)) {
        text.push('\u{1e}');
        json::object(text, |event| {
            event.millis("time", now.saturating_duration_since(self.began)).text("name", name).object("data", |fields| {
                data(fields);
                if self.lost > 0 {
                    fields.number("strait_records_lost_before", self.lost);
                }
            });
        });
        text.push('\n');
    }

    fn hand_over(&mut self, text: &str) {
        // The very first may be too large already.
        let Some(left) = self.left.checked_sub(text.len() as u64) else {
            self.over = true;
            self.cut = true;
            return;
        };
        match self.sink.record(text) {
            Taken::Yes => {
                self.left = left;
                self.lost = 0;
            }
            Taken::NoRoom => {
                self.lost = self.lost.saturating_add(1);
                self.cut = true;
            }
            Taken::Over => self.over = true,
        }
    }

    /// Whether no more will be told.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether something that there was to tell is not in it.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Tells which metrics are others than `before`, and what was lost since.
    pub(crate) fn metrics(&mut self, now: Instant, before: &Vitals) {
        let is = self.vitals;
        let measured = |vitals: &Vitals| (vitals.rtt, vitals.rtt_min, vitals.window, vitals.threshold);
        if measured(&is) != measured(before) {
            self.record(now, "recovery:metrics_updated", |data| {
                for (name, is, was) in [("smoothed_rtt", is.rtt, before.rtt), ("min_rtt", is.rtt_min, before.rtt_min)] {
                    if is != was {
                        data.millis(name, is);
                    }
                }
                if is.window != before.window {
                    data.number("congestion_window", is.window);
                }
                if let Some(threshold) = is.threshold.filter(|_| is.threshold != before.threshold) {
                    data.number("ssthresh", threshold);
                }
            });
        }
        if (is.lost, is.congestions) != (before.lost, before.congestions) {
            self.record(now, "strait:packets_lost", |data| {
                data.number("count", is.lost.saturating_sub(before.lost));
                data.number("bytes", is.lost_bytes.saturating_sub(before.lost_bytes));
                data.number("congestion_events", is.congestions.saturating_sub(before.congestions));
            });
        }
        if is.mtu != before.mtu {
            self.record(now, "connectivity:mtu_updated", |data| {
                data.number("new", is.mtu);
            });
        }
    }
}

/// The lengths of datagrams, as qlog's `raw` has them: `segment` each, and the last one what is left of `size`.
pub(crate) fn lengths(data: &mut Object<'_>, size: usize, segment: usize) {
    let segment = segment.max(1);
    let all = (0..size).step_by(segment).map(|begun| size.saturating_sub(begun).min(segment));
    data.objects("raw", all, |raw, length| {
        raw.number("length", length as u64);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone)]
    struct Kept(Arc<Mutex<(String, Taken)>>);

    impl TraceSink for Kept {
        fn record(&mut self, record: &str) -> Taken {
            let mut kept = self.0.lock().expect("nobody panics");
            if kept.1 == Taken::Yes {
                kept.0.push_str(record);
            }
            kept.1
        }
    }

    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    fn trace(bytes_max: u64) -> (Trace, Kept, Instant) {
        let (kept, now) = (Kept(Arc::new(Mutex::new((String::new(), Taken::Yes)))), Instant::now());
        let (peer, age, date) = (PeerId::random(), Duration::ZERO, Duration::from_secs(1));
        let remote = "/ip4/192.0.2.1/udp/1/quic-v1".to_owned();
        let of = Beginning { peer, dialled: true, carrier: "quic", remote, age, date, vitals: Vitals::default() };
        (Trace::new(now, Box::new(kept.clone()), bytes_max, of), kept, now)
    }

    #[test]
    fn it_is_never_longer_than_it_may_be_and_says_that_it_was_cut() {
        for bytes_max in 0..3_000 {
            let (mut trace, kept, now) = trace(bytes_max);
            (0..100u64).for_each(|number| trace.record(now, "some:event", |data| _ = data.number("number", number)));
            let text = &kept.0.lock().expect("nobody panics").0;
            assert!(text.len() as u64 <= bytes_max, "{} of {bytes_max}", text.len());
            assert!(trace.is_over() && trace.is_cut());
            if bytes_max > 1_000 {
                let last = text.rsplit('\u{1e}').next().expect("one");
                assert!(last.contains("\"strait:trace_ended\",\"data\":{\"why\":\"it is as large as it may be\"}"), "{last}");
            }
        }
    }

    #[test]
    fn what_a_slow_reader_missed_is_told_with_the_next_record() {
        let (mut trace, kept, now) = trace(1 << 20);
        kept.0.lock().expect("nobody panics").1 = Taken::NoRoom;
        (0..3).for_each(|_| trace.record(now, "some:event", |_| {}));
        kept.0.lock().expect("nobody panics").1 = Taken::Yes;
        trace.record(now, "other:event", |data| _ = data.number("is", 1));
        trace.record(now, "last:event", |_| {});
        let text = &kept.0.lock().expect("nobody panics").0;
        assert!(text.contains("\"other:event\",\"data\":{\"is\":1,\"strait_records_lost_before\":3}"), "{text}");
        assert!(text.contains("\"last:event\",\"data\":{}"), "{text}");
        assert!(trace.is_cut() && !trace.is_over());
    }
}
