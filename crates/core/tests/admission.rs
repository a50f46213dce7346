//! Who has a slot and who gives one up, when there are fewer slots than peers. The rule alone is tested beside it (`src/evict.rs`).

mod harness;

use std::time::Duration;

use harness::{Net, address};
use strait_core::evict::{SETTLE, USEFUL_FOR};
use strait_core::{Closed, DialError, Event, Limits, Message, Offence, Priority, Request, SocketId, TooManyProtected};

static ECHO: Request = Request::new("/test/echo/1", 1 << 10, 1 << 10, Duration::from_secs(60), 8);

/// The server, node 0, has so many slots.
fn full(slots: u32, others: usize) -> Net {
    let small = Limits { connections_max: slots, handshakes_max: 8, retry_from: 8, ..Limits::default() };
    let mut all = vec![small];
    all.resize(others + 1, Limits::default());
    let mut net = Net::new(all);
    for node in 0..=others {
        net.nodes[node].serve_request(&ECHO, Priority::Normal).expect("a good definition");
        net.echo[node] = true;
    }
    net
}

/// `from` asks `to` something and gets it.
fn ask(net: &mut Net, from: usize, to: usize) {
    let peer = net.peer(to);
    net.nodes[from].request(&peer, &ECHO, Priority::Normal, Message::from(vec![7; 100])).expect("taken");
    net.next(from, |event| matches!(event, Event::Reply { result: Ok(_), .. }).then_some(()));
}

fn connected(net: &Net, other: usize) -> bool {
    net.nodes[0].is_connected(&net.peer(other))
}

/// The code and words with which `node` was told to go.
fn told(net: &mut Net, node: usize) -> (u64, String) {
    net.next(node, |event| match event {
        Event::Disconnected { reason: Closed::There { code, reason }, .. } => Some((*code, reason.clone())),
        _ => None,
    })
}

#[test]
fn a_squatter_gives_its_place_to_a_newcomer_and_is_told_so() {
    let mut net = full(8, 8);
    // Seven slots are for others to connect; the eighth is kept for a dial.
    for from in 1..=7 {
        net.connect(from, 0);
    }
    net.run(SETTLE);
    for from in [1, 2, 3, 5, 6, 7] {
        ask(&mut net, from, 0);
    }
    net.connect(8, 0);
    let (code, words) = told(&mut net, 4);
    assert!(code == 0x1005 && words.contains("displaced"), "{code:#x} {words}");
    assert!((1..=8).all(|other| connected(&net, other) == (other != 4)));
    let totals = &net.nodes[0].counters().totals;
    assert_eq!((totals.displaced_never_used, totals.displaced_idle, totals.displaced_served), (1, 0, 0));
    net.close();
}

#[test]
fn strangers_who_do_nothing_displace_each_other_and_nobody_in_use() {
    let mut net = full(8, 26);
    for from in 1..=5 {
        net.connect(from, 0);
    }
    for stranger in 6..=26 {
        for from in 1..=5 {
            ask(&mut net, from, 0);
        }
        net.dial(stranger, 0);
        net.run(SETTLE / 4);
    }
    assert!((1..=5).all(|other| connected(&net, other)), "those in use are all there");
    let totals = &net.nodes[0].counters().totals;
    assert!(totals.displaced_never_used >= 3, "{totals:?}");
    assert!(totals.refused_full + totals.refused >= 3, "no slot changes hands before its time: {totals:?}");
    assert_eq!(totals.displaced_served + totals.displaced_idle, 0);
    net.close();
}

#[test]
fn who_was_of_use_long_ago_goes_before_who_is_and_after_who_never_was() {
    let mut net = full(8, 9);
    for from in 1..=7 {
        net.connect(from, 0);
        if from != 3 {
            ask(&mut net, from, 0);
        }
    }
    net.run(USEFUL_FOR);
    for from in [1, 2, 4, 5, 6] {
        ask(&mut net, from, 0);
    }
    net.connect(8, 0);
    assert!(!connected(&net, 3) && connected(&net, 7), "first who never was of use");
    ask(&mut net, 8, 0);
    net.connect(9, 0);
    assert!(!connected(&net, 7), "then who was the longest ago");
    assert_eq!(net.nodes[0].counters().totals.displaced_idle, 1);
    net.close();
}

