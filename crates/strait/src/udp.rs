//! A UDP socket in the runtime.
//!
//! tokio's own watches for room to send as long as the socket lives, so that the system wakes a thread for each datagram that has left: about every second
//! wake-up of a node that asks and is answered. Here that is asked for only while the socket is full.

use std::io::Result;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::task::Context;

use quinn_udp::UdpSockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A bound socket.
pub(crate) struct Udp {
    socket: AsyncFd<UdpSocket>,
    /// The same socket once more, while somebody waits for room.
    full: Mutex<Option<AsyncFd<UdpSocket>>>,
}

impl Udp {
    /// Takes a socket that does not block.
    pub(crate) fn new(socket: UdpSocket) -> Result<Udp> {
        let socket = AsyncFd::with_interest(socket, Interest::READABLE | Interest::ERROR)?;
        Ok(Udp { socket, full: Mutex::new(None) })
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Whether something may have come; if not, the task is woken when it does.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> bool {
        self.socket.poll_read_ready(context).is_ready()
    }

    /// Receives. `WouldBlock` says that all was taken: nothing is tried again before more has come.
    ///
    /// # Errors
    /// Those of `receive`, and `WouldBlock`.
    pub(crate) fn receive<T>(&self, receive: impl FnOnce(UdpSockRef<'_>) -> Result<T>) -> Result<T> {
        self.socket.try_io(Interest::READABLE, |socket| receive(UdpSockRef::from(socket)))
    }

    /// Sends.
    ///
    /// # Errors
    /// Those of `send`; `WouldBlock` when the socket is full.
    pub(crate) fn send(&self, send: impl FnOnce(UdpSockRef<'_>) -> Result<()>) -> Result<()> {
        send(UdpSockRef::from(self.socket.get_ref()))
    }

    /// Whether there may be room again, once it was full; if not, the task is woken when there is.
    pub(crate) fn poll_room(&self, context: &mut Context<'_>) -> bool {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let watched = match full.take() {
            Some(watched) => Ok(watched),
            None => self.socket.get_ref().try_clone().and_then(|socket| AsyncFd::with_interest(socket, Interest::WRITABLE)),
        };
        // Who cannot be told, for want of descriptors, has to try.
        let Ok(watched) = watched else {
            return true;
        };
        let room = watched.poll_write_ready(context).is_ready();
        *full = (!room).then_some(watched);
        room
    }
}

#[cfg(target_os = "linux")]
impl Udp {
    pub(crate) fn socket(&self) -> &UdpSocket {
        self.socket.get_ref()
    }

    /// Waits for errors of datagrams that were sent.
    pub(crate) async fn errors(&self) -> Result<()> {
        self.socket.ready(Interest::ERROR).await.map(drop)
    }

    /// Reads one. `WouldBlock` when there are no more.
    ///
    /// # Errors
    /// Those of `read`, and `WouldBlock`.
    pub(crate) fn read_error<T>(&self, read: impl FnOnce(&UdpSocket) -> Result<T>) -> Result<T> {
        self.socket.try_io(Interest::ERROR, read)
    }
}
