//! What nodes tell each other of addresses, and what they make of it. The harness has all nodes in one private network, 10.0.0.0/8.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use harness::{Net, address, key};
use strait_core::peers::record;
use strait_core::peers::{Evidence, Scope};
use strait_core::{Event, Idle, Multiaddr, PeerId, Priority, StreamProtocol, quic_address};
use strait_wire::identify::Identify;

/// identify/push, of which the attacker writes each byte.
static PUSH: StreamProtocol = StreamProtocol::new("/ipfs/id/push/1.0.0", 8, Idle::Never);

fn parse(texts: &[&str]) -> Vec<Multiaddr> {
    texts.iter().map(|text| text.parse().expect("a multiaddr")).collect()
}

/// Has node 0 push `message` to node 1, and waits until that has taken it or refused it.
fn push(net: &mut Net, message: &Identify<'_>) {
    let mut body = Vec::new();
    message.encode(&mut body).expect("it fits");
    let mut frame = Vec::new();
    strait_wire::framing::put_header(body.len(), &mut frame);
    frame.extend_from_slice(&body);
    let taken = |net: &Net| net.nodes[1].counters().totals.identified + net.nodes[1].counters().totals.identify_refused;
    let before = taken(net);
    let peer = net.peer(1);
    let stream = net.nodes[0].open(&peer, &PUSH, Priority::Normal).expect("connected");
    let mut left = Bytes::from(frame);
    net.until(|net| {
        if !left.is_empty() {
            let now = net.now;
            let _ = net.nodes[0].write(now, stream, &mut left);
        }
        taken(net) > before
    });
    net.nodes[0].cancel(stream);
    net.run(Duration::from_secs(1));
}

fn push_addresses(net: &mut Net, addresses: &[Multiaddr], record: Option<&[u8]>) {
    let bytes: Vec<Vec<u8>> = addresses.iter().map(Multiaddr::to_vec).collect();
    let listen_addrs = bytes.iter().map(Vec::as_slice).collect();
    push(net, &Identify { listen_addrs, signed_peer_record: record, ..Identify::default() });
}

fn known(net: &Net, node: usize, peer: &PeerId) -> Vec<Multiaddr> {
    net.nodes[node].book().candidates(net.now, peer).into_iter().map(|candidate| candidate.address).collect()
}

/// What this node has said of itself arrives with a record that was verified, and only as far as it holds over the path.
#[test]
fn peers_learn_what_holds_over_the_path_and_a_record_of_it() {
    let mut net = Net::pair();
    let told = parse(&["/ip4/9.9.9.9/udp/4001/quic-v1", "/ip4/10.0.0.1/udp/4001/quic-v1"]);
    let kept = parse(&["/ip4/127.0.0.1/udp/4001/quic-v1", "/ip6/::1/udp/4001/quic-v1", "/ip4/203.0.113.5/udp/4001/quic-v1"]);
    net.nodes[1].set_addresses([kept, told.clone()].concat());
    net.connect(0, 1);
    let peer = net.peer(1);
    let identity = net.nodes[0].identity(&peer).expect("identified");
    assert_eq!((&identity.addresses, identity.out_of_scope), (&told, 0));
    assert!(identity.signed.is_some());
    assert_eq!(net.nodes[0].counters().totals.records, 1);
    let candidates = net.nodes[0].book().candidates(net.now, &peer);
    assert!(candidates.iter().all(|candidate| matches!(candidate.evidence, Evidence::Signed { .. })), "{candidates:?}");
    let mut dialable = known(&net, 0, &peer);
    dialable.sort();
    let mut want = told;
    want.sort();
    assert_eq!(dialable, want);
    assert_eq!(net.nodes[0].book().proven(net.now, &peer, Scope::Private), [], "and passes on none of it");
    net.close();
}

/// A change is pushed with a new record, of a higher number.
#[test]
fn a_change_is_pushed_with_a_newer_record() {
    let mut net = Net::pair();
    net.nodes[1].set_addresses(parse(&["/ip4/10.0.0.1/udp/1/quic-v1"]));
    net.connect(0, 1);
    let peer = net.peer(1);
    let seq = |net: &Net| net.nodes[0].identity(&peer).and_then(|identity| identity.signed);
    let first = seq(&net).expect("a record");
    let declared = parse(&["/ip4/9.9.9.9/udp/2/quic-v1", "/dns4/node.example.org/udp/2/quic-v1"]);
    net.nodes[1].set_declared(declared.clone());
    net.until(|net| seq(net).is_some_and(|seq| seq > first));
    assert_eq!(net.nodes[0].identity(&peer).expect("identified").addresses, declared, "what is declared is all that is told");
    let dialable = known(&net, 0, &peer);
    assert_eq!((dialable.len(), net.nodes[1].told_addresses()), (2, declared.clone()));
    assert!(declared.iter().all(|address| dialable.contains(address)), "{dialable:?}");
    net.close();
}

