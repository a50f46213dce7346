//! What a node says that it holds against the allocator: within 10 % of each other in the states that matter.

#![allow(unsafe_code, reason = "an allocator that counts cannot be written without")]

mod counting;
mod harness;

use std::time::Duration;

use bytes::Bytes;
use counting::{SERVER, allocated, as_application, watch};
use harness::Net;
use strait_core::{Event, Idle, Limits, Message, Priority, Request, StreamProtocol};

const CLIENTS: usize = 24;
/// In percent.
const TOLERANCE: i64 = 10;

static ASK: Request = Request::new("/test/ask/1", 1 << 20, 1 << 20, Duration::from_secs(600), 64);
static SMALL: Request = Request::new("/test/small/1", 4 << 10, 4 << 10, Duration::from_secs(600), 64);
static CHAT: StreamProtocol = StreamProtocol::new("/test/chat/1", 8, Idle::Never);

struct Watched {
    net: Net,
    over: &'static str,
    /// Of the node before anybody came: allocated, and held.
    empty: (i64, i64),
    wrong: Vec<String>,
}

impl Watched {
    fn new(over: &'static str) -> Watched {
        let limits = vec![Limits::default(); CLIENTS + 1];
        let before = allocated();
        let mut net = match over {
            "noise" => Net::over_pipes_watched(limits, &["/noise"], watch),
            "tls" => Net::over_pipes_watched(limits, &["/tls/1.0.0"], watch),
            _ => Net::watched(limits, watch),
        };
        net.nodes[SERVER].serve_request(&ASK, Priority::Normal).expect("a good definition");
        net.nodes[SERVER].serve_request(&SMALL, Priority::Normal).expect("a good definition");
        net.nodes[SERVER].serve_stream(&CHAT, Priority::Normal).expect("a good definition");
        let empty = (allocated(), net.nodes[SERVER].now().memory_held as i64);
        assert!(empty.0 > before, "the node is watched");
        Watched { net, over, empty, wrong: Vec::new() }
    }

    fn figures(&self) -> (i64, i64) {
        (allocated() - self.empty.0, self.net.nodes[SERVER].now().memory_held as i64 - self.empty.1)
    }

    /// Compares the two now.
    fn compare(&mut self, state: &str) {
        let (allocated, held) = self.figures();
        let off = (held - allocated) as f64 * 100.0 / allocated as f64;
        let line = format!("{} {state}: {allocated} bytes allocated, {held} said to be held, {off:+.1} %", self.over);
        println!("{line}");
        if (held - allocated).abs() * 100 > allocated * TOLERANCE {
            self.wrong.push(line);
        }
    }

    fn forget_events(&mut self) {
        self.net.events.iter_mut().for_each(std::collections::VecDeque::clear);
    }

    fn settle(&mut self, seconds: u64) {
        self.net.run(Duration::from_secs(seconds));
        self.forget_events();
    }

    /// All who have come do nothing.
    fn idle(&mut self) {
        for from in 1..=CLIENTS {
            self.net.dial(from, SERVER);
        }
        self.settle(60);
        assert_eq!(self.net.nodes[SERVER].peers().count(), CLIENTS);
        self.compare("idle");
    }

    /// Requests that the application has and does not answer.
    fn waiting(&mut self) {
        let peer = self.net.peer(SERVER);
        for from in 1..=CLIENTS {
            for _ in 0..32 {
                let body = Message::from(vec![7; 64]);
                self.net.nodes[from].request(&peer, &SMALL, Priority::Normal, body).expect("taken");
            }
        }
        self.net.run(Duration::from_secs(20));
        let told = self.net.count(SERVER, |event| matches!(event, Event::Request { .. }));
        assert_eq!(told, CLIENTS * 32);
        let names: Vec<_> = self.net.events[SERVER]
            .drain(..)
            .filter_map(|event| if let Event::Request { stream, .. } = event { Some(stream) } else { None })
            .collect();
        self.compare("with 32 requests each that wait for the application");
        for stream in names {
            self.net.nodes[SERVER].reply(stream, Message::new()).expect("it waits");
        }
        self.settle(60);
        self.compare("idle after requests");
    }

    /// Streams of which the application reads nothing.
    fn unread(&mut self) {
        let peer = self.net.peer(SERVER);
        let streams: Vec<_> = (1..=CLIENTS)
            .map(|from| (from, self.net.nodes[from].open(&peer, &CHAT, Priority::Bulk).expect("connected")))
            .collect();
        self.net.run(Duration::from_secs(2));
        for _ in 0..20 {
            for (from, stream) in &streams {
                let mut chunk = Bytes::from(vec![3; 64 << 10]);
                let _ = self.net.nodes[*from].write(self.net.now, *stream, &mut chunk);
            }
            self.net.run(Duration::from_millis(200));
        }
        let theirs: Vec<_> = self.net.events[SERVER]
            .drain(..)
            .filter_map(|event| if let Event::Stream { stream, .. } = event { Some(stream) } else { None })
            .collect();
        assert_eq!(theirs.len(), CLIENTS);
        self.compare("with a stream each that nobody reads");
        for (from, stream) in streams {
            self.net.nodes[from].cancel(stream);
        }
        for stream in theirs {
            self.net.nodes[SERVER].cancel(stream);
        }
        self.settle(60);
        self.compare("idle after streams that nobody read");
    }

    /// Large replies to peers that have gone silent.
    fn unacknowledged(&mut self) {
        let peer = self.net.peer(SERVER);
        for from in 1..=CLIENTS {
            self.net.nodes[from].request(&peer, &ASK, Priority::Normal, Message::from(vec![1; 100])).expect("taken");
        }
        let asked = |net: &Net| net.count(SERVER, |event| matches!(event, Event::Request { .. }));
        self.net.until(|net| asked(net) == CLIENTS);
        self.net.faults.drop = 100;
        for event in std::mem::take(&mut self.net.events[SERVER]) {
            if let Event::Request { stream, .. } = event {
                let reply = as_application(|| Message::from(vec![9; 1 << 20]));
                self.net.nodes[SERVER].reply(stream, reply).expect("it waits");
            }
        }
        self.net.run(Duration::from_secs(1));
        self.forget_events();
        self.compare("with a MiB of reply each that is not acknowledged");
        self.net.faults.drop = 0;
        self.settle(60);
        self.compare("idle after large replies");
    }

    /// Nobody is left. What is left then are tables that have grown: little beside what was held.
    fn gone(mut self) {
        let now = self.net.now;
        self.net.nodes.iter_mut().for_each(|node| node.shutdown(now));
        self.net.until(|net| net.nodes.iter().all(strait_core::Node::is_empty));
        self.forget_events();
        let (allocated, held) = self.figures();
        println!("{} when all have gone: {allocated} bytes allocated, {held} said to be held", self.over);
        assert!(
            (held - allocated).abs() <= 2048 * CLIENTS as i64,
            "{} per peer that was here",
            (allocated - held) / CLIENTS as i64
        );
    }
}

/// One test: the counters are the process's.
#[test]
fn what_is_said_to_be_held_is_what_is_allocated() {
    let mut wrong = Vec::new();
    for over in ["quic", "noise", "tls"] {
        let mut watched = Watched::new(over);
        watched.idle();
        watched.waiting();
        watched.unread();
        if over == "quic" {
            watched.unacknowledged();
        }
        wrong.append(&mut watched.wrong);
        watched.gone();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
