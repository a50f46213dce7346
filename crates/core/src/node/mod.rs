//! [`Node`]: routes inputs to its parts, serves them in turns, and drains what they have to say. Nothing else is in this file; the
//! parts beside it are
//!
//! * `arrive`: datagrams in, strangers
//! * `admission`: who has a slot, and who gives one up
//! * `serve`: one connection's turn
//! * `streams`: one stream's drive and what comes of it
//! * `depart`: datagrams out
//! * `mtu`: how large datagrams are tried where
//! * `pipes`: bytes in and out over TCP and other ordered pipes
//! * `dial`: peers that are wanted, against those that are there
//! * `rivals`: two connections to one peer, because both dialled
//! * `commands`: what the application may ask for
//! * `raw`: what it may do with raw streams
//! * `reuse`: streams that are kept for the next request
//! * `credit`: windows and stream credit, granted in steps
//! * `jam`: streams that wait must not keep those that could go on from their bytes
//! * `identity`: identify
//! * `blame`: who broke a rule, for the abuse feed
//! * `trace`: what is told of connections that somebody traces
//! * `audit`: what is held, against what may be

mod admission;
mod arrive;
mod audit;
mod blame;
mod calm;
mod claims;
mod commands;
mod credit;
mod depart;
mod dial;
#[cfg(test)]
mod fault_tests;
mod fuzz;
mod held;
mod identity;
mod jam;
mod machine;
mod mobility;
mod mtu;
mod packets;
mod pipes;
mod places;
mod raw;
mod rest;
mod reuse;
mod rivals;
mod role;
mod serve;
mod shares;
mod state;
mod streams;
mod topics;
mod trace;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use libp2p_identity::{Keypair, PeerId};

pub use admission::CODE_NO_ROOM;
pub use claims::Identity;
pub use claims::fuzz::claims as fuzz_claims;
pub use commands::Refused;
pub use dial::LookupId;
pub use fuzz::datagrams as fuzz_datagrams;
pub use identity::{quic_address, tcp_address};
pub use pipes::{PipeAction, PipeEvent};
pub use raw::RawRead;
pub use state::{ConnId, StreamRef};

use crate::abuse::Abuse;
use crate::budget::{Account, Grant, Ledger};
use crate::conn::pipe;
use crate::conn::quic::{Quic, Transmit};
use crate::env::{Env, Random, WallClock};
use crate::error::{Closed, ConfigError, DialError, RequestError, StreamError};
use crate::limits::Limits;
use crate::message::Message;
use crate::peers::own::Own;
use crate::peers::{Attempt, Book, Question};
use crate::proto::{Registry, Request};
use crate::report::Counters;
use crate::stream::Output;
use crate::trace::Traces;
use crate::turn::Turns;
use crate::wake::{Key, WakeList, Why};
use admission::Slots;
use arrive::Strangers;
use dial::Dialling;
use pipes::Pipes;
use places::Places;
use state::ConnState;
use topics::Topics;

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who it is.
    pub keypair: Keypair,
    /// What it says of its software in identify, such as `strait/0.1.0`.
    pub agent: String,
    /// All numbers.
    pub limits: Limits,
    /// Whether strangers may connect.
    pub listen: bool,
}

