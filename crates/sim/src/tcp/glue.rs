//! TCP between the world's links and its hosts: addresses, the way of a segment, and what a program can ask its system for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Addressed, Failure, News, OutOfDescriptors, Outgoing, Read, TcpId, TcpLimits};
use crate::net::{HostId, Net};

impl Net {
    /// The TCP numbers of a host's system; they hold for sockets that are made from now on.
    pub fn tcp_limits(&mut self, host: HostId) -> &mut TcpLimits {
        self.tcp.limits(host)
    }

    /// Has a host's system listen at one of its ports, whether or not its program ever accepts, until the program dies.
    pub fn tcp_listen(&mut self, host: HostId, port: u16) {
        self.tcp.listen(host, port);
    }

    /// TCP sockets that a host's program holds.
    #[must_use]
    pub fn tcp_open(&self, host: HostId) -> usize {
        self.tcp.open(host)
    }

    /// Bytes that a host's TCP sockets hold and have not sent even once.
    #[must_use]
    pub fn tcp_unsent(&self, host: HostId) -> usize {
        self.tcp.unsent(host)
    }

    /// Sends what the systems of hosts have to say. It is part of the trace, whatever becomes of it.
    pub(crate) fn send_segments(&mut self, now: Duration, out: Vec<Outgoing>) {
        for Outgoing { host, port, remote, segment } in out {
            let Some(source) = self.outside(host, port) else {
                continue;
            };
            self.trace.segment(now, source, remote, &segment);
            let Some((to, _)) = self.inside(remote) else {
                self.unroutable += 1;
                continue;
            };
            let copies = self.direction(host, to).pass_tcp(now, segment.size());
            for arrival in copies.into_iter().flatten().filter(|arrival| arrival.flips == 0) {
                // What is damaged fails the checksum: to TCP it is a loss.
                let segment = segment.clone();
                self.push_segment(arrival.at, Addressed { source, destination: remote, segment });
            }
        }
    }

    /// A segment has arrived.
    pub(crate) fn receive_segment(&mut self, now: Duration, addressed: Addressed) {
        let Addressed { source, destination, segment } = addressed;
        let Some((host, port)) = self.inside(destination) else {
            self.unroutable += 1;
            return;
        };
        let mut out = Vec::new();
        self.tcp.handle(now, host, port, source, segment, &mut out);
        self.send_segments(now, out);
    }

    /// What TCP does by itself at `now`.
    pub(crate) fn tick(&mut self, now: Duration) {
        let mut out = Vec::new();
        self.tcp.tick(now, &mut out);
        self.send_segments(now, out);
    }

    /// A host's program has died.
    pub(crate) fn kill_tcp(&mut self, host: HostId, now: Duration) {
        let mut out = Vec::new();
        self.tcp.kill(host, now, &mut out);
        self.send_segments(now, out);
    }

    /// Takes a host's address away. What is under way to it vanishes, and its TCP connections say and hear nothing more.
    pub(crate) fn take_address(&mut self, host: HostId) {
        self.unbind(host);
        self.tcp.strand(host);
    }

    /// How others see a host's port: its own, or what its NAT has made of it.
    fn outside(&self, host: HostId, port: u16) -> Option<SocketAddr> {
        let seen = self.outside.get(&host)?;
        let moved = seen.port().wrapping_sub(self.bound_port(host));
        Some(SocketAddr::new(seen.ip(), port.wrapping_add(moved)))
    }

    /// Whose port this is.
    fn inside(&self, address: SocketAddr) -> Option<(HostId, u16)> {
        let (host, seen) = self.by_ip(address.ip())?;
        let moved = seen.port().wrapping_sub(self.bound_port(host));
        Some((host, address.port().wrapping_sub(moved)))
    }

    fn by_ip(&self, ip: IpAddr) -> Option<(HostId, SocketAddr)> {
        let host = *self.ips.get(&ip)?;
        Some((host, *self.outside.get(&host)?))
    }
}

