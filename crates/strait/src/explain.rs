//! What is, why, since when and what happens next, in words that need no knowledge of networks.

use std::fmt;
use std::time::Duration;

use strait_core::{Carrier, ConnectionNow, Counters, Histogram, Limits, Now, PeerId, PeerNow, Totals, json};

use crate::node::Node;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// The node as a whole.
    Node,
    /// One peer.
    Peer(PeerId),
    /// One protocol, by its name.
    Protocol(String),
}

/// One thing that there is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sentence {
    /// What is.
    pub is: String,
    /// Why, most likely.
    pub why: Option<String>,
    /// Since when.
    pub since: Option<String>,
    /// What happens next, or can be done.
    pub next: Option<String>,
}

/// An explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Of what.
    pub of: Of,
    /// What there is to say, the most important first.
    pub sentences: Vec<Sentence>,
}

impl Node {
    /// What this node does, what troubles it, and what can be done, in words.
    pub fn explain(&self) -> Explanation {
        let sentences = of_node(&self.now(), &self.counters(), self.uptime(), self.is_running());
        Explanation { of: Of::Node, sentences }
    }

    /// How it stands with a peer, and why, in words.
    pub fn explain_peer(&self, peer: PeerId) -> Explanation {
        Explanation { of: Of::Peer(peer), sentences: of_peer(self.peer_now(peer).as_ref(), &self.limits()) }
    }

    /// What became of the exchanges of a protocol, by its name, in words.
    pub fn explain_protocol(&self, name: &str) -> Explanation {
        Explanation { of: Of::Protocol(name.to_owned()), sentences: of_protocol(name, &self.counters(), self.uptime()) }
    }
}

impl Explanation {
    /// As a JSON object: `of` (`node`, `peer` or `protocol`), `name`, and `sentences` with `is`, `why`, `since` and `next`, each a text or null.
    pub fn to_json(&self) -> String {
        let (of, name) = match &self.of {
            Of::Node => ("node", String::new()),
            Of::Peer(peer) => ("peer", peer.to_string()),
            Of::Protocol(name) => ("protocol", name.clone()),
        };
        let mut text = String::new();
        json::object(&mut text, |all| {
            all.text("of", of).text("name", &name).objects("sentences", &self.sentences, |object, sentence| {
                let Sentence { is, why, since, next } = sentence;
                object.text("is", is).maybe("why", why.as_deref());
                object.maybe("since", since.as_deref()).maybe("next", next.as_deref());
            });
        });
        text
    }
}

/// A paragraph for each sentence.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sentence in &self.sentences {
            let since = sentence.since.as_ref().map(|since| format!(" ({since})")).unwrap_or_default();
            writeln!(f, "{}{since}.", sentence.is)?;
            for (word, part) in [("Why", &sentence.why), ("Next", &sentence.next)] {
                if let Some(part) = part {
                    writeln!(f, "  {word}: {part}.")?;
                }
            }
        }
        Ok(())
    }
}

fn say(is: impl Into<String>) -> Sentence {
    Sentence { is: is.into(), ..Sentence::default() }
}

impl Sentence {
    fn why(mut self, why: impl Into<String>) -> Sentence {
        self.why = Some(why.into());
        self
    }

    fn since(mut self, since: impl Into<String>) -> Sentence {
        self.since = Some(since.into());
        self
    }

    fn next(mut self, next: impl Into<String>) -> Sentence {
        self.next = Some(next.into());
        self
    }
}

fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// A time as people say it.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time < Duration::from_millis(1) => "less than a millisecond".to_owned(),
        0 => format!("{} ms", time.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes as people say them.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=10_239_999 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn percent(part: u64, of: u64) -> u64 {
    part.saturating_mul(100).checked_div(of).unwrap_or(0)
}

/// The bound below which this part of a histogram's durations lies, in words.
fn within(histogram: &Histogram, percent: u64) -> String {
    let wanted = histogram.total().saturating_mul(percent).div_ceil(100);
    let mut sum = 0u64;
    for (count, bound) in histogram.counts().iter().zip(strait_core::BOUNDS_US) {
        sum = sum.saturating_add(*count);
        if sum >= wanted {
            return format!("within {}", if bound < 1_000 { format!("{bound} µs") } else { time(Duration::from_micros(bound)) });
        }
    }
    "in more than 30 s".to_owned()
}

fn of_node(now: &Now, counters: &Counters, uptime: Duration, running: bool) -> Vec<Sentence> {
    if !running {
        return vec![say("The node has stopped").next("start the process again; its log may say why it stopped")];
    }
    let [quic, tcp] = now.connections;
    let peers = format!("{} connected ({quic} over QUIC, {tcp} over TCP)", count(now.peers, "peer"));
    let mut all = Vec::new();
    if now.closing {
        let next = "it ends when what is under way has finished, or the drain deadline is over";
        all.push(say(format!("The node is closing: it takes nobody new; {peers}")).why("it was asked to stop").next(next));
    } else {
        all.push(say(format!("The node works; {peers}")).since(format!("for {}", time(uptime))));
    }
    let memory = percent(now.memory, now.memory_max);
    let promised = format!("{memory} % of the memory for peers is promised: {} of {}", bytes(now.memory), bytes(now.memory_max));
    if now.starved > 0 {
        let waits = format!(
            "{} for memory; {promised}",
            if now.starved == 1 { "1 connection waits".to_owned() } else { format!("{} connections wait", now.starved) }
        );
        let why = "what all connections may hold at the worst comes to more than memory_bytes";
        all.push(
            say(waits).why(why).next(
                "they go on as soon as others give memory back; if this lasts, raise memory_bytes or lower connections_max",
            ),
        );
    } else {
        all.push(say(promised));
    }
    if now.slots >= now.slots_max {
        let why = "there are as many connections as connections_max allows";
        let next = "a newcomer that proves who it is takes the place of the one that was of the least use; if peers in use have to go, raise connections_max";
        all.push(say(format!("All {} are taken", count(now.slots_max, "slot"))).why(why).next(next));
    }
    all.extend(troubles(counters, uptime));
    all
}

/// A counter, what it means that it has moved, and what can be done.
const TROUBLES: &[(&str, &str, &str)] = &[
    ("quic_faults", "a bug in the QUIC library ended connections", "the peers connect again; please report it"),
    (
        "displaced_served",
        "peers that were being served had to give their slots to newcomers",
        "raise connections_max if there is memory for it",
    ),
    (
        "grants_refused",
        "something wanted more memory than there was to give, and waited or got less",
        "raise memory_bytes if this goes on",
    ),
    (
        "dropped_late",
        "packets had waited too long to be of use, since this machine was too busy",
        "give it more processor time, or fewer peers",
    ),
    ("dropped_full", "peers sent faster than they are served; their senders slow down by themselves", "nothing has to be done"),
    (
        "strangers_over_rate",
        "more newcomers came at once than are looked at; honest ones try again by themselves",
        "raise strangers_per_second if they are honest",
    ),
    (
        "handshakes_slow",
        "handshakes took too long: a bad path, or somebody who holds places",
        "nothing has to be done; docs/abuse-feed.md says how to see who",
    ),
    (
        "connections_silent",
        "peers vanished without a word: a crash, sleep or a broken network",
        "they connect again by themselves",
    ),
    (
        "breaches",
        "peers broke the rules of a protocol; their streams were ended",
        "nothing has to be done; docs/abuse-feed.md says how to see who",
    ),
];

fn troubles(counters: &Counters, uptime: Duration) -> Vec<Sentence> {
    let list = counters.totals.list();
    let found = TROUBLES.iter().filter_map(|(name, why, next)| {
        let times = list.iter().find(|(of, _)| of == name).map_or(0, |(_, times)| *times);
        let at = list.iter().position(|(of, _)| of == name)?;
        let words = Totals::WORDS.get(at)?.trim().trim_end_matches('.');
        (times > 0).then(|| say(format!("{words}: {times}")).why(*why).since(format!("in {}", time(uptime))).next(*next))
    });
    found.collect()
}

fn of_peer(peer: Option<&PeerNow>, limits: &Limits) -> Vec<Sentence> {
    let Some(peer) = peer else {
        let next = "it is connected when it dials this node, or when the application here wants it";
        return vec![say("This peer is not connected").next(next)];
    };
    let mut all = Vec::new();
    let newest = peer.connections.len().saturating_sub(1);
    for (index, connection) in peer.connections.iter().enumerate() {
        all.extend(of_connection(connection, index == newest, limits));
    }
    if peer.protected {
        all.push(say("Its slot is kept for it").why("the application here protects this peer"));
    }
    all
}

fn of_connection(connection: &ConnectionNow, newest: bool, limits: &Limits) -> Vec<Sentence> {
    let who = if connection.dialled { "this node dialled it" } else { "it dialled this node" };
    let is = format!(
        "It is connected over {} at {}, {} away; {} came in and {} went out",
        connection.carrier,
        connection.address,
        time(connection.rtt),
        bytes(connection.bytes_in),
        bytes(connection.bytes_out)
    );
    let mut first = say(is).why(who).since(format!("for {}", time(connection.age)));
    if connection.retired || !newest {
        first = first.next("there is a newer connection to this peer; this one ends when nothing moves on it any more");
    }
    let mut all = vec![first];
    if connection.silent > limits.keep_alive.saturating_mul(2) {
        let why = "each side says something every few seconds even when there is nothing to say; so its network, or the peer, is gone, or asleep";
        let left = limits.idle_timeout.saturating_sub(connection.silent);
        let next = format!(
            "if nothing comes within {} the connection is given up, and whoever wants the peer dials it again",
            time(left)
        );
        all.push(say(format!("Nothing was heard from it for {}", time(connection.silent))).why(why).next(next));
    }
    if connection.carrier == Carrier::Tcp {
        let why = "UDP did not get through, or was slower to answer, or the peer has chosen so";
        all.push(say("It uses TCP, where one lost packet delays everything behind it").why(why));
    }
    let share = percent(connection.granted, connection.granted_max);
    let used = format!("{share} % of its memory is promised: {} of {}", bytes(connection.granted), bytes(connection.granted_max));
    if connection.starved {
        let why = "the node, or this connection's share of it, has nothing left to promise";
        all.push(say(format!("It waits for memory; {used}")).why(why).next("it goes on when something else ends"));
    } else {
        all.push(say(used));
    }
    if let Some(most) = connection.kept_short {
        let why = "something urgent used it in the last 10 s, and would wait behind all that is under way";
        let next = "they may have more again when nothing urgent was sent for 10 s";
        all.push(say(format!("Its less urgent streams have at most {} under way", bytes(most))).why(why).next(next));
    }
    all.extend(of_streams(connection));
    all
}

fn of_streams(connection: &ConnectionNow) -> Vec<Sentence> {
    let streams = &connection.streams;
    let mut all = vec![say(format!("{} under way on it", count(streams.all, "stream")))];
    let kinds = [
        (
            streams.to_open,
            "wait to be opened",
            "the peer allows no more at once, or there is no memory for more",
            "each opens when another one ends",
        ),
        (
            streams.queued,
            "of the peer wait for their turn",
            "as many of their protocol are worked on as it may have at once",
            "each begins when another one ends",
        ),
        (
            streams.resting,
            "are kept for the next request",
            "an exchange is over, and using its stream again is cheaper than opening one",
            "each ends when it is not used for a second, or when its place is needed",
        ),
        (
            streams.for_room,
            "wait until the other side takes more",
            "the peer reads slowly, or the network between is full",
            "they go on as it reads; a deadline ends those on which nothing moves",
        ),
        (
            streams.for_peer,
            "wait for the peer to say something",
            "it is the peer's turn",
            "they go on when it answers; a deadline ends those that have one",
        ),
        (streams.for_app, "wait for the application here", "it has not answered, read or written yet", "they go on when it does"),
        (
            streams.for_memory,
            "wait for memory",
            "what they announced is larger than what is free",
            "they go on when something else ends",
        ),
    ];
    let waiting = kinds.iter().filter(|(number, ..)| *number > 0);
    all.extend(waiting.map(|(number, what, why, next)| say(format!("{} of these {what}", number)).why(*why).next(*next)));
    all
}

/// How long answers took, if there were any.
fn took(histogram: &Histogram, verb: &str) -> Option<Sentence> {
    let words = || format!("Half of the answers {verb} {}, and 99 of 100 {}", within(histogram, 50), within(histogram, 99));
    (histogram.total() > 0).then(|| say(words()))
}

fn of_protocol(name: &str, counters: &Counters, uptime: Duration) -> Vec<Sentence> {
    let Some(protocol) = counters.protocols.get(name) else {
        let next = "check the name; the page and the metrics list those that were used";
        return vec![say("Nothing was ever asked or answered by this protocol here").next(next)];
    };
    let latency = counters.latencies.get(name).copied().unwrap_or_default();
    let since = format!("in {}", time(uptime));
    let mut all = Vec::new();
    if protocol.sent > 0 {
        let is = format!(
            "This node used it {}; {} answered, {} failed",
            count(protocol.sent, "time"),
            protocol.replied,
            protocol.failed
        );
        all.push(say(is).since(since.clone()));
        all.extend(took(&latency.asked, "were there"));
        if protocol.timeouts > 0 {
            let why = "the peer is slow or gone, or the network between loses too much";
            all.push(
                say(format!("{} of these failures were for want of time", protocol.timeouts))
                    .why(why)
                    .next("ask for the peer: what it says there tells which"),
            );
        }
    }
    if protocol.received > 0 {
        let is = format!(
            "Peers used it {}; {} answered whole, {} broken off",
            count(protocol.received, "time"),
            protocol.served,
            protocol.broken
        );
        all.push(say(is).since(since.clone()));
        all.extend(took(&latency.served, "left"));
    }
    if all.is_empty() {
        all.push(say("It is known here, and was not used").since(since));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_explained_with_what_happens_next() {
        let address = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().expect("an address");
        let connection = ConnectionNow {
            carrier: Carrier::Quic,
            address,
            dialled: true,
            age: Duration::from_secs(600),
            silent: Duration::from_secs(20),
            rtt: Duration::from_millis(42),
            bytes_in: 10,
            bytes_out: 20_480,
            granted: 50,
            granted_max: 100,
            starved: false,
            retired: false,
            kept_short: Some(65_536),
            streams: Default::default(),
        };
        let peer = PeerNow { peer: PeerId::random(), agent: None, protected: false, connections: vec![connection] };
        let explained = Explanation { of: Of::Peer(peer.peer), sentences: of_peer(Some(&peer), &Limits::default()) };
        let text = explained.to_string();
        for part in ["over QUIC at /ip4/192.0.2.1", "42 ms away", "10 bytes came in and 20 KiB went out", "(for 10 min)"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(text.contains("Nothing was heard from it for 20 s"), "{text}");
        assert!(text.contains("if nothing comes within 10 s the connection is given up"), "{text}");
        assert!(text.contains("less urgent streams have at most 64 KiB under way.\n  Why: something urgent used it"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&explained.to_json()).expect("JSON");
        assert_eq!((&json["of"], &json["name"]), (&"peer".into(), &peer.peer.to_string().into()));
        assert_eq!(json["sentences"][1]["is"], "Nothing was heard from it for 20 s");
        assert!(json["sentences"][1]["since"].is_null(), "{json}");
    }

    #[test]
    fn a_node_tells_what_troubles_it_and_nothing_else() {
        let calm = of_node(&Now::default(), &Counters::default(), Duration::from_secs(7_300), true);
        assert_eq!(calm[0].since.as_deref(), Some("for 2 h"));
        assert!(calm.iter().all(|sentence| !sentence.is.contains("Datagrams")), "{calm:?}");
        let mut counters = Counters::default();
        counters.totals.dropped_late = 7;
        let mut now = Now::default();
        now.starved = 1;
        let busy = of_node(&now, &counters, Duration::from_secs(1), true);
        assert!(busy.iter().any(|sentence| sentence.is.ends_with(": 7")), "{busy:?}");
        assert!(busy.iter().any(|sentence| sentence.is.starts_with("1 connection waits for memory")), "{busy:?}");
        assert_eq!(of_node(&now, &counters, Duration::ZERO, false).len(), 1);
    }

    #[test]
    fn troubles_are_counters_that_exist() {
        let mut names: Vec<_> = Totals::default().list().into_iter().map(|(name, _)| name).collect();
        names.retain(|name| TROUBLES.iter().any(|(of, ..)| of == name));
        assert_eq!(names.len(), TROUBLES.len());
    }

    #[test]
    fn a_protocol_tells_how_long_answers_take() {
        let mut counters = Counters::default();
        counters.protocols.entry("/a/1").or_default().sent = 2;
        counters.protocols.entry("/a/1").or_default().replied = 2;
        counters.latencies.entry("/a/1").or_default().asked = Histogram::of(&[Duration::from_micros(80), Duration::from_secs(2)]);
        let said = of_protocol("/a/1", &counters, Duration::from_secs(90));
        assert_eq!(said[1].is, "Half of the answers were there within 100 µs, and 99 of 100 within 2 s");
        assert!(of_protocol("/b/1", &counters, Duration::ZERO)[0].is.contains("Nothing was ever"));
    }
}