/// What a node has to tell its application.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection is established and its peer's identity verified.
    Connected {
        /// The connection.
        conn: ConnId,
        /// The verified identity.
        peer: PeerId,
        /// Whether this node dialled it.
        dialled: bool,
    },
    /// A dial has failed; nothing is left of it.
    DialFailed {
        /// The name that [`Node::dial`] gave.
        conn: ConnId,
        /// Who was wanted.
        peer: PeerId,
        /// Why it failed.
        error: DialError,
    },
    /// A peer that was [wanted](Node::connect) could not be reached; nothing is left of the attempts.
    Unreachable {
        /// Who was wanted.
        peer: PeerId,
        /// What was tried, in the order in which it failed. Empty when no address is known.
        attempts: Vec<Attempt>,
        /// Why it was given up before all was tried, if it was.
        error: Option<DialError>,
    },
    /// A name is to be looked up. Answer with [`Node::handle_lookup`], also when there is no answer.
    Lookup {
        /// Which look-up this is.
        id: LookupId,
        /// What to ask for.
        question: Question,
    },
    /// A connection has ended. Each of its streams has got its own event before.
    Disconnected {
        /// The connection.
        conn: ConnId,
        /// Whose it was.
        peer: PeerId,
        /// Why it ended.
        reason: Closed,
    },
    /// A request has come. Answer with [`Node::reply`] or [`Node::reject`].
    Request {
        /// The stream to answer on.
        stream: StreamRef,
        /// Who asks.
        peer: PeerId,
        /// The number that [`Node::serve_request`] gave.
        protocol: usize,
        /// The request.
        body: Message,
    },
    /// The peer wants no reply any more. Answering is pointless and harmless.
    Withdrawn {
        /// The stream of the request.
        stream: StreamRef,
    },
    /// A request of ours has ended.
    Reply {
        /// The name that [`Node::request`] gave.
        stream: StreamRef,
        /// The reply, or why there is none.
        result: Result<Message, RequestError>,
    },
    /// A ping of ours has ended.
    Pong {
        /// The name that [`Node::ping`] gave.
        stream: StreamRef,
        /// The round trip's time.
        result: Result<std::time::Duration, RequestError>,
    },
    /// A peer has opened a raw stream.
    Stream {
        /// The stream.
        stream: StreamRef,
        /// Who opened it.
        peer: PeerId,
        /// The number that [`Node::serve_stream`] gave.
        protocol: usize,
    },
    /// A packet has come.
    Packet {
        /// Who sent it.
        peer: PeerId,
        /// The number that [`Node::serve_packets`] gave.
        protocol: usize,
        /// What it says.
        body: bytes::Bytes,
    },
    /// A raw stream may be read or written again.
    Ready {
        /// The stream.
        stream: StreamRef,
    },
    /// A raw stream is over: both directions have ended, or it failed.
    Ended {
        /// The stream. Its name is not valid any more.
        stream: StreamRef,
        /// Why it failed, if it did.
        error: Option<StreamError>,
    },
    /// A peer has said what it is and speaks. All of it is its own claim.
    Identified {
        /// Who.
        peer: PeerId,
        /// What it says.
        identity: Arc<Identity>,
    },
}

/// A node as a pure state machine.
///
/// Hand in what has happened with the `handle_*` calls and the application's wishes with the others, in any number and order; then
/// [`drive`](Node::drive) one bounded turn, take all of [`poll_event`](Node::poll_event) and [`poll_transmit`](Node::poll_transmit),
/// and wait until [`poll_wake`](Node::poll_wake) or the next input. When `drive` says that work is left, do not wait.
pub struct Node {
    peer_id: PeerId,
    config: Config,
    random: Random,
    quic: Quic,
    ledger: Ledger,
    /// Holds the strangers' floor.
    strangers_account: Arc<Account>,
    conns: Vec<Option<Box<ConnState>>>,
    live: usize,
    places: Places,
    slots: Slots,
    generation: u32,
    peers: BTreeMap<PeerId, Vec<usize>>,
    strangers: Strangers,
    /// Who has work: member 0 are the strangers, member n + 1 the connection in slot n.
    turns: Turns,
    /// Who has something to send: slots.
    out: Turns,
    /// The same for pipes.
    out_pipes: Turns,
    pipes: Pipes,
    /// Pipes whose slots are free already, to be closed.
    pipe_closes: VecDeque<PipeAction>,
    wakes: WakeList,
    /// Connections that were refused memory, and the ledger's mark at that time.
    starved: VecDeque<usize>,
    starved_mark: u64,
    registry: Arc<Registry>,
    /// The definition that was last found to keep the limits: most requests are of the same one.
    checked: Option<&'static Request>,
    topics: Topics,
    answers: VecDeque<(Transmit, Vec<u8>)>,
    events: VecDeque<Event>,
    counters: Counters,
    abuse: Abuse,
    own: Own,
    /// The names of protocols that the last peer has told which told any.
    told_names: Arc<[String]>,
    /// Counts the changes of what it says of itself.
    own_version: u64,
    wall: Arc<dyn WallClock>,
    book: Book,
    /// All that the book may hold.
    book_grant: Grant,
    dialling: Dialling,
    /// All that it may hold.
    dialling_grant: Grant,
    closing: bool,
    /// The largest IP packet, in bytes, that a link of this machine carries to its neighbours.
    link_mtu: u16,
    outputs: Vec<Output>,
    /// Streams whose small writes wait for company until something is sent.
    kept_back: Vec<StreamRef>,
    /// Which connections are traced from their beginning.
    traces: Option<Arc<dyn Traces>>,
}

