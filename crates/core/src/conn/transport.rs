//! What a node's connections run on. The node treats all alike; where it must not, it asks for the kind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::event::ConnEvent;
use super::piped::Piped;
use super::{quic, yamux};
use crate::proto::Priority;
use crate::stream::{Read, StreamPort};
use crate::trace::Vitals;

/// A connection of either kind.
pub(crate) enum Transport {
    Quic(Box<quic::Conn>),
    Pipe(Box<Pipe>),
}

/// A connection over a pipe, and where its driver stands with it.
pub(crate) struct Pipe {
    pub(crate) piped: Piped,
    pub(crate) remote: SocketAddr,
    /// The pipe takes nothing now: it is not there yet, or full.
    pub(crate) full: bool,
    /// The driver has yet to be told to make it.
    pub(crate) to_connect: bool,
    /// It is there.
    pub(crate) connected: bool,
    /// Whether the driver reads.
    pub(crate) reading: bool,
}

/// Calls the method of the same name on whatever it is.
macro_rules! either {
    ($self:expr, $conn:ident => $quic:expr, $pipe:ident => $piped:expr) => {
        match $self {
            Transport::Quic($conn) => $quic,
            Transport::Pipe($pipe) => $piped,
        }
    };
}

impl Transport {
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        either!(self, conn => conn.handle_timeout(now), pipe => pipe.piped.handle_timeout(now));
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        either!(self, conn => conn.poll_timeout(), pipe => pipe.piped.poll_timeout())
    }

    pub(crate) fn poll(&mut self) -> Option<ConnEvent> {
        either!(self, conn => conn.poll(), pipe => pipe.piped.poll())
    }

    /// Says goodbye. Over a pipe the code is told and the reason is not.
    pub(crate) fn close(&mut self, now: Instant, code: u32, reason: &'static str) {
        either!(self, conn => conn.close(now, code, reason), pipe => pipe.piped.close(now, code));
    }

    /// The peer's verified identity, once the handshake is complete.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        either!(self, conn => conn.peer(), pipe => pipe.piped.peer())
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        either!(self, conn => conn.remote(), pipe => pipe.remote)
    }

    pub(crate) fn rtt(&self) -> Duration {
        either!(self, conn => conn.rtt(), pipe => pipe.piped.session_ref().rtt())
    }

    /// What a trace may tell of it; costs too much for each packet of a connection that nobody traces.
    pub(crate) fn vitals(&self) -> Vitals {
        either!(self, conn => conn.vitals(), pipe => Vitals { rtt: pipe.piped.session_ref().rtt(), ..Vitals::default() })
    }

    /// How often the connection's window has blocked the peer.
    pub(crate) fn data_blocked(&self) -> u64 {
        either!(self, conn => conn.data_blocked(), pipe => pipe.piped.session_ref().data_blocked())
    }

    pub(crate) fn set_receive_window(&mut self, bytes: u64) {
        either!(self, conn => conn.set_receive_window(bytes), pipe => pipe.piped.session().set_receive_window(bytes));
    }

    pub(crate) fn set_send_window(&mut self, bytes: u64) {
        either!(self, conn => conn.set_send_window(bytes), pipe => pipe.piped.session().set_send_window(bytes));
    }

    pub(crate) fn set_stream_credit(&mut self, count: u32) {
        either!(self, conn => conn.set_stream_credit(count), pipe => pipe.piped.session().set_stream_credit(count));
    }

    /// How many streams may have bytes of ours that have not left for good: acknowledged, or over a pipe handed to it.
    pub(crate) fn unacknowledged(&mut self) -> usize {
        either!(self, conn => conn.unacknowledged(), pipe => pipe.piped.session().unacknowledged())
    }

    /// How many streams the peer has open.
    pub(crate) fn peer_streams(&mut self) -> u64 {
        either!(self, conn => conn.peer_streams(), pipe => pipe.piped.session().peer_streams())
    }

    /// The local address has changed: go on from the new one, where that is possible.
    pub(crate) fn local_address_changed(&mut self) {
        either!(self, conn => conn.local_address_changed(), _pipe => {});
    }

    pub(crate) fn open(&mut self) -> Option<u64> {
        either!(self, conn => conn.open(), pipe => pipe.piped.session().open())
    }

    pub(crate) fn accept(&mut self) -> Option<u64> {
        either!(self, conn => conn.accept(), pipe => pipe.piped.session().accept())
    }

    pub(crate) fn port(&mut self, stream: u64) -> Port<'_> {
        either!(self, conn => Port::Quic(conn.port(stream)), pipe => Port::Yamux(pipe.piped.port(stream)))
    }

    /// Gives back room that nothing needs now.
    pub(crate) fn rest(&mut self) {
        either!(self, conn => conn.rest(), pipe => pipe.piped.rest());
    }

    /// Whether what has come may be opened now.
    pub(crate) fn wants_input(&self) -> bool {
        either!(self, _conn => true, pipe => pipe.piped.wants_input())
    }

    pub(crate) fn is_quic(&self) -> bool {
        either!(self, _conn => true, _pipe => false)
    }

    pub(crate) fn as_pipe(&mut self) -> Option<&mut Pipe> {
        either!(self, _conn => None, pipe => Some(pipe))
    }

    pub(crate) fn as_quic(&mut self) -> Option<&mut quic::Conn> {
        either!(self, conn => Some(conn), _pipe => None)
    }
}

/// One stream of a connection of either kind.
pub(crate) enum Port<'a> {
    Quic(quic::Port<'a>),
    Yamux(yamux::Port<'a>),
}

impl Port<'_> {
    pub(crate) fn set_priority(&mut self, priority: Priority) {
        match self {
            Port::Quic(port) => port.set_priority(priority),
            Port::Yamux(port) => port.set_priority(priority),
        }
    }

    fn port(&mut self) -> &mut dyn StreamPort {
        match self {
            Port::Quic(port) => port,
            Port::Yamux(port) => port,
        }
    }
}

impl StreamPort for Port<'_> {
    fn read(&mut self, max: usize) -> Result<Read, u64> {
        self.port().read(max)
    }

    fn write(&mut self, chunk: &mut Bytes) -> Result<usize, u64> {
        self.port().write(chunk)
    }

    fn finish(&mut self) {
        self.port().finish();
    }

    fn reset(&mut self, code: u32) {
        self.port().reset(code);
    }

    fn stop(&mut self, code: u32) {
        self.port().stop(code);
    }
}
