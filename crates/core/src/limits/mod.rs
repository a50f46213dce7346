//! Every number that bounds a node, with its reason, and how the numbers relate.
//!
//! Bytes are allocated bytes. A limit can be changed before a node starts; [`Limits::check`] then proves that all floors
//! fit together or says which numbers clash and what would fit.

mod table;

use std::time::Duration;

pub use table::{LimitError, LimitValue, Limits};

use crate::abuse::{ABUSE_ENTRY_BYTES, Abuse};
use crate::error::ConfigError;

/// Bytes that one QUIC connection takes when idle, TLS state and bookkeeping included. Measured with the allocator (`tests/ledger.rs`):
/// 19 KB idle and at most 32 KB in a handshake that goes well; what is above that is for a peer that fills a CRYPTO buffer, or whose
/// identify message (8 KiB, about twice that when decoded) is kept. Over a pipe it is 2 to 9 KB idle, and the rest helps to pay for the streams that a peer may
/// open before the first is accepted: 240 KiB at the worst, of which what streams are set aside for QUIC pays for the most by default
/// (`conn/yamux/stream_tests.rs`, `the_bound_is_within_what_a_connection_is_granted`).
pub const CONNECTION_BYTES: u64 = 60 << 10;
/// Bytes that one stream takes in our tables and in the QUIC crate's, without data: machine, state, entries of maps.
pub const STREAM_BYTES: u64 = 2 << 10;
/// A header that a machine asks for in one piece is at most so long. The longest is a multistream-select line or a varint.
pub const HEADER_BYTES_MAX: usize = 1152;
/// Small writes of a machine are gathered up to this size before they are handed to the transport.
pub const OUTBOX_BYTES_MAX: usize = 2 << 10;
/// A chunk above this size is granted until all of it is acknowledged; below, what a stream is granted anyway covers it.
pub const PIN_BYTES: usize = 16 << 10;
/// Pieces of a raw stream below [`SMALL_PIECE_BYTES`] are gathered for the application up to this size.
pub const GATHER_BYTES: usize = 4 << 10;
/// Looking at a piece of this size costs the application about as much as copying it.
pub const SMALL_PIECE_BYTES: usize = 512;
/// What a stream's gathered writes are given room for at first: a negotiation and a small message behind it.
pub const OUTBOX_BYTES_FIRST: usize = 128;
/// A chunk is taken from the transport at most so large while a header is being looked for.
pub const FRONT_BYTES_MAX: usize = 1500;
/// The QUIC crate compacts a stream's out-of-order store when it holds this much more memory than data.
pub const REASSEMBLY_SLACK_BYTES: u64 = 32 << 10;
/// The same where it holds much data: worst allocated bytes for one byte of receive window, the byte, and compaction starts at 1.5 times the data.
pub const WINDOW_FACTOR_HALVES: u64 = 5;
/// The most that peers may buffer of out-of-order CRYPTO data (RFC 9000 section 7.5 asks for at least 4096).
pub const CRYPTO_BYTES_MAX: usize = 16 << 10;
/// Bookkeeping of one queued datagram beside its bytes.
pub const DATAGRAM_OVERHEAD_BYTES: u64 = 256;
/// The largest UDP payload that we accept, and try to send where a link may carry it (`node/mtu.rs`): a jumbo frame of 9,000 bytes without the headers
/// of IPv6 and UDP. Each datagram costs both sides the same however full it is; twice as large ones gained little more.
pub const DATAGRAM_BYTES_MAX: usize = 8_952;
/// The same of an Ethernet frame of 1,500 bytes: what is tried everywhere else. Handshakes send no larger ones.
pub const ETHERNET_DATAGRAM_BYTES: usize = 1_452;
/// Bytes of one send, all its datagrams together: what the kernel takes (64 KiB with the headers).
pub const TRANSMIT_BYTES_MAX: usize = 65_000;

/// What the round trip is taken for before it is known, jittered by a quarter: a first packet that is not answered is sent again after three times this,
/// and then doubled (RFC 9002 section 6.2.2, which recommends 333 ms: that is a whole second until the first of a lossy path is sent again).
pub const INITIAL_RTT: Duration = Duration::from_millis(100);
/// A connection's peer may change its address so often at once (RFC 9000 section 9.3). Each change sends a datagram of 1,200 bytes to where
/// nobody may have asked for it, more than the three times that section 8 allows; so changes have a rate.
pub const ADDRESS_CHANGES_MAX: u32 = 8;
/// One more change each so often.
pub const ADDRESS_CHANGE_INTERVAL: Duration = Duration::from_millis(500);