const STRANGERS: usize = 0;

fn member(slot: usize) -> usize {
    slot.saturating_add(1)
}

impl Node {
    /// Makes a node.
    ///
    /// # Errors
    /// [`ConfigError`] when the limits do not fit together or the key cannot be used.
    pub fn new(config: Config, env: Env, now: Instant) -> Result<Node, ConfigError> {
        config.limits.check()?;
        let mut random = Random::new(env.seed);
        let quic = Quic::new(&config.keypair, &env, &mut random, config.listen)?;
        let pipes = pipe::stage::Identity::new(&config.keypair, &env, &mut random).map_err(ConfigError::Identity)?;
        let pipes = Pipes::new(pipes);
        let ledger = Ledger::new(config.limits.memory_bytes);
        let floor = config.limits.strangers_floor();
        let Some(strangers_account) = ledger.open(floor, floor) else {
            return Err(ConfigError::TooSmall { what: "memory_bytes" });
        };
        let book_bytes = config.limits.book_bytes;
        let book_grant = ledger.open(book_bytes, book_bytes).and_then(|account| account.grant(book_bytes));
        let Some(book_grant) = book_grant else {
            return Err(ConfigError::TooSmall { what: "memory_bytes" });
        };
        let floor = config.limits.dialling_floor();
        let Some(dialling_grant) = ledger.open(floor, floor).and_then(|account| account.grant(floor)) else {
            return Err(ConfigError::TooSmall { what: "memory_bytes" });
        };
        let floor = config.limits.abuse_floor();
        let Some(abuse_grant) = ledger.open(floor, floor).and_then(|account| account.grant(0)) else {
            return Err(ConfigError::TooSmall { what: "memory_bytes" });
        };
        ledger.keep(config.limits.connection_floor().saturating_mul(config.limits.connections_sure.into()));
        Ok(Node {
            abuse: Abuse::new(config.limits.abuse_names_max, config.limits.abuse_interval, abuse_grant),
            dialling: Dialling::default(),
            dialling_grant,
            book: Book::new(config.keypair.public().to_peer_id(), book_bytes),
            book_grant,
            peer_id: config.keypair.public().to_peer_id(),
            quic,
            ledger,
            strangers_account,
            conns: Vec::new(),
            live: 0,
            places: Places::default(),
            slots: Slots::new(&mut random),
            generation: 0,
            peers: BTreeMap::new(),
            strangers: Strangers::new(&config.limits, now),
            turns: Turns::new(config.limits.quantum),
            out: Turns::new(config.limits.quantum.saturating_mul(2)),
            out_pipes: Turns::new(config.limits.quantum.saturating_mul(2)),
            pipes,
            pipe_closes: VecDeque::new(),
            wakes: WakeList::default(),
            starved: VecDeque::new(),
            starved_mark: 0,
            registry: Arc::new(Registry::new()),
            checked: None,
            topics: Topics::default(),
            answers: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            traces: env.traces.clone(),
            own: Own::default(),
            told_names: Arc::default(),
            own_version: 0,
            wall: env.wall.clone(),
            closing: false,
            link_mtu: mtu::ETHERNET,
            outputs: Vec::new(),
            kept_back: Vec::new(),
            random,
            config,
        })
    }

