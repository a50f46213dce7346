//! What the QUIC crate knows of a connection, for traces.

use super::{Conn, quic};
use crate::trace::{FRAMES, Vitals};

/// The kinds of frames, as qlog names them.
pub(crate) const FRAME_NAMES: [&str; FRAMES] = [
    "ack",
    "ack_frequency",
    "crypto",
    "connection_close",
    "data_blocked",
    "datagram",
    "handshake_done",
    "immediate_ack",
    "max_data",
    "max_stream_data",
    "max_streams",
    "new_connection_id",
    "new_token",
    "path_challenge",
    "path_response",
    "ping",
    "reset_stream",
    "retire_connection_id",
    "stream_data_blocked",
    "streams_blocked",
    "stop_sending",
    "stream",
    "max_streams_uni",
];

fn frames(of: &quic::FrameStats) -> [u64; FRAMES] {
    [
        of.acks,
        of.ack_frequency,
        of.crypto,
        of.connection_close,
        of.data_blocked,
        of.datagram,
        of.handshake_done.into(),
        of.immediate_ack,
        of.max_data,
        of.max_stream_data,
        of.max_streams_bidi,
        of.new_connection_id,
        of.new_token,
        of.path_challenge,
        of.path_response,
        of.ping,
        of.reset_stream,
        of.retire_connection_id,
        of.stream_data_blocked,
        of.streams_blocked_bidi,
        of.stop_sending,
        of.stream,
        of.max_streams_uni,
    ]
}

impl Conn {
    pub(crate) fn vitals(&self) -> Vitals {
        let stats = self.inner.stats();
        Vitals {
            frames_in: frames(&stats.frame_rx),
            frames_out: frames(&stats.frame_tx),
            rtt: stats.path.rtt,
            rtt_min: stats.path.min_rtt,
            window: stats.path.cwnd,
            // Before the first loss there is none.
            threshold: self.inner.congestion_state().metrics().ssthresh.filter(|bytes| *bytes != u64::MAX),
            lost: stats.path.lost_packets,
            lost_bytes: stats.path.lost_bytes,
            congestions: stats.path.congestion_events,
            mtu: stats.path.current_mtu.into(),
        }
    }
}
