//! What the page draws, as one JSON object.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use strait::Node;
use strait_core::{BOUNDS_US, Carrier, ConnectionNow, Counters, Histogram, PeerNow, Totals};

/// Peers that the page lists: those that have moved the most. However many there are, the page stays light.
const PEERS_MAX: usize = 50;
/// What a peer says of itself is cut to so many characters.
const AGENT_CHARS_MAX: usize = 80;

/// The counters of what was not done, and why.
const REFUSED: &[&str] = &[
    "dropped_full",
    "dropped_late",
    "dropped_moved",
    "dropped_unknown",
    "quic_faults",
    "strangers_over_rate",
    "strangers_no_place",
    "refused",
    "refused_full",
    "displaced_handshakes",
    "displaced_never_used",
    "displaced_idle",
    "displaced_served",
    "answers_dropped",
    "packets_out_dropped",
    "packets_in_dropped",
    "subscriptions_refused",
    "dials_failed",
    "handshakes_in_failed",
    "connections_surplus",
    "connections_silent",
    "grants_refused",
    "timeouts",
    "jams",
    "breaches",
    "identify_refused",
    "records_refused",
    "addresses_out_of_scope",
];

pub(crate) fn now(node: &Node, uptime: Duration) -> Value {
    let (counters, now) = (node.counters(), node.now());
    let mut peers: Vec<PeerNow> = node.peers().into_iter().filter_map(|peer| node.peer_now(peer)).collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(moved(peer)));
    let left_out = peers.len().saturating_sub(PEERS_MAX);
    peers.truncate(PEERS_MAX);
    let [quic, tcp] = now.connections;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "peer_id": node.peer_id().to_string(),
        "uptime_s": uptime.as_secs_f64(),
        "at_ms": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64),
        "state": if now.closing { "draining" } else { "ready" },
        "listen": node.listen_addrs().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "now": {
            "peers": now.peers, "connections": {"quic": quic, "tcp": tcp},
            "handshakes": now.handshakes, "handshakes_max": now.handshakes_max,
            "slots": now.slots, "slots_max": now.slots_max, "streams": now.streams,
            "memory": now.memory, "memory_max": now.memory_max, "memory_held": now.memory_held, "starved": now.starved,
            "book": now.book, "book_max": now.book_max, "subscriptions": now.subscriptions,
        },
        "totals": object(&counters.totals.list()),
        "protocols": protocols(&counters),
        "transports": transports(&counters),
        "limits_reached": object(&counters.limits_reached()),
        "refused": refused(&counters.totals),
        "bounds_s": BOUNDS_US.iter().map(|us| *us as f64 / 1e6).collect::<Vec<_>>(),
        "peers": peers.iter().map(peer).collect::<Vec<_>>(),
        "peers_left_out": left_out,
    })
}

fn moved(peer: &PeerNow) -> u64 {
    peer.connections
        .iter()
        .fold(0, |sum: u64, connection| sum.saturating_add(connection.bytes_in).saturating_add(connection.bytes_out))
}

fn object(list: &[(&'static str, u64)]) -> Value {
    Value::Object(list.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
}

fn protocols(counters: &Counters) -> Value {
    let mut all = Map::new();
    for (name, protocol) in &counters.protocols {
        let latency = counters.latencies.get(name).copied().unwrap_or_default();
        let mut entry = object(&protocol.list());
        entry["asked"] = histogram(&latency.asked);
        entry["served_in"] = histogram(&latency.served);
        all.insert((*name).to_owned(), entry);
    }
    Value::Object(all)
}

fn transports(counters: &Counters) -> Value {
    let each = Carrier::ALL.iter().zip(&counters.carriers);
    Value::Object(each.map(|(carrier, counters)| (carrier.name().to_owned(), object(&counters.list()))).collect())
}

fn histogram(histogram: &Histogram) -> Value {
    json!({"counts": histogram.counts(), "sum_s": histogram.sum().as_secs_f64()})
}

fn refused(totals: &Totals) -> Value {
    let list = totals.list();
    let all = list.iter().zip(Totals::WORDS).filter(|((name, _), _)| REFUSED.contains(name));
    Value::Array(all.map(|((name, count), words)| json!({"name": name, "words": words.trim(), "count": count})).collect())
}

fn peer(peer: &PeerNow) -> Value {
    json!({
        "peer": peer.peer.to_string(),
        "agent": peer.agent.as_deref().map(|agent| agent.chars().take(AGENT_CHARS_MAX).collect::<String>()),
        "protected": peer.protected,
        "connections": peer.connections.iter().map(connection).collect::<Vec<_>>(),
    })
}

fn connection(connection: &ConnectionNow) -> Value {
    let streams = &connection.streams;
    json!({
        "transport": connection.carrier.name(),
        "address": connection.address.to_string(),
        "dialled": connection.dialled,
        "age_s": connection.age.as_secs_f64(),
        "silent_s": connection.silent.as_secs_f64(),
        "rtt_ms": connection.rtt.as_secs_f64() * 1e3,
        "bytes_in": connection.bytes_in,
        "bytes_out": connection.bytes_out,
        "granted": connection.granted,
        "granted_max": connection.granted_max,
        "starved": connection.starved,
        "kept_short": connection.kept_short,
        "retired": connection.retired,
        "streams": {
            "all": streams.all, "to_open": streams.to_open, "queued": streams.queued, "resting": streams.resting, "for_peer": streams.for_peer,
            "for_room": streams.for_room, "for_memory": streams.for_memory, "for_app": streams.for_app,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_are_counters_that_exist() {
        let Value::Array(all) = refused(&Totals::default()) else { panic!("a list") };
        assert_eq!(all.len(), REFUSED.len());
    }
}