/// A driver hands in the bytes of a pipe in pieces of at most so much.
pub const PIPE_CHUNK_BYTES_MAX: usize = 24 << 10;
/// Plaintext that is sealed for one write to a pipe: what is urgent waits for at most so much of what has left already.
pub const PIPE_WRITE_BYTES: usize = 32 << 10;

/// Addresses kept of one peer. 16 leaves room for every transport on a few interfaces.
pub const BOOK_ADDRESSES_MAX: usize = 16;
/// Bytes of one address that is kept: two peer ids and a DNS name of the usual length. The longest domain names do not fit.
pub const BOOK_ADDRESS_BYTES_MAX: usize = 256;
/// What it takes for each peer beside its addresses: its places in four ordered maps, whose nodes may be half empty.
pub const BOOK_PEER_COST: u64 = 768;
/// What a peer said of itself is kept so long after it was last connected. Hours later most that move have moved.
pub const BOOK_CLAIM_FOR: Duration = Duration::from_secs(3_600);
/// Where a peer was seen to come from is kept so long: a NAT forgets sooner than that.
pub const BOOK_INBOUND_FOR: Duration = Duration::from_secs(600);
/// An address that has worked is kept so long without working again.
pub const BOOK_WORKED_FOR: Duration = Duration::from_secs(30 * 86_400);
/// An address that only a remote vouches for is forgotten when it has failed so often in a row.
pub const BOOK_FAILURES_MAX: u32 = 4;
/// The book is looked through for what has expired at most so often.
pub const BOOK_SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Addresses that a node tells of itself: others keep no more.
pub const OWN_ADDRESSES_MAX: usize = 32;
/// Bytes of addresses in a node's signed record. With it, and the same addresses unsigned, identify stays below what rust-libp2p reads (4 KiB).
pub const OWN_RECORD_BYTES: usize = 1_400;
/// How long after the first attempt of a race the second begins: the Connection Attempt Delay that RFC 8305 section 5 recommends. Most paths
/// answer sooner, and then nothing else is sent.
pub const STEP_FIRST: Duration = Duration::from_millis(250);
/// Each further step is half of the one before, down to this, the least that RFC 8305 recommends: by then something is wrong, and eight
/// addresses are through in less than a second.
pub const STEP_MIN: Duration = Duration::from_millis(100);
/// So many addresses of one peer are tried in one race: twice what a ticket carries, with room for what names lead to.
pub const RACE_ADDRESSES_MAX: usize = 32;
/// So many peers can be wanted by the application at once; for more, one of them has to be reached or given up first.
pub const RACES_MAX: usize = 256;
/// What each of these may hold: its addresses, its look-ups and what failed.
pub const RACE_BYTES: u64 = 48 << 10;
/// What is known of an address, or a peer, that could not be reached, its place in a map included.
pub const REST_BYTES: u64 = 160;
/// How long an address, or a peer, that could not be reached is left alone at first; doubled with each failure in a row. A quick restart is
/// not punished.
pub const REST_FIRST: Duration = Duration::from_millis(250);
/// The longest: somebody waits for it.
pub const REST_MAX: Duration = Duration::from_secs(30);
/// So many failures are remembered.
pub const RESTS_MAX: usize = 4096;
/// A peer whose connection its own side or the network has ended is dialled again at an even chance within this time, not at once: whoever had many
/// peers is lost by all of them in the same instant, and none of them can know of the others. As long as a node that is full with the usual number of
/// connections needs to look at as many first packets (512 at 2,000 a second), and less than people notice beside the loss itself; the mean is half of
/// it. A connection that this side has ended, or that its own new address has cost, is nobody else's loss: then it is dialled at once.
pub const REDIAL_SPREAD: Duration = Duration::from_millis(256);
/// So many peers that were lost within that time are remembered: twice the usual number of connections. Beyond, the one lost first is forgotten.
pub const LOST_MAX: usize = 1024;
/// A connection that goes on from another address of this machine is over when its peer does not answer there for so long: on a short path several
/// probes in a row are lost then (RFC 9002 section 6.2).
pub const MOVE_DEADLINE: Duration = Duration::from_secs(3);
/// But at least for so many round trips.
pub const MOVE_ROUND_TRIPS: u32 = 8;
/// So many names deep a `/dnsaddr` may lead: libp2p's own bootstrap list has two.
pub const LOOKUP_DEPTH_MAX: u32 = 4;
/// Look-ups of one connect, in all.
pub const LOOKUPS_PER_CONNECT_MAX: u32 = 16;
/// Answers that one connect looks at, in all.
pub const LOOKUP_ANSWERS_MAX: usize = 64;
/// Look-ups of the node that are under way at once.
pub const LOOKUPS_MAX: usize = 32;
/// The longest text of an answer that is looked at; a multiaddr with a name and an identity has some 350 bytes.
pub const LOOKUP_TEXT_BYTES_MAX: usize = 1 << 10;
/// How long a look-up may take: usual resolvers ask a second server after 5 s at the latest.
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(6);
/// When addresses of one IP version are known and those of the other are not, the race waits so long for IPv6 (RFC 8305 section 3).
pub const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Dials that one turn begins, at most: each costs a key exchange.
pub const DIALS_PER_TURN_MAX: usize = 16;
/// Of two connections to one peer the one that is not used any more is closed when nothing has moved on it for so long. By then the peer has
/// long made the same choice: it takes both sides a round trip.
pub const RETIRED_FOR: Duration = Duration::from_secs(5);
/// A stream of ours that is kept for the next request ends when none has come for so long: a connection rests as soon
/// ([what it gives back](../node/rest.rs)), and who asks less often does not feel what a stream costs.
pub const STREAM_REST: Duration = Duration::from_secs(1);
/// And one of a peer. Much longer than peers keep theirs, so that no request is lost that is on its way meanwhile; what it takes
/// is the peer's own stream credit.
pub const STREAM_REST_MAX: Duration = Duration::from_secs(30);

