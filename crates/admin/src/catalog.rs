//! Every metric: its name, what it counts, and the question that it answers. What is exported, and `docs/metrics.md`, follow from this.

use std::fmt::Write as _;

use strait_core::{PerCarrier, PerProtocol, Totals};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It only grows, and begins at zero with the process.
    Counter,
    /// What there is now.
    Gauge,
    /// Durations in seconds, in the buckets of [`strait_core::BOUNDS_US`].
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without the `_total` that OpenMetrics adds to counters.
    pub name: String,
    /// What it is.
    pub shape: Shape,
    /// The names of its labels. Their values are names in the program, of which there are few.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub words: &'static str,
    /// The question that it answers.
    pub question: &'static str,
}

/// Of the whole node, by the name in [`Totals`].
const NODE: &[(&str, &str)] = &[
    ("datagrams_in", "How many packets reach this node over UDP?"),
    ("datagram_bytes_in", "How much comes in over UDP, headers of QUIC included?"),
    ("datagrams_out", "How many packets does it send over UDP?"),
    ("datagram_bytes_out", "How much goes out over UDP?"),
    ("pipe_reads", "How often is TCP read? With the bytes: are the pieces large?"),
    ("pipe_bytes_in", "How much comes in over TCP?"),
    ("pipe_writes", "How many system calls does TCP cost?"),
    ("pipe_bytes_out", "How much goes out over TCP?"),
    ("transmits", "How many system calls does sending cost? With datagrams_out: how well do they share them?"),
    ("dropped_full", "Do peers send faster than their connections are served?"),
    ("dropped_late", "Is this machine too slow, or too busy, for what comes?"),
    ("dropped_moved", "Does somebody change addresses as an attack?"),
    ("dropped_unknown", "Does traffic come that is nobody's: of a former life of this node, or noise?"),
    ("quic_faults", "Has a bug of the QUIC library ended connections? Anything above zero is one to report."),
    ("strangers_dropped", "Are newcomers turned away before they could prove anything?"),
    ("strangers_over_rate", "Is strangers_per_second too low, or is this a flood?"),
    ("strangers_no_place", "Are all places of handshakes taken by some that go on?"),
    ("retries", "How many newcomers had to prove their address first, which costs them a round trip?"),
    ("refused", "How many were refused at the door, for want of places or memory?"),
    ("refused_full", "How many proved who they are and found all slots taken?"),
    ("displaced_handshakes", "Do handshakes stand still and give way to others?"),
    ("displaced_never_used", "Do peers take slots and do nothing with them?"),
    ("displaced_idle", "Are there fewer slots than peers that come back now and then?"),
    ("displaced_served", "Are there fewer slots than peers in use? Then raise connections_max."),
    ("answers_dropped", "Are there more strangers to answer than can be?"),
    ("dials", "How often does this node connect to others?"),
    ("packets_out", "How many unreliable packets does the application send?"),
    ("packets_out_dropped", "How many of them were dropped here, since newer ones came first?"),
    ("packets_in", "How many unreliable packets come?"),
    ("packets_in_dropped", "Do peers send packets that nobody here expects?"),
    ("subscriptions", "How often do peers subscribe to topics here?"),
    ("subscriptions_refused", "Do peers ask for topics that are not here, or for too many?"),
    ("topic_wakes", "How often are subscribers woken? With topic_frames: for how much?"),
    ("topic_frames", "How many frames of topics were written?"),
    ("topic_looks", "What do filters and slow readers cost in keys looked at?"),
    ("dials_failed", "How many dials fail?"),
    ("dials_lost", "How many dials were not needed in the end?"),
    ("lookups", "How many names are looked up?"),
    ("handshakes_in", "How many newcomers begin a handshake?"),
    ("handshakes_in_failed", "How many of them do not end it?"),
    ("connections_opened", "How many connections come about?"),
    ("connections_closed", "How many end? The difference to those opened is there now."),
    ("connections_merged", "How often do both sides dial at the same moment?"),
    ("connections_surplus", "Does one identity want more connections than it may have?"),
    ("streams_in", "How many exchanges do peers begin?"),
    ("streams_out", "How many does this node begin?"),
    ("streams_reused", "How many requests cost no stream of their own?"),
    ("queues_kept_short", "Is bulk slower for a while because something urgent runs beside it?"),
    ("stream_bytes_in", "How much of what comes in is the application's?"),
    ("stream_bytes_out", "How much of what goes out is the application's?"),
    ("bytes_copied", "How many bytes are copied in memory? With the stream bytes: how often each?"),
    ("drives", "How much work do streams make? With the streams: how often is each looked at?"),
    ("turns", "How often does the node run?"),
    ("turns_full", "Is there more to do than one turn may take: is it saturated?"),
    ("work", "How much does it do, in units of about a nanosecond?"),
    ("grants_refused", "Is memory_bytes, or connection_bytes_max, too small for what is wanted?"),
    ("windows_grown", "Do connections speed up?"),
    ("timeouts", "How much ends for want of progress?"),
    ("handshakes_slow", "Do handshakes take too long: loss, or somebody who holds places?"),
    ("connections_silent", "Do peers vanish without a word?"),
    ("jams", "Were streams given up that filled a window unread?"),
    ("breaches", "Do peers break protocols?"),
    ("pings", "How many pings were answered?"),
    ("identified", "How many peers have said what they are?"),
    ("identify_refused", "Do peers say what cannot be?"),
    ("records", "How many signed addresses of peers were accepted?"),
    ("records_refused", "Do peers send signed addresses that are forged or old?"),
    ("addresses_out_of_scope", "Do peers tell addresses that lead elsewhere from here?"),
    ("traces", "Does somebody trace connections now, which costs time for each packet?"),
    ("traces_cut", "Was what there was to tell more than the traces could hold?"),
];

