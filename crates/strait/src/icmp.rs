//! What could not be delivered, as Linux tells it: ICMP errors wait in the socket's error queue (`IP_RECVERR`, ip(7)), each with the datagram that it is
//! about. Without this a closed port looks like a silent one, and is found out at the handshake's deadline only.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::{c_int, in6_pktinfo, sock_extended_err, sockaddr_in6};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use strait_core::DialError;

use crate::shared::Shared;
use crate::udp::Udp;

/// A QUIC header is in the first bytes.
const QUOTED_BYTES: usize = 64;

/// Asks for the errors. Best effort: without it failing dials take longer.
pub(crate) fn ask_for_errors(socket: &UdpSocket, v6: bool) {
    let asked =
        if v6 { setsockopt(socket, sockopt::Ipv6RecvErr, &true) } else { setsockopt(socket, sockopt::Ipv4RecvErr, &true) };
    if let Err(error) = asked {
        tracing::debug!(%error, "this system does not tell of ICMP errors");
    }
}

/// Reads a socket's errors for as long as the node runs.
pub(crate) async fn read_errors(shared: Arc<Shared>, socket: Arc<Udp>) {
    loop {
        if socket.errors().await.is_err() {
            return;
        }
        loop {
            match socket.read_error(read_one) {
                Ok(Some((remote, quoted, error))) => {
                    shared.ask(|state, now| state.core.handle_undelivered(now, remote, &quoted, &error));
                }
                Ok(None) => {}
                // The queue is empty: reading has noted that.
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return,
            }
        }
    }
}

/// One error: where the datagram was sent, how it began, and what is wrong. `None` for one that says nothing about a dial.
fn read_one(socket: &UdpSocket) -> std::io::Result<Option<(SocketAddr, Vec<u8>, DialError)>> {
    let mut quoted = [0; QUOTED_BYTES];
    // Before the error there is what else the socket was asked to tell of each datagram: to which address of ours it came, and its ECN bits.
    let mut space = nix::cmsg_space!(sock_extended_err, sockaddr_in6, in6_pktinfo, c_int, c_int);
    let mut parts = [IoSliceMut::new(&mut quoted)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let number = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error.ee_errno),
        _ => None,
    });
    let (remote, bytes) = (message.address.as_ref().and_then(socket_address), message.bytes);
    let error = number.and_then(|number| meaning(Errno::from_raw(i32::try_from(number).ok()?)));
    let quoted = quoted.get(..bytes).unwrap_or_default().to_vec();
    Ok(remote.zip(error).map(|(remote, error)| (remote, quoted, error)))
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port()));
    }
    let v6 = storage.as_sockaddr_in6()?;
    let ip: Ipv6Addr = v6.ip();
    Some(SocketAddr::new(ip.to_canonical(), v6.port()))
}

fn meaning(error: Errno) -> Option<DialError> {
    match error {
        Errno::ECONNREFUSED => Some(DialError::NothingListens),
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EACCES | Errno::EHOSTDOWN => {
            Some(DialError::NoWay(format!("a router or the network says: {}", error.desc())))
        }
        // A datagram that was too large for the path is an ordinary find of the transport.
        _ => None,
    }
}