// Work units are what turns are measured in. One is about the work of one bulk byte, system calls included: 0.8 to 1.4 ns where the others were
// measured. What is charged too little is what attackers send: a connection that uses it has more than its share of the processor.

/// Work of one packet beside its frames and bytes: header protection, ACK state.
pub const PACKET_WORK: u64 = 800;
/// Work of one QUIC frame beside its packet and its bytes: a packet can have more than a thousand. Measured for PING at 30 ns, and at
/// 75 where the program has the `log` feature of `tracing`.
pub const FRAME_WORK: u64 = 80;
/// Work of one STREAM frame beside its packet and its bytes: a packet can have two hundred. Measured at 310 ns in all for frames of one byte.
pub const STREAM_FRAME_WORK: u64 = 250;
/// Work of one DATAGRAM frame beside its packet and its bytes: it is copied and told to the application.
pub const PACKET_FRAME_WORK: u64 = 600;
/// STREAM frames are small where a packet's have fewer bytes than this each.
pub const SMALL_FRAME_BYTES: u64 = 128;
/// Work of a small one beside that: where something before it is missing, the QUIC crate keeps each piece by itself, and sorts them all for every 27 that
/// come. As many as the smallest window holds (some 300 packets of them, with holes between) make that 600 ns a frame.
pub const SMALL_FRAME_WORK: u64 = 600;
/// Work of one stream that the peer has opened, whatever becomes of it. Measured at 5 us in all for one with a proposal that is reset at once.
pub const STREAM_OPENED_WORK: u64 = 3_500;
/// Work of beginning a handshake with a stranger, and of one packet of a connection whose handshake is not complete. Measured at 330 us for
/// a stranger's first packet (a key exchange, a signature), and at 200 to 350 for the others.
pub const HANDSHAKE_PACKET_WORK: u64 = 300_000;
/// Work of one message of a handshake over a pipe: key exchanges, and a signature made or checked.
pub const HANDSHAKE_MESSAGE_WORK: u64 = 120_000;
/// Work of verifying one signed peer record: one signature.
pub const RECORD_WORK: u64 = 40_000;
/// Work of driving one stream once.
pub const STREAM_WORK: u64 = 500;
/// Work of looking at one key of a topic for one subscriber.
pub const LOOK_WORK: u64 = 150;

