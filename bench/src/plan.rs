//! What is run: the cases and their sizes.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Bytes of a request and of its reply.
pub(crate) const MESSAGE_BYTES: usize = 64;
/// Bytes handed to the stack in one write of the bulk case, and asked from it in one read.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes of a reply of the chunks case.
pub(crate) const REPLY_BYTES: usize = 1 << 20;
/// Streams that a server of the idle case allows each client, where that can be set.
pub(crate) const IDLE_STREAMS: u32 = 100;

/// Bytes of the burst case.
pub(crate) const BURST_BYTES: u64 = 512 << 10;

/// The name of a group of cases, as typed on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaseName {
    /// One stream, client to server.
    Bulk,
    /// 64-byte requests and replies, 1 and 64 in flight.
    Requests,
    /// 64-byte requests one at a time, alone and beside a bulk stream of the same connection.
    Urgent,
    /// Replies of 1 MiB, 16 requests in flight.
    Chunks,
    /// Connections made and ended, by one client and by 64 at once.
    Handshakes,
    /// What 1,000 connections that do nothing hold at the server.
    Idle,
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
            CaseName::Chunks => vec![Case::Chunks { count: sizes.chunks, in_flight: 16 }],
            CaseName::Handshakes => vec![
                Case::Handshakes { count: sizes.handshakes / 2, at_once: 1 },
                Case::Handshakes { count: sizes.handshakes, at_once: 64 },
            ],
            CaseName::Idle => vec![Case::Idle { connections: sizes.idle }],
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
    /// `count` small requests with replies of [`REPLY_BYTES`], `in_flight` at a time.
    Chunks { count: u64, in_flight: usize },
    /// `count` connections by `at_once` clients, each of which ends one before it makes the next.
    Handshakes { count: u64, at_once: usize },
    /// So many connections, each from a client of its own, that do nothing.
    Idle { connections: usize },
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
            Case::Chunks { count, in_flight } => write!(f, "{count} replies of {} MiB, {in_flight} in flight", REPLY_BYTES >> 20),
            Case::Handshakes { count, at_once: 1 } => write!(f, "{count} handshakes, one after the other"),
            Case::Handshakes { count, at_once } => write!(f, "{count} handshakes, {at_once} at once"),
            Case::Idle { connections } => write!(f, "{connections} idle connections"),
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
    /// Replies of the chunks case.
    pub(crate) chunks: u64,
    /// Handshakes of 64 clients; one client makes half of them.
    pub(crate) handshakes: u64,
    /// Connections of the idle case.
    pub(crate) idle: usize,
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
            chunks: if quick { 128 } else { 512 },
            handshakes: if quick { 512 } else { 2_048 },
            idle: 1_000,
            flood_seconds: seconds.unwrap_or(default_seconds).max(1),
            link_mbit: None,
        }
    }
}