#[test]
fn who_gives_what_was_asked_for_is_out_of_question() {
    let mut net = full(8, 8);
    for from in 1..=7 {
        net.connect(from, 0);
    }
    net.run(SETTLE);
    for from in 1..=7 {
        ask(&mut net, 0, from);
    }
    net.dial(8, 0);
    assert_eq!(told(&mut net, 8).0, 0x1001);
    assert!((1..=7).all(|other| connected(&net, other)));
    net.close();
}

#[test]
fn the_application_protects_some_and_not_all() {
    let mut net = full(8, 9);
    for from in 1..=7 {
        net.connect(from, 0);
    }
    let peers: Vec<_> = (1..=9).map(|node| net.peer(node)).collect();
    // Of the squatters those who came first would go first.
    for at in [0, 1] {
        net.nodes[0].protect(peers[at]).expect("a quarter of the slots");
    }
    assert!(matches!(net.nodes[0].protect(peers[6]), Err(TooManyProtected { max: 2 })));
    net.nodes[0].protect(peers[0]).expect("it is already");
    net.run(SETTLE);
    net.connect(8, 0);
    assert!(connected(&net, 1) && connected(&net, 2) && !connected(&net, 3));
    net.nodes[0].unprotect(&peers[0]);
    net.connect(9, 0);
    assert!(!connected(&net, 1));
    net.close();
}

#[test]
fn dials_and_strangers_leave_each_other_their_floors() {
    // Eight slots: at most seven for strangers, and at most three for dials.
    let mut net = full(8, 12);
    for to in 1..=3 {
        net.connect(0, to);
    }
    let peer = net.peer(4);
    assert!(matches!(net.nodes[0].dial(net.now, SocketId(0), address(4), peer), Err(DialError::Full(_))));
    for from in 4..=8 {
        net.connect(from, 0);
    }
    net.run(SETTLE);
    net.connect(9, 0);
    assert!((1..=3).all(|dialled| connected(&net, dialled)), "who was dialled is not displaced by strangers");
    assert_eq!(net.nodes[0].peers().count(), 8);
    net.close();

    let mut net = full(8, 9);
    for from in 1..=7 {
        net.connect(from, 0);
    }
    net.dial(8, 0);
    assert_eq!(told(&mut net, 8).0, 0x1001, "the last slot is kept for a dial");
    net.connect(0, 9);
    net.close();
}

#[test]
fn connecting_and_leaving_for_ever_leaves_nothing() {
    let mut net = full(8, 24);
    let fresh = net.nodes[0].audit().granted;
    for round in 0..24 {
        for from in 1..=24 {
            net.dial(from, 0);
        }
        // Some get in, some are refused, some are cut off in mid-handshake.
        net.run(Duration::from_millis(5 + round * 3));
        for from in 1..=24 {
            let server = net.peer(0);
            let now = net.now;
            net.nodes[from].disconnect(now, &server);
        }
        net.run(Duration::from_millis(40));
    }
    // Whose goodbye was not understood is found out by silence.
    net.run(Limits::default().idle_timeout * 2);
    let now = net.now;
    let told = net.nodes[0].abuse_rest(now);
    assert!(told.iter().any(|record| record.what == Offence::HandshakeAbandoned || record.what == Offence::Churn), "{told:?}");
    let audit = net.nodes[0].audit();
    assert_eq!((audit.connections, audit.streams, audit.granted), (0, 0, fresh), "{audit:?}");
    // All slots are free again.
    for from in 1..=7 {
        net.connect(from, 0);
    }
    net.close();
}
