//! The numbers that an operator may set, as a table: the one place that names each of them, with its words and its default.

use std::time::Duration;

/// A limit's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitValue {
    /// A whole number: of things, bytes or work units, as its name says.
    Number(u64),
    /// A time.
    Time(Duration),
}

/// Why a limit was not set. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No limit has this name.
    #[error("there is no such limit")]
    Unknown,
    /// It is a time, and a number was given.
    #[error("it is a time, such as \"10s\" or \"500ms\"")]
    IsTime,
    /// It is a number, and a time was given.
    #[error("it is a whole number, not a time")]
    IsNumber,
    /// The number is too large for it.
    #[error("it is at most {0}")]
    TooLarge(u64),
}

/// What a limit's field is made of.
trait Field: Sized {
    fn show(&self) -> LimitValue;
    fn read(value: LimitValue) -> Result<Self, LimitError>;
}

impl Field for u64 {
    fn show(&self) -> LimitValue {
        LimitValue::Number(*self)
    }

    fn read(value: LimitValue) -> Result<u64, LimitError> {
        match value {
            LimitValue::Number(number) => Ok(number),
            LimitValue::Time(_) => Err(LimitError::IsNumber),
        }
    }
}

impl Field for u32 {
    fn show(&self) -> LimitValue {
        LimitValue::Number((*self).into())
    }

    fn read(value: LimitValue) -> Result<u32, LimitError> {
        u32::try_from(u64::read(value)?).map_err(|_| LimitError::TooLarge(u32::MAX.into()))
    }
}

impl Field for Duration {
    fn show(&self) -> LimitValue {
        LimitValue::Time(*self)
    }

    fn read(value: LimitValue) -> Result<Duration, LimitError> {
        match value {
            LimitValue::Time(time) => Ok(time),
            LimitValue::Number(_) => Err(LimitError::IsTime),
        }
    }
}

