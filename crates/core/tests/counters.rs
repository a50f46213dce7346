//! What happens is counted where one looks for it: by protocol, by what carries it, and by how long it took.

mod harness;

use std::time::Duration;

use harness::Net;
use strait_core::{Carrier, Event, Limits, Message, Priority, Request};

static ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(10), 8);

fn after_requests(mut net: Net, count: u64) -> Net {
    net.nodes[1].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    net.echo[1] = true;
    net.connect(0, 1);
    let peer = net.peer(1);
    for _ in 0..count {
        let wanted = net.nodes[0].request(&peer, &ECHO, Priority::Normal, Message::from(vec![7; 5_000])).expect("taken");
        net.next(0, |event| matches!(event, Event::Reply { stream, result: Ok(_) } if *stream == wanted).then_some(()));
    }
    let wanted = net.nodes[0].ping(&peer).expect("connected");
    net.next(0, |event| matches!(event, Event::Pong { stream, result: Ok(_) } if *stream == wanted).then_some(()));
    net
}

fn looks_right(net: &Net, carrier: Carrier) {
    let [client, server] = [net.nodes[0].counters(), net.nodes[1].counters()];
    let place = Carrier::ALL.iter().position(|other| *other == carrier).expect("one of all");
    let (here, there) = (&client.carriers[place], &server.carriers[place]);
    assert_eq!((here.dials, here.dials_ended, here.connections_opened, here.connections_closed), (1, 0, 1, 0));
    assert_eq!((there.handshakes_in, there.handshakes_in_failed, there.connections_opened), (1, 0, 1));
    assert_eq!(here.stream_bytes_out, client.totals.stream_bytes_out);
    assert!(there.stream_bytes_in >= 15_000, "{there:?}");
    assert_eq!(client.carriers[1 - place], Default::default(), "nothing went over anything else");
    let (asked, served) = (client.latencies[ECHO.name].asked, server.latencies[ECHO.name].served);
    assert_eq!((asked.total(), served.total()), (3, 3));
    assert!(asked.sum() > Duration::ZERO && asked.sum() >= served.sum(), "the way there and back is in what was asked");
    assert_eq!((client.handshakes[place].total(), server.handshakes[place].total(), client.pings.total()), (1, 1, 1));
    let now = net.nodes[1].now();
    assert_eq!((now.peers, now.connections[place], now.connections[1 - place], now.slots), (1, 1, 0, 1));
    assert!(now.memory > 0 && now.memory <= now.memory_max);
    let peer = net.nodes[1].peer_now(net.now, &net.peer(0)).expect("connected");
    assert_eq!((peer.connections.len(), peer.connections[0].carrier, peer.connections[0].dialled), (1, carrier, false));
    assert!(peer.connections[0].bytes_in >= 15_000);
}

#[test]
fn over_quic() {
    let net = after_requests(Net::new(vec![Limits::default(); 2]), 3);
    looks_right(&net, Carrier::Quic);
    assert!(net.nodes[1].counters().delays.total() > 0, "each datagram has waited for so and so long");
}

#[test]
fn over_tcp() {
    looks_right(&after_requests(Net::over_pipes(vec![Limits::default(); 2], &["/tls/1.0.0"]), 3), Carrier::Tcp);
}

#[test]
fn a_request_that_waited_to_be_opened_took_that_long_too() {
    // One stream at once: the second waits for the first, whose reply comes after a round trip at least.
    let limits = Limits { streams_min: 1, streams_max: 1, ..Limits::default() };
    let mut net = after_requests(Net::new(vec![limits; 2]), 1);
    let alone = net.nodes[0].counters().latencies[ECHO.name].asked.sum();
    let peer = net.peer(1);
    for _ in 0..4 {
        net.nodes[0].request(&peer, &ECHO, Priority::Normal, Message::from(vec![7; 5_000])).expect("taken");
    }
    for _ in 0..4 {
        net.next(0, |event| matches!(event, Event::Reply { result: Ok(_), .. }).then_some(()));
    }
    let together = net.nodes[0].counters().latencies[ECHO.name].asked.sum() - alone;
    assert!(together > 8 * alone, "one after the other, each waited for those before: {together:?} after {alone:?} alone");
}
