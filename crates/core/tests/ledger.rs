//! The ledger against the allocator: what is granted to a node's peers is at least what is allocated for them.

#![allow(unsafe_code, reason = "an allocator that counts cannot be written without")]

mod counting;
mod harness;

use std::time::Duration;

use counting::{SERVER, allocated, watch};
use harness::Net;
use strait_core::limits::CONNECTION_BYTES;
use strait_core::{Event, Limits, Message, Priority, Request};

const CLIENTS: usize = 24;

static ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(600), 4);

/// What the ledger says is granted for peers, strangers included.
fn granted(net: &Net) -> i64 {
    let audit = net.nodes[SERVER].audit();
    (audit.granted + net.nodes[SERVER].limits().strangers_floor()) as i64
}

fn answer_one(net: &mut Net) -> bool {
    let request = net.take(
        SERVER,
        |event| matches!(event, Event::Request { .. }),
        |event| match event {
            Event::Request { stream, body, .. } => (stream, body),
            _ => unreachable!(),
        },
    );
    let Some((stream, body)) = request else {
        return false;
    };
    let _ = net.nodes[SERVER].reply(stream, body);
    true
}

fn replies(net: &Net, from: usize) -> usize {
    net.count(from, |event| matches!(event, Event::Reply { result: Ok(_), .. }))
}

// One test: the counters are the process's.
#[test]
fn what_is_granted_covers_what_is_allocated() {
    let mut net = Net::watched(vec![Limits::default(); CLIENTS + 1], watch);
    net.nodes[SERVER].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    let empty = allocated();

    // Handshakes: each at its worst.
    let mut worst_handshake = 0.0f64;
    for from in 1..=CLIENTS {
        net.dial(from, SERVER);
    }
    let end = net.now + Duration::from_secs(2);
    while net.step(end) {
        let connections = net.nodes[SERVER].audit().connections.max(1) as f64;
        worst_handshake = worst_handshake.max((allocated() - empty) as f64 / connections);
        assert!(allocated() - empty <= granted(&net), "in the handshakes: {} allocated", allocated() - empty);
    }
    assert_eq!(net.nodes[SERVER].peers().count(), CLIENTS);

    net.run(Duration::from_secs(60));
    let idle = (allocated() - empty) / CLIENTS as i64;
    println!("an idle connection: {idle} bytes allocated, CONNECTION_BYTES is {CONNECTION_BYTES}");
    println!("at most in the handshakes: {worst_handshake:.0} bytes a connection");
    assert!(idle <= CONNECTION_BYTES as i64, "an idle connection has {idle} bytes, {CONNECTION_BYTES} are set aside");

    let peer = net.peer(SERVER);
    for from in 1..=CLIENTS {
        for _ in 0..ECHO.per_peer_max {
            let body = Message::from(vec![from as u8; 1 << 20]);
            net.nodes[from].request(&peer, &ECHO, Priority::Normal, body).expect("taken");
        }
    }
    // The application is slow: it looks only every so often.
    let (mut most, mut least_left, mut steps) = (0i64, i64::MAX, 0u64);
    let end = net.now + Duration::from_secs(60);
    loop {
        let live = net.step(end);
        steps += 1;
        if steps.is_multiple_of(40) {
            answer_one(&mut net);
        }
        let (real, may) = (allocated() - empty, granted(&net));
        most = most.max(real * 1000 / may.max(1));
        least_left = least_left.min(may - real);
        assert!(real <= may, "{real} bytes allocated, {may} granted");
        if !live || (1..=CLIENTS).all(|from| replies(&net, from) == usize::from(ECHO.per_peer_max)) {
            break;
        }
    }
    println!("under load: allocated at most {}.{}% of what is granted, {least_left} bytes below it", most / 10, most % 10);
    let done: usize = (1..=CLIENTS).map(|from| replies(&net, from)).sum();
    println!("{done} replies");
    net.close();
}
