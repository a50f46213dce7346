//! Thousands of connections on one node: that its limits admit them, what they take, and that each is served.

#![allow(unsafe_code, reason = "an allocator that counts cannot be written without")]

mod counting;
mod harness;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use counting::{allocated, watch};
use harness::{address, seeded_with};
use strait_core::{Event, Limits, Message, Meta, Node, Priority, Request, SocketId};

/// The addresses of the harness number 65,536 nodes; this one is the server.
const SERVER: usize = 60_000;
/// So many clients are there at once. All but a few are gone before the next come, which the server does not know.
const BATCH: usize = 100;
/// Of each batch so many stay, to ask something when all have come.
const STAY: usize = 2;

static ECHO: Request = Request::new("/test/echo/1", 8 << 10, 8 << 10, Duration::from_secs(600), 4);

/// The settings of `deploy/ten-thousand.toml`, but for time: here next to none passes.
fn limits() -> Limits {
    Limits {
        memory_bytes: 1_792 << 20,
        connections_max: 11_500,
        connections_sure: 10_064,
        receive_window_min: 8 << 10,
        send_window_min: 8 << 10,
        streams_min: 1,
        packets_bytes: 0,
        inbox_bytes_min: 8 << 10,
        message_bytes_min: 8 << 10,
        idle_timeout: Duration::from_secs(3_600),
        keep_alive: Duration::from_secs(1_200),
        ..Limits::default()
    }
}

fn node(number: usize, limits: Limits, now: Instant) -> Node {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    seeded_with(number, limits, now, seed)
}

struct World {
    now: Instant,
    server: Node,
    clients: Vec<(usize, Node)>,
    replies: usize,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "any instant will do to start from")]
    fn new() -> World {
        let now = Instant::now();
        watch(Some(0));
        let mut server = node(SERVER, limits(), now);
        server.serve_request(&ECHO, Priority::Normal).expect("a good definition");
        watch(None);
        World { now, server, clients: Vec::new(), replies: 0 }
    }

    /// Datagrams go to and fro until there are none; each takes a while.
    fn settle(&mut self) {
        loop {
            let mut moved = self.serve();
            for at in 0..self.clients.len() {
                moved |= self.ask(at);
            }
            if !moved {
                return;
            }
            self.now += Duration::from_millis(1);
        }
    }

    fn serve(&mut self) -> bool {
        watch(Some(0));
        self.server.handle_timeout(self.now);
        while self.server.drive(self.now) {}
        while let Some(event) = self.server.poll_event() {
            if let Event::Request { stream, body, .. } = event {
                self.server.reply(stream, body).expect("it waits");
            }
        }
        while self.server.drive(self.now) {}
        watch(None);
        let sent = datagrams(&mut self.server, self.now, true);
        for (to, bytes) in &sent {
            if let Some((_, client)) = self.clients.iter_mut().find(|(number, _)| address(*number) == *to) {
                client.handle_datagram(self.now, meta(SERVER), BytesMut::from(&bytes[..]));
            }
        }
        !sent.is_empty()
    }

    fn ask(&mut self, at: usize) -> bool {
        let (number, client) = &mut self.clients[at];
        client.handle_timeout(self.now);
        while client.drive(self.now) {}
        while let Some(event) = client.poll_event() {
            self.replies += usize::from(matches!(event, Event::Reply { result: Ok(_), .. }));
        }
        let sent = datagrams(client, self.now, false);
        for (_, bytes) in &sent {
            watch(Some(0));
            self.server.handle_datagram(self.now, meta(*number), BytesMut::from(&bytes[..]));
            watch(None);
        }
        !sent.is_empty()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            self.now += Duration::from_millis(20);
        }
    }

    /// The numbered clients connect, and all but a few of them are gone without a word.
    fn batch(&mut self, numbers: std::ops::Range<usize>) {
        let (peer, stay) = (self.server.peer_id(), self.clients.len() + STAY);
        for number in numbers {
            let limits = Limits { idle_timeout: limits().idle_timeout, ..Limits::default() };
            let mut client = node(number, limits, self.now);
            client.dial(self.now, SocketId(0), address(SERVER), peer).expect("room");
            self.clients.push((number, client));
            // Not more at once than there are places.
            if number % 10 == 9 {
                self.settle();
            }
        }
        self.run(Duration::from_millis(200));
        self.clients.truncate(stay);
    }
}

fn meta(from: usize) -> Meta {
    Meta { socket: SocketId(0), remote: address(from), local_ip: None, ecn: None }
}

fn datagrams(node: &mut Node, now: Instant, watched: bool) -> Vec<(std::net::SocketAddr, Vec<u8>)> {
    let (mut sent, mut buffer) = (Vec::new(), Vec::with_capacity(64 << 10));
    loop {
        watch(watched.then_some(0));
        let transmit = node.poll_transmit(now, NonZeroUsize::MIN, &mut buffer);
        watch(None);
        let Some(transmit) = transmit else {
            return sent;
        };
        sent.push((transmit.destination, std::mem::take(&mut buffer)));
    }
}

fn come(connections: usize) {
    assert_eq!(limits().check(), Ok(()), "what each is sure of fits");
    let mut world = World::new();
    let (empty, held_before) = (allocated(), world.server.now().memory_held as i64);
    for batch in 0..connections / BATCH {
        world.batch(batch * BATCH..(batch + 1) * BATCH);
    }
    world.run(Duration::from_secs(3));
    assert_eq!(world.server.peers().count(), connections, "all were admitted");
    let (taken, held) = (allocated() - empty, world.server.now().memory_held as i64 - held_before);
    let promised = world.server.now().memory;
    println!(
        "{connections} idle connections: {} MiB allocated ({} bytes each), {} said to be held, {} promised",
        taken >> 20,
        taken / connections as i64,
        held >> 20,
        promised >> 20
    );
    assert!(taken as usize / connections * 10_000 <= 512 << 20, "10,000 of them fit in 512 MiB");
    assert!((held - taken).abs() * 10 <= taken, "{held} bytes are said to be held, {taken} are allocated");

    // When all have come, those of the first batch are served as those of the last.
    let (peer, asking) = (world.server.peer_id(), world.clients.len());
    for (_, client) in &mut world.clients {
        client.request(&peer, &ECHO, Priority::Normal, Message::from(vec![5; 4 << 10])).expect("taken");
    }
    world.run(Duration::from_secs(5));
    assert_eq!(world.replies, asking, "each has its reply");
    assert!(world.server.audit().committed <= limits().memory_bytes);
}

#[test]
fn a_thousand_connections_take_a_tenth_of_what_ten_thousand_may() {
    come(1_000);
}

/// Half a minute: `cargo test --release -p strait-core --test many -- --ignored --nocapture`.
#[test]
#[ignore = "takes half a minute"]
fn ten_thousand_connections_fit_in_512_mib() {
    come(10_000);
}
