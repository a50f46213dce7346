//! Places of handshakes: silent strangers do not keep them from who means it.

mod harness;

use std::time::Duration;

use bytes::BytesMut;
use harness::Net;
use strait_core::limits::{HANDSHAKE_MOVES, HANDSHAKE_SILENT, HANDSHAKE_SILENT_OTHERS};
use strait_core::{Limits, PipeEvent};

const MS: Duration = Duration::from_millis(1);
const PLACES: usize = 4;
/// [`HANDSHAKE_SILENT`] is jittered by a quarter.
const SOONEST: Duration = Duration::from_millis(HANDSHAKE_SILENT.as_millis() as u64 * 3 / 4);
const LATEST: Duration = Duration::from_millis(HANDSHAKE_SILENT.as_millis() as u64 * 5 / 4);

/// What has few places; a stranger has to prove its address only when all are taken.
fn few() -> Limits {
    Limits { handshakes_max: PLACES as u32, retry_from: PLACES as u32, ..Limits::default() }
}

/// Node 0 has few places, node 1 wants to connect to it.
fn net(over_pipes: bool) -> Net {
    let limits = vec![few(), Limits::default()];
    if over_pipes { Net::over_pipes(limits, &["/tls/1.0.0", "/noise"]) } else { Net::new(limits) }
}

/// First packets of so many others to node 0. A node's number is its seed, so they are not of node 1.
fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let mut net = Net::new(vec![Limits::default(); count + 2]);
    let first = |from| {
        net.dial(from, 0);
        net.settle(from);
        net.last[from].clone()
    };
    (2..count + 2).map(first).collect()
}

/// All places are taken by strangers who say nothing more: who begin QUIC handshakes and do not go on with them, or who open pipes.
fn besieged(over_pipes: bool) -> Net {
    let mut net = net(over_pipes);
    if over_pipes {
        (0..PLACES).for_each(|from| assert!(net.knock(100 + from, 0).is_some()));
    } else {
        first_packets(PLACES).iter().enumerate().for_each(|(from, bytes)| net.deliver(100 + from, 0, bytes));
    }
    net.settle(0);
    assert_eq!(net.nodes[0].counters().totals.handshakes_in, PLACES as u64);
    net
}

/// Nothing of the displaced is left: nothing but these is there.
fn there(net: &Net, connections: usize) {
    let audit = net.nodes[0].audit();
    let floor = net.nodes[0].limits().connection_floor() * connections as u64;
    assert_eq!(audit.connections, connections, "{audit:?}");
    assert!(audit.committed >= floor && audit.committed < floor * 2 + net.nodes[0].limits().shared_floor(), "{audit:?}");
}

fn a_newcomer_gets_in(over_pipes: bool) {
    let mut net = besieged(over_pipes);
    let begin = net.now;
    net.run(LATEST);
    there(&net, PLACES);
    // Each that comes takes the place of one; who has got in has none any more.
    net.connect(1, 0);
    assert!(net.now - begin < LATEST + 200 * MS, "it waits for no deadline: {:?}", net.now - begin);
    let totals = &net.nodes[0].counters().totals;
    assert_eq!((totals.displaced_handshakes, totals.handshakes_in_failed, totals.connections_opened), (1, 1, 1));
    assert_eq!((totals.strangers_dropped, totals.refused), (0, 0));
    assert_eq!(totals.retries, u64::from(!over_pipes), "over UDP it has to prove its address first");
    there(&net, PLACES);
    net.run(Duration::from_secs(20));
    assert_eq!(net.nodes[0].counters().totals.displaced_handshakes, 1, "the others had their deadline");
    there(&net, 1);
    net.close();
}

#[test]
fn silent_handshakes_make_room_for_a_newcomer_over_quic() {
    a_newcomer_gets_in(false);
}

#[test]
fn silent_strangers_make_room_for_a_newcomer_over_pipes() {
    a_newcomer_gets_in(true);
}

