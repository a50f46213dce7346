//! What is run: the stacks, the cases and their sizes.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Bytes of a request and of its reply.
pub(crate) const MESSAGE_BYTES: usize = 64;
/// Bytes handed to the stack in one write of the bulk case, and asked from it in one read.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of the burst case.
pub(crate) const BURST_BYTES: u64 = 512 << 10;

/// A stack under one kind of tokio runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stack {
    /// strait, multi-thread runtime with two workers.
    Strait,
    /// strait, current-thread runtime.
    StraitCurrent,
    /// quinn, multi-thread runtime with two workers.
    Quinn,
    /// quinn, current-thread runtime.
    QuinnCurrent,
    /// rust-libp2p over QUIC, multi-thread runtime with two workers.
    Libp2p,
    /// strait over TCP, TLS and Yamux.
    StraitTls,
    /// strait over TCP, Noise and Yamux.
    StraitNoise,
    /// rust-libp2p over TCP, TLS and Yamux.
    Libp2pTls,
    /// rust-libp2p over TCP, Noise and Yamux.
    Libp2pNoise,
    /// litep2p over TCP, Noise and Yamux.
    #[cfg(feature = "litep2p")]
    Litep2pNoise,
}

/// Stacks that are compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// Over QUIC, against quinn.
    Quic,
    /// Over TCP, against rust-libp2p with TLS.
    Tcp,
}

impl Family {
    /// The stacks of it.
    pub(crate) fn stacks(self) -> Vec<Stack> {
        Stack::value_variants().iter().copied().filter(|stack| stack.is_tcp() == (self == Family::Tcp)).collect()
    }

    /// The one that ratios are taken against.
    pub(crate) fn baseline(self) -> Stack {
        match self {
            Family::Quic => Stack::Quinn,
            Family::Tcp => Stack::Libp2pTls,
        }
    }
}

impl Stack {
    /// Whether the runtime has one thread only.
    pub(crate) fn current_thread(self) -> bool {
        matches!(self, Stack::StraitCurrent | Stack::QuinnCurrent)
    }

    /// Whether this is strait itself, under either runtime and over whatever.
    pub(crate) fn is_strait(self) -> bool {
        matches!(self, Stack::Strait | Stack::StraitCurrent | Stack::StraitTls | Stack::StraitNoise)
    }

    /// Whether it runs over TCP.
    pub(crate) fn is_tcp(self) -> bool {
        self.tcp_security().is_some()
    }

    /// How it secures a TCP connection, by the protocol's name.
    pub(crate) fn tcp_security(self) -> Option<&'static str> {
        match self {
            Stack::StraitTls | Stack::Libp2pTls => Some("/tls/1.0.0"),
            Stack::StraitNoise | Stack::Libp2pNoise => Some("/noise"),
            #[cfg(feature = "litep2p")]
            Stack::Litep2pNoise => Some("/noise"),
            Stack::Strait | Stack::StraitCurrent | Stack::Quinn | Stack::QuinnCurrent | Stack::Libp2p => None,
        }
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stack::Strait => "strait",
            Stack::StraitCurrent => "strait-current",
            Stack::Quinn => "quinn",
            Stack::QuinnCurrent => "quinn-current",
            Stack::Libp2p => "libp2p",
            Stack::StraitTls => "strait-tls",
            Stack::StraitNoise => "strait-noise",
            Stack::Libp2pTls => "libp2p-tls",
            Stack::Libp2pNoise => "libp2p-noise",
            #[cfg(feature = "litep2p")]
            Stack::Litep2pNoise => "litep2p-noise",
        })
    }
}

/// The name of a group of cases, as typed on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaseName {
    /// One stream, client to server.
    Bulk,
    /// 64-byte requests and replies, 1 and 64 in flight.
    Requests,
    /// 64-byte requests one at a time, alone and beside a bulk stream of the same connection.
    Urgent,
    /// 512 KiB on a stream at once, from a cold start, warm, and after idle times.
    Burst,
    /// One honest strait client beside a flooding one.
    Flood,
}

