//! A UDP socket in the runtime, where it cannot be watched for one thing at a time (see `udp.rs`).

use std::io::Result;
use std::net::SocketAddr;
use std::task::Context;

use quinn_udp::UdpSockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A bound socket.
pub(crate) struct Udp(UdpSocket);

impl Udp {
    /// Takes a socket that does not block.
    pub(crate) fn new(socket: std::net::UdpSocket) -> Result<Udp> {
        UdpSocket::from_std(socket).map(Udp)
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Whether something may have come; if not, the task is woken when it does.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> bool {
        self.0.poll_recv_ready(context).is_ready()
    }

    /// Receives. `WouldBlock` says that all was taken: nothing is tried again before more has come.
    ///
    /// # Errors
    /// Those of `receive`, and `WouldBlock`.
    pub(crate) fn receive<T>(&self, receive: impl FnOnce(UdpSockRef<'_>) -> Result<T>) -> Result<T> {
        self.0.try_io(Interest::READABLE, || receive(UdpSockRef::from(&self.0)))
    }

    /// Sends.
    ///
    /// # Errors
    /// Those of `send`; `WouldBlock` when the socket is full.
    pub(crate) fn send(&self, send: impl FnOnce(UdpSockRef<'_>) -> Result<()>) -> Result<()> {
        self.0.try_io(Interest::WRITABLE, || send(UdpSockRef::from(&self.0)))
    }

    /// Whether there may be room again, once it was full; if not, the task is woken when there is.
    pub(crate) fn poll_room(&self, context: &mut Context<'_>) -> bool {
        self.0.poll_send_ready(context).is_ready()
    }
}