/// By protocol, by the name in [`PerProtocol`].
const PROTOCOL: &[(&str, &str)] = &[
    ("sent", "How often is this protocol used from here?"),
    ("replied", "How many of these were answered?"),
    ("failed", "How many of these failed?"),
    ("timeouts", "How many of the failures were for want of time or progress?"),
    ("received", "How often do peers use it?"),
    ("served", "How many of these were answered whole?"),
    ("broken", "How many of these did the peer break off?"),
    ("request_bytes_out", "How large are the requests of this node?"),
    ("reply_bytes_in", "How much do the replies bring?"),
    ("request_bytes_in", "How large are the requests of peers?"),
    ("reply_bytes_out", "How much do the replies of this node carry?"),
];

/// By transport, by the name in [`PerCarrier`].
const TRANSPORT: &[(&str, &str)] = &[
    ("dials", "Over which transport does this node dial?"),
    ("dials_ended", "Over which of them do dials lead to nothing: is UDP blocked somewhere?"),
    ("handshakes_in", "Over which transport do newcomers come?"),
    ("handshakes_in_failed", "Over which of them do handshakes fail?"),
    ("connections_opened", "Over which transport do connections come about?"),
    ("connections_closed", "Over which of them do they end?"),
    ("stream_bytes_in", "Which transport brings the bytes?"),
    ("stream_bytes_out", "Which transport takes the bytes?"),
];

/// What the driver has done, with its words.
pub(crate) const DRIVER: &[(&str, &str, &str)] = &[
    ("receive_calls", "System calls that received.", "How many system calls does receiving cost?"),
    ("send_calls", "System calls that sent.", "How many system calls does sending cost?"),
    ("send_blocked", "Sends that found the socket full.", "Is the socket's buffer too small, or the link full?"),
    ("send_errors", "Sends that failed; the datagrams are loss.", "Does the system refuse to send?"),
    ("wakeups", "Times the driver woke up.", "How often does the node wake up?"),
    (
        "accept_rests",
        "Times that no TCP connection could be accepted, for want of descriptors or memory.",
        "Is the limit of open files too low?",
    ),
    ("bytes_copied", "Bytes copied from the socket's buffer into datagrams.", "How much does receiving copy?"),
];

/// What there is now: the name, its labels, the words, the question.
pub(crate) const GAUGES: &[(&str, &[&str], &str, &str)] = &[
    ("peers", &[], "Peers that are connected.", "How many peers are connected?"),
    ("connections", &["transport"], "Established connections.", "Over what are they connected?"),
    ("handshakes", &[], "Handshakes of others that are under way.", "Do newcomers come in, or pile up?"),
    (
        "slots",
        &[],
        "Slots that are taken: connections, and dials under way.",
        "How full is the node? Beside limit{name=\"connections_max\"}.",
    ),
    ("streams", &[], "Streams in the tables.", "How much is under way?"),
    (
        "memory_promised_bytes",
        &[],
        "Bytes promised to connections and queues: the worst that they may hold.",
        "How much of memory_bytes is spoken for?",
    ),
    (
        "memory_held_bytes",
        &[],
        "Bytes that the node holds for its peers, as far as it knows: within 10 % of what is allocated for them.",
        "How much memory do the peers take now?",
    ),
    ("memory_waiting_connections", &[], "Connections that wait for memory.", "Does want of memory hold peers up now?"),
    ("book_bytes", &[], "Bytes that the address book holds.", "How full is the address book?"),
    ("subscribers", &[], "Subscriptions of peers to topics of this node.", "Who listens?"),
    ("ready", &[], "1 while newcomers are taken, 0 while the node closes.", "Should traffic be sent here?"),
    ("uptime_seconds", &[], "How long the node has been there.", "Was it started again?"),
    ("limit", &["name"], "The limits that are set; times in seconds.", "Which numbers does this node keep to?"),
    ("build", &["version"], "1, with the version that runs.", "Which version runs where?"),
];