impl CaseName {
    /// The cases of the group.
    pub(crate) fn cases(self, sizes: &Sizes) -> Vec<Case> {
        match self {
            CaseName::Bulk => vec![Case::Bulk { bytes: sizes.bulk_bytes }],
            CaseName::Requests => vec![
                Case::Requests { count: sizes.requests_alone, in_flight: 1 },
                Case::Requests { count: sizes.requests_parallel, in_flight: 64 },
            ],
            CaseName::Urgent => {
                let half = sizes.link_mbit.map(|mbit| Load::Paced { bytes_per_second: mbit.saturating_mul(1_000_000 / 8 / 2) });
                let loads = [Some(Load::None), half, Some(Load::Full)];
                loads.into_iter().flatten().map(|load| Case::Urgent { count: sizes.urgent, load }).collect()
            }
            CaseName::Burst => {
                let idle = [0, 1, 5, 25].map(|seconds| Case::Burst { bytes: BURST_BYTES, before: Before::Idle { seconds } });
                [&[Case::Burst { bytes: BURST_BYTES, before: Before::Nothing }][..], &idle].concat()
            }
            CaseName::Flood => vec![Case::Flood],
        }
    }
}

/// One measured thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Case {
    /// `bytes` from client to server on one stream; done when the server has told the count it read.
    Bulk { bytes: u64 },
    /// `count` requests, `in_flight` at a time.
    Requests { count: u64, in_flight: usize },
    /// `count` requests, one at a time and with a pause before each, beside a stream of the same connection with this `load` from client to
    /// server.
    Urgent { count: u64, load: Load },
    /// `bytes` from client to server on one stream, as [`Case::Bulk`], of a connection that has seen this `before`.
    Burst { bytes: u64, before: Before },
    /// See [`crate::flood`].
    Flood,
}

/// What a burst's connection has seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Before {
    /// Only its handshake.
    Nothing,
    /// Bursts, and then nothing for so long.
    Idle { seconds: u64 },
}

/// What goes beside the requests of the urgent case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Load {
    /// Nothing.
    None,
    /// So much.
    Paced { bytes_per_second: u64 },
    /// As much as the stream carries.
    Full,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Bulk { bytes } => write!(f, "bulk, {} MiB on one stream", bytes >> 20),
            Case::Requests { count, in_flight } => write!(f, "{count} requests of {MESSAGE_BYTES} bytes, {in_flight} in flight"),
            Case::Urgent { count, load } => {
                write!(f, "{count} requests of {MESSAGE_BYTES} bytes, with pauses")?;
                match load {
                    Load::None => Ok(()),
                    Load::Paced { bytes_per_second } => write!(f, ", beside bulk of {} Mbit/s", bytes_per_second / 125_000),
                    Load::Full => f.write_str(", beside bulk"),
                }
            }
            Case::Burst { bytes, before } => {
                write!(f, "a burst of {} KiB ", bytes >> 10)?;
                match before {
                    Before::Nothing => f.write_str("from a cold start"),
                    Before::Idle { seconds: 0 } => f.write_str("after others"),
                    Before::Idle { seconds } => write!(f, "after others and {seconds} s of silence"),
                }
            }
            Case::Flood => f.write_str("flood"),
        }
    }
}

/// Sizes of the cases.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sizes {
    /// Bytes of the bulk transfer.
    pub(crate) bulk_bytes: u64,
    /// Requests with one in flight.
    pub(crate) requests_alone: u64,
    /// Requests with 64 in flight.
    pub(crate) requests_parallel: u64,
    /// Requests of the urgent case.
    pub(crate) urgent: u64,
    /// Seconds for which the honest client of the flood case is measured.
    pub(crate) flood_seconds: u64,
    /// What the link carries, if it is limited.
    pub(crate) link_mbit: Option<u64>,
}

impl Sizes {
    /// The defaults, or the quick ones, with what was set by hand put over them.
    pub(crate) fn new(quick: bool, mib: Option<u64>, requests: Option<u64>, seconds: Option<u64>) -> Sizes {
        let (default_mib, default_requests, default_seconds) = if quick { (64, 20_000, 3) } else { (1024, 200_000, 10) };
        let requests = requests.unwrap_or(default_requests).max(640);
        Sizes {
            bulk_bytes: mib.unwrap_or(default_mib).max(1) << 20,
            requests_alone: requests / 10,
            requests_parallel: requests,
            urgent: if quick { 500 } else { 2_000 },
            flood_seconds: seconds.unwrap_or(default_seconds).max(1),
            link_mbit: None,
        }
    }
}