/// A host's TCP, as its program sees it during a turn.
pub struct Tcp<'a> {
    pub(crate) net: &'a mut Net,
    pub(crate) host: HostId,
    /// When what the turn asks for leaves.
    pub(crate) now: Duration,
    pub(crate) touched: &'a mut Vec<TcpId>,
    pub(crate) calls: &'a mut usize,
}

impl Tcp<'_> {
    /// Listens at a port of this host, from now on until the program dies. Doing it again changes nothing.
    pub fn listen(&mut self, port: u16) {
        self.net.tcp.listen(self.host, port);
    }

    /// Begins to connect. [`News::Connected`] will follow, or [`News::Readable`] when it has failed.
    ///
    /// # Errors
    /// [`OutOfDescriptors`].
    pub fn connect(&mut self, remote: SocketAddr) -> Result<TcpId, OutOfDescriptors> {
        let id = self.net.tcp.connect(self.host, remote)?;
        self.touch(id);
        Ok(id)
    }

    /// The next connection that waits to be accepted, and who made it.
    ///
    /// # Errors
    /// [`OutOfDescriptors`]: it goes on waiting, and no news will tell of it again.
    pub fn accept(&mut self) -> Result<Option<(TcpId, SocketAddr)>, OutOfDescriptors> {
        let accepted = self.net.tcp.accept(self.host)?;
        *self.calls += usize::from(accepted.is_some());
        Ok(accepted)
    }

    /// The next thing that the system has to tell.
    pub fn news(&mut self) -> Option<News> {
        let news = self.net.tcp.news(self.host)?;
        *self.calls += 1;
        Some(news)
    }

    /// Hands over as many bytes as there is room for, and says how many. If that is not all, [`News::Writable`] will follow. An error of the
    /// connection is told by reading; a socket that is over takes nothing.
    pub fn write(&mut self, id: TcpId, bytes: &[u8]) -> usize {
        let limits = *self.net.tcp.limits(self.host);
        let Some(end) = self.net.tcp.end(id) else {
            return 0;
        };
        let taken = end.sender.write(bytes, limits.unsent_bytes, limits.send_bytes);
        end.wants_room |= taken < bytes.len();
        self.touch(id);
        taken
    }

    /// Reads at most `max` bytes.
    pub fn read(&mut self, id: TcpId, max: usize) -> Read {
        let Some(end) = self.net.tcp.end(id) else {
            return Read::Failed(Failure::Reset);
        };
        let read = end.read(max);
        end.told_readable &= read != Read::Nothing;
        if matches!(read, Read::Bytes(_)) {
            self.touch(id);
        }
        read
    }

    /// Ends the writing direction; what was written still leaves.
    pub fn finish(&mut self, id: TcpId) {
        if let Some(end) = self.net.tcp.end(id) {
            end.sender.finish();
            self.touch(id);
        }
    }

    /// Closes a socket. What was written still leaves, unless something has come that was not read: then, and when more comes later,
    /// the other side gets a reset (RFC 2525 section 2.17). The id is not valid any more.
    pub fn close(&mut self, id: TcpId) {
        if let Some(end) = self.net.tcp.end(id) {
            end.close();
            self.net.tcp.release(self.host, id);
            self.touch(id);
        }
    }

    /// Resets a connection. The id is not valid any more.
    pub fn abort(&mut self, id: TcpId) {
        if let Some(end) = self.net.tcp.end(id) {
            end.abort();
            self.net.tcp.release(self.host, id);
            self.touch(id);
        }
    }

    /// When the program's turn began, as time since the world's start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now
    }

    fn touch(&mut self, id: TcpId) {
        *self.calls += 1;
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }
}

/// Sends what a program's turn has asked for.
pub(crate) fn settle(net: &mut Net, now: Duration, touched: Vec<TcpId>) {
    let mut out = Vec::new();
    for id in touched {
        net.tcp.settle(id, now, &mut out);
    }
    net.send_segments(now, out);
}
