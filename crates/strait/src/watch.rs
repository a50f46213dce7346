//! Watches the addresses of this machine's interfaces, and tells the core when they change.
//!
//! Linux says at once when something about them changes (rtnetlink(7)); elsewhere they are looked at every few seconds. What it says is not
//! believed, only taken as a reason to look. An address counts as gone when it was listed and is not any more: so one that never was, such as that of a
//! transparent proxy, never goes. A cable that is pulled out does not remove an address, and breaks nothing as long as it is put back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use strait_core::Multiaddr;

use crate::shared::Shared;

/// A change comes in several pieces: an address is removed, another added, routes follow. Looked at when so much has passed, and no more often.
const SETTLE: Duration = Duration::from_millis(100);
/// How often they are looked at where the system says nothing.
const POLL: Duration = Duration::from_secs(5);

/// Watches for as long as the node runs. `reachable` says where it is reached with the addresses of that moment; it is told to peers when it changes.
pub(crate) async fn watch(shared: Arc<Shared>, reachable: impl Fn() -> Vec<Multiaddr> + Clone + Send + Sync + 'static) {
    let mut changes = Changes::open();
    let mut known = look().await;
    loop {
        changes.next().await;
        tokio::time::sleep(SETTLE).await;
        let Some(after) = look().await else {
            continue;
        };
        // Whoever could not be asked at first is not known to have changed.
        let Some(before) = known.replace(after.clone()).filter(|before| *before != after) else {
            continue;
        };
        let gone: Vec<IpAddr> = before.difference(&after).copied().collect();
        tracing::info!(?gone, now = ?after, "this machine's addresses have changed");
        let reachable = reachable.clone();
        let addresses = tokio::task::spawn_blocking(reachable).await.ok();
        shared.set_link_mtu(tokio::task::spawn_blocking(link_mtu).await.unwrap_or(ETHERNET_MTU));
        shared.local_addresses_changed(&gone, addresses);
    }
}

/// The addresses of all interfaces. `None` when the system does not say.
async fn look() -> Option<BTreeSet<IpAddr>> {
    // Many interfaces take a while.
    let listed = tokio::task::spawn_blocking(if_addrs::get_if_addrs).await.ok()?.ok()?;
    Some(listed.iter().map(if_addrs::Interface::ip).collect())
}

/// What Ethernet carries, and what is assumed where the system does not say.
const ETHERNET_MTU: u16 = 1_500;

/// The largest MTU of a network interface that is up, in bytes, the loopback aside.
pub(crate) fn link_mtu() -> u16 {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.filter_map(|entry| interface_mtu(&entry.path())).max().unwrap_or(ETHERNET_MTU)
}

/// That of one interface (Linux: Documentation/ABI/testing/sysfs-class-net). `None` for the loopback, for one that is down, and where the system does not say.
fn interface_mtu(directory: &std::path::Path) -> Option<u16> {
    /// Bits of the flags (netdevice(7)).
    const UP: u32 = 0x1;
    const LOOPBACK: u32 = 0x8;
    let read = |name| std::fs::read_to_string(directory.join(name)).ok();
    let flags = u32::from_str_radix(read("flags")?.trim().strip_prefix("0x")?, 16).ok()?;
    let mtu: u32 = read("mtu")?.trim().parse().ok()?;
    (flags & UP != 0 && flags & LOOPBACK == 0).then(|| u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Reasons to look.
struct Changes {
    #[cfg(target_os = "linux")]
    socket: Option<tokio::net::UnixDatagram>,
}

#[cfg(target_os = "linux")]
impl Changes {
    fn open() -> Changes {
        let socket = netlink::open().map_err(|error| {
            tracing::debug!(%error, "this system does not tell of changed addresses; they are looked at every {POLL:?}");
        });
        Changes { socket: socket.ok() }
    }

    async fn next(&mut self) {
        let Some(socket) = &self.socket else {
            return tokio::time::sleep(POLL).await;
        };
        if socket.readable().await.is_err() || netlink::drain(socket).is_err() {
            self.socket = None;
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Changes {
    fn open() -> Changes {
        Changes {}
    }

    async fn next(&mut self) {
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(target_os = "linux")]
mod netlink {
    use std::io;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixDatagram as StdUnixDatagram;

    use nix::errno::Errno;
    use nix::libc::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR};
    use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
    use tokio::io::Interest;
    use tokio::net::UnixDatagram;

    /// A socket that can be read when an address was added or removed. tokio's type is that of another family: it has none for this one, and what is
    /// used of it, that it can be read, is the same for all.
    pub(super) fn open() -> io::Result<UnixDatagram> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        let groups = u32::try_from(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR).unwrap_or_default();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        UnixDatagram::from_std(StdUnixDatagram::from(socket))
    }

    /// Takes all that waits. What does not fit its buffer was lost, and is a reason to look as any other.
    pub(super) fn drain(socket: &UnixDatagram) -> io::Result<()> {
        let mut scratch = [0; 4096];
        loop {
            let read = || Ok(recv(socket.as_raw_fd(), &mut scratch, MsgFlags::MSG_DONTWAIT)?);
            match socket.try_io(Interest::READABLE, read) {
                Ok(1..) => {}
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