macro_rules! limits {
    ($(#[$outer:meta])* $struct:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $struct {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl Default for $struct {
            fn default() -> $struct {
                $struct { $($field: $default,)* }
            }
        }

        impl $struct {
            /// All names, in order.
            pub const NAMES: &[&str] = &[$(stringify!($field),)*];

            /// All names, with what each of them means in the lines of its documentation, and its value here.
            pub fn list(&self) -> Vec<(&'static str, &'static [&'static str], LimitValue)> {
                vec![$((stringify!($field), &[$($doc,)+], self.$field.show()),)*]
            }

            /// Sets a limit by its name. [`check`](Self::check) says whether all fit together.
            ///
            /// # Errors
            /// [`LimitError`]: nothing has changed.
            pub fn set(&mut self, name: &str, value: LimitValue) -> Result<(), LimitError> {
                match name {
                    $(stringify!($field) => self.$field = Field::read(value)?,)*
                    _ => return Err(LimitError::Unknown),
                }
                Ok(())
            }
        }
    };
}

limits! {
    /// The numbers that an operator may set.
    Limits {
        /// All that the node may hold for its peers, in bytes.
        memory_bytes: u64 = 512 << 20,
        /// All that it may hold for one connection, in bytes.
        connection_bytes_max: u64 = 64 << 20,
        /// Slots: how many connections at once, established or being dialled. Beyond, `docs/admission.md` says who has to go. Handshakes of
        /// strangers have places of their own (`handshakes_max`), so that a full node can still be reached.
        connections_max: u32 = 512,
        /// So many connections can always come, handshakes included: what those that are there have beyond what is set aside for each leaves room for them.
        /// With less, whoever is there already may have grown into it, and newcomers are refused before all slots are taken.
        connections_sure: u32 = 0,
        /// How many of these may be to one identity: two, when both sides dial at once, and one to replace a dead one.
        connections_per_peer_max: u32 = 3,
        /// How many dials for [`Node::connect`](crate::Node::connect) may be under way at once. Each holds a slot and what a connection has set aside. A
        /// quarter of them is for first attempts, so that peers who are nowhere to be found do not hold up the rest.
        dials_max: u32 = 64,
        /// How many of these may be to one peer. Eight addresses are begun within a second.
        dials_per_peer_max: u32 = 8,
        /// How many handshakes of strangers may be in flight, beside all slots. Connections that are saying goodbye have these places too. When all are
        /// taken, those that stand still make room (`docs/admission.md`); each newcomer has all of them looked at, at most, so thousands would cost.
        handshakes_max: u32 = 64,
        /// From so many on, a stranger has to prove its address first (Retry, RFC 9000 section 8.1.2).
        retry_from: u32 = 32,
        /// First packets of strangers that are opened per second on average; each costs key derivation.
        strangers_per_second: u32 = 2_000,
        /// How long a handshake may take.
        handshake_deadline: Duration = Duration::from_secs(10),
        /// A connection without any packet is given up after this.
        idle_timeout: Duration = Duration::from_secs(30),
        /// An idle connection is kept alive at about this interval (jittered by a quarter).
        keep_alive: Duration = Duration::from_secs(8),
        /// Receive window of a fresh connection, in bytes.
        receive_window_min: u64 = 64 << 10,
        /// A connection's receive window grows to at most this.
        receive_window_max: u64 = 8 << 20,
        /// Unacknowledged bytes that a fresh connection may hold for sending.
        send_window_min: u64 = 64 << 10,
        /// What that may grow to.
        send_window_max: u64 = 8 << 20,
        /// All that the address book may hold, in bytes, set aside for it. What does not fit pushes out the least proven, by
        /// [`peers::book`](crate::peers::book).
        book_bytes: u64 = 4 << 20,
        /// Streams that a peer may have open on a fresh connection. Grows in steps while it uses them.
        streams_min: u32 = 8,
        /// What that may grow to.
        streams_max: u32 = 256,
        /// What a QUIC connection may hold of packets (DATAGRAM frames) that wait to leave, in bytes, and as much again of those that came and were not
        /// looked at yet. 0: packets are not carried.
        packets_bytes: u64 = 16 << 10,
        /// Received datagrams that may wait for a connection's turn, in bytes, from its floor.
        inbox_bytes_min: u64 = 64 << 10,
        /// The same when the node has spare memory.
        inbox_bytes_max: u64 = 2 << 20,
        /// The longest delay that buffering may add: older datagrams are dropped as loss, and windows are sized by it.
        delay_max: Duration = Duration::from_millis(500),
        /// Bytes of messages being received that each connection can always have, whatever others hold.
        message_bytes_min: u64 = 64 << 10,
        /// How long negotiating a protocol on a stream may take.
        negotiation_deadline: Duration = Duration::from_secs(10),
        /// A message in transit has to grow by `progress_bytes` in each such interval, unless the connection is busy with others.
        progress_interval: Duration = Duration::from_secs(3),
        /// See `progress_interval`. 1 byte/s falls below, a 9,600 baud line does not.
        progress_bytes: u64 = 1 << 10,
        /// The slowest average rate, in bytes/s, at which a message may take its time beyond its protocol's deadline.
        rate_min: u64 = 1 << 10,
        /// Work units of one turn of the node; what is left waits for the next.
        turn_work: u64 = 256 << 10,
        /// Work units of one visit to one connection.
        quantum: u32 = 32 << 10,
        /// Closing waits so long for what is under way.
        drain_deadline: Duration = Duration::from_secs(5),
        /// The abuse feed names so many of each kind in an interval: identities, addresses, and addresses that can be forged.
        abuse_names_max: u32 = 64,
        /// It tells of each at most once in this time.
        abuse_interval: Duration = Duration::from_secs(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_can_be_set_by_its_name_to_what_it_shows() {
        let defaults = Limits::default();
        assert_eq!(defaults.list().len(), Limits::NAMES.len());
        let mut limits = Limits { memory_bytes: 1, idle_timeout: Duration::ZERO, quantum: 0, ..Limits::default() };
        for (name, words, value) in defaults.list() {
            assert!(words.iter().all(|line| line.starts_with(' ')), "{name}: {words:?}");
            assert_eq!(limits.set(name, value), Ok(()), "{name}");
        }
        assert_eq!(limits, defaults);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut limits = Limits::default();
        let time = LimitValue::Time(Duration::from_secs(1));
        assert_eq!(limits.set("memory", time), Err(LimitError::Unknown));
        assert_eq!(limits.set("memory_bytes", time), Err(LimitError::IsNumber));
        assert_eq!(limits.set("idle_timeout", LimitValue::Number(10)), Err(LimitError::IsTime));
        assert_eq!(limits.set("streams_max", LimitValue::Number(1 << 32)), Err(LimitError::TooLarge(u32::MAX.into())));
        assert_eq!(limits, Limits::default());
    }
}