/// Principle I2, attack 38: a peer in this private network speaks of loopback, and of nobody's addresses.
#[test]
fn what_a_peer_tells_out_of_scope_is_forgotten_and_counted() {
    let mut net = Net::pair();
    net.connect(0, 1);
    let peer = net.peer(0);
    let bogus = parse(&[
        "/ip4/127.0.0.1/tcp/22",
        "/ip4/169.254.169.254/tcp/80",
        "/dns4/localhost/tcp/25",
        "/ip4/224.0.0.1/udp/1/quic-v1",
    ]);
    let good = parse(&["/ip4/10.7.7.7/udp/1/quic-v1", "/ip4/8.8.8.8/udp/1/quic-v1"]);
    let all = [bogus.clone(), good.clone()].concat();
    let record = record::sign(&key(0), u64::MAX, &all).expect("it signs");
    push_addresses(&mut net, &all, Some(&record));
    let identity = net.nodes[1].identity(&peer).expect("identified");
    assert_eq!((&identity.addresses, identity.out_of_scope), (&good, 4), "not even the application hears of them");
    let totals = &net.nodes[1].counters().totals;
    assert_eq!((totals.addresses_out_of_scope, totals.records), (8, 1), "in the list and in the record");
    let dialable = known(&net, 1, &peer);
    assert!(bogus.iter().all(|address| !dialable.contains(address)), "{dialable:?}");
    assert!(good.iter().all(|address| dialable.contains(address)), "{dialable:?}");
    net.close();
}

/// Attack 34: records of others, records signed by others, and old ones. What came with them unsigned is still heard.
#[test]
fn forged_and_old_records_are_refused_and_counted() {
    let mut net = Net::pair();
    net.nodes[0].set_addresses(parse(&["/ip4/10.0.0.1/udp/1/quic-v1"]));
    net.connect(0, 1);
    let peer = net.peer(0);
    let signed = net.nodes[1].identity(&peer).and_then(|identity| identity.signed).expect("a record");
    let lie = parse(&["/ip4/6.6.6.6/udp/1/quic-v1"]);
    let theirs = record::sign(&key(2), u64::MAX, &lie).expect("it signs");
    let old = record::sign(&key(0), signed - 1, &lie).expect("it signs");
    let mut flipped = record::sign(&key(0), u64::MAX, &lie).expect("it signs");
    *flipped.last_mut().expect("a signature") ^= 1;
    let other = key(2).public().to_peer_id();
    for (number, record) in [theirs, old, flipped, b"garbage".to_vec()].iter().enumerate() {
        let plain = parse(&[&format!("/ip4/10.0.0.{}/udp/1/quic-v1", number + 20)]);
        push_addresses(&mut net, &plain, Some(record));
        assert_eq!(net.nodes[1].counters().totals.records_refused, number as u64 + 1);
        let identity = net.nodes[1].identity(&peer).expect("identified");
        assert_eq!((identity.signed, &identity.addresses), (Some(signed), &plain));
        assert!(!known(&net, 1, &peer).contains(&lie[0]));
        assert_eq!(known(&net, 1, &other), [], "nothing is believed of a third");
    }
    assert!(net.nodes[1].is_connected(&peer), "a bad record costs nothing but itself");
    net.close();
}

/// Principle I6: what others see of this node is told to the application, and goes nowhere else.
#[test]
fn an_observed_address_stays_a_hint() {
    let mut net = Net::pair();
    net.nodes[1].set_addresses(parse(&["/ip4/10.0.0.1/udp/4001/quic-v1"]));
    net.connect(0, 1);
    let hint = parse(&["/ip4/7.7.7.7/udp/7777/quic-v1"]).remove(0);
    let bytes = hint.to_vec();
    push(&mut net, &Identify { observed_addr: Some(&bytes), ..Identify::default() });
    let (own, liar) = (net.peer(1), net.peer(0));
    assert_eq!(net.nodes[1].identity(&liar).expect("identified").observed.as_ref(), Some(&hint));
    assert!(!net.nodes[1].told_addresses().contains(&hint));
    for peer in [own, liar] {
        assert!(!known(&net, 1, &peer).contains(&hint));
        assert_eq!(net.nodes[1].book().proven(net.now, &peer, Scope::Loopback), []);
    }
    let bytes = net.nodes[1].peer_record(Scope::Loopback).expect("an address");
    let record = record::verify(&bytes, &own, None).expect("its own");
    assert_eq!(record.addresses, parse(&["/ip4/10.0.0.1/udp/4001/quic-v1"]));
    net.close();
}

/// Where a peer came from is kept as the hint that it is, for a while.
#[test]
fn where_a_peer_came_from_is_remembered_unproven() {
    let mut net = Net::pair();
    net.connect(0, 1);
    let peer = net.peer(0);
    let candidates = net.nodes[1].book().candidates(net.now, &peer);
    assert_eq!(candidates.len(), 1, "{candidates:?}");
    assert_eq!((&candidates[0].address, candidates[0].evidence), (&quic_address(address(0)), Evidence::None));
    net.nodes[1].disconnect(net.now, &peer);
    net.run(Duration::from_secs(3_600));
    assert_eq!(known(&net, 1, &peer), []);
    net.close();
}

/// Verifying has its price, paid from the share of whoever made it necessary.
#[test]
fn a_record_is_paid_for_by_its_sender() {
    let mut net = Net::pair();
    net.connect(0, 1);
    let mut bad = record::sign(&key(0), u64::MAX, &parse(&["/ip4/6.6.6.6/udp/1/quic-v1"])).expect("it signs");
    *bad.last_mut().expect("a signature") ^= 1;
    let cost = |net: &mut Net, record: Option<&[u8]>| {
        let before = net.nodes[1].counters().totals.work;
        push_addresses(net, &parse(&["/ip4/10.0.0.9/udp/1/quic-v1"]), record);
        net.nodes[1].counters().totals.work - before
    };
    let (without, with) = (cost(&mut net, None), cost(&mut net, Some(&bad)));
    // A keep-alive more or less is far below that.
    assert!(with > without + strait_core::limits::RECORD_WORK / 2, "{with} against {without}");
    assert_eq!(net.count(1, |event| matches!(event, Event::Disconnected { .. })), 0);
    net.close();
}
