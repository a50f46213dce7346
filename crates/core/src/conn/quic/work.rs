//! What received frames cost.

use super::quic;
use crate::limits::{FRAME_WORK, PACKET_FRAME_WORK, STREAM_FRAME_WORK};

/// Work units of the frames received so far, but for those that end a connection or that a packet is not full of.
pub(super) fn frames_work(frames: &quic::FrameStats) -> u64 {
    let streams = [frames.reset_stream, frames.stop_sending, frames.stream_data_blocked, frames.max_stream_data];
    let others = [frames.acks, frames.crypto, frames.ping, frames.path_challenge, frames.path_response, frames.data_blocked];
    let rest = [frames.max_data, frames.max_streams_bidi, frames.new_connection_id, frames.retire_connection_id];
    let credit = [frames.streams_blocked_bidi, frames.max_streams_uni];
    let all: u64 = streams.iter().chain(&others).chain(&rest).chain(&credit).sum();
    let work = all.saturating_mul(FRAME_WORK);
    let packets = frames.datagram.saturating_mul(PACKET_FRAME_WORK);
    work.saturating_add(frames.stream.saturating_mul(STREAM_FRAME_WORK)).saturating_add(packets)
}