/// When all places of handshakes are taken, one that was silent for so long, jittered by a quarter, gives its place to a newcomer: more than a round trip
/// by geostationary satellite, 600 ms, which is the longest that a sound path is silent between two messages of a handshake.
pub const HANDSHAKE_SILENT: Duration = Duration::from_secs(1);
/// The same for handshakes over pipes when those over QUIC have less than a quarter of the places and one of these comes, and the other way round: whoever
/// fills the places over one of the two would else have as good as all of them for those who come over the other. As long as a usual round trip.
pub const HANDSHAKE_SILENT_OTHERS: Duration = Duration::from_millis(300);
/// What is heard from a handshake later than so long after its beginning does not count as going on: a byte a second would do to keep a place. Over such
/// a satellite three round trips fit in, and the whole of a handshake takes about so many.
pub const HANDSHAKE_MOVES: Duration = Duration::from_secs(2);
/// Handshakes whose silences differ by less are silent for as long as each other, and their networks decide.
pub const HANDSHAKE_SIMILAR: Duration = Duration::from_millis(250);

/// Eighths of `connections_max` that connections which others began can always have, those that the application protects not counted.
const INBOUND_FLOOR_EIGHTHS: u32 = 3;
/// Eighths that those which we dial can always have: whoever fills the rest cannot cut us off from the peers that we choose.
const OUTBOUND_FLOOR_EIGHTHS: u32 = 1;
/// Eighths that the application may protect.
const PROTECTED_EIGHTHS: u32 = 2;

const _: () =
    assert!(INBOUND_FLOOR_EIGHTHS + OUTBOUND_FLOOR_EIGHTHS + PROTECTED_EIGHTHS <= 8, "the floors fit any number of slots");
const _: () = assert!(HEADER_BYTES_MAX >= 1024 && OUTBOX_BYTES_MAX >= HEADER_BYTES_MAX);
const _: () = assert!(DATAGRAM_BYTES_MAX >= 1472, "a full Ethernet datagram over IPv4 has to fit");
const _: () = assert!(TRANSMIT_BYTES_MAX >= DATAGRAM_BYTES_MAX && DATAGRAM_BYTES_MAX <= u16::MAX as usize);

impl Limits {
    /// Worst allocated bytes behind a receive window of `bytes`, beside those behind its streams ([`Self::streams_cost`]). A stream's store is compacted
    /// when it has more than [`REASSEMBLY_SLACK_BYTES`] too much, which its stream pays for, or 1.5 times its data if that is more: at the worst all data
    /// is in one stream.
    pub fn receive_window_cost(bytes: u64) -> u64 {
        let compacted = bytes.saturating_mul(WINDOW_FACTOR_HALVES) / 2;
        bytes.max(compacted.saturating_sub(REASSEMBLY_SLACK_BYTES))
    }

    /// The widest receive window of which [`Self::receive_window_cost`] is at most `bytes`.
    pub(crate) fn receive_window_within(bytes: u64) -> u64 {
        bytes.min(bytes.saturating_add(REASSEMBLY_SLACK_BYTES).saturating_mul(2) / WINDOW_FACTOR_HALVES)
    }

    /// What one stream may have received and not read: an eighth of the largest connection window.
    pub fn stream_window(&self) -> u64 {
        (self.receive_window_max / 8).max(self.receive_window_min)
    }

    /// Worst allocated bytes behind a send window of `bytes`: the data, and a record for each packet in flight.
    pub fn send_window_cost(bytes: u64) -> u64 {
        bytes.saturating_add(bytes / 4)
    }

    /// Worst allocated bytes behind allowing a peer `count` streams.
    pub fn streams_cost(count: u64) -> u64 {
        let one = STREAM_BYTES
            .saturating_add(REASSEMBLY_SLACK_BYTES)
            .saturating_add(HEADER_BYTES_MAX as u64)
            .saturating_add(FRONT_BYTES_MAX as u64)
            .saturating_add(OUTBOX_BYTES_MAX as u64);
        count.saturating_mul(one)
    }