    /// This node's identity.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The limits it was made with.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Takes note that it is `now`: what is due becomes ready to be driven.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.book.forget_expired(now);
        while let Some((key, _)) = self.wakes.pop_due(now) {
            match key {
                Key::Transport(slot) => {
                    if let Some(conn) = self.conn_mut(slot) {
                        conn.transport_armed.fired();
                        conn.timer_due.get_or_insert(now);
                    }
                    self.activate(slot);
                }
                Key::Conn(slot) => {
                    if let Some(conn) = self.conn_mut(slot) {
                        conn.armed.fired();
                    }
                    self.conn_deadline(now, slot);
                }
                Key::Wish(wish) => self.wish_due(wish),
                Key::Lost => self.lost_due(now),
                Key::Retired(slot) => self.retired_due(now, slot),
                Key::Moved(slot) => self.move_due(now, slot),
                Key::Stream(slot, index) => {
                    if let Some(conn) = self.conn_mut(slot)
                        && let Some(stream) = conn.streams.get_mut(index)
                    {
                        stream.armed.fired();
                        conn.queue(index);
                    }
                    self.activate(slot);
                }
            }
        }
    }

    /// Serves those who have work, in turns, up to the limit of one turn. True when work is left.
    pub fn drive(&mut self, now: Instant) -> bool {
        let totals = &mut self.counters.totals;
        totals.turns = totals.turns.saturating_add(1);
        self.feed_starved();
        self.wake_watchers();
        self.drive_wishes(now);
        let mut left = self.config.limits.turn_work;
        while left > 0 {
            let Some((id, may)) = self.turns.pick() else {
                break;
            };
            let may = u64::try_from(may).unwrap_or(0);
            let (cost, more) = match id.checked_sub(1) {
                None => self.serve_strangers(now, may),
                Some(slot) => self.serve_conn(now, slot, may),
            };
            self.turns.served(id, cost, more);
            self.counters.totals.work = self.counters.totals.work.saturating_add(cost);
            // A visit that cost nothing is still a visit.
            left = left.saturating_sub(cost.max(1));
        }
        self.counters.totals.grants_refused = self.ledger.refused();
        // What this turn gave back may be what others wait for.
        let more = !self.turns.is_idle() || self.may_feed() || self.dialling.has_work() || self.topics.has_work();
        self.counters.totals.turns_full = self.counters.totals.turns_full.saturating_add(u64::from(more));
        more
    }

    /// The next thing to tell the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Ready { stream } = &event
            && let Some((_, stream)) = self.find_stream(*stream)
        {
            stream.told_ready = false;
        }
        Some(event)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest, and why.
    pub fn poll_wake(&self) -> Option<(Instant, Why)> {
        self.wakes.first()
    }

    /// Where peers may be reached, and why that is believed.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The same, to add to it and to tell it what has worked.
    pub fn book_mut(&mut self) -> &mut Book {
        &mut self.book
    }

    /// All counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Who is connected.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    fn conn(&self, slot: usize) -> Option<&ConnState> {
        self.conns.get(slot)?.as_deref()
    }

    fn conn_mut(&mut self, slot: usize) -> Option<&mut ConnState> {
        self.conns.get_mut(slot)?.as_deref_mut()
    }

    /// Puts a connection where its work is served: with the strangers until it has proved who it is, then by itself.
    fn activate(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        if !conn.is_stranger() {
            self.turns.activate(member(slot));
            return;
        }
        if !conn.in_strangers_ring {
            conn.in_strangers_ring = true;
            self.strangers.ring.push_back(slot);
        }
        self.turns.activate(STRANGERS);
    }

    /// Lets those try again who were refused memory, if some was given back since.
    fn feed_starved(&mut self) {
        if !self.may_feed() {
            return;
        }
        for slot in std::mem::take(&mut self.starved) {
            if let Some(conn) = self.conn_mut(slot) {
                conn.starved = false;
                let hungry: Vec<usize> =
                    conn.streams.iter().filter(|(_, stream)| stream.waits.memory).map(|(index, _)| index).collect();
                hungry.into_iter().for_each(|index| conn.queue(index));
                self.activate(slot);
            }
        }
    }

    fn note_starved(&mut self, slot: usize) {
        let mark = self.ledger.returns();
        let first = self.starved.is_empty();
        if let Some(conn) = self.conn_mut(slot)
            && !conn.starved
        {
            conn.starved = true;
            self.starved.push_back(slot);
            // The mark of the first that waits: what came back since may be for any of them.
            if first {
                self.starved_mark = mark;
            }
        }
    }

    /// Whether somebody waits for memory and some was given back since.
    fn may_feed(&self) -> bool {
        !self.starved.is_empty() && self.ledger.returns() != self.starved_mark
    }
}
