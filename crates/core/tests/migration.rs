//! A peer's address changes (RFC 9000 section 9) at the worst moment: in the very turn in which a timer of its old path fires.

mod harness;

use std::time::Duration;

use harness::Net;
use strait_core::{Event, Message, Priority, Request};

static ECHO: Request = Request::new("/test/echo/1", 1 << 20, 1 << 20, Duration::from_secs(60), 8);
/// Nobody is there: what is sent to it is lost.
const ELSEWHERE: usize = 2;

/// The new path has nothing in flight yet, and a timer of the old one is due.
#[test]
fn a_timer_of_the_old_path_fires_when_nothing_was_sent_on_the_new_one() {
    let mut net = Net::pair();
    net.nodes[1].serve_request(&ECHO, Priority::Normal).expect("a good definition");
    net.echo[1] = true;
    net.connect(0, 1);
    let peer = net.peer(1);
    let body = vec![7; 500_000];
    let stream = net.nodes[0].request(&peer, &ECHO, Priority::Normal, Message::from(body.clone())).expect("taken");
    // The reply is under way.
    let before = net.sent[1].len();
    net.until(|net| net.sent[1].len() > before + 100);
    for moves in 1..=10 {
        net.faults.drop = 100;
        net.nodes[0].ping(&peer).expect("connected");
        net.settle(0);
        let ping = net.last[0].clone();
        let (due, _) = net.nodes[1].poll_wake().expect("what is in flight has a timer");
        net.now = net.now.max(due);
        net.nodes[1].handle_timeout(net.now);
        net.deliver(ELSEWHERE, 1, &ping);
        net.settle(1);
        // On its way back it is at its old address again, and so on.
        net.faults.drop = 0;
        net.run(Duration::from_millis(7 * moves));
    }
    let reply = net.next(0, |event| match event {
        Event::Reply { stream: found, result } if *found == stream => Some(result.clone().map(|reply| reply.into_bytes())),
        _ => None,
    });
    assert!(reply.is_ok_and(|reply| reply == body));
    net.close();
}
