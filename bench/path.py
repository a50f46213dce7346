#!/usr/bin/env python3
"""A long path without a second machine: runs the benchmark with its servers behind a path that takes time and carries only so much.

    cargo build --release && python3 path.py --delay-ms 20 --mbit 32 -- target/release/strait-bench --cases burst --over tcp

Two network namespaces, each with a TUN device, and this program as the path between them: each packet leaves --delay-ms after it was sent, not
faster than --mbit, and is dropped where --queue-ms of others wait before it. As root, on Linux, with ip (iproute2) and nsenter (util-linux).
Kernels without netem can do no such thing by themselves. What is measured are the kernel's TCP and the stacks' QUIC, as on a network.
"""

import argparse
import ctypes
import fcntl
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections import deque

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU = 1500
NEAR, FAR = "10.9.0.1", "10.9.0.2"


def new_namespace(congestion):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}; run as root")
    if congestion:
        with open("/proc/sys/net/ipv4/tcp_congestion_control", "w") as setting:
            setting.write(congestion)


def device(own, other):
    """A TUN device of this namespace, with this address and the other at its far end."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", b"path", IFF_TUN | IFF_NO_PI))
    for command in [
        ["ip", "address", "add", own, "peer", other, "dev", "path"],
        ["ip", "link", "set", "path", "mtu", str(MTU), "up"],
        ["ip", "link", "set", "lo", "up"],
    ]:
        subprocess.run(command, check=True)
    return fd


def far_side(link, congestion):
    """The other namespace: gives its device away and lives until the link is closed."""
    new_namespace(congestion)
    socket.send_fds(link, [b"device"], [device(FAR, NEAR)])
    link.recv(1)
    os._exit(0)


class Direction:
    """One way along the path."""

    def __init__(self, source, sink, delay, rate, queue):
        self.source, self.sink, self.delay, self.rate, self.queue = source, sink, delay, rate, queue
        self.packets = deque()
        self.free = 0.0

    def take(self, now):
        """Takes what was sent."""
        while True:
            try:
                packet = os.read(self.source, MTU + 64)
            except BlockingIOError:
                return
            begin = max(now, self.free)
            if begin - now <= self.queue:
                self.free = begin + len(packet) / self.rate
                self.packets.append((self.free + self.delay, packet))

    def give(self, now):
        """Hands on what is due, and says when the next is."""
        while self.packets and self.packets[0][0] <= now:
            try:
                os.write(self.sink, self.packets.popleft()[1])
            except OSError:
                pass  # a full or closing device: loss
        return self.packets[0][0] if self.packets else None


def carry(directions, running):
    """Is the path for as long as `running` says."""
    selector = selectors.DefaultSelector()
    for direction in directions:
        selector.register(direction.source, selectors.EVENT_READ, direction)
    while running():
        now = time.monotonic()
        due = [at for at in (direction.give(now) for direction in directions) if at is not None]
        wait = min(min(due) - now, 0.1) if due else 0.1
        for key, _ in selector.select(max(wait, 0)):
            key.data.take(time.monotonic())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay-ms", type=float, default=20, help="each way")
    parser.add_argument("--mbit", type=float, default=32, help="each way")
    parser.add_argument("--queue-ms", type=float, default=50)
    parser.add_argument("--congestion", help="the kernel's congestion control for TCP, such as reno [default: as it is set]")
    parser.add_argument("command", nargs="+", help="the benchmark, after --")
    args = parser.parse_args()
    new_namespace(args.congestion)
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        here.close()
        far_side(there, args.congestion)
    there.close()
    _, fds, _, _ = socket.recv_fds(here, 16, 1)
    if not fds:
        sys.exit("the far side could not be made; its error is above")
    near, far = device(NEAR, FAR), fds[0]
    ways = [(near, far), (far, near)]
    rate = args.mbit * 1e6 / 8
    directions = [Direction(a, b, args.delay_ms / 1e3, rate, args.queue_ms / 1e3) for a, b in ways]
    environment = dict(os.environ, STRAIT_BENCH_SERVERS=f"/proc/{child}/ns/net", STRAIT_BENCH_BIND=FAR)
    benchmark = subprocess.Popen(args.command, env=environment)
    try:
        carry(directions, lambda: benchmark.poll() is None)
    finally:
        benchmark.kill()
        here.close()
        os.waitpid(child, 0)
    sys.exit(benchmark.returncode)


if __name__ == "__main__":
    main()
