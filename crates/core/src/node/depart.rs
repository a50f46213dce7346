//! Datagrams out: connections send in turns, a burst each.

use std::num::NonZeroUsize;
use std::time::Instant;

use super::Node;
use crate::conn::quic::Transmit;
use crate::limits::{PACKET_WORK, TRANSMIT_BYTES_MAX};

impl Node {
    /// The next thing to send: at most `max` datagrams of equal size, and [`TRANSMIT_BYTES_MAX`] bytes, to one peer, in `buffer`, which is cleared. Take all before
    /// waiting; if the socket is full keep this one and stop, and the congestion controller will feel it.
    pub fn poll_transmit(&mut self, now: Instant, max: NonZeroUsize, buffer: &mut Vec<u8>) -> Option<Transmit> {
        buffer.clear();
        self.send_kept_back(now);
        if let Some((transmit, bytes)) = self.answers.pop_front() {
            buffer.extend_from_slice(&bytes);
            self.count_transmit(&transmit);
            return Some(transmit);
        }
        while let Some((slot, may)) = self.out.pick() {
            let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
                self.out.served(slot, 0, false);
                continue;
            };
            let Some(quic) = conn.quic.as_quic() else {
                self.out.served(slot, 0, false);
                continue;
            };
            // A visit sends one burst, of about what the member may.
            let mtu = usize::from(quic.mtu().max(1));
            let bytes = usize::try_from(may).unwrap_or(0).min(TRANSMIT_BYTES_MAX);
            let burst = bytes.checked_div(mtu).unwrap_or(1).clamp(1, max.get());
            match quic.poll_transmit(now, conn.socket, burst, buffer) {
                Some(transmit) => {
                    conn.trace_sent(now, transmit.size, transmit.segment_size.unwrap_or(transmit.size));
                    self.out.served(slot, PACKET_WORK.saturating_add(transmit.size as u64), true);
                    self.count_transmit(&transmit);
                    return Some(transmit);
                }
                None => {
                    buffer.clear();
                    self.out.served(slot, 0, false);
                    if !self.settle(now, slot) {
                        self.rearm(slot);
                    }
                }
            }
        }
        None
    }

    /// Hands over small writes that were kept back for more to come: it has not come in this turn.
    pub(super) fn send_kept_back(&mut self, now: Instant) {
        if self.kept_back.is_empty() {
            return;
        }
        let mut names = std::mem::take(&mut self.kept_back);
        for name in names.drain(..) {
            let Some((slot, stream)) = self.find_stream(name) else {
                continue;
            };
            stream.kept_back = false;
            let (before, Ok(index)) = (stream.io.moved, usize::try_from(name.index)) else {
                continue;
            };
            if let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) {
                conn.flush_stream(now, &self.config.limits, index);
                conn.count_moved(now, index, before, &mut self.counters);
            }
            self.send_later(slot);
        }
        self.kept_back = names;
    }

    fn count_transmit(&mut self, transmit: &Transmit) {
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        let datagrams = transmit.size.div_ceil(segment) as u64;
        let totals = &mut self.counters.totals;
        totals.transmits = totals.transmits.saturating_add(1);
        totals.datagrams_out = totals.datagrams_out.saturating_add(datagrams);
        totals.datagram_bytes_out = totals.datagram_bytes_out.saturating_add(transmit.size as u64);
    }
}