/// Without a proof of its address nobody displaces anybody: what is forged costs nothing.
#[test]
fn first_packets_alone_displace_nobody() {
    let mut net = besieged(false);
    net.run(HANDSHAKE_SILENT * 2);
    for bytes in first_packets(PLACES + 20).iter().skip(PLACES) {
        net.deliver(150, 0, bytes);
        // They have a rate.
        net.run(MS);
    }
    let totals = &net.nodes[0].counters().totals;
    assert_eq!((totals.displaced_handshakes, totals.retries), (0, 20));
    there(&net, PLACES);
    net.close();
}

/// Who fills the places over pipes does not have them all for who comes over QUIC: that one does not wait as long.
#[test]
fn one_transport_does_not_keep_the_other_out() {
    let mut net = net(false);
    (0..PLACES).for_each(|from| assert!(net.knock(100 + from, 0).is_some()));
    let begin = net.now;
    net.run(HANDSHAKE_SILENT_OTHERS);
    net.connect(1, 0);
    assert!(net.now - begin < SOONEST, "it has waited as long as any other: {:?}", net.now - begin);
    assert!(net.knock(200, 0).is_some() && net.knock(200, 0).is_none(), "the place that it has left was not taken from anybody");
    assert_eq!(net.nodes[0].counters().totals.displaced_handshakes, 1);
    net.close();
}

/// Before somebody was silent for long enough, all stay, however many come.
#[test]
fn nobody_is_displaced_at_once() {
    let mut net = besieged(true);
    net.run(SOONEST - MS);
    assert!((0..50).all(|from| net.knock(200 + from, 0).is_none()));
    assert_eq!(net.nodes[0].counters().totals.refused, 50);
    net.run(LATEST - SOONEST + MS);
    assert!((0..PLACES).all(|from| net.knock(200 + from, 0).is_some()), "each takes the place of one");
    assert!(net.knock(250, 0).is_none(), "and those that came are new");
    there(&net, PLACES);
    net.close();
}

/// A handshake over a path as long as by satellite goes on, so those who come meanwhile displace each other and not it.
fn who_goes_on_stays(over_pipes: bool) {
    let mut net = net(over_pipes);
    net.latency = 300 * MS;
    (0..PLACES - 1).for_each(|from| assert!(net.knock(100 + from, 0).is_some()));
    net.run(HANDSHAKE_SILENT / 2);
    net.dial(1, 0);
    net.until(|net| net.nodes[0].counters().totals.handshakes_in == PLACES as u64);
    let mut came = 0;
    // Four times as many in a second as there are places: more than can be let in.
    for from in 0.. {
        came += usize::from(net.knock(200 + from, 0).is_some());
        net.run(HANDSHAKE_SILENT / (4 * PLACES as u32));
        if net.nodes[0].counters().totals.connections_opened == 1 {
            break;
        }
        assert!(from < 1_000, "it does not get in: {:?}", net.nodes[0].counters().totals);
    }
    assert_eq!(net.nodes[1].counters().totals.dials_failed, 0, "it was displaced");
    assert!(came >= PLACES - 1, "only {came} of those who came in that time have a place, so nothing was shown");
    assert!(net.nodes[0].counters().totals.displaced_handshakes + 1 >= came as u64);
    net.run(Duration::from_secs(1));
    net.close();
}

#[test]
fn a_handshake_that_goes_on_is_not_displaced() {
    who_goes_on_stays(false);
    who_goes_on_stays(true);
}

/// A byte now and then keeps no place: after a while it does not count any more.
#[test]
fn going_on_for_ever_keeps_no_place() {
    let mut net = net(true);
    let slow: Vec<_> = (0..PLACES).map(|from| net.knock(100 + from, 0).expect("room")).collect();
    let (begin, mut words) = (net.now, b"\x13/multistream/1.0.0\n".iter());
    let displaced = loop {
        let word = BytesMut::from(&[*words.next().expect("it is let in before all is said")][..]);
        for conn in &slow {
            net.nodes[0].handle_pipe(net.now, *conn, PipeEvent::Data(word.clone()));
        }
        net.run(HANDSHAKE_SILENT / 4);
        if net.knock(200, 0).is_some() {
            break net.now - begin;
        }
    };
    assert!(displaced >= HANDSHAKE_MOVES + SOONEST && displaced <= HANDSHAKE_MOVES + LATEST, "{displaced:?}");
    net.close();
}
