//! What is run: the stacks, the cases and their sizes.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Bytes of a request and of its reply.
pub(crate) const MESSAGE_BYTES: usize = 64;
/// Bytes handed to the stack in one write of the bulk case, and asked from it in one read.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

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
}

impl Stack {
    /// All stacks of this build.
    pub(crate) fn all() -> Vec<Stack> {
        Stack::value_variants().to_vec()
    }

    /// Whether the runtime has one thread only.
    pub(crate) fn current_thread(self) -> bool {
        matches!(self, Stack::StraitCurrent | Stack::QuinnCurrent)
    }

    /// Whether this is strait itself, under either runtime.
    pub(crate) fn is_strait(self) -> bool {
        matches!(self, Stack::Strait | Stack::StraitCurrent)
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
    /// See [`crate::flood`].
    Flood,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Case::Bulk { bytes } => write!(f, "bulk, {} MiB on one stream", bytes >> 20),
            Case::Requests { count, in_flight } => write!(f, "{count} requests of {MESSAGE_BYTES} bytes, {in_flight} in flight"),
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
    /// Seconds for which the honest client of the flood case is measured.
    pub(crate) flood_seconds: u64,
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
            flood_seconds: seconds.unwrap_or(default_seconds).max(1),
        }
    }
}
