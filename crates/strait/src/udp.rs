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
        let socket = watch(socket, Interest::READABLE | Interest::ERROR)?;
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
            None => self.socket.get_ref().try_clone().and_then(|socket| watch(socket, Interest::WRITABLE)),
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

#[allow(deprecated, reason = "what its successor wants promised, that this is one open descriptor, std's socket promises")]
fn watch(socket: UdpSocket, interest: Interest) -> Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::ErrorKind;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    /// A pair of datagram sockets that, unlike UDP over loopback, can be full.
    fn pair() -> (Udp, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair");
        ours.set_nonblocking(true).expect("it can");
        theirs.set_nonblocking(true).expect("it can");
        (Udp::new(OwnedFd::from(ours).into()).expect("watched"), theirs)
    }

    fn send(udp: &Udp) -> Result<()> {
        udp.send(|_| udp.socket.get_ref().send(&[7; 1000]).map(drop))
    }

    #[tokio::test]
    async fn who_found_it_full_is_told_when_there_is_room() {
        let (udp, theirs) = pair();
        let sent = (0..10_000).take_while(|_| send(&udp).is_ok()).count();
        assert_eq!(send(&udp).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "full after {sent}");
        for round in 0..2 {
            assert!(!poll_fn(|context| Poll::Ready(udp.poll_room(context))).await, "there is none in round {round}");
            let room = poll_fn(|context| if udp.poll_room(context) { Poll::Ready(()) } else { Poll::Pending });
            let drained = async {
                tokio::task::yield_now().await;
                while theirs.recv(&mut [0; 1000]).is_ok() {}
            };
            let told = async { tokio::join!(room, drained) };
            tokio::time::timeout(Duration::from_secs(30), told).await.expect("it is told");
            assert!(udp.full.lock().expect("whole").is_none(), "and watched for room no longer");
            while send(&udp).is_ok() {}
        }
    }

    #[tokio::test]
    async fn what_comes_is_told_and_taken() {
        let (udp, theirs) = pair();
        let take = |udp: &Udp| udp.receive(|_| udp.socket.get_ref().recv(&mut [0; 1000]));
        theirs.send(&[1; 10]).expect("there is room");
        let readable = poll_fn(|context| if udp.poll_readable(context) { Poll::Ready(()) } else { Poll::Pending });
        tokio::time::timeout(Duration::from_secs(30), readable).await.expect("it is told");
        assert_eq!(take(&udp).expect("it is there"), 10);
        assert_eq!(take(&udp).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        assert!(!poll_fn(|context| Poll::Ready(udp.poll_readable(context))).await, "all was taken");
    }
}