    /// What each connection has set aside from its first packet to its last, in bytes.
    pub fn connection_floor(&self) -> u64 {
        [
            CONNECTION_BYTES,
            self.packets_bytes.saturating_mul(2),
            Self::receive_window_cost(self.receive_window_min),
            Self::send_window_cost(self.send_window_min),
            Self::streams_cost(u64::from(self.streams_min)),
            self.inbox_bytes_min,
            self.message_bytes_min.saturating_mul(crate::message::Message::HELD_FACTOR),
        ]
        .iter()
        .fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// What windows and stream credit of one connection may grow to, in bytes: half of its memory. What was offered to a peer cannot be
    /// taken back, so without this a connection that has been busy could never be granted a large message again.
    pub fn credit_ceiling(&self) -> u64 {
        (self.connection_bytes_max / 2).max(self.connection_floor())
    }

    /// What the messages of one connection can have together, however far its windows have grown, in bytes.
    pub fn message_room(&self) -> u64 {
        self.connection_bytes_max.saturating_sub(self.credit_ceiling()).saturating_sub(self.inbox_bytes_max)
    }

    /// The `connection_bytes_max` that would leave `bytes` for messages.
    pub(crate) fn room_for(&self, bytes: u64) -> u64 {
        let bytes = bytes.saturating_add(self.inbox_bytes_max);
        bytes.saturating_add(bytes.max(self.connection_floor()))
    }

    /// How many slots connections that others began can always have, those that the application protects not counted.
    pub fn inbound_min(&self) -> u32 {
        self.eighths(INBOUND_FLOOR_EIGHTHS)
    }

    /// How many slots dialled connections can always have.
    pub fn outbound_min(&self) -> u32 {
        self.eighths(OUTBOUND_FLOOR_EIGHTHS)
    }

    /// How many peers the application may [protect](crate::Node::protect).
    pub fn protected_max(&self) -> u32 {
        self.eighths(PROTECTED_EIGHTHS)
    }

    fn eighths(&self, count: u32) -> u32 {
        // In 64 bits, since the product may be larger than the number itself.
        u32::try_from(u64::from(self.connections_max).saturating_mul(count.into()) / 8).unwrap_or(self.connections_max)
    }

    /// All connections in any state: slots, and the places of handshakes.
    pub fn places(&self) -> u32 {
        self.connections_max.saturating_add(self.handshakes_max)
    }

    /// Memory for packets of strangers that nobody has been admitted for.
    pub fn strangers_floor(&self) -> u64 {
        // Two full first flights each: a hybrid key share spans several Initials.
        u64::from(self.handshakes_max).saturating_mul(ETHERNET_DATAGRAM_BYTES as u64).saturating_mul(6)
    }

    /// Memory for the tables of the abuse feed.
    pub fn abuse_floor(&self) -> u64 {
        Abuse::entries_max(self.abuse_names_max).saturating_mul(ABUSE_ENTRY_BYTES)
    }

    /// Memory for what the application wants to connect to.
    pub fn dialling_floor(&self) -> u64 {
        let rests = (RESTS_MAX as u64).saturating_add(LOST_MAX as u64).saturating_mul(REST_BYTES);
        (RACES_MAX as u64).saturating_mul(RACE_BYTES).saturating_add(rests)
    }

    /// Memory that is set aside for what is not of one connection: first packets, the abuse feed, the address book, dialling.
    pub fn shared_floor(&self) -> u64 {
        let own = self.strangers_floor().saturating_add(self.abuse_floor());
        own.saturating_add(self.book_bytes).saturating_add(self.dialling_floor())
    }

    /// Proves that the floors fit the memory and that the numbers make sense together.
    pub fn check(&self) -> Result<(), ConfigError> {
        let floor = self.connection_floor();
        let shared = self.shared_floor();
        let needed = floor.saturating_mul(self.places().into()).saturating_add(shared);
        if needed > self.memory_bytes {
            let room = self.memory_bytes.saturating_sub(shared);
            return Err(ConfigError::FloorsDoNotFit {
                memory_bytes: self.memory_bytes,
                connections_max: self.connections_max,
                handshakes_max: self.handshakes_max,
                connection_floor: floor,
                strangers_floor: self.strangers_floor().saturating_add(self.abuse_floor()),
                book_bytes: self.book_bytes,
                dialling_floor: self.dialling_floor(),
                fitting_memory: needed,
                fitting_connections: room.checked_div(floor).unwrap_or(0).saturating_sub(self.handshakes_max.into()),
            });
        }
        if floor > self.connection_bytes_max {
            return Err(ConfigError::Clash {
                what: "connection_bytes_max is below what each connection has set aside",
                low: floor,
                high: self.connection_bytes_max,
            });
        }
        let pairs = [
            ("receive_window_min is above receive_window_max", self.receive_window_min, self.receive_window_max),
            ("send_window_min is above send_window_max", self.send_window_min, self.send_window_max),
            ("streams_min is above streams_max", self.streams_min.into(), self.streams_max.into()),
            ("inbox_bytes_min is above inbox_bytes_max", self.inbox_bytes_min, self.inbox_bytes_max),
            ("retry_from is above handshakes_max", self.retry_from.into(), self.handshakes_max.into()),
            (
                "connections_sure is above connections_max and handshakes_max together",
                self.connections_sure.into(),
                self.places().into(),
            ),
            ("handshakes_max is above connections_max", self.handshakes_max.into(), self.connections_max.into()),
            (
                "keep_alive has to be below half of idle_timeout (ms)",
                millis(self.keep_alive).saturating_mul(2),
                millis(self.idle_timeout),
            ),
            ("a quantum is above a turn", self.quantum.into(), self.turn_work),
            ("receive_window_max has to fit 32 bits", self.receive_window_max, u64::from(u32::MAX)),
        ];
        for (what, low, high) in pairs {
            if low > high {
                return Err(ConfigError::Clash { what, low, high });
            }
        }
        match self.not_zero().iter().find(|(_, value)| *value == 0) {
            Some((what, _)) => Err(ConfigError::TooSmall { what }),
            None => Ok(()),
        }
    }

    /// What has to be above zero.
    fn not_zero(&self) -> [(&'static str, u64); 14] {
        [
            ("connections_max", u64::from(self.connections_max)),
            ("connections_per_peer_max", self.connections_per_peer_max.into()),
            ("dials_max", self.dials_max.into()),
            ("dials_per_peer_max", self.dials_per_peer_max.into()),
            ("handshakes_max", self.handshakes_max.into()),
            ("strangers_per_second", self.strangers_per_second.into()),
            ("streams_min", self.streams_min.into()),
            ("receive_window_min", self.receive_window_min / 4096),
            ("send_window_min", self.send_window_min / 4096),
            ("rate_min", self.rate_min),
            ("quantum", self.quantum.into()),
            ("delay_max (ms)", millis(self.delay_max)),
            ("progress_interval (ms)", millis(self.progress_interval)),
            ("abuse_interval (ms)", millis(self.abuse_interval)),
        ]
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn floors_that_do_not_fit_are_refused_and_the_advice_is_right() {
        let mut limits = Limits { connections_max: 100_000, ..Limits::default() };
        let Err(ConfigError::FloorsDoNotFit { fitting_memory, fitting_connections, .. }) = limits.check() else {
            panic!("{:?}", limits.check());
        };
        limits.connections_max = u32::try_from(fitting_connections).expect("small");
        assert_eq!(limits.check(), Ok(()), "so many fit");
        limits.connections_max += 1;
        assert!(limits.check().is_err(), "and not one more");
        limits.connections_max = 100_000;
        limits.memory_bytes = fitting_memory;
        assert_eq!(limits.check(), Ok(()));
        limits.memory_bytes -= 1;
        assert!(limits.check().is_err());
    }

    #[test]
    fn the_widest_window_within_a_cost_is_the_widest() {
        for bytes in [0, 1, 4096, 20_000, 21_844, 21_845, 21_846, 21_847, 30_000, 1 << 20, (8 << 20) + 3] {
            let window = Limits::receive_window_within(bytes);
            assert!(Limits::receive_window_cost(window) <= bytes, "{bytes}");
            assert!(Limits::receive_window_cost(window + 1) > bytes, "{bytes}");
        }
    }

    #[test]
    fn the_floors_of_all_classes_fit_any_number_of_slots() {
        for connections_max in [0, 1, 2, 7, 8, 9, 64, 511, 512, 1_000, u32::MAX] {
            let limits = Limits { connections_max, ..Limits::default() };
            let sum = u64::from(limits.inbound_min()) + u64::from(limits.outbound_min()) + u64::from(limits.protected_max());
            assert!(sum <= u64::from(connections_max), "{connections_max}: {sum}");
        }
    }

    #[test]
    fn clashes_and_zeros_are_named() {
        let clash = Limits { keep_alive: Duration::from_secs(20), ..Limits::default() }.check();
        assert!(clash.unwrap_err().to_string().contains("keep_alive"));
        let zero = Limits { rate_min: 0, ..Limits::default() }.check();
        assert!(zero.unwrap_err().to_string().contains("rate_min"));
    }
}
