//! Everything counted, as plain monotone numbers; and what an audit of a node's memory finds.

mod histogram;
mod now;

use std::collections::BTreeMap;
use std::fmt;

pub use histogram::{BOUNDS_US, Histogram};
pub use now::{ConnectionNow, Now, PeerNow, StreamsNow};

macro_rules! counters {
    ($(#[$outer:meta])* $name:ident { $(#[doc = $doc:literal] $field:ident,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $(#[doc = $doc] pub $field: u64,)*
        }

        impl $name {
            /// What each counter counts, in one sentence, in the order of [`list`](Self::list).
            pub const WORDS: &[&str] = &[$($doc,)*];

            /// All counters with their names, for export.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }

            /// Adds another one's counts.
            pub fn absorb(&mut self, other: &$name) {
                $(self.$field = self.$field.saturating_add(other.$field);)*
            }
        }
    };
}

counters! {
    /// What a node has done since its start.
    Totals {
        /// UDP datagrams received.
        datagrams_in,
        /// Bytes of the UDP datagrams received.
        datagram_bytes_in,
        /// UDP datagrams handed to the driver.
        datagrams_out,
        /// Bytes of the UDP datagrams handed to the driver.
        datagram_bytes_out,
        /// Chunks of bytes taken from pipes (TCP).
        pipe_reads,
        /// Bytes taken from pipes (TCP).
        pipe_bytes_in,
        /// Writes to pipes; each is at most one system call, unless the pipe is full.
        pipe_writes,
        /// Bytes written to pipes (TCP).
        pipe_bytes_out,
        /// Transmits handed to the driver; each is at most one system call.
        transmits,
        /// Datagrams dropped because their connection's queue was full.
        dropped_full,
        /// Datagrams dropped because they had waited for their turn longer than the delay limit.
        dropped_late,
        /// Datagrams dropped because their connection's peer had changed its address too often.
        dropped_moved,
        /// Datagrams that belong to no connection of ours.
        dropped_unknown,
        /// Connections ended because the QUIC library had failed at them: a bug.
        quic_faults,
        /// First packets of strangers dropped: over the rate, the queue or the handshakes in flight.
        strangers_dropped,
        /// First packets of strangers dropped above the rate of strangers.
        strangers_over_rate,
        /// First packets of strangers dropped since all places of handshakes were taken.
        strangers_no_place,
        /// Strangers asked to prove their address.
        retries,
        /// Strangers refused at their first packet: all places or all memory are taken, or nobody can be displaced now.
        refused,
        /// Strangers refused after their handshake: every slot is taken, and nobody in them has to go for them.
        refused_full,
        /// Handshakes of others ended because they stood still and a newcomer needed their place.
        displaced_handshakes,
        /// Peers displaced by newcomers that nothing was ever exchanged with.
        displaced_never_used,
        /// Peers displaced by newcomers that had been of use, or were served, longer ago.
        displaced_idle,
        /// Peers displaced by newcomers though they were being served: those beyond what is sure of a place.
        displaced_served,
        /// Answers without a connection (Retry, refusals, resets) dropped because too many waited.
        answers_dropped,
        /// Connections dialled.
        dials,
        /// Packets handed to connections.
        packets_out,
        /// Packets handed to connections for which an older one, that had not left yet, was dropped.
        packets_out_dropped,
        /// Packets that came.
        packets_in,
        /// Packets that came and were of no protocol here, or larger than theirs allows.
        packets_in_dropped,
        /// Subscriptions of peers to topics of ours that were taken.
        subscriptions,
        /// Subscriptions of peers that were refused: no such topic, another mode, too many.
        subscriptions_refused,
        /// Subscribers that were woken because their topic had changed.
        topic_wakes,
        /// Frames of topics handed to subscribers' streams.
        topic_frames,
        /// Keys and lines that were looked at for subscribers, those among them that they had not asked for.
        topic_looks,
        /// Dials that failed.
        dials_failed,
        /// Dials given up because another one led to the peer, or nobody wanted it any more.
        dials_lost,
        /// Look-ups of names.
        lookups,
        /// Handshakes begun by others.
        handshakes_in,
        /// Handshakes of others that failed.
        handshakes_in_failed,
        /// Connections established, both directions.
        connections_opened,
        /// Connections ended after they were established.
        connections_closed,
        /// Connections closed because both sides had dialled at the same moment, and the other one is used.
        connections_merged,
        /// Connections closed because one identity had too many.
        connections_surplus,
        /// Streams opened by peers.
        streams_in,
        /// Streams opened to peers.
        streams_out,
        /// Requests, of peers and to peers, on a stream that had one before.
        streams_reused,
        /// Times that less urgent streams of a connection were kept from making a long queue, because urgent ones came.
        queues_kept_short,
        /// Stream bytes consumed.
        stream_bytes_in,
        /// Stream bytes handed to the transport.
        stream_bytes_out,
        /// Bytes copied in user space by streams and messages.
        bytes_copied,
        /// Times a stream's machine was driven.
        drives,
        /// Turns of the node.
        turns,
        /// Turns that ended with work left.
        turns_full,
        /// Work units done.
        work,
        /// Grants refused for lack of memory or above a ceiling.
        grants_refused,
        /// Windows grown by a grant.
        windows_grown,
        /// Deadlines of streams and connections that were reached.
        timeouts,
        /// Handshakes that took too long.
        handshakes_slow,
        /// Established connections that ended because their peer was silent for too long.
        connections_silent,
        /// Streams of peers given up because they waited and filled the connection's window, and no memory was left to widen it.
        jams,
        /// Streams that ended because the peer broke a protocol.
        breaches,
        /// Pings answered by peers.
        pings,
        /// Identify messages received and accepted.
        identified,
        /// Identify messages refused: malformed, or not of the connection's own key.
        identify_refused,
        /// Signed peer records verified and accepted.
        records,
        /// Signed peer records refused: malformed, forged, or older than one that is known.
        records_refused,
        /// Addresses that peers told and that do not hold over the path they came by: forgotten at once.
        addresses_out_of_scope,
        /// Traces of connections that were begun.
        traces,
        /// Traces that do not tell all: larger than they may be, or read too slowly.
        traces_cut,
    }
}