/// Durations: the name, its labels, the words, the question.
pub(crate) const HISTOGRAMS: &[(&str, &[&str], &str, &str)] = &[
    (
        "request_seconds",
        &["protocol"],
        "Requests of this node, from the wish until the whole reply; those that failed are not in it.",
        "How long do answers take, seen from here?",
    ),
    (
        "serve_seconds",
        &["protocol"],
        "Requests of peers, from the whole request until the whole reply was handed over.",
        "How long does this node take to answer?",
    ),
    ("handshake_seconds", &["transport"], "Handshakes that succeeded.", "How long does it take to connect?"),
    ("ping_seconds", &[], "Round trips of pings.", "How far away are peers?"),
    (
        "queue_delay_seconds",
        &[],
        "How long datagrams waited for their connection's turn.",
        "How busy is this node: does it keep up?",
    ),
];

/// How often a limit was reached.
pub(crate) const LIMIT_REACHED: (&str, &str, &str) =
    ("limit_reached", "How often something ran into a limit, by the limit's name.", "Which limit is in the way?");

fn find(list: &[(&'static str, &'static str)], name: &str) -> &'static str {
    list.iter().find(|(of, _)| *of == name).map_or("", |(_, question)| question)
}

/// All metrics, in the order in which they are exported.
pub fn catalog() -> Vec<Metric> {
    let metric = |name: String, shape, labels, words: &'static str, question| Metric {
        name: format!("strait_{name}"),
        shape,
        labels,
        words: words.trim(),
        question,
    };
    let mut all = Vec::new();
    for ((name, _), words) in Totals::default().list().into_iter().zip(Totals::WORDS) {
        all.push(metric(name.to_owned(), Shape::Counter, &[], words, find(NODE, name)));
    }
    for ((name, _), words) in PerProtocol::default().list().into_iter().zip(PerProtocol::WORDS) {
        all.push(metric(format!("protocol_{name}"), Shape::Counter, &["protocol"], words, find(PROTOCOL, name)));
    }
    for ((name, _), words) in PerCarrier::default().list().into_iter().zip(PerCarrier::WORDS) {
        all.push(metric(format!("transport_{name}"), Shape::Counter, &["transport"], words, find(TRANSPORT, name)));
    }
    for (name, words, question) in DRIVER {
        all.push(metric(format!("driver_{name}"), Shape::Counter, &[], words, question));
    }
    let (name, words, question) = LIMIT_REACHED;
    all.push(metric(name.to_owned(), Shape::Counter, &["limit"], words, question));
    for (name, labels, words, question) in GAUGES {
        all.push(metric((*name).to_owned(), Shape::Gauge, labels, words, question));
    }
    for (name, labels, words, question) in HISTOGRAMS {
        all.push(metric((*name).to_owned(), Shape::Histogram, labels, words, question));
    }
    all
}

/// The table of `docs/metrics.md`.
pub fn reference() -> String {
    let mut text = String::from("| metric | kind | counts | question |\n|---|---|---|---|\n");
    for metric in catalog() {
        let (end, kind) = match metric.shape {
            Shape::Counter => ("_total", "counter"),
            Shape::Gauge => ("", "gauge"),
            Shape::Histogram => ("", "histogram"),
        };
        let labels = metric.labels.iter().map(|label| format!("{{{label}}}")).collect::<String>();
        let _ = writeln!(text, "| `{}{end}{labels}` | {kind} | {} | {} |", metric.name, metric.words, metric.question);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_answers_a_question_and_no_question_is_without_its_metric() {
        let all = catalog();
        for metric in &all {
            assert!(metric.question.ends_with(['?', '.']), "{} answers no question: {:?}", metric.name, metric.question);
            assert!(metric.words.ends_with('.'), "{}: {:?}", metric.name, metric.words);
        }
        let counters = NODE.len() + PROTOCOL.len() + TRANSPORT.len() + DRIVER.len() + 1;
        assert_eq!(all.len(), counters + GAUGES.len() + HISTOGRAMS.len(), "a question is left of a metric that is gone");
    }

    #[test]
    fn the_document_lists_what_there_is() {
        let document = include_str!("../../../docs/metrics.md");
        assert!(document.ends_with(&reference()), "docs/metrics.md is old; its table should be:\n\n{}", reference());
    }
}