counters! {
    /// What one protocol has done since the node's start.
    PerProtocol {
        /// Requests sent, or streams opened.
        sent,
        /// Replies received whole.
        replied,
        /// Requests that failed.
        failed,
        /// Requests that failed for lack of progress or time.
        timeouts,
        /// Requests received whole, or streams taken.
        received,
        /// Replies handed to the transport whole.
        served,
        /// Exchanges that the peer broke off or broke.
        broken,
        /// Bytes of requests sent.
        request_bytes_out,
        /// Bytes of replies received.
        reply_bytes_in,
        /// Bytes of requests received.
        request_bytes_in,
        /// Bytes of replies sent.
        reply_bytes_out,
    }
}

counters! {
    /// What a node has done over one kind of transport since its start.
    PerCarrier {
        /// Connections dialled.
        dials,
        /// Dials that ended without a connection.
        dials_ended,
        /// Handshakes begun by others.
        handshakes_in,
        /// Handshakes of others that failed.
        handshakes_in_failed,
        /// Connections established, both directions.
        connections_opened,
        /// Connections ended after they were established.
        connections_closed,
        /// Stream bytes consumed.
        stream_bytes_in,
        /// Stream bytes handed to the transport.
        stream_bytes_out,
    }
}

/// What a connection runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// QUIC over UDP.
    Quic,
    /// TCP with TLS or Noise, and Yamux.
    Tcp,
}

impl Carrier {
    /// All there are.
    pub const ALL: [Carrier; 2] = [Carrier::Quic, Carrier::Tcp];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Quic => "quic",
            Carrier::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Carrier::Quic => "QUIC",
            Carrier::Tcp => "TCP",
        })
    }
}

/// How long requests of one protocol took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Ours: from the wish for a stream until the reply was there whole. Failed ones are not in it.
    pub asked: Histogram,
    /// Those of peers: from the whole request until the whole reply was handed to the transport.
    pub served: Histogram,
}

impl Latency {
    /// Adds another one's counts.
    pub fn absorb(&mut self, other: &Latency) {
        self.asked.absorb(&other.asked);
        self.served.absorb(&other.served);
    }
}

/// All counters of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of the node as a whole.
    pub totals: Totals,
    /// By protocol name. Names are those of definitions in the program, so there are few.
    pub protocols: BTreeMap<&'static str, PerProtocol>,
    /// How long requests took, by protocol name.
    pub latencies: BTreeMap<&'static str, Latency>,
    /// By [`Carrier`], in the order of [`Carrier::ALL`].
    pub carriers: [PerCarrier; 2],
    /// From the first packet, or the dial, until a peer was known by name; by [`Carrier`].
    pub handshakes: [Histogram; 2],
    /// Round trips of pings.
    pub pings: Histogram,
    /// How long received datagrams waited for their connection's turn.
    pub delays: Histogram,
}

impl Totals {
    pub(crate) fn count_refused_subscription(&mut self) {
        self.subscriptions_refused = self.subscriptions_refused.saturating_add(1);
    }
}

impl Counters {
    pub(crate) fn protocol(&mut self, name: &'static str) -> &mut PerProtocol {
        self.protocols.entry(name).or_default()
    }

    pub(crate) fn latency(&mut self, name: &'static str) -> &mut Latency {
        self.latencies.entry(name).or_default()
    }

    pub(crate) fn carrier(&mut self, carrier: Carrier) -> &mut PerCarrier {
        let [quic, tcp] = &mut self.carriers;
        match carrier {
            Carrier::Quic => quic,
            Carrier::Tcp => tcp,
        }
    }

    pub(crate) fn handshake(&mut self, carrier: Carrier) -> &mut Histogram {
        let [quic, tcp] = &mut self.handshakes;
        match carrier {
            Carrier::Quic => quic,
            Carrier::Tcp => tcp,
        }
    }

    pub(crate) fn count_handshake_in(&mut self, carrier: Carrier) {
        self.totals.handshakes_in = self.totals.handshakes_in.saturating_add(1);
        let carried = self.carrier(carrier);
        carried.handshakes_in = carried.handshakes_in.saturating_add(1);
    }

    /// How often something ran into a limit, by the limit's name in [`Limits`](crate::Limits).
    pub fn limits_reached(&self) -> Vec<(&'static str, u64)> {
        let totals = &self.totals;
        vec![
            ("memory_bytes", totals.grants_refused),
            ("connections_max", totals.refused_full),
            ("connections_per_peer_max", totals.connections_surplus),
            ("handshakes_max", totals.strangers_no_place),
            ("strangers_per_second", totals.strangers_over_rate),
            ("retry_from", totals.retries),
            ("handshake_deadline", totals.handshakes_slow),
            ("idle_timeout", totals.connections_silent),
            ("inbox_bytes_max", totals.dropped_full),
            ("delay_max", totals.dropped_late),
            ("turn_work", totals.turns_full),
        ]
    }
}

/// What a walk over everything a node holds has found. Costs time in proportion to all connections and streams: for tests, the
/// simulator and diagnosis.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// Bytes held in queues, stagings and tables that the node owns, at their allocated size.
    pub held: u64,
    /// Of these, those of the address book, which knows peers longer than it is connected to them.
    pub book: u64,
    /// Bytes granted, the worst case of what the QUIC crate holds included.
    pub granted: u64,
    /// Granted bytes and set-aside floors together.
    pub committed: u64,
    /// The configured budget.
    pub budget: u64,
    /// Every bounded queue that is above its cap, by name, with its length and its cap. Has to be empty.
    pub over_cap: Vec<(&'static str, u64, u64)>,
    /// Streams that wait for a peer without a deadline and without having declared it. Has to be empty.
    pub waits_without_deadline: Vec<String>,
    /// Connections in the tables, handshakes and closing ones included.
    pub connections: usize,
    /// Streams in the tables.
    pub streams: usize,
}
